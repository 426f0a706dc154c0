"""What ZooKeeper promises of networks: the one promise that no plan can put to the test, and the table of all.

`docs/network-claims.md` is written by `benchmarks/network_claims.py`, which performs every scenario in it.
"""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

import pytest

from harness.check.verdict import Overall
from harness.history.scenario import LoadSpec, Scenario
from harness.load.traced_client import TracedClient
from harness.nemesis.plan_loader import library_plans
from harness.scenario import now_text
from harness.testing import ChaosTest
from harness.topology.library import library_names
from harness.topology.loader import load_topology, parse_topology
from harness.topology.model import CLIENT_PORT, Server

TABLE = Path(__file__).parents[2] / "docs" / "network-claims.md"
CLAIMS = [f"NR-{number:02}" for number in range(1, 12)]

#: How long a changed configuration may take to be every server's, seconds; and the budget for recovery, which clients
#: that each of three changes disturbs while the switch is dead share.
_PATIENCE, _BUDGET = 15.0, 20.0


def served_by(server: Server, switches: tuple[str, ...], port: int) -> str:
    """A server's line of the dynamic configuration, with its addresses on these switches."""
    addresses = [f"{nic.address}:{port}:{port + 1000}" for nic in server.nics if nic.switch in switches]
    return f"server.{server.id}={'|'.join(addresses)}:participant;0.0.0.0:{CLIENT_PORT}"


def change(chaos: ChaosTest, client: TracedClient, line: str) -> None:
    """Let the ensemble take over a server's line, and wait until every server that serves knows it by that."""
    # again, where the client's own connection went over the switch that died: the same change twice is one
    client.retry(client.reconfig, joining=line, leaving=None, new_members=None, from_config=-1)
    servers = [server.id for server in chaos.ensemble.topology.servers]
    deadline = time.monotonic() + _PATIENCE
    while True:
        serving = [i for i, status in chaos.ensemble.status().items() if status.serving]
        told = [words_of(chaos.ensemble.word(i, "conf"), line.partition("=")[0]) for i in serving]
        if serving == servers and all(words == words_of(line, "") for words in told):
            return
        assert time.monotonic() < deadline, (line, serving, told)
        time.sleep(0.05)


def words_of(configuration: str, server: str) -> set[str]:
    """What the line of a server says, whose addresses are in an order that each server has chosen."""
    line = next((line for line in configuration.splitlines() if line.startswith(f"{server}=" if server else "")), "")
    return set(re.split(r"[=|;]", line.replace(":participant", "")))


@pytest.mark.chaos
@pytest.mark.timeout(180)
def test_addresses_are_changed_while_a_switch_is_down(
    request: pytest.FixtureRequest, namespaces_allowed: None, java: None, tmp_path: Path
) -> None:
    """NR-10: an address is removed, one is replaced and one is added under load while a switch is down.

    Then the other switch dies: the service goes on over the address that was added while its network was dead.
    """
    # whoever may reconfigure an ensemble is a matter of its own
    source = load_topology("dual-net").source.replace("settings = { ", 'settings = { skipACL = "yes", ')
    topology = parse_topology(source, "dual-net")
    runs = request.config.getoption("--zkchaos-runs")
    scenario = Scenario(
        name="addresses-changed",
        topology=topology.name,
        topology_source=source,
        plan="",
        plan_source="",
        seed=0,
        duration_s=0.0,
        load=LoadSpec(),
        repeat=shlex.join(["pytest", request.node.nodeid]),
        started=now_text(),
    )
    with ChaosTest(scenario, topology, Path(runs or tmp_path) / "addresses-changed") as chaos:
        follower = next(s for s in topology.servers if s.id != chaos.ensemble.leader())
        with chaos.load.registers(), chaos.ensemble.client() as client:
            with chaos.nemesis.switch_down("net2"):
                chaos.ensemble.wait_for_quorum(within=_BUDGET)
                change(chaos, client, served_by(follower, ("net1",), 2888))
                change(chaos, client, served_by(follower, ("net1",), 2889))
                change(chaos, client, served_by(follower, ("net1", "net2"), 2889))
            chaos.ensemble.servers.wait_until_serving(within=_PATIENCE)
            with chaos.nemesis.switch_down("net1"):
                chaos.ensemble.wait_for_quorum(within=_BUDGET)
                chaos.ensemble.servers.wait_until_serving([follower.id], within=_PATIENCE)
        judgement = chaos.load.verify(recovery_within=_BUDGET, service="survives")
    assert judgement.overall is Overall.VALID


def test_the_table_has_every_claim_and_was_made_of_this_library() -> None:
    text = TABLE.read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| NR-")]
    assert sorted(set(rows)) == CLAIMS
    commands = [shlex.split(found) for found in re.findall(r"`zkchaos (run [^`]*)`", text)]
    assert commands
    assert {words[1] for words in commands} <= set(library_plans())
    topologies = {words[words.index("--topology") + 1] for words in commands if "--topology" in words}
    assert topologies <= set(library_names("topologies"))
