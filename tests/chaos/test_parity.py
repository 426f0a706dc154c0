"""One scenario on every testbed: the same verdicts from the same evidence, told on the same page.

`test_scenarios.py` performs the library on Docker; here one run with faults of all kinds is compared, piece by piece.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.check.verdict import Finding, Judgement, Overall
from harness.errors import EnsembleError
from harness.history.folder import RunFolder
from harness.history.records import FaultEvent, ProbeEvent
from harness.judge_and_tell import judge_and_tell
from harness.run import perform
from harness.scenario import make_request
from harness.stage.make import TESTBEDS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(480)]  # the engine's subnets may be another's first

#: Faults of switches, cables and processes, and a switch that dies and comes back while a server is down. Of the other
#: kinds, what each is made of is tried on every testbed by itself.
TOUR = """
title = "A tour of faults, none of which takes a quorum away"
topology = "dual-net"
duration = "14s"

[expect]
recovery_within = "8s"

[[step]]
at = "0s"
fault = "kill"
server = "a follower"
for = "4s"

[[step]]
at = "1s"
fault = "switch-down"
switch = "net2"
for = "1s"

[[step]]
at = "7s"
fault = "pause"
server = "a follower"
for = "1s"

[[step]]
at = "9s"
fault = "link-down"
host = "a follower"
switch = "net1"
for = "1s"

[[step]]
at = "11s"
fault = "restart"
server = "a follower"
"""

#: What two runs of anything have different: numbers, and what a server draws at random.
_NUMBER = re.compile(r"[0-9a-f]{8,}|\d+")
#: Files of a server that it writes when it sees fit, and the configuration of its log, which is its version's.
_AT_WILL = re.compile(r"snapshot\.|txnlog/version-2/log\.|zoo\.cfg\.dynamic\.|logback\.xml|log4j\.properties")


@dataclass(frozen=True)
class Outcome:
    """What is the same on every testbed."""

    overall: Overall
    findings: dict[str, Finding]
    claims: dict[str, frozenset[str]]
    #: The life of each fault, and what its probes saw.
    faults: dict[int, list[str]]
    files: set[str]
    #: The page's sections and headings.
    page: list[str]


def outcome(folder: RunFolder, judgement: Judgement, page: Path) -> Outcome:
    return Outcome(
        judgement.overall,
        {v.guarantee: v.finding for v in judgement.verdicts},
        {v.guarantee: frozenset(v.claims) for v in judgement.verdicts},
        {number: list(life(folder, number)) for number in range(folder.scenario().scheduled_faults or 0)},
        {path for path in files(folder.root) if not _AT_WILL.search(path)},
        frame(page.read_text()),
    )


def life(folder: RunFolder, number: int) -> Iterator[str]:
    """What happened to one fault, in order; a probe that looks until it sees what it waits for says it once."""
    last = ""
    for event in folder.events():
        said = ""
        if isinstance(event, FaultEvent) and event.id == number:
            said = f"{event.fault} of {event.asked}: {event.action.value}"
        elif isinstance(event, ProbeEvent) and event.id == number and event.bites is (event.stage == "during"):
            said = f"{event.stage}: {event.bites}"
        if said and said != last:
            last = said
            yield said


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def frame(page: str) -> list[str]:
    """What a page is made of, without what it says: its sections and headings."""
    found = re.findall(r"<section id=.([a-z]+)|<h[1-4]\b[^>]*>(.*?)</h", page, flags=re.DOTALL)
    texts = (html.unescape(re.sub(r"<[^>]*>", "", section or text)).strip() for section, text in found)
    return [_NUMBER.sub("N", text) for text in texts]


def test_every_testbed_comes_to_the_same(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    for needed in ("namespaces_allowed", "java", "engine_images", "subnets"):
        request.getfixturevalue(needed)
    plan = tmp_path / "tour.toml"
    plan.write_text(TOUR)
    outcomes: dict[str, Outcome] = {}
    for testbed in TESTBEDS:
        folder = perform(make_request(str(plan), seed=1, testbed=testbed), tmp_path / testbed)
        judgement, page = judge_and_tell(folder)
        assert judgement.overall is Overall.VALID, [testbed, judgement]
        assert folder.environment().testbed == testbed
        outcomes[testbed] = outcome(folder, judgement, page)
    first = outcomes["namespaces"]
    assert set(first.findings.values()) == {Finding.VALID}
    assert [said[1].split()[0] for said in first.faults.values()] == [
        "kill",
        "switch-down",
        "pause",
        "link-down",
        "restart",
    ]
    assert all(said[-1] == "after: False" for said in first.faults.values())
    for testbed in TESTBEDS:
        assert outcomes[testbed] == first, testbed


DOES_NOT_START = """
title = "Servers whose JVM refuses its arguments"
servers = 3

[zookeeper]
jvm = ["-XX:NoSuchThing"]

[[switch]]
name = "net1"
"""


@pytest.mark.parametrize("place", TESTBEDS, indirect=True)
def test_a_server_that_does_not_start_is_told_with_its_last_words(place: str, tmp_path: Path) -> None:
    topology = tmp_path / "mine.toml"
    topology.write_text(DOES_NOT_START)
    request = make_request("no-faults", topology_name=str(topology), testbed=place)
    with pytest.raises(EnsembleError, match="ended by itself") as caught:
        perform(request, tmp_path / "run")
    assert caught.value.cause.startswith("Unrecognized VM option 'NoSuchThing' / Error: Could not create the Java")
    logs = RunFolder.open(tmp_path / "run").server(1).logs
    assert "Unrecognized VM option" in (logs / "jvm.log").read_text()
