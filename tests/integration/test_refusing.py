"""Both ways to refuse packets, by nftables and by ip_tables, in a namespace of their own on a real kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.integration.conftest import require

#: What a process prints that stands in a namespace of its own: before, while and after packets are refused.
TRIAL = """
import errno, os, select, socket, subprocess, sys
from harness.testbed import kernel
from harness.testbed.iptables import RefusingTable
from harness.testbed.netlink import ROUTE, Channel, set_link
from harness.testbed.nft import IPV4, Group, Table, key
from harness.testbed.wire import Manner

kernel.unshare(kernel.CLONE_NEWNET | (kernel.CLONE_NEWUSER if os.geteuid() else 0))
assert Channel(ROUTE).send([set_link(1, up=True)]) == []
listening = socket.create_server(("127.0.0.1", 2888))
other = socket.create_server(("127.0.0.1", 2889))
hearing = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
hearing.bind(("127.0.0.1", 7))

def look():
    words = []
    for port in (2888, 2889):
        with socket.socket() as connecting:
            words.append(errno.errorcode.get(connecting.connect_ex(("127.0.0.1", port)), "accepted"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as saying:
        saying.connect(("127.0.0.1", 7))
        saying.send(b"?")
        heard = select.select([hearing, saying], [], [], 1)[0]
        words.append("heard" if hearing in heard else "told" if saying in heard else "lost")
        if hearing in heard:
            hearing.recv(1)
    print(*words)

table = Table(IPV4) if sys.argv[1] == "nftables" else RefusingTable()
everything = Group(Manner.REJECT, (key("127.0.0.1", "127.0.0.1", None),))
one_port = Group(Manner.REJECT, (key("127.0.0.1", "127.0.0.1", 2888), key("127.0.0.2", "127.0.0.1", 2889)), port=True)
try:
    for groups in ([], [one_port], [one_port, everything], [everything], []):
        table.set(groups)
        look()
except OSError as problem:
    print("not here:", problem.strerror)
"""


@pytest.mark.parametrize("way", ["nftables", "ip_tables"])
def test_packets_are_refused_as_by_a_host_on_whose_port_nobody_listens(namespaces_allowed: None, way: str) -> None:
    words = [sys.executable, "-c", TRIAL, way]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    if "not here" in done.stdout:
        require(way, f"this kernel has no {way} for IPv4: {done.stdout.splitlines()[-1]}")
    assert done.stdout.splitlines() == [
        "accepted accepted heard",
        "ECONNREFUSED accepted heard",
        "ECONNREFUSED ECONNREFUSED told",
        "ECONNREFUSED ECONNREFUSED told",
        "accepted accepted heard",
    ]
