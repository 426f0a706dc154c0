"""Which security providers a server loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.topology.loader import load_topology
from harness.topology.model import Setting, Topology
from harness.zookeeper.security import needs_all_providers, security_arguments


def dual_net(*, settings: dict[str, Setting] | None = None, jvm: tuple[str, ...] = ()) -> Topology:
    topology = load_topology("dual-net")
    zookeeper = replace(topology.zookeeper, settings={**topology.zookeeper.settings, **(settings or {})}, jvm=jvm)
    return replace(topology, zookeeper=zookeeper)


def test_without_tls_one_provider_is_named(tmp_path: Path) -> None:
    (argument,) = security_arguments(dual_net(), tmp_path)
    file = Path(argument.removeprefix("-Djava.security.properties=="))
    providers = [line for line in file.read_text(encoding="ascii").splitlines() if line.startswith("security.provider")]
    assert providers == ["security.provider.1=SUN"]


@pytest.mark.parametrize(
    ("settings", "jvm"),
    [
        ({"sslQuorum": True}, ()),
        ({"secureClientPort": 2281}, ()),
        ({"authProvider.sasl": "x"}, ()),
        ({}, ("-Dzookeeper.ssl.keyStore.location=k.p12",)),
        ({}, ("-Djava.security.auth.login.config=jaas.conf",)),
        ({}, ("-Djavax.net.ssl.trustStore=t.p12",)),
    ],
)
def test_with_tls_or_authentication_the_runtime_keeps_its_own(
    tmp_path: Path, settings: dict[str, Setting], jvm: tuple[str, ...]
) -> None:
    topology = dual_net(settings=settings, jvm=jvm)
    assert needs_all_providers(topology)
    assert security_arguments(topology, tmp_path) == ()
    assert not list(tmp_path.iterdir())
