"""What several servers' logs add up to: hand-made logs, each showing one thing that real ensembles do."""

import pytest

from harness.check.committed import CommittedLog, ServerLog, merge_logs
from harness.zookeeper.txnlog import Txn, TxnKind


def z(epoch: int, counter: int) -> int:
    return (epoch << 32) + counter


def txn(zxid: int, data: str = "") -> Txn:
    content = (data or f"{zxid:x}").encode()
    return Txn(1, zxid & 0xFFFF, zxid, 0, TxnKind.SET_DATA, "/r", content, 1, raw=content)


def log(*zxids: int, snapshots: tuple[int, ...] = (0,)) -> ServerLog:
    return ServerLog([txn(zxid) for zxid in zxids], snapshots)


def span(epoch: int, first: int, last: int) -> tuple[int, ...]:
    return tuple(z(epoch, counter) for counter in range(first, last + 1))


def merged(*logs: ServerLog, servers: int = 0) -> CommittedLog:
    voters = servers or len(logs)
    return merge_logs(dict(enumerate(logs, start=1)), frozenset(range(1, voters + 1)), voters // 2 + 1)


def committed(history: CommittedLog) -> list[int]:
    return [found.zxid for found in history.txns]


EPOCH_1 = span(1, 1, 6)


def test_equal_logs_are_the_history() -> None:
    history = merged(log(*EPOCH_1), log(*EPOCH_1), log(*EPOCH_1))
    assert committed(history) == list(EPOCH_1)
    assert not (history.discarded or history.undecided or history.forks or history.skipped or history.missing)
    assert history.in_several_logs == 6
    assert history.knows(z(1, 6)) and not history.knows(z(1, 7))


def test_a_server_that_was_down_at_the_end_is_no_contradiction() -> None:
    history = merged(log(*EPOCH_1), log(*EPOCH_1), log(*EPOCH_1[:3]))
    assert committed(history) == list(EPOCH_1)
    assert history.skipped == ()


def test_a_snapshot_fills_a_gap() -> None:
    history = merged(log(*EPOCH_1), log(*EPOCH_1), log(*EPOCH_1[:2], *EPOCH_1[4:], snapshots=(0, z(1, 4))))
    assert committed(history) == list(EPOCH_1)
    assert history.skipped == ()


def test_a_gap_without_a_snapshot_is_a_skipped_transaction() -> None:
    history = merged(log(*EPOCH_1), log(*EPOCH_1), log(*EPOCH_1[:2], *EPOCH_1[3:], snapshots=(0, z(1, 2))))
    assert [(found.server, found.txn.zxid) for found in history.skipped] == [(3, z(1, 3))]
    assert committed(history) == list(EPOCH_1)


def test_a_snapshot_within_a_gap_does_not_explain_what_follows_it() -> None:
    history = merged(log(*EPOCH_1), log(*EPOCH_1), log(*EPOCH_1[:2], *EPOCH_1[5:], snapshots=(z(1, 4),)))
    assert [found.txn.zxid for found in history.skipped] == [z(1, 5)]


def test_a_server_whose_snapshots_were_not_kept_accuses_nobody() -> None:
    gap = log(*EPOCH_1[:2], *EPOCH_1[3:], snapshots=())
    assert merged(log(*EPOCH_1), log(*EPOCH_1), gap).skipped == ()
    old_leader = log(*EPOCH_1, z(1, 7), *span(2, 1, 3), snapshots=())
    other = log(*EPOCH_1, *span(2, 1, 3), snapshots=())
    assert list(merged(old_leader, other, other).undecided) == [z(1, 7)]


def test_a_deposed_leaders_proposals_are_discarded() -> None:
    """Its log keeps them: ZooKeeper sends it a snapshot of the new epoch, and truncates nothing."""
    old_leader = log(*EPOCH_1, *span(1, 7, 9), *span(2, 4, 6), snapshots=(0, z(2, 3)))
    other = log(*EPOCH_1, *span(2, 1, 6))
    history = merged(old_leader, other, other)
    assert sorted(history.discarded) == list(span(1, 7, 9))
    assert committed(history) == [*EPOCH_1, *span(2, 1, 6)]
    assert history.skipped == () and history.missing == ()


def test_a_deposed_leader_that_never_came_back() -> None:
    history = merged(log(*EPOCH_1, *span(1, 7, 9)), log(*EPOCH_1, *span(2, 1, 3)), log(*EPOCH_1, *span(2, 1, 3)))
    assert sorted(history.discarded) == list(span(1, 7, 9))


def test_proposals_that_the_new_leader_had_are_committed() -> None:
    """Zab: what the new leader has in its log is history, even if the old one never committed it."""
    history = merged(
        log(*EPOCH_1, z(1, 7), *span(2, 1, 3)),
        log(*EPOCH_1, z(1, 7), *span(2, 1, 3)),
        log(*EPOCH_1, *span(2, 2, 3), snapshots=(0, z(2, 1))),
    )
    assert z(1, 7) in committed(history)
    assert history.discarded == {}


def test_one_log_goes_on_without_a_break_so_its_transaction_was_history() -> None:
    """Both others got a snapshot; the one that has it has what follows too, and followed no other history."""
    history = merged(
        log(*EPOCH_1, z(1, 7), *span(2, 1, 5)),
        log(*EPOCH_1[:4], *span(2, 3, 5), snapshots=(0, z(2, 2))),
        log(*EPOCH_1[:4], *span(2, 3, 5), snapshots=(0, z(2, 2))),
    )
    assert committed(history) == [*EPOCH_1, z(1, 7), *span(2, 1, 5)]
    assert not history.undecided


def test_two_histories_from_one_epoch_on_contradict_each_other() -> None:
    """No snapshot lies between the old leader's own proposal and the new epoch: it kept it as history."""
    history = merged(
        log(*EPOCH_1, z(1, 7), *span(2, 1, 3)), log(*EPOCH_1, *span(2, 1, 3)), log(*EPOCH_1, *span(2, 1, 3))
    )
    assert {(found.server, found.txn.zxid) for found in history.skipped} == {(2, z(1, 7)), (3, z(1, 7))}


def test_a_leaders_proposals_that_a_fault_cut_off_its_log_are_no_history() -> None:
    """It was killed with proposals that nobody else had, lost them from its log, and led again without them."""
    kept = ServerLog([txn(zxid) for zxid in (*EPOCH_1, z(1, 7), *span(2, 1, 3))], (0,), cuts=(z(1, 7),))
    history = merged(log(*EPOCH_1, *span(2, 1, 3)), log(*EPOCH_1, *span(2, 1, 3)), kept)
    assert list(history.discarded) == [z(1, 7)]
    assert committed(history) == [*EPOCH_1, *span(2, 1, 3)]
    assert not (history.skipped or history.undecided)


def test_what_a_majority_had_before_a_fault_cut_it_off_is_history() -> None:
    """Two of three had logged it, so it was committed; the damaged one led on without it."""
    cut = ServerLog([txn(zxid) for zxid in (*EPOCH_1, z(1, 7), *span(2, 1, 3))], (0,), cuts=(z(1, 7),))
    history = merged(log(*EPOCH_1, *span(2, 1, 3)), log(*EPOCH_1, z(1, 7)), cut)
    assert z(1, 7) in committed(history)
    assert [(found.server, found.txn.zxid) for found in history.skipped] == [(1, z(1, 7))]


def test_different_transactions_under_one_zxid_are_a_fork() -> None:
    forked = ServerLog([txn(zxid, "other" if zxid == z(1, 3) else "") for zxid in EPOCH_1], (0,))
    history = merged(log(*EPOCH_1), forked, log(*EPOCH_1))
    assert [(fork.zxid, fork.server, fork.other_server) for fork in history.forks] == [(z(1, 3), 1, 2)]
    assert history.txns[2].raw == txn(z(1, 3)).raw, "the majority's counts"


def test_a_last_proposal_on_one_server_is_undecided() -> None:
    history = merged(log(*EPOCH_1, z(1, 7)), log(*EPOCH_1), log(*EPOCH_1))
    assert list(history.undecided) == [z(1, 7)]
    assert committed(history) == list(EPOCH_1)
    assert history.doubtful_from is None, "it comes after everything that is known"


def test_one_log_of_three_proves_nothing() -> None:
    history = merge_logs({1: log(*EPOCH_1)}, frozenset({1, 2, 3}), 2)
    assert not history.enough_logs
    assert history.txns == [] and len(history.undecided) == 6
    assert not history.knows(z(1, 1))


def test_an_observers_log_makes_no_majority() -> None:
    logs = {1: log(*EPOCH_1), 2: log(*EPOCH_1), 9: log(*EPOCH_1[:5], z(1, 6), z(1, 7))}
    history = merge_logs(logs, frozenset({1, 2, 3}), 2)
    assert history.enough_logs
    assert list(history.undecided) == [z(1, 7)]


def test_a_single_server_is_its_own_majority() -> None:
    history = merged(log(*span(0, 1, 4)))
    assert committed(history) == list(span(0, 1, 4))
    assert history.in_several_logs == 0


def test_no_logs_are_no_history() -> None:
    history = merge_logs({}, frozenset({1, 2, 3}), 2)
    assert not history.enough_logs and history.txns == [] and history.last == 0


@pytest.mark.parametrize(
    ("zxids", "missing"),
    [
        (span(1, 3, 5), ((z(1, 1), z(1, 2)),)),
        ((*span(1, 1, 2), *span(1, 5, 6)), ((z(1, 3), z(1, 4)),)),
        ((*span(1, 1, 2), *span(3, 2, 6)), ((z(3, 1), z(3, 1)),)),
        ((*span(1, 1, 2), *span(3, 1, 6)), ()),
    ],
)
def test_zxids_have_no_gaps_within_an_epoch(zxids: tuple[int, ...], missing: tuple[tuple[int, int], ...]) -> None:
    history = merged(log(*zxids), log(*zxids), log(*zxids))
    assert history.missing == missing
    assert history.doubtful_from == (missing[0][0] if missing else None)


def test_a_record_that_was_logged_twice_is_one() -> None:
    """A follower may log again what the new leader sends it again; ZooKeeper only warns."""
    twice = ServerLog([txn(zxid) for zxid in (*EPOCH_1[:4], *EPOCH_1[2:])], (0,))
    assert twice.backwards == ()
    history = merged(twice, log(*EPOCH_1), log(*EPOCH_1))
    assert committed(history) == list(EPOCH_1)
    assert history.forks == () and history.skipped == ()


def test_a_log_that_goes_back_is_noticed() -> None:
    swapped = ServerLog([txn(zxid) for zxid in (z(1, 1), z(1, 3), z(1, 2), z(1, 4))])
    assert [found.zxid for found in swapped.backwards] == [z(1, 2)]
