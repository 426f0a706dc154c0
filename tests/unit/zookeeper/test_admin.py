"""The answers to admin words: what real servers said is understood, and nothing that anybody could say is an error."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.zookeeper.admin import DOWN, ServerStatus, parse_mntr, parse_srvr

LEADER = """Zookeeper version: 3.9.5-293c895a8d966a3ecb92872be4a1daf87d725da2, built on 2026-02-11 20:18 UTC
Latency min/avg/max: 0/0.0/0
Received: 10
Sent: 9
Connections: 5
Outstanding: 2
Zxid: 0x1000001af
Mode: leader
Node count: 5
Proposal sizes last/min/max: -1/-1/-1
"""

FOLLOWER = """Zookeeper version: 3.4.14-4c25d480e66aadd371de8bd2fd8da255ac140bcf, built on 03/06/2019 16:18 GMT
Latency min/avg/max: 0/0/0
Received: 1
Sent: 0
Connections: 1
Outstanding: 0
Zxid: 0x0
Mode: follower
Node count: 4
"""

NOT_SERVING = "This ZooKeeper instance is not currently serving requests\n"

MNTR = """zk_version\t3.9.5-293c895a8d966a3ecb92872be4a1daf87d725da2, built on 2026-02-11 20:18 UTC
zk_server_state\tfollower
zk_peer_state\tfollowing - broadcast
zk_avg_latency\t0.0
zk_uptime\t602
"""


def test_a_leader() -> None:
    assert parse_srvr(LEADER) == ServerStatus("leader", 0x1000001AF, connections=5, outstanding=2)
    assert parse_srvr(LEADER).serving


def test_a_follower_of_an_old_version() -> None:
    assert parse_srvr(FOLLOWER) == ServerStatus("follower", 0, connections=1)


@pytest.mark.parametrize(("mode", "leads"), [("leader", True), ("follower", False), ("standalone", True)])
def test_who_leads_a_quorum_or_stands_alone_leads(mode: str, leads: bool) -> None:
    assert parse_srvr(f"Mode: {mode}\n").leads is leads


@pytest.mark.parametrize("mode", ["leader", "follower", "observer", "standalone"])
def test_these_serve(mode: str) -> None:
    assert parse_srvr(FOLLOWER.replace("follower", mode)).serving


def test_a_server_that_only_reads_is_called_so_and_does_not_count_as_serving() -> None:
    status = parse_srvr(FOLLOWER.replace("follower", "read-only"))
    assert status.role == "read-only"
    assert not status.serving


@pytest.mark.parametrize("text", [NOT_SERVING, "srvr is not executed because it is not in the whitelist.\n", "?"])
def test_a_server_that_answers_and_serves_nobody_is_looking(text: str) -> None:
    assert parse_srvr(text) == ServerStatus("looking")


@pytest.mark.parametrize("text", ["", "\n", " \r\n "])
def test_no_answer_is_down(text: str) -> None:
    assert parse_srvr(text) is DOWN
    assert not DOWN.serving


def test_an_answer_that_breaks_off_is_not_a_role() -> None:
    """The mode comes last, so that half an answer never makes a leader of a server."""
    for end in range(1, LEADER.index("leader") + len("leader")):
        assert parse_srvr(LEADER[:end]).role == "looking"


def test_numbers_of_any_length_are_no_error() -> None:
    huge = "9" * 10_000
    text = LEADER.replace("Connections: 5", f"Connections: {huge}").replace("Outstanding: 2", f"Outstanding: {huge}")
    assert parse_srvr(text).role == "leader"


@given(st.text())
def test_any_text_has_a_status(text: str) -> None:
    status = parse_srvr(text)
    assert status.role
    assert status.zxid >= 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Mode", "Zxid", "Connections", "Outstanding", "Latency", ""]),
            st.text(alphabet=string.hexdigits + "x -\u0663\u00b2"),
        )
    )
)
def test_any_text_that_looks_like_an_answer_has_a_status(lines: list[tuple[str, str]]) -> None:
    assert parse_srvr("".join(f"{key}: {value}\n" for key, value in lines)).role


@given(st.binary())
def test_any_bytes_have_a_status(data: bytes) -> None:
    assert parse_srvr(data.decode("utf-8", errors="replace")).role


def test_mntr() -> None:
    found = parse_mntr(MNTR)
    assert found["zk_server_state"] == "follower"
    assert found["zk_peer_state"] == "following - broadcast"
    assert found["zk_uptime"] == "602"
    assert len(found) == 5


@pytest.mark.parametrize("text", ["", NOT_SERVING])
def test_mntr_of_a_server_that_says_nothing(text: str) -> None:
    assert parse_mntr(text) == {}


@given(st.text())
def test_any_text_is_some_mntr(text: str) -> None:
    assert all("\t" not in key for key in parse_mntr(text))


@given(st.dictionaries(st.text("abc_", min_size=1), st.text("xyz0123 .-").map(str.strip)))
def test_mntr_finds_every_pair(pairs: dict[str, str]) -> None:
    assert parse_mntr("".join(f"{key}\t{value}\n" for key, value in pairs.items())) == pairs
