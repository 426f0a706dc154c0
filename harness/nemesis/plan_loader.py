"""Reads fault plans, and refuses wrong ones with one line: file, key, the value found, what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, PlainValidator

from harness.errors import PlanError
from harness.history.scenario import STOPS_WITHIN_S, LoadSpec, Service
from harness.nemesis.kinds import KINDS, Aim, FaultKind
from harness.nemesis.plan import DEFAULT_AFTERMATH_S, MAX_STEPS, Plan, RandomFaults, Step, check_times
from harness.nemesis.targets import FOLLOWER, RANDOM, SERVER_ROLES, server_ids
from harness.topology.duration import DURATION_FORM, MAX_SECONDS, format_duration, parse_duration
from harness.topology.library import library_names, locate, name_of
from harness.topology.toml_document import (
    Table,
    allowed_words,
    key_path,
    nearest,
    one_line,
    parse_document,
    read_text,
    refused,
    value_text,
)

_DIRECTORY = "faults"


def _duration(value: object) -> float:
    if not isinstance(value, str):
        raise refused("this is not a duration")
    try:
        return parse_duration(value)
    except ValueError:
        raise refused("this is not a duration") from None


def _server(value: object) -> str:
    """`zk2` for 2, `zk1,zk3` for the same or for `1,3`, or a role."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise refused("this is not a server")
    if value in SERVER_ROLES:
        return value
    try:
        return ",".join(f"zk{number}" for number in server_ids(value))
    except ValueError:
        raise refused(f"this is not a server. {nearest(value, SERVER_ROLES)}".strip()) from None


def _word(value: object) -> str:
    if not isinstance(value, str) or not value or ":" in value or len(value) > 40 or not value.isprintable():
        raise refused("this is not a name")
    return value


def _partition(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 1000 or not value.isprintable():
        raise refused("this is not a partition")
    return value


def _range(value: object) -> tuple[float, float]:
    if isinstance(value, list) and len(value) == 2:
        shortest, longest = _duration(value[0]), _duration(value[1])
    else:
        shortest = longest = _duration(value)
    if not 0 < shortest <= longest:
        raise refused("the first must be more than 0s and not more than the second")
    return shortest, longest


def _packets(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 1000 or not value.isprintable():
        raise refused("this is not a fault of packets")
    return value


def _words(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 1000 or not value.isprintable():
        raise refused("this is not understood")
    return value


def _service(value: object) -> Service:
    if isinstance(value, str) and value in list(Service):
        return Service(value)
    hint = nearest(value, Service) if isinstance(value, str) else ""
    raise refused(f"this is nothing to expect. {hint}".strip())


Duration = Annotated[float, PlainValidator(_duration)]
DurationRange = Annotated[tuple[float, float], PlainValidator(_range)]
ServerTarget = Annotated[str, PlainValidator(_server)]
Word = Annotated[str, PlainValidator(_word)]
PartitionTarget = Annotated[str, PlainValidator(_partition)]
PacketsTarget = Annotated[str, PlainValidator(_packets)]
Words = Annotated[str, PlainValidator(_words)]
Expected = Annotated[Service, PlainValidator(_service)]

_PACKETS_FORM = 'such as "delay 200ms on net1", "loss 10% on zk2:net1 in", "delay 50ms, loss 1% on zk1 > zk2"'
_PARTITION_FORM = 'such as "isolate leader", "halves over net1", "zk1 | zk2,zk3 port quorum rejected", "zk1 > zk2"'
_KIND_WORDS = allowed_words(KINDS)
_SERVER_FORM = f'the id of a server such as 2 or "zk2", several as "zk1,zk3", or {allowed_words(SERVER_ROLES)}'
_SWITCH_FORM = f'the name of a switch, or "{RANDOM}"'
_HOST_FORM = f'the name of a host such as "zk2" or "c1", or "leader", "{FOLLOWER}", "{RANDOM}"'

_EVERY_FORM = 'how long it is dead, and then alive, as "500ms"'
_ISLANDS_FORM = 'such as "zk1,c1 | zk2,zk3,c2", or "halves"'
_STREAM_FORM = 'such as "latency 200ms on clients", "timeout 0ms on zk1 > zk2 upstream"'
_CLOCK_FORM = 'such as "ahead 5s", "behind 1h", "jumps 2s every 500ms", "drifts 1.5x"'
_DISK_FORM = '"full", "read-only", "failing", "stuck", or such as "slow 50ms"'
_DAMAGE_FORM = 'such as "truncate log", "corrupt log", "corrupt snapshot", "wipe"'
_LIMIT_FORM = 'such as "cpu 5%", "memory 32MB"'
_SERVICE_FORM = allowed_words(Service)

#: The keys that say what a fault is aimed at.
_TARGETS = (
    "switch",
    "host",
    "server",
    "partition",
    "packets",
    "every",
    "islands",
    "stream",
    "clock",
    "disk",
    "damage",
    "limit",
)


class _StepTable(Table):
    at: Duration = Field(description=DURATION_FORM)
    fault: str = Field(description=_KIND_WORDS)
    lasts: Duration | None = Field(default=None, alias="for", description=DURATION_FORM)
    switch: Word | None = Field(default=None, description=_SWITCH_FORM)
    host: Word | None = Field(default=None, description=_HOST_FORM)
    server: ServerTarget | None = Field(default=None, description=_SERVER_FORM)
    partition: PartitionTarget | None = Field(default=None, description=_PARTITION_FORM)
    packets: PacketsTarget | None = Field(default=None, description=_PACKETS_FORM)
    every: Words | None = Field(default=None, description=_EVERY_FORM)
    islands: Words | None = Field(default=None, description=_ISLANDS_FORM)
    stream: Words | None = Field(default=None, description=_STREAM_FORM)
    clock: Words | None = Field(default=None, description=_CLOCK_FORM)
    disk: Words | None = Field(default=None, description=_DISK_FORM)
    damage: Words | None = Field(default=None, description=_DAMAGE_FORM)
    limit: Words | None = Field(default=None, description=_LIMIT_FORM)
    expect: Expected | None = Field(default=None, description=_SERVICE_FORM)


class _RandomTable(Table):
    faults: list[str] = Field(min_length=1, max_length=len(KINDS), description=f"a list of some of {_KIND_WORDS}")
    count: int | None = Field(
        default=None, ge=1, le=MAX_STEPS, description=f"a number of faults, from 1 to {MAX_STEPS}"
    )
    every: Duration | None = Field(default=None, description=DURATION_FORM)
    lasts: DurationRange | None = Field(
        default=None, alias="for", description='the shortest and the longest, as ["2s", "5s"], or one duration'
    )
    rest: Duration = Field(default=0.0, description=DURATION_FORM)
    start: Duration = Field(default=0.0, alias="from", description=DURATION_FORM)
    until: Duration | None = Field(default=None, description=DURATION_FORM)
    switch: Word = Field(default=RANDOM, description=_SWITCH_FORM)
    host: Word = Field(default=RANDOM, description=_HOST_FORM)
    server: ServerTarget = Field(default=RANDOM, description=_SERVER_FORM)
    partition: PartitionTarget = Field(default="halves", description=_PARTITION_FORM)
    packets: PacketsTarget = Field(default="delay 100ms on a switch", description=_PACKETS_FORM)
    rhythm: Words = Field(default="500ms", description=_EVERY_FORM)
    islands: Words = Field(default="halves", description=_ISLANDS_FORM)
    stream: Words = Field(default="latency 100ms on clients", description=_STREAM_FORM)
    clock: Words = Field(default="ahead 5s", description=_CLOCK_FORM)
    disk: Words = Field(default="slow 20ms", description=_DISK_FORM)
    damage: Words = Field(default="truncate log", description=_DAMAGE_FORM)
    limit: Words = Field(default="cpu 10%", description=_LIMIT_FORM)
    expect: Expected | None = Field(default=None, description=_SERVICE_FORM)


class _ExpectTable(Table):
    recovery_within: Duration | None = Field(default=None, description=DURATION_FORM)
    service: Expected | None = Field(default=None, description=_SERVICE_FORM)


class _LoadTable(Table):
    clients: int = Field(default=LoadSpec().clients, ge=1, le=1000, description="a number of sessions, from 1 to 1000")
    rate: int | float = Field(
        default=LoadSpec().rate, ge=0.1, le=100_000, description="operations per second, from 0.1 to 100000"
    )
    paths: int = Field(default=LoadSpec().paths, ge=1, le=100_000, description="a number of znodes, from 1 to 100000")
    session_timeout: Duration | None = Field(default=None, description=DURATION_FORM)
    window: int = Field(
        default=LoadSpec().window, ge=1, le=1000, description="operations in flight on a session, from 1 to 1000"
    )


class _PlanTable(Table):
    title: str = Field(min_length=1, max_length=200, description="one line that says what happens")
    topology: str = Field(
        default="dual-net", min_length=1, max_length=200, description="the name of a topology, or its file"
    )
    duration: Duration | None = Field(default=None, description=DURATION_FORM)
    expect: _ExpectTable = Field(default_factory=_ExpectTable, description="a table")
    load: _LoadTable = Field(default_factory=_LoadTable, description="a table")
    step: list[_StepTable] = Field(
        default_factory=list, max_length=MAX_STEPS, description=f"at most {MAX_STEPS} tables [[step]]"
    )
    random: list[_RandomTable] = Field(default_factory=list, max_length=20, description="at most 20 tables [[random]]")


def library_plans() -> tuple[str, ...]:
    """The names of the plans that come with the harness, sorted."""
    return library_names(_DIRECTORY)


def load_plan(name_or_path: str) -> Plan:
    """A plan of the library by its name, or one of your own by the path of its file.

    Raises:
        UsageError: no such name in the library.
        PlanError: the file cannot be read, or what it says cannot be carried out.
    """
    path = locate(_DIRECTORY, name_or_path, "fault plan")
    return parse_plan(read_text(path, PlanError), str(path))


def parse_plan(text: str, source_name: str) -> Plan:
    """The plan that a TOML text declares. `check_plan` then holds it against a topology.

    Args:
        text: the whole file; kept in `Plan.source`.
        source_name: the file's name or path, for errors; its base name becomes the plan's name.

    Raises:
        PlanError: the text is not TOML, or what it says cannot be carried out. Never another exception.
    """
    table = parse_document(text, source_name, _PlanTable, PlanError)
    return _Builder(table, one_line(source_name)).build(text)


class _Builder:
    """Turns the tables of one file into a `Plan`, checking what more than one key has a say in."""

    def __init__(self, table: _PlanTable, source_name: str) -> None:
        self._table = table
        self._source_name = source_name

    def build(self, source: str) -> Plan:
        table = self._table
        if "\n" in table.title:
            raise self._error(("title",), "the title has more than one line")
        if not table.step and not table.random and table.duration is None:
            step = "write at least one [[step]] or [[random]]; or a `duration`, if nothing shall break"
            raise self._error(("step",), "the plan breaks nothing", step)
        recovery = table.expect.recovery_within
        if recovery == 0:
            raise self._error(("expect", "recovery_within"), 'found "0s"', "allowed: more than 0s")
        steps = tuple(self._step(index, step) for index, step in enumerate(table.step))
        plan = Plan(
            name=name_of(self._source_name),
            title=table.title,
            steps=steps,
            random=tuple(self._random(index, group) for index, group in enumerate(table.random)),
            duration_s=self._duration(steps, recovery),
            recovery_within_s=recovery,
            topology=table.topology,
            load=self._load(),
            source=source,
        )
        check_times(plan, plan.duration_s, self._source_name)
        expecting: list[Step | RandomFaults] = [*plan.steps, *plan.random]
        if table.expect.service is not None and not any(part.expect for part in expecting):
            found = value_text(table.expect.service)
            raise self._error(("expect", "service"), f"found {found}, and no fault of the plan lasts")
        return plan

    def _duration(self, steps: tuple[Step, ...], recovery: float | None) -> float:
        if self._table.duration is not None:
            return self._table.duration
        if self._table.random:
            raise self._error(("duration",), "this key is missing", "a plan with [[random]] must say how long it runs")
        aftermath = DEFAULT_AFTERMATH_S if recovery is None else recovery
        return min(MAX_SECONDS, round(max(step.end_s for step in steps) + aftermath, 3))

    def _load(self) -> LoadSpec:
        load = self._table.load
        timeout_ms = LoadSpec().session_timeout_ms
        if load.session_timeout is not None:
            timeout_ms = round(load.session_timeout * 1000)
            if not 100 <= timeout_ms <= 3_600_000:
                raise self._error(
                    ("load", "session_timeout"), f"found {timeout_ms} ms", 'allowed: from "100ms" to "1h"'
                )
        return LoadSpec(load.clients, float(load.rate), load.paths, timeout_ms, load.window)

    def _step(self, index: int, table: _StepTable) -> Step:
        key = ("step", index)
        kind = KINDS.get(table.fault)
        if kind is None:
            raise self._unknown_fault((*key, "fault"), table.fault)
        given = {name: value for name in _TARGETS if (value := _said(table, name))}
        allowed = ("at", "fault", *kind.aim.keys, *(("for",) if kind.lasts else ()))
        for name in given:
            if name not in kind.aim.keys:
                raise self._error(
                    (*key, name), f"fault {kind.name} has no key {name}", f"allowed keys: {', '.join(allowed)}"
                )
        for name in kind.aim.keys:
            if name not in given:
                raise self._error((*key, name), f"this key is missing, which fault {kind.name} needs")
        if kind.lasts and not table.lasts:
            what = "this key is missing" if table.lasts is None else 'found "0s"'
            raise self._error((*key, "for"), what, f'fault {kind.name} must say how long it lasts, as for = "5s"')
        if not kind.lasts and table.lasts is not None:
            raise self._error((*key, "for"), f"fault {kind.name} does not last", f"allowed keys: {', '.join(allowed)}")
        expect = self._expected(key, table.expect, [kind], table.lasts)
        return Step(index, table.at, kind.name, _target(kind.aim, given), table.lasts, expect)

    def _random(self, index: int, table: _RandomTable) -> RandomFaults:
        key = ("random", index)
        for place, name in enumerate(table.faults):
            if name not in KINDS:
                raise self._unknown_fault((*key, "faults", place), name)
            if name in table.faults[:place]:
                raise self._error((*key, "faults", place), f"{value_text(name)} is listed twice")
        kinds = [KINDS[name] for name in table.faults]
        used = {name for kind in kinds for name in kind.aim.keys}
        for name in _TARGETS:
            field = "rhythm" if name == "every" else name
            if field in table.model_fields_set and name not in used:
                raise self._error((*key, field), f"none of the faults {allowed_words(table.faults)} has a key {field}")
        if (table.count is None) == (table.every is None):
            raise self._error(key, "either count or every must be given, and not both", 'as in every = "10s"')
        if table.every == 0:
            raise self._error((*key, "every"), 'found "0s"', "allowed: more than 0s")
        lasting = [kind.name for kind in kinds if kind.lasts]
        if lasting and table.lasts is None:
            raise self._error((*key, "for"), f"this key is missing, which fault {lasting[0]} needs", 'as ["2s", "5s"]')
        if not lasting and table.lasts is not None:
            raise self._error((*key, "for"), f"none of the faults {allowed_words(table.faults)} lasts")
        aims = {name: _said(table, name) or "" for name in _TARGETS}
        shortest, longest = table.lasts or (0.0, 0.0)
        return RandomFaults(
            id=index,
            choices=tuple((kind.name, _target(kind.aim, aims)) for kind in kinds),
            count=table.count,
            every_s=table.every,
            shortest_s=shortest,
            longest_s=longest,
            rest_s=table.rest,
            from_s=table.start,
            until_s=table.until,
            expect=self._expected(key, table.expect, kinds, shortest),
        )

    def _expected(
        self, key: tuple[str | int, ...], own: Service | None, kinds: Sequence[FaultKind], shortest: float | None
    ) -> Service | None:
        """What is expected of the service under a step or a drawn fault: what it says itself, or the plan."""
        lasting = [kind.name for kind in kinds if kind.lasts]
        if not lasting and own is not None:
            names = allowed_words(kind.name for kind in kinds)
            raise self._error((*key, "expect"), f"{names} does not last, so there is no time to expect something of")
        said = self._table.expect
        expected = (own or said.service) if lasting else None
        place = (*key, "expect") if own is not None else ("expect", "service")
        if expected is Service.SURVIVES and said.recovery_within is None:
            raise self._error(
                place, 'found "survives", and no budget', 'say in [expect] after how long, as recovery_within = "8s"'
            )
        if expected is Service.STOPS and (shortest or 0.0) <= STOPS_WITHIN_S:
            raise self._error(
                (*key, "for"),
                f"{lasting[0]} of {format_duration(shortest or 0.0)} is expected to stop the service",
                f"a stop is only seen in a fault that lasts more than {format_duration(STOPS_WITHIN_S)}",
            )
        return expected

    def _unknown_fault(self, key: tuple[str | int, ...], name: str) -> PlanError:
        return self._error(
            key, f"there is no fault {value_text(name)}", f"{nearest(name, KINDS)}allowed: {_KIND_WORDS}"
        )

    def _error(self, key: tuple[str | int, ...], what: str, next_step: str = "") -> PlanError:
        return PlanError(what, where=f"{self._source_name}:{key_path(key)}", next_step=next_step)


def _said(table: _StepTable | _RandomTable, key: str) -> str | None:
    """What one of `_TARGETS` says in a table."""
    # in a [[random]], `every` says how often a fault is drawn
    name = "rhythm" if key == "every" and isinstance(table, _RandomTable) else key
    said = getattr(table, name)
    return said if isinstance(said, str) else None


def _target(aim: Aim, given: dict[str, str]) -> str:
    return ":".join(given[key] for key in aim.keys)
