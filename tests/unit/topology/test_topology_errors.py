"""Broken topology files: each is refused with one line that has file, key, the value found and what is allowed."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import TopologyError, UsageError
from harness.topology.loader import library_topologies, load_topology, parse_topology, with_overrides
from harness.topology.model import Topology

SWITCH = '[[switch]]\nname = "net1"\n'
TWO_SWITCHES = SWITCH + '[[switch]]\nname = "net2"\n'
HEAD = 'title = "T"\nservers = 3\n'


def server(server_id: int, *switches: str, more: str = "") -> str:
    return f"[[server]]\nid = {server_id}\nswitches = [{', '.join(map(repr, switches))}]\n{more}\n"


#: What is wrong, the text, and the line that is said about it.
BROKEN = {
    "not TOML": (
        'title = "T"\nservers = = 3\n',
        "x.toml:2:11: this is not TOML: Invalid value",
    ),
    "cut off": (
        'title = "T"\nswitch = [',
        "x.toml:2:11: this is not TOML: Invalid value",
    ),
    "a key twice": (
        'title = "T"\ntitle = "U"\n',
        "x.toml:2:12: this is not TOML: Cannot overwrite a value",
    ),
    "a number beyond reason": (
        f"servers = {'9' * 5000}\n",
        "x.toml: a number has too many digits",
    ),
    "brackets beyond reason": (
        f"servers = {'[' * 50_000}\n",
        "x.toml: the values are nested too deeply",
    ),
    "misspelled key": (
        HEAD + '[[switch]]\nname = "net1"\nsubnett = "10.77.1.0/24"\n',
        'x.toml:switch[0].subnett: unknown key "subnett"; did you mean "subnet"? allowed keys: name, subnet',
    ),
    "no switch": (
        HEAD,
        "x.toml:switch: this key is missing; allowed: from 1 to 8 tables [[switch]]",
    ),
    "no title": (
        "servers = 3\n" + SWITCH,
        "x.toml:title: this key is missing; allowed: one line that says what it is",
    ),
    "wrong type": (
        'title = "T"\nservers = "3"\n' + SWITCH,
        'x.toml:servers: found "3"; allowed: a number of servers, from 1 to 21',
    ),
    "true is no number": (
        'title = "T"\nservers = true\n' + SWITCH,
        "x.toml:servers: found true; allowed: a number of servers, from 1 to 21",
    ),
    "unknown switch": (
        'title = "T"\n' + TWO_SWITCHES + server(1, "net1") + server(2, "net1", "nte2"),
        'x.toml:server[1].switches[1]: there is no switch "nte2"; did you mean "net2"? allowed: "net1", "net2"',
    ),
    "switch listed twice": (
        'title = "T"\n' + SWITCH + server(1, "net1", "net1"),
        'x.toml:server[0].switches[1]: "net1" is listed twice; a host has one NIC on a switch',
    ),
    "host without a switch": (
        'title = "T"\n' + SWITCH + server(1),
        "x.toml:server[0].switches: found []; allowed: a list of names of this file's switches, each once",
    ),
    "duplicate id": (
        'title = "T"\n' + SWITCH + server(2, "net1") + server(2, "net1"),
        "x.toml:server[1].id: two servers have the id 2",
    ),
    "id out of range": (
        'title = "T"\n' + SWITCH + server(100, "net1"),
        "x.toml:server[0].id: found 100; allowed: an integer from 1 to 99",
    ),
    "unknown role": (
        'title = "T"\n' + SWITCH + server(1, "net1", more='role = "voter"'),
        'x.toml:server[0].role: found "voter"; allowed: "participant", "observer"',
    ),
    "address that is none": (
        'title = "T"\n' + SWITCH + server(1, "net1", more='addresses = { net1 = "zk1" }'),
        'x.toml:server[0].addresses.net1: found "zk1": this is not an IPv4 address; '
        "allowed: an address in 10.77.1.0/24",
    ),
    "address of another network": (
        'title = "T"\n' + SWITCH + server(1, "net1", more='addresses = { net1 = "10.78.1.1" }'),
        'x.toml:server[0].addresses.net1: found "10.78.1.1": this address is not in 10.77.1.0/24; '
        "allowed: an address in 10.77.1.0/24",
    ),
    "address of everybody": (
        'title = "T"\n' + SWITCH + server(1, "net1", more='addresses = { net1 = "10.77.1.255" }'),
        'x.toml:server[0].addresses.net1: found "10.77.1.255": this is no host\'s address; '
        "allowed: an address in 10.77.1.0/24",
    ),
    "address on a switch that it is not on": (
        'title = "T"\n' + SWITCH + server(1, "net1", more='addresses = { net2 = "10.77.1.9" }'),
        'x.toml:server[0].addresses.net2: this host is not plugged into "net2"; did you mean "net1"? allowed: "net1"',
    ),
    "address that is taken": (
        'title = "T"\n' + SWITCH + server(1, "net1") + server(2, "net1", more='addresses = { net1 = "10.77.1.1" }'),
        "x.toml:server[1].addresses.net1: 10.77.1.1 is the address of zk1, too; give one of the two another address",
    ),
    "duplicate switch": (
        HEAD + SWITCH + SWITCH,
        'x.toml:switch[1].name: two switches are called "net1"',
    ),
    "not a name": (
        HEAD + '[[switch]]\nname = "Net_1"\n',
        'x.toml:switch[0].name: found "Net_1": this is not a name; '
        "allowed: a lower-case letter, then at most nine of a-z, 0-9 and -",
    ),
    "name of a server's host": (
        HEAD + SWITCH + '[[client_host]]\nname = "zk4"\nswitches = ["net1"]\n',
        'x.toml:client_host[0].name: found "zk4": zk and a number is the name of a server\'s host; '
        "allowed: a lower-case letter, then at most nine of a-z, 0-9 and -",
    ),
    "name of a role": (
        HEAD + '[[switch]]\nname = "random"\n',
        'x.toml:switch[0].name: found "random": this word is reserved; '
        "allowed: a lower-case letter, then at most nine of a-z, 0-9 and -",
    ),
    "switch called like a client host": (
        HEAD + '[[switch]]\nname = "c1"\n',
        'x.toml:switch[0].name: the name "c1" is taken; switches and hosts need different names',
    ),
    "overlapping subnets": (
        HEAD + SWITCH + '[[switch]]\nname = "net2"\nsubnet = "10.77.0.0/16"\n',
        'x.toml:switch[1].subnet: 10.77.0.0/16 overlaps 10.77.1.0/24 of switch "net1"; '
        "allowed: a network of its own for each switch",
    ),
    "public subnet": (
        HEAD + SWITCH + 'subnet = "11.1.1.0/24"\n',
        'x.toml:switch[0].subnet: found "11.1.1.0/24": this network may be somebody\'s on the internet; '
        "allowed: a network from /16 to /25 within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 198.18.0.0/15",
    ),
    "subnet too small": (
        HEAD + SWITCH + 'subnet = "10.1.1.0/28"\n',
        'x.toml:switch[0].subnet: found "10.1.1.0/28": this network is too small; '
        "allowed: a network from /16 to /25 within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 198.18.0.0/15",
    ),
    "address instead of a network": (
        HEAD + SWITCH + 'subnet = "10.1.1.7/24"\n',
        'x.toml:switch[0].subnet: found "10.1.1.7/24": this is an address in the network 10.1.1.0/24, not the network; '
        "allowed: a network from /16 to /25 within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 198.18.0.0/15",
    ),
    "IPv6": (
        HEAD + SWITCH + 'subnet = "fd00::/64"\n',
        'x.toml:switch[0].subnet: found "fd00::/64": this is not an IPv4 network; '
        "allowed: a network from /16 to /25 within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 198.18.0.0/15",
    ),
    "no server": (
        'title = "T"\n' + SWITCH,
        "x.toml:server: there is no server; write a [[server]] for each, or servers = 3 for three alike",
    ),
    "both forms": (
        HEAD + SWITCH + server(1, "net1"),
        "x.toml:servers: this number stands beside [[server]] tables; keep one of the two",
    ),
    "only observers": (
        'title = "T"\n' + SWITCH + server(1, "net1", more='role = "observer"'),
        'x.toml:server: every server is an observer; one at least must have role = "participant"',
    ),
    "too many servers": (
        'title = "T"\nservers = 22\n' + SWITCH,
        "x.toml:servers: found 22; allowed: a number of servers, from 1 to 21",
    ),
    "too many switches": (
        HEAD + "".join(f'[[switch]]\nname = "net{n}"\n' for n in range(9)),
        "x.toml:switch: found a list of 9; allowed: from 1 to 8 tables [[switch]]",
    ),
    "a server alone on its switch": (
        'title = "T"\n' + TWO_SWITCHES + server(1, "net1") + server(2, "net1") + server(3, "net2"),
        'x.toml:server[2].switches: zk3 shares no switch with any other server; allowed: at least one of "net1"',
    ),
    "no quorum can form": (
        'title = "T"\n' + TWO_SWITCHES + server(1, "net1") + server(2, "net1") + server(3, "net2") + server(4, "net2"),
        "x.toml:server: no quorum can ever form: at most 2 of 4 participants reach each other, and 3 are needed; "
        "plug a majority of the participants into common switches",
    ),
    "unreachable client host": (
        'title = "T"\n' + TWO_SWITCHES + server(1, "net1") + '[[client_host]]\nname = "c1"\nswitches = ["net2"]\n',
        "x.toml:client_host[0].switches: client host c1 shares no switch with any server; "
        'allowed: at least one of "net1"',
    ),
    "setting of the harness": (
        HEAD + SWITCH + "[zookeeper.settings]\nclientPort = 2182\n",
        "x.toml:zookeeper.settings.clientPort: this line of zoo.cfg is refused: the harness writes it: every server "
        "has a host, and so port 2181, of its own; allowed: lines of zoo.cfg that the harness does not write itself",
    ),
    "server line in settings": (
        HEAD + SWITCH + '[zookeeper.settings]\nserver.1 = "10.77.1.1:2888:3888"\n',
        'x.toml:zookeeper.settings."server.1": this line of zoo.cfg is refused: the harness writes it from the '
        "addresses of this topology; allowed: lines of zoo.cfg that the harness does not write itself",
    ),
    "tickTime that is no number": (
        HEAD + SWITCH + '[zookeeper.settings]\ntickTime = "fast"\n',
        'x.toml:zookeeper.settings.tickTime: found "fast", and only an integer from 50 to 60000 will do; '
        "allowed: lines of zoo.cfg that the harness does not write itself",
    ),
    "a value with two lines": (
        HEAD + SWITCH + '[zookeeper.settings]\nmetricsProvider.className = "a\\nclientPort=1"\n',
        'x.toml:zookeeper.settings."metricsProvider.className": found "a\\nclientPort=1", which is not one line of at '
        "most 500 printable characters; allowed: lines of zoo.cfg that the harness does not write itself",
    ),
    "not a version": (
        HEAD + SWITCH + '[zookeeper]\nversion = "4.0"\n',
        'x.toml:zookeeper.version: found "4.0": this is not a version; '
        'allowed: a release of ZooKeeper 3, such as "3.9" (its newest) or "3.8.4"; "directory:PATH", "directory", '
        '"debian"',
    ),
    "multi-address before its time": (
        HEAD + TWO_SWITCHES + '[zookeeper]\nversion = "3.5.10"\n',
        "x.toml:zookeeper.multi_address: ZooKeeper 3.5.10 knows one address per server, and multi-address is on; "
        "choose 3.6 or later, or switch multi-address off",
    ),
    "not an option of the JVM": (
        HEAD + SWITCH + '[zookeeper]\njvm = ["Xmx1g"]\n',
        'x.toml:zookeeper.jvm[0]: found "Xmx1g": this is not an option of the JVM; '
        'allowed: a list of at most 32 options, such as ["-Xmx512m"]',
    ),
    "several mistakes": (
        'title = 1\nservers = "x"\n' + SWITCH,
        "x.toml:title: found 1; allowed: one line that says what it is (the first of 2 mistakes)",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_topology_is_refused_with_one_exact_line(name: str) -> None:
    text, expected = BROKEN[name]
    with pytest.raises(TopologyError) as caught:
        parse_topology(text, "x.toml")
    assert str(caught.value) == expected
    assert caught.value.exit_code == 64


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"gone\.toml: there is no such file$"):
        load_topology(str(tmp_path / "gone.toml"))


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"this is not a file$"):
        load_topology(f"{tmp_path}/")


@pytest.mark.parametrize("name", ["a\0b.toml", f"{'x' * 5000}.toml"])
def test_path_that_no_file_can_have(name: str) -> None:
    with pytest.raises(TopologyError):
        load_topology(name)


def test_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    path.write_text("#" * (256 * 1024 + 1))
    with pytest.raises(TopologyError, match=r"large\.toml: the file is larger than the 256 KiB that are read$"):
        load_topology(str(path))


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b'servers = 3\ntitle = "\xe4"\n')
    with pytest.raises(TopologyError, match=r"latin\.toml:2: byte 0xe4 is not UTF-8; save the file as UTF-8 text$"):
        load_topology(str(path))


def test_unknown_name_lists_the_library() -> None:
    with pytest.raises(UsageError) as caught:
        load_topology("dualnet")
    message = str(caught.value)
    assert message.startswith('there is no topology called "dualnet"; did you mean "dual-net"? the library has: ')
    for name in library_topologies():
        assert name in message


def test_override_that_is_no_version() -> None:
    with pytest.raises(TopologyError, match=r'^--zookeeper: "newest" is not a version; allowed: '):
        with_overrides(load_topology("dual-net"), version="newest")


def test_override_that_leaves_no_quorum() -> None:
    text = (
        'title = "First addresses on different switches"\n'
        + TWO_SWITCHES
        + server(1, "net1", "net2")
        + server(2, "net2", "net1")
        + server(3, "net1")
        + server(4, "net2")
    )
    topology = parse_topology(text, "x.toml")
    with pytest.raises(TopologyError, match=r"at most 2 of 4 .* by its first address \(multi_address is off\)"):
        with_overrides(topology, multi_address=False)


def _parse(text: str) -> Topology | TopologyError:
    try:
        return parse_topology(text, "x.toml")
    except TopologyError as problem:
        assert "\n" not in str(problem)
        return problem


@given(st.text())
def test_any_text_is_a_topology_or_a_topology_error(text: str) -> None:
    _parse(text)


_WORDS = st.sampled_from(
    ["net1", "net2", "c1", "zk1", "", "10.77.1.0/24", "10.0.0.0/8", "3.9", "observer", "1.2.3.4", "/", "\u202e\n"]
)
_SCALARS = st.one_of(
    _WORDS, st.integers(-(2**70), 2**70), st.integers(0, 5), st.booleans(), st.floats(), st.dates(), st.text(max_size=5)
)
_KNOWN_KEYS = [
    *("title", "zookeeper", "version", "settings", "multi_address", "jvm", "switch", "name", "subnet", "tickTime"),
    *("server", "servers", "id", "switches", "role", "client_host", "clients", "server.1", "a.b"),
]
_KEYS = st.sampled_from(_KNOWN_KEYS) | st.text(max_size=4)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=4)),
    max_leaves=12,
)


def toml(value: object) -> str:
    """Any value as inline TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08X}" for c in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return str(value)


def document(tables: dict[str, object]) -> str:
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in tables.items())


@given(st.dictionaries(_KEYS, _VALUES, max_size=6))
def test_any_structure_is_a_topology_or_a_topology_error(tables: dict[str, object]) -> None:
    _parse(document(tables))


_SWITCHES = st.lists(
    st.fixed_dictionaries({"name": _WORDS}, optional={"subnet": _WORDS | _SCALARS}), min_size=1, max_size=3
)
_SERVERS = st.lists(
    st.fixed_dictionaries(
        {"id": st.integers(0, 4), "switches": st.lists(st.sampled_from(["net1", "net2", "c1"]), max_size=3)},
        optional={"role": st.sampled_from(["observer", "participant", "x"]), "version": _WORDS},
    ),
    max_size=5,
)


@settings(max_examples=300)
@given(
    switches=st.one_of(st.just([{"name": "net1"}, {"name": "net2"}]), _SWITCHES),
    servers=_SERVERS,
    zookeeper=st.dictionaries(_KEYS, _VALUES, max_size=3) | st.just({}),
)
def test_nearly_right_structures_are_built_or_refused(
    switches: list[object], servers: list[object], zookeeper: dict[str, object]
) -> None:
    result = _parse(document({"title": "T", "switch": switches, "server": servers, "zookeeper": zookeeper}))
    if isinstance(result, Topology):
        assert parse_topology(result.source, "x.toml") == result
        addresses = [n.address for n in result.nics()]
        assert len(set(addresses)) == len(addresses)
        assert all(n.address in result.switch(n.switch).subnet for n in result.nics())
