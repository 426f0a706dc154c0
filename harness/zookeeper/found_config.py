"""What a server that somebody else set up says of itself: its command line, its zoo.cfg, and what the harness needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.topology.model import CLIENT_PORT
from harness.topology.toml_document import value_text

#: What java is asked to run; its argument is the configuration file.
_MAIN_CLASS = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
_JAR = re.compile(r"/zookeeper-(3\.\d{1,2}\.\d{1,3})[^/:\s]*\.jar", re.ASCII)
_TAG = re.compile(r"(3\.\d{1,2}\.\d{1,3})", re.ASCII)
#: A line of a Java properties file: the separator is `=`, `:` or a blank.
_LINE = re.compile(r"[ \t]*([^\s=:#!][^\s=:]*)[ \t]*[=: \t][ \t]*(.*)")
_SERVER_KEY = re.compile(r"server\.(\d{1,3})", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
#: What a server listens on that listens on all its addresses.
_ANY = ("", "0.0.0.0", "::", "[::]", "0:0:0:0:0:0:0:0")
#: Settings of quorums that are no plain majority.
_HIERARCHICAL = ("group.", "weight.")
_WHITELIST = "4lw.commands.whitelist"
#: The word that every look at a server is made with.
_WORD = "srvr"
#: Values that belong in no run folder.
_SECRET = re.compile("passw|secret|credential", re.IGNORECASE)


@dataclass(frozen=True)
class Member:
    """A line `server.N=...`: one server of an ensemble, as the servers know each other."""

    #: For the quorum: names, or addresses as text.
    addresses: tuple[str, ...]
    observer: bool
    #: What stands behind the semicolon, `0.0.0.0:2181`; may be empty.
    client: str


def config_path(command_line: str) -> str | None:
    """The configuration file that a process was started with; None if it is no ZooKeeper server.

    Args:
        command_line: the words of it, as `ps` has them.
    """
    words = command_line.split()
    return words[-1] if _MAIN_CLASS in words[:-1] else None


def version_of(command_line: str, image: str) -> str:
    """Of the jar on the class path, else as the image's tag says; empty where neither says it."""
    found = _JAR.search(command_line) or _TAG.match(image.rpartition(":")[2] if ":" in image else "")
    return found.group(1) if found else ""


def settings_of(text: str) -> dict[str, str]:
    """The lines of a zoo.cfg, or of its dynamic part, by key; of two alike the later counts."""
    return {m.group(1): m.group(2).strip() for line in text.splitlines() if (m := _LINE.match(line))}


def without_secrets(settings: Mapping[str, str]) -> dict[str, str]:
    """The same, fit for a run folder."""
    return {key: "(not kept)" if _SECRET.search(key) else value for key, value in settings.items()}


def members_of(settings: Mapping[str, str]) -> dict[int, Member]:
    """The servers that a configuration names, by id; none for a server that stands alone."""
    found = {}
    for key, value in settings.items():
        if match := _SERVER_KEY.fullmatch(key):
            quorum, _, client = value.partition(";")
            parts = [part.strip() for part in quorum.split("|")]
            observer = any(part.endswith(":observer") for part in parts)
            found[int(match.group(1))] = Member(tuple(map(_host, parts)), observer, client.strip())
    return found


def _host(part: str) -> str:
    """The host of `host:2888:3888`; an IPv6 address stands in brackets."""
    return part[1:].partition("]")[0] if part.startswith("[") else part.partition(":")[0]


def id_of(text: str) -> int | None:
    """The number in a file `myid`, or in ZOO_MY_ID."""
    text = text.strip()
    return int(text) if _NUMBER.fullmatch(text) else None


def number_of(settings: Mapping[str, str], key: str) -> int | None:
    """A number of a configuration; None where it has none."""
    text = settings.get(key, "")
    return int(text) if _NUMBER.fullmatch(text) else None


def hindrance(settings: Mapping[str, str], member: Member | None) -> tuple[str, str] | None:
    """Why the harness cannot work with a server, and what to do about it; None if it can.

    Args:
        settings: its configuration.
        member: its own line among `members_of`, if it has one.
    """
    address, port = _client_endpoint(settings, member)
    if port != str(CLIENT_PORT):
        said = f"port {value_text(port)}" if port else "no plain port"
        return (
            f"it serves clients on {said}, and the harness talks to port {CLIENT_PORT}",
            f"set clientPort={CLIENT_PORT} in the container; outside, it may be published as any other",
        )
    if address not in _ANY:
        return (
            f"it serves clients on {value_text(address)} alone, and the harness talks to its loopback, too",
            "leave the client's address out of its configuration",
        )
    words = settings.get(_WHITELIST)
    if words is not None and not {"*", _WORD} & set(re.split(r"[,\s]+", words)):
        return (f"it does not answer the word {_WORD}", f"add it to {_WHITELIST}: {_WORD}")
    if any(key.startswith(_HIERARCHICAL) for key in settings):
        return ("its quorum is hierarchical, and the harness knows majorities only", "")
    return None


def _client_endpoint(settings: Mapping[str, str], member: Member | None) -> tuple[str, str]:
    if member is not None and member.client:
        address, _, port = member.client.rpartition(":")
        return address, port
    return settings.get("clientPortAddress", ""), settings.get("clientPort", "")
