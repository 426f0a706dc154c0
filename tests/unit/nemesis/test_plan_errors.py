"""Broken fault plans: each is refused with one line that has file, key, the value found and what is allowed."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import PlanError, UsageError
from harness.nemesis.kinds import KINDS
from harness.nemesis.plan import Plan, expand
from harness.nemesis.plan_loader import library_plans, load_plan, parse_plan

DURATION = 'a number and a unit, such as "500ms", "10s", "1.5s", "2m" or "1h", at most 24h'
KIND_WORDS = ", ".join(f'"{name}"' for name in KINDS)
TITLE = 'title = "T"\n'


def step(fault: str, more: str = "", at: str = "1s", lasts: str = "1s") -> str:
    last = f'for = "{lasts}"\n' if lasts else ""
    return f'[[step]]\nat = "{at}"\nfault = "{fault}"\n{last}{more}\n'


def drawn(more: str = "", faults: str = '["kill"]', lasts: str = '"1s"') -> str:
    last = f"for = {lasts}\n" if lasts else ""
    return f'duration = "10s"\n[[random]]\nfaults = {faults}\n{last}{more}\n'


NET1 = 'switch = "net1"'
ZK1 = "server = 1"

#: What is wrong, the text, and the line that is said about it.
BROKEN = {
    "not TOML": (
        'title = "T\n',
        "x.toml:1:11: this is not TOML: Illegal character '\\n'",
    ),
    "nothing breaks": (
        TITLE,
        "x.toml:step: the plan breaks nothing; write at least one [[step]] or [[random]]; "
        "or a `duration`, if nothing shall break",
    ),
    "misspelled key": (
        TITLE + step("switch-down", 'swich = "net1"'),
        'x.toml:step[0].swich: unknown key "swich"; did you mean "switch"? '
        "allowed keys: at, fault, for, switch, host, server, partition, packets, every, islands, stream, clock, disk, "
        "damage, limit, expect",
    ),
    "unknown fault": (
        TITLE + step("kil", ZK1),
        f'x.toml:step[0].fault: there is no fault "kil"; did you mean "kill"? allowed: {KIND_WORDS}',
    ),
    "no time": (
        TITLE + f'[[step]]\nfault = "kill"\nfor = "1s"\n{ZK1}\n',
        f"x.toml:step[0].at: this key is missing; allowed: {DURATION}",
    ),
    "time without a unit": (
        TITLE + step("kill", ZK1, at="5"),
        f'x.toml:step[0].at: found "5": this is not a duration; allowed: {DURATION}',
    ),
    "time that is a number": (
        TITLE + f'[[step]]\nat = 5\nfault = "kill"\nfor = "1s"\n{ZK1}\n',
        f"x.toml:step[0].at: found 5: this is not a duration; allowed: {DURATION}",
    ),
    "time beyond a day": (
        TITLE + step("kill", ZK1, at="25h"),
        f'x.toml:step[0].at: found "25h": this is not a duration; allowed: {DURATION}',
    ),
    "no target": (
        TITLE + step("link-down", NET1),
        "x.toml:step[0].host: this key is missing, which fault link-down needs",
    ),
    "target of another fault": (
        TITLE + step("kill", ZK1 + "\n" + NET1),
        "x.toml:step[0].switch: fault kill has no key switch; allowed keys: at, fault, server, for",
    ),
    "does not say how long": (
        TITLE + step("pause", ZK1, lasts=""),
        'x.toml:step[0].for: this key is missing; fault pause must say how long it lasts, as for = "5s"',
    ),
    "lasts no time": (
        TITLE + step("pause", ZK1, lasts="0s"),
        'x.toml:step[0].for: found "0s"; fault pause must say how long it lasts, as for = "5s"',
    ),
    "lasts, and cannot": (
        TITLE + step("restart", ZK1),
        "x.toml:step[0].for: fault restart does not last; allowed keys: at, fault, server",
    ),
    "not a server": (
        TITLE + step("kill", 'server = "follower"'),
        'x.toml:step[0].server: found "follower": this is not a server. did you mean "a follower"?; '
        'allowed: the id of a server such as 2 or "zk2", several as "zk1,zk3", or "leader", "a follower", "minority", '
        '"majority", "all", "random"',
    ),
    "a server twice": (
        TITLE + step("kill", 'server = "zk1,1"'),
        'x.toml:step[0].server: found "zk1,1": this is not a server.; '
        'allowed: the id of a server such as 2 or "zk2", several as "zk1,zk3", or "leader", "a follower", "minority", '
        '"majority", "all", "random"',
    ),
    "begins after the end": (
        TITLE + 'duration = "5s"\n' + step("kill", ZK1, at="5s"),
        "x.toml:step[0].at: the fault begins at 5s, and the run is over at 5s; "
        "a fault must end within the run, so that its recovery is seen; choose a longer duration",
    ),
    "ends after the end": (
        TITLE + 'duration = "5s"\n' + step("kill", ZK1, at="3s", lasts="2500ms"),
        "x.toml:step[0].for: the fault ends at 5.5s, and the run is over at 5s; "
        "a fault must end within the run, so that its recovery is seen; choose a longer duration",
    ),
    "overlap": (
        TITLE + step("switch-down", NET1, at="3s", lasts="4s") + step("switch-down", NET1, at="1s", lasts="3s"),
        "x.toml:step[0]: switch-down of net1 may begin at 3s, before step[1] has ended the same at 4s; "
        "let one fault of a kind end before the next one on the same target begins",
    ),
    "overlap in a part": (
        TITLE + step("kill", 'server = "zk1,zk2"', lasts="4s") + step("kill", "server = 2", at="2s"),
        "x.toml:step[1]: kill of zk2 may begin at 2s, before step[0] has ended the same at 5s; "
        "let one fault of a kind end before the next one on the same target begins",
    ),
    "overlap of a drawn fault": (
        TITLE + drawn('count = 2\nserver = 3\nfrom = "5s"') + step("kill", "server = 3", at="4s", lasts="2s"),
        "x.toml:random[0]: kill of zk3 may begin at 5s, before step[0] has ended the same at 6s; "
        "let one fault of a kind end before the next one on the same target begins",
    ),
    "drawn without an end": (
        TITLE + '[[random]]\nfaults = ["restart"]\ncount = 1\n',
        "x.toml:duration: this key is missing; a plan with [[random]] must say how long it runs",
    ),
    "drawn from nothing": (
        TITLE + drawn("count = 1", faults="[]"),
        f"x.toml:random[0].faults: found []; allowed: a list of some of {KIND_WORDS}",
    ),
    "drawn from an unknown fault": (
        TITLE + drawn("count = 1", faults='["kill", "puase"]'),
        f'x.toml:random[0].faults[1]: there is no fault "puase"; did you mean "pause"? allowed: {KIND_WORDS}',
    ),
    "count and every": (
        TITLE + drawn('count = 1\nevery = "1s"'),
        'x.toml:random[0]: either count or every must be given, and not both; as in every = "10s"',
    ),
    "range upside down": (
        TITLE + drawn("count = 1", lasts='["3s", "2s"]'),
        'x.toml:random[0].for: found ["3s", "2s"]: the first must be more than 0s and not more than the second; '
        'allowed: the shortest and the longest, as ["2s", "5s"], or one duration',
    ),
    "no room to draw": (
        TITLE + drawn('count = 4\nrest = "2s"'),
        "x.toml:random[0]: each fault has 2.5s of the window to itself, and needs 3s; "
        "draw fewer faults or shorter ones, or choose a longer duration",
    ),
    "window outside of the run": (
        TITLE + drawn('count = 1\nuntil = "11s"'),
        "x.toml:random[0]: the window from 0s until 11s is not within the run, which is over at 10s; "
        "leave `until` out for a window that goes on to the end of the run",
    ),
    "key that no drawn fault has": (
        TITLE + drawn("count = 1\n" + NET1),
        'x.toml:random[0].switch: none of the faults "kill" has a key switch',
    ),
    "too many steps": (
        TITLE + 'duration = "10h"\n[[random]]\nfaults = ["restart"]\nevery = "1s"\n',
        "x.toml:random[0]: the plan has more than 1000 steps; draw fewer, or run a shorter plan with several seeds",
    ),
    "load out of bounds": (
        TITLE + "load.clients = 0\n" + step("kill", ZK1),
        "x.toml:load.clients: found 0; allowed: a number of sessions, from 1 to 1000",
    ),
    "rate that is no number": (
        TITLE + "load.rate = nan\n" + step("kill", ZK1),
        "x.toml:load.rate: found nan; allowed: operations per second, from 0.1 to 100000",
    ),
    "promise of nothing": (
        TITLE + 'expect.recovery_within = "0s"\n' + step("kill", ZK1),
        'x.toml:expect.recovery_within: found "0s"; allowed: more than 0s',
    ),
    "expects something unheard of": (
        TITLE + 'expect.service = "survive"\n' + step("kill", ZK1),
        'x.toml:expect.service: found "survive": this is nothing to expect. did you mean "survives"?; '
        'allowed: "survives", "stops"',
    ),
    "expects a number": (
        TITLE + step("kill", ZK1 + "\nexpect = 1"),
        'x.toml:step[0].expect: found 1: this is nothing to expect.; allowed: "survives", "stops"',
    ),
    "survives without a budget": (
        TITLE + 'expect.service = "survives"\n' + step("kill", ZK1),
        'x.toml:expect.service: found "survives", and no budget; '
        'say in [expect] after how long, as recovery_within = "8s"',
    ),
    "a step survives without a budget": (
        TITLE + step("kill", ZK1 + '\nexpect = "survives"'),
        'x.toml:step[0].expect: found "survives", and no budget; '
        'say in [expect] after how long, as recovery_within = "8s"',
    ),
    "stops for too short a time": (
        TITLE + 'expect.service = "stops"\n' + step("kill", ZK1, lasts="2s"),
        "x.toml:step[0].for: kill of 2s is expected to stop the service; "
        "a stop is only seen in a fault that lasts more than 2s",
    ),
    "drawn faults stop for too short a time": (
        TITLE + drawn('count = 1\nexpect = "stops"', lasts='["500ms", "4s"]'),
        "x.toml:random[0].for: kill of 500ms is expected to stop the service; "
        "a stop is only seen in a fault that lasts more than 2s",
    ),
    "expects something of no time at all": (
        TITLE + '[[step]]\nat = "1s"\nfault = "restart"\nserver = 1\nexpect = "survives"\n',
        'x.toml:step[0].expect: "restart" does not last, so there is no time to expect something of',
    ),
    "expects something of nothing": (
        TITLE + 'expect.service = "stops"\n[[step]]\nat = "1s"\nfault = "restart"\nserver = 1\n',
        'x.toml:expect.service: found "stops", and no fault of the plan lasts',
    ),
    "several mistakes": (
        'title = ""\n' + step("kill", ZK1, at="soon"),
        'x.toml:title: found ""; allowed: one line that says what happens (the first of 2 mistakes)',
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_plan_is_refused_with_one_exact_line(name: str) -> None:
    text, expected = BROKEN[name]
    with pytest.raises(PlanError) as caught:
        parse_plan(text, "x.toml")
    assert str(caught.value) == expected
    assert caught.value.exit_code == 64


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"gone\.toml: there is no such file$"):
        load_plan(str(tmp_path / "gone.toml"))


def test_unknown_name_lists_the_library() -> None:
    with pytest.raises(UsageError) as caught:
        load_plan("switch-failiure")
    message = str(caught.value)
    assert message.startswith(
        'there is no fault plan called "switch-failiure"; did you mean "switch-failure"? the library has: '
    )
    for name in library_plans():
        assert name in message


def _parse(text: str) -> Plan | PlanError:
    try:
        return parse_plan(text, "x.toml")
    except PlanError as problem:
        assert "\n" not in str(problem)
        return problem


@given(st.text())
def test_any_text_is_a_plan_or_a_plan_error(text: str) -> None:
    _parse(text)


_TIMES = st.sampled_from(["0s", "1s", "2s", "1500ms", "9s", "10s", "1m", "24h", "5", ""])
_TARGETS = st.sampled_from(
    [
        1,
        2,
        "zk1",
        "zk3,zk1",
        "leader",
        "a follower",
        "minority",
        "majority",
        "all",
        "random",
        "net1",
        "c1",
        "x:y",
        "",
        0,
    ]
)
_FAULTS = st.sampled_from([*KINDS, "x"])
_STEPS = st.lists(
    st.fixed_dictionaries(
        {"at": _TIMES, "fault": _FAULTS},
        optional={"for": _TIMES, "switch": _TARGETS, "host": _TARGETS, "server": _TARGETS, "x": _TIMES},
    ),
    max_size=3,
)
_RANDOM = st.lists(
    st.fixed_dictionaries(
        {"faults": st.lists(_FAULTS, max_size=3)},
        optional={
            **{"count": st.integers(-1, 5), "every": _TIMES, "for": _TIMES | st.lists(_TIMES, max_size=3)},
            **{"rest": _TIMES, "from": _TIMES, "until": _TIMES, "switch": _TARGETS, "server": _TARGETS},
        },
    ),
    max_size=2,
)


def toml(value: object) -> str:
    """Any value as inline TOML."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    return str(value)


@settings(max_examples=250)
@given(steps=_STEPS, random=_RANDOM, duration=_TIMES | st.none(), seed=st.integers(), other=st.floats())
def test_any_structure_is_a_plan_that_expands_or_a_plan_error(
    steps: list[object], random: list[object], duration: str | None, seed: int, other: float
) -> None:
    text = TITLE + (f'duration = "{duration}"\n' if duration is not None else "")
    plan = _parse(text + f"step = {toml(steps)}\nrandom = {toml(random)}\n")
    if isinstance(plan, PlanError):
        return
    assert parse_plan(plan.source, "x.toml") == plan
    expand(plan, seed=seed)
    try:
        expand(plan, seed=seed, duration_s=other)
    except PlanError as problem:
        assert "\n" not in str(problem)
