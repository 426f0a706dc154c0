"""Damage: what its words mean, what becomes of the files, and that no evidence is lost by it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.check.evidence import load_evidence
from harness.check.judge import judge
from harness.check.synthetic import SyntheticRun, write_run
from harness.check.verdict import Finding, Overall
from harness.history.damaged import asides, put_aside, write_record
from harness.history.folder import RunFolder, ServerFolder
from harness.history.records import FinalRead
from harness.nemesis.damage import Damage, parse
from harness.nemesis.kinds import Aim
from harness.nemesis.targets import check_target
from harness.topology.loader import load_topology
from harness.zookeeper.data_files import (
    data_files,
    last_record,
    last_snapshot,
    snapshot_is_whole,
    tear,
    trouble_with,
    turn_over,
)
from harness.zookeeper.txnlog import read_log, read_logs, write_log


def test_every_damage_is_called_what_it_is() -> None:
    assert [str(parse(text)) for text in ("truncate log", "corrupt log", "corrupt snapshot", "wipe")] == list(Damage)


@given(st.text())
def test_junk_is_refused_as_such(text: str) -> None:
    if text in list(Damage):
        return
    with pytest.raises(ValueError, match="is no damage that can be done; allowed: "):
        parse(text)


def test_a_target_is_servers_and_damage() -> None:
    topology = load_topology("dual-net")
    check_target(Aim.DAMAGE, "a follower:wipe", topology)
    with pytest.raises(ValueError, match='"wipe log" is no damage'):
        check_target(Aim.DAMAGE, "zk1:wipe log", topology)


# --- files -----------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "run", SyntheticRun(clients=2, duration=2.0, rate=40.0, seed=7, faults=()))


def log_of(server: ServerFolder) -> Path:
    return next(iter((server.txnlog / "version-2").iterdir()))


def sealed(body: bytes) -> bytes:
    """A snapshot's bytes: what is in it, and its seal."""
    data = b"ZKSN" + body
    return data + struct.pack(">qi", zlib.adler32(data), 1) + b"/"


def test_the_last_record_is_found_behind_all_others_and_before_unwritten_space(run: RunFolder) -> None:
    server = run.server(2)
    txns = read_log(log_of(server)).txns
    record = last_record(server)
    assert record is not None
    assert record.zxid == txns[-1].zxid
    data = record.file.read_bytes()
    assert data[record.end - 1 : record.end] == b"B" and not any(data[record.end :])
    assert record.start < record.middle < record.end


def test_a_torn_log_lacks_its_last_record_and_nothing_else(run: RunFolder) -> None:
    server = run.server(2)
    before, record = read_log(log_of(server)), last_record(server)
    assert record is not None and trouble_with(record.file) == ""
    tear(record)
    after = read_log(record.file)
    assert after.txns == before.txns[:-1] and [torn.offset for torn in after.torn] == [record.start]
    assert trouble_with(record.file) == f"its last record is torn, at offset {record.start}"


def test_a_corrupt_log_is_seen_to_be_corrupt(run: RunFolder) -> None:
    record = last_record(run.server(2))
    assert record is not None
    turn_over(record.file, record.middle)
    assert trouble_with(record.file) == "the checksum of this record is wrong"


def test_a_snapshot_is_whole_by_its_seal_and_the_newest_whole_one_counts(tmp_path: Path) -> None:
    server = ServerFolder(tmp_path)
    server.create()
    folder = server.snapshot / "version-2"
    folder.mkdir()
    for zxid, data in ((0x9, sealed(b"nine")), (0x10, sealed(b"ten" * 99)), (0x11, sealed(b"half" * 50)[:80])):
        (folder / f"snapshot.{zxid:x}").write_bytes(data)
    newest = last_snapshot(server)
    assert newest == folder / "snapshot.10"
    turn_over(newest, newest.stat().st_size // 2)
    assert not snapshot_is_whole(newest)
    assert last_snapshot(server) == folder / "snapshot.9"


def test_a_server_that_has_logged_nothing_has_no_last_record(tmp_path: Path) -> None:
    server = ServerFolder(tmp_path)
    assert last_record(server) is None and last_snapshot(server) is None and data_files(server) == ()


# --- evidence --------------------------------------------------------------------------------------------


def put_aside_and(server: ServerFolder, damage: Damage) -> None:
    """As the fault does it."""
    if damage is Damage.WIPE:
        write_record(server, put_aside(server, data_files(server), keep=False), 0, str(damage), ())
        return
    record = last_record(server)
    assert record is not None
    aside = put_aside(server, [record.file], keep=True)
    tear(record) if damage is Damage.TRUNCATE_LOG else turn_over(record.file, record.middle)
    write_record(server, aside, 0, str(damage), [record.file])


@pytest.mark.parametrize("damage", [Damage.TRUNCATE_LOG, Damage.CORRUPT_LOG, Damage.WIPE])
def test_damage_takes_nothing_from_what_is_judged(run: RunFolder, damage: Damage) -> None:
    before = load_evidence(run)
    put_aside_and(run.server(2), damage)
    after = load_evidence(run)
    assert after.logs[2].txns == before.logs[2].txns and after.logs[2].torn == before.logs[2].torn
    assert after.logs[2].snapshots == before.logs[2].snapshots
    assert after.damage == ()
    assert judge(after).overall is Overall.VALID


def test_what_a_server_writes_after_it_was_wiped_counts_as_well(run: RunFolder) -> None:
    server = run.server(2)
    txns = read_logs(server.txnlog).txns
    put_aside_and(server, Damage.WIPE)
    write_log(server.txnlog, txns[-5:])
    evidence = load_evidence(run)
    assert evidence.logs[2].zxids == [txn.zxid for txn in txns]
    assert evidence.logs[2].backwards == ()
    assert judge(evidence).overall is Overall.VALID


def test_damage_that_nobody_confessed_is_still_seen(run: RunFolder) -> None:
    """Only the very bytes that the fault left are passed over: what a server makes of them afterwards is its own."""
    put_aside_and(run.server(2), Damage.CORRUPT_LOG)
    record = last_record(run.server(3))
    assert record is not None
    turn_over(record.file, record.middle)
    assert [damage.part for damage in load_evidence(run).damage] == ["server 3"]
    turn_over(log_of(run.server(2)), record.middle + 1)
    assert {damage.part for damage in load_evidence(run).damage} == {"server 2", "server 3"}


def test_servers_that_have_all_lost_a_write_are_found_out(run: RunFolder) -> None:
    """The judges do not take what was put aside for what the servers still have."""
    for server in run.server_ids():
        put_aside_and(run.server(server), Damage.WIPE)
    events = run.events()
    path = next(event.path for event in events if isinstance(event, FinalRead) and event.stat is not None)
    lost = [
        msgspec.structs.replace(event, value=None, stat=None)
        if isinstance(event, FinalRead) and event.path == path
        else event
        for event in events
    ]
    run.events_file.write_bytes(msgspec.json.Encoder().encode_lines(lost))
    judgement = judge(load_evidence(run))
    assert judgement.overall is Overall.VIOLATED
    assert [v.guarantee for v in judgement.verdicts if v.finding is Finding.VIOLATED] == ["durability"]


def test_what_was_put_aside_is_numbered_and_kept(run: RunFolder) -> None:
    server = run.server(2)
    whole = log_of(server).read_bytes()
    put_aside_and(server, Damage.CORRUPT_LOG)
    put_aside_and(server, Damage.WIPE)
    first, second = asides(server)
    assert (first.root.name, second.root.name) == ("1", "2")
    assert log_of(ServerFolder(first.root)).read_bytes() == whole
    assert log_of(ServerFolder(second.root)).read_bytes() != whole
    assert [aside.record().what for aside in (first, second)] == ["corrupt log", "wipe"]
