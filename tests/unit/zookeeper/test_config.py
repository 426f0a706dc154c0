"""What is written for a server: its addresses, its settings, its id."""

import dataclasses
from pathlib import Path

import pytest

from harness.history.folder import ServerFolder
from harness.topology.loader import load_topology, parse_topology, with_overrides
from harness.topology.model import Topology
from harness.zookeeper.config import DEFAULTS, dynamic_config, static_config, system_properties, write_config

FOLDER = ServerFolder(Path("/runs/r/servers/1"))


def properties(text: str) -> dict[str, str]:
    """A properties file; fails on a key that is there twice, because the server would take the last one silently."""
    pairs = [line.partition("=") for line in text.splitlines()]
    found = {key: value for key, _, value in pairs}
    assert len(found) == len(pairs)
    return found


def with_settings(**settings: str | int | bool) -> Topology:
    topology = load_topology("single-net")
    return dataclasses.replace(topology, zookeeper=dataclasses.replace(topology.zookeeper, settings=settings))


def test_every_address_of_every_server() -> None:
    assert dynamic_config(load_topology("dual-net")).splitlines() == [
        "server.1=10.77.1.1:2888:3888|10.77.2.1:2888:3888:participant;0.0.0.0:2181",
        "server.2=10.77.1.2:2888:3888|10.77.2.2:2888:3888:participant;0.0.0.0:2181",
        "server.3=10.77.1.3:2888:3888|10.77.2.3:2888:3888:participant;0.0.0.0:2181",
    ]


def test_without_multi_address_the_first_one_only() -> None:
    topology = with_overrides(load_topology("dual-net"), multi_address=False)
    assert dynamic_config(topology).splitlines() == [
        "server.1=10.77.1.1:2888:3888:participant;0.0.0.0:2181",
        "server.2=10.77.1.2:2888:3888:participant;0.0.0.0:2181",
        "server.3=10.77.1.3:2888:3888:participant;0.0.0.0:2181",
    ]


def test_servers_with_one_address_and_with_two() -> None:
    lines = dynamic_config(load_topology("uneven-addresses")).splitlines()
    assert [line.count("|") for line in lines] == [1, 1, 0]


def test_an_observer_is_called_one() -> None:
    text = 'title = "T"\n[[switch]]\nname = "net1"\n'
    text += "".join(f'[[server]]\nid = {i}\nswitches = ["net1"]\n' for i in (1, 2, 3))
    text += '[[server]]\nid = 7\nswitches = ["net1"]\nrole = "observer"\n'
    lines = dynamic_config(parse_topology(text, "x.toml")).splitlines()
    assert lines[3].startswith("server.7=")
    assert lines[3].endswith(":2888:3888:observer;0.0.0.0:2181")
    assert all(":participant;" in line for line in lines[:3])


@pytest.mark.parametrize(("on", "text"), [(True, "true"), (False, "false")])
def test_multi_address_is_a_system_property(on: bool, text: str) -> None:
    """In zoo.cfg alone the server refuses it, so it must be nowhere but here."""
    topology = with_overrides(load_topology("dual-net"), multi_address=on)
    assert system_properties(topology) == (f"-Dzookeeper.multiAddress.enabled={text}",)
    assert "multiAddress" not in static_config(topology, FOLDER)


def test_defaults_are_written_and_the_topology_has_the_last_word() -> None:
    found = properties(static_config(with_settings(tickTime=2000, snapCount=50), FOLDER))
    assert found["tickTime"] == "2000"
    assert found["snapCount"] == "50"
    assert found["initLimit"] == str(DEFAULTS["initLimit"])
    assert set(DEFAULTS) <= set(found)


def test_truth_is_written_as_java_reads_it() -> None:
    found = properties(static_config(with_settings(forceSync=False, quorumListenOnAllIPs=True), FOLDER))
    assert (found["forceSync"], found["quorumListenOnAllIPs"], found["reconfigEnabled"]) == ("false", "true", "true")


def test_the_folders_are_the_run_folders() -> None:
    found = properties(static_config(load_topology("dual-net"), FOLDER))
    assert found["dataDir"] == str(FOLDER.snapshot)
    assert found["dataLogDir"] == str(FOLDER.txnlog)
    assert found["dynamicConfigFile"] == str(FOLDER.config / "zoo.cfg.dynamic")


def test_the_files_of_one_server(tmp_path: Path) -> None:
    topology = load_topology("dual-net-five")
    folder = ServerFolder(tmp_path)
    write_config(topology, topology.server(4), folder)
    assert (folder.snapshot / "myid").read_text() == "4\n"
    assert (folder.config / "zoo.cfg").read_text() == static_config(topology, folder)
    assert (folder.config / "zoo.cfg.dynamic").read_text() == dynamic_config(topology)
    assert folder.logs.is_dir()
    assert folder.txnlog.is_dir()
