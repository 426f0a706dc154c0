"""What cannot be judged is `unknown`, with the reason; damage on disk is never a traceback and never `valid`."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import pytest

from harness.check.evidence import Evidence, load_evidence
from harness.check.judge import judge
from harness.check.verdict import Finding, Judgement, Overall, load_judgement
from harness.errors import RunFolderError
from harness.history.damaged import put_aside, write_record
from harness.history.folder import RunFolder
from harness.history.records import Barrier, Event, FaultAction, FaultEvent, FinalRead, Note, Outcome, Phase
from harness.zookeeper.txnlog import read_log, write_log

JUDGES = ("linearizable-writes", "session-order", "durability", "agreement", "recovery", "faults-proved")


@pytest.fixture
def folder(switch_failure: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy that may be damaged."""
    shutil.copytree(switch_failure.root, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


@pytest.fixture(scope="module")
def evidence(switch_failure: RunFolder) -> Evidence:
    return load_evidence(switch_failure)


def findings(judgement: Judgement) -> dict[str, Finding]:
    return {verdict.guarantee: verdict.finding for verdict in judgement.verdicts}


def unknown(judgement: Judgement) -> set[str]:
    for verdict in judgement.verdicts:
        assert verdict.finding is not Finding.VIOLATED, (verdict.guarantee, verdict.summary)
        assert verdict.summary.endswith(".") and len(verdict.summary) > 10
    return {name for name, finding in findings(judgement).items() if finding is Finding.UNKNOWN}


def without(evidence: Evidence, *kinds: type[Event]) -> Evidence:
    return dataclasses.replace(evidence, events=tuple(e for e in evidence.events if not isinstance(e, kinds)))


LOG_JUDGES = {"linearizable-writes", "session-order", "durability", "agreement"}


def test_no_operations(evidence: Evidence) -> None:
    judgement = judge(dataclasses.replace(evidence, operations=()))
    assert unknown(judgement) == {"linearizable-writes", "session-order", "durability", "recovery"}


def test_no_acknowledged_write(evidence: Evidence) -> None:
    refused = tuple(
        msgspec.structs.replace(op, outcome=Outcome.INFO, zxid=None)
        if op.function.is_write and op.outcome is Outcome.OK
        else op
        for op in evidence.operations
    )
    judgement = judge(dataclasses.replace(evidence, operations=refused))
    assert unknown(judgement) >= {"linearizable-writes", "session-order", "durability", "recovery"}


def test_no_logs(evidence: Evidence) -> None:
    assert unknown(judge(dataclasses.replace(evidence, logs={}))) == LOG_JUDGES


@pytest.mark.parametrize("server", [1, 2, 3])
def test_one_log_of_three(evidence: Evidence, server: int) -> None:
    judgement = judge(dataclasses.replace(evidence, logs={server: evidence.logs[server]}))
    assert unknown(judgement) == LOG_JUDGES
    assert "Transaction logs of 1 of 3 servers" in judgement.verdicts[0].summary


def test_two_logs_of_three_suffice_but_for_agreement(evidence: Evidence) -> None:
    judgement = judge(dataclasses.replace(evidence, logs={s: evidence.logs[s] for s in (2, 3)}))
    assert unknown(judgement) == {"agreement"}


def test_no_barrier(evidence: Evidence) -> None:
    judgement = judge(without(evidence, Barrier))
    assert unknown(judgement) == {"agreement"}
    lost = without(evidence, Barrier).lost_replies
    assert lost.still_open and lost.happened, "what is in the logs happened; what is not stays open"


def test_no_final_reads(evidence: Evidence) -> None:
    assert unknown(judge(without(evidence, FinalRead))) == {"durability", "agreement"}


def test_final_reads_of_one_server_only(evidence: Evidence) -> None:
    events = tuple(e for e in evidence.events if not (isinstance(e, FinalRead) and e.server != 1))
    assert unknown(judge(dataclasses.replace(evidence, events=events))) == {"agreement"}


def test_a_path_that_was_not_read_in_the_end(evidence: Evidence) -> None:
    path = evidence.acknowledged_writes[0].path
    events = tuple(e for e in evidence.events if not (isinstance(e, FinalRead) and e.path == path))
    assert unknown(judge(dataclasses.replace(evidence, events=events))) == {"durability"}


def test_no_events_at_all(evidence: Evidence) -> None:
    judgement = judge(dataclasses.replace(evidence, events=()))
    assert unknown(judgement) == {"durability", "agreement", "recovery", "faults-proved"}
    assert judgement.overall is Overall.BROKEN
    assert "The run ended early: it has no phases." in judgement.broken


def test_logs_that_end_before_the_last_writes(evidence: Evidence) -> None:
    """The last hundred transactions are in no log, and no barrier says that they must be."""
    logs = {s: dataclasses.replace(log, txns=log.txns[:-100]) for s, log in evidence.logs.items()}
    judgement = judge(dataclasses.replace(without(evidence, Barrier), logs=logs))
    assert unknown(judgement) == {"linearizable-writes", "session-order", "durability", "agreement"}


def test_logs_that_begin_late(evidence: Evidence) -> None:
    """An old log was purged: what the znodes were is not known, and nothing is accused."""
    logs = {
        s: dataclasses.replace(log, txns=log.txns[200:], snapshots=(log.txns[199].zxid, *log.snapshots[1:]))
        for s, log in evidence.logs.items()
    }
    judgement = judge(dataclasses.replace(evidence, logs=logs))
    assert unknown(judgement) >= {"linearizable-writes", "session-order", "durability"}


def test_a_transaction_that_no_log_has(evidence: Evidence) -> None:
    """Nobody's write was acknowledged there, and no two logs differ; but zxids have no gaps within an epoch."""
    answered = {op.zxid for op in evidence.writes}
    zxid = next(txn.zxid for txn in evidence.committed.txns[5:] if txn.zxid not in answered)
    logs = {
        s: dataclasses.replace(log, txns=[t for t in log.txns if t.zxid != zxid]) for s, log in evidence.logs.items()
    }
    assert unknown(judge(dataclasses.replace(evidence, logs=logs))) == LOG_JUDGES


def test_a_run_that_is_cut_off_at_any_line_is_no_violation(evidence: Evidence) -> None:
    """The process that performs the run dies: events just end."""
    for count in range(0, len(evidence.events), 7):
        judgement = judge(dataclasses.replace(evidence, events=evidence.events[:count]))
        unknown(judgement)
        assert judgement.overall is Overall.BROKEN


# --- broken runs -----------------------------------------------------------------------------------------------------


def broken(evidence: Evidence, *events: Event) -> tuple[str, ...]:
    judgement = judge(
        dataclasses.replace(evidence, events=tuple(sorted((*evidence.events, *events), key=lambda e: e.at)))
    )
    assert judgement.overall is Overall.BROKEN
    return judgement.broken


def test_a_note_may_say_that_the_run_is_broken(evidence: Evidence) -> None:
    assert broken(evidence, Note(1, "The disk filled up.", broken=True)) == ("The disk filled up.",)
    assert judge(dataclasses.replace(evidence, events=(*evidence.events, Note(1, "All is well.")))).broken == ()


def test_a_fault_that_failed_breaks_the_run(evidence: Evidence) -> None:
    failed = FaultEvent(evidence.events[-1].at, 0, FaultAction.FAILED, "switch-down", "net1", detail="no such switch")
    assert broken(evidence, failed) == ("Fault 0 (switch-down net1) failed: no such switch.",)


def test_an_aborted_run_is_broken(evidence: Evidence) -> None:
    assert broken(evidence, Phase(evidence.events[-1].at, "aborted", "SIGTERM")) == ("The run was aborted: SIGTERM.",)


@pytest.mark.parametrize("action", [FaultAction.INJECTED, FaultAction.HEALED])
def test_a_fault_whose_life_is_incomplete_breaks_the_run(evidence: Evidence, action: FaultAction) -> None:
    events = tuple(e for e in evidence.events if not (isinstance(e, FaultEvent) and e.action is action))
    judgement = judge(dataclasses.replace(evidence, events=events))
    assert judgement.overall is Overall.BROKEN
    assert f"it was never {action.value}" in judgement.broken[0]


@pytest.mark.parametrize("bites", [True, None])
def test_a_probe_that_does_not_show_a_healthy_target_breaks_the_run(evidence: Evidence, bites: bool | None) -> None:
    events = tuple(
        msgspec.structs.replace(e, bites=bites) if e in evidence.probes and e.stage == "after" else e
        for e in evidence.events
    )
    judgement = judge(dataclasses.replace(evidence, events=events))
    assert "not seen to be gone after it was healed" in judgement.broken[0]
    assert findings(judgement)["faults-proved"] is Finding.UNKNOWN


def test_a_plan_whose_faults_never_came_is_broken(evidence: Evidence) -> None:
    judgement = judge(without(evidence, FaultEvent))
    assert "The plan's fault was never injected." in judgement.broken
    assert unknown(judgement) == {"recovery", "faults-proved"}


def test_a_violation_is_told_even_of_a_broken_run(evidence: Evidence) -> None:
    read = evidence.answered_reads[-1]
    lie = msgspec.structs.replace(read, zxid=evidence.committed.txns[0].zxid)
    operations = tuple(lie if op is read else op for op in evidence.operations)
    judgement = judge(dataclasses.replace(evidence, operations=operations, events=evidence.events[:-1]))
    assert judgement.broken and judgement.overall is Overall.VIOLATED


# --- damage on disk --------------------------------------------------------------------------------------------------


def flip_a_bit(path: Path, random: Random) -> None:
    data = bytearray(path.read_bytes())
    bit = random.randrange(8 * (len(data.rstrip(b"\0")) or 1))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))


def cut(path: Path, random: Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: random.randrange(len(data))])


def empty(path: Path, _random: Random) -> None:
    path.write_bytes(b"")


def replace_by_noise(path: Path, random: Random) -> None:
    path.write_bytes(random.randbytes(300))


def remove(path: Path, _random: Random) -> None:
    path.unlink()


HARMS = (flip_a_bit, cut, empty, replace_by_noise, remove)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_log_accuses_nobody(folder: RunFolder, harm: Callable[[Path, Random], None], seed: int) -> None:
    """Two of three logs still tell what was committed. Never an error, never a false alarm."""
    (log,) = (folder.server(1 + seed % 3).txnlog / "version-2").iterdir()
    harm(log, Random(seed))
    judgement = judge(load_evidence(folder))
    assert unknown(judgement) <= {"agreement"}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["events.jsonl", "clients/c1.jsonl"])
def test_a_damaged_history_is_never_an_error(
    folder: RunFolder, name: str, harm: Callable[[Path, Random], None], seed: int
) -> None:
    harm(folder.root / name, Random(seed))
    evidence = load_evidence(folder)
    judgement = judge(evidence)
    assert len(judgement.verdicts) == len(JUDGES)
    if evidence.damage:
        assert judgement.overall is not Overall.VALID


def test_all_logs_damaged_is_unknown(folder: RunFolder) -> None:
    for server in folder.server_ids():
        (log,) = (folder.server(server).txnlog / "version-2").iterdir()
        data = bytearray(log.read_bytes())
        data[100] ^= 1
        log.write_bytes(bytes(data))
    evidence = load_evidence(folder)
    judgement = judge(evidence)
    assert unknown(judgement) == LOG_JUDGES
    assert len(evidence.damaged("server")) == 3
    assert "offset" in judgement.verdicts[0].summary


def test_a_log_that_a_fault_cut_is_known_to_be_cut(folder: RunFolder) -> None:
    """What was put aside is the server's log, too; but the server did not go on from its end."""
    place = folder.server(3)
    (log,) = (place.txnlog / "version-2").iterdir()
    whole = read_log(log)
    aside = put_aside(place, [log], keep=True)
    write_log(place.txnlog, whole.txns[:-3])
    write_record(place, aside, 4, "truncate log", [log])
    evidence = load_evidence(folder)
    assert evidence.logs[3].cuts == (whole.txns[-1].zxid,)
    assert evidence.logs[3].zxids == [txn.zxid for txn in whole.txns]
    assert not unknown(judge(evidence))


def test_a_torn_last_line_is_dropped(folder: RunFolder) -> None:
    path = folder.clients_folder / "c1.jsonl"
    path.write_bytes(path.read_bytes() + b'{"t":"invoke","process":"c1.0","ind')
    evidence = load_evidence(folder)
    assert evidence.damage == ()
    assert judge(evidence).overall is Overall.VALID


def test_a_topology_that_cannot_be_read_costs_only_the_predictions(folder: RunFolder) -> None:
    scenario = msgspec.structs.replace(folder.scenario(), topology_source="this is no topology")
    folder.write_json(folder.scenario_file, scenario)
    evidence = load_evidence(folder)
    assert evidence.topology is None
    assert judge(evidence).overall is Overall.VALID


def test_without_a_scenario_nothing_can_be_judged(folder: RunFolder) -> None:
    folder.scenario_file.write_text("{}")
    with pytest.raises(RunFolderError):
        load_evidence(folder)


def test_verdicts_survive_the_disk(folder: RunFolder) -> None:
    judgement = judge(load_evidence(folder))
    folder.write_json(folder.verdicts_file, judgement)
    assert load_judgement(folder) == judgement
