"""Which of the Java runtime's security providers a server loads.

ZooKeeper asks for the JVM's default TLS context even where no TLS is configured, only to learn the names of its
protocols, and the JVM then sets up a dozen providers and all their ciphers: a sixth of what a server's start costs. A
server without TLS gets along with the provider of digests and random numbers; ZooKeeper then says "supported TLS
protocols are []" in its log and goes on.
"""

from __future__ import annotations

from pathlib import Path

from harness.topology.model import Topology

#: A setting or JVM argument with one of these in it may need any provider: then the runtime's own list stays.
_NEEDS_ALL = ("ssl", "tls", "secure", "security", "sasl", "auth", "krb", "kerberos", "cert", "keystore", "fips")

#: Replaces the runtime's `java.security`; what is not here has a default in the runtime's code.
_TEXT = """\
# The provider of digests and random numbers alone: no TLS is configured, and loading the others takes a server's time.
security.provider.1=SUN
securerandom.source=file:/dev/random
securerandom.strongAlgorithms=NativePRNGBlocking:SUN,DRBG:SUN
keystore.type=pkcs12
networkaddress.cache.negative.ttl=10
"""


def needs_all_providers(topology: Topology) -> bool:
    """Whether something in the topology's settings or JVM arguments speaks of TLS or of authentication."""
    words = [*topology.zookeeper.settings, *topology.zookeeper.jvm]
    return any(part in word.lower() for word in words for part in _NEEDS_ALL)


def security_arguments(topology: Topology, folder: Path, seen: Path | None = None) -> tuple[str, ...]:
    """The JVM's arguments for it, with the file that they name written into this folder; `seen` as the JVM sees it."""
    if needs_all_providers(topology):
        return ()
    name = "java.security"
    (folder / name).write_text(_TEXT, encoding="ascii")
    return (f"-Djava.security.properties=={(seen or folder) / name}",)
