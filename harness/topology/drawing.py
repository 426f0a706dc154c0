"""A topology as text: switches are upright bars, hosts are boxes, and each NIC's cable ends in a dot on its switch."""

from __future__ import annotations

from harness.topology.model import ClientHost, Role, Server, Topology
from harness.topology.survival import survives

_MARGIN = "  "
_GAP = 4


def describe(topology: Topology) -> str:
    """One line: what there is, without the title."""
    switches = topology.switch_names
    parts = [
        _count(len(topology.servers), "server") + _roles(topology),
        _count(len(switches), "switch", "switches"),
        _count(len(topology.client_hosts), "client host"),
        f"quorum {topology.quorum_size}",
    ]
    if topology.zookeeper.multi_address:
        parts.append("multi-address")
    if proxied := _proxied(topology):
        parts.append(f"proxies for {proxied}")
    return ", ".join(parts)


def draw(topology: Topology) -> str:
    """The whole topology for a fixed-width font, with what is predicted for the death of each switch.

    At most 100 columns wide for up to four switches and a title and a list of hosts that fit.

    Returns:
        Lines without trailing blanks, each ended by a newline.
    """
    columns = [_Column(s.name, str(s.subnet)) for s in topology.switches]
    width = max(len(_label(host)) for host in topology.hosts)
    width = max(width, *(len(str(n.address)) + 3 for n in topology.nics()))
    indent = " " * (len(_MARGIN) + width + 4 + _GAP)
    lines = [
        f"{topology.name}: {topology.title}",
        f"{_MARGIN}{_summary(topology)}",
        *([f"{_MARGIN}The streams of {proxied} pass proxies"] if (proxied := _proxied(topology)) else []),
        "",
        indent + _row([c.name.center(c.width) for c in columns]),
        indent + _row([c.subnet.center(c.width) for c in columns]),
    ]
    bars = indent + _row([_bar(c, " ", "┃", " ") for c in columns])
    for host in topology.hosts:
        lines += [bars, *_host(host, columns, width)]
    lines += [bars, "", f"{_MARGIN}Predicted when one switch dies:"]
    name_width = max(len(c.name) for c in columns)
    lines += [f"{_MARGIN * 2}{c.name:{name_width}}  {survives(topology, {c.name}).reason}" for c in columns]
    return "".join(f"{line.rstrip()}\n" for line in lines)


class _Column:
    """The place that a switch has in the drawing."""

    def __init__(self, name: str, subnet: str) -> None:
        self.name = name
        self.subnet = subnet
        self.width = max(len(name), len(subnet))


def _host(host: Server | ClientHost, columns: list[_Column], width: int) -> list[str]:
    empty = " " * _GAP + _row([_bar(c, " ", "┃", " ") for c in columns])
    label = _label(host)
    lines = [f"{_MARGIN}┌─{label}{'─' * (width - len(label))}─┐{empty}"]
    for nic in host.nics:
        target = next(i for i, c in enumerate(columns) if c.name == nic.switch)
        cable = "─" * _GAP
        for index, column in enumerate(columns):
            before = index < target
            if index == target:
                cable += _bar(column, "─", "●", " ")
            else:
                cable += _bar(column, "─" if before else " ", "┃", "─" if before else " ")
            cable += ("─" if before else " ") * _GAP
        lines.append(f"{_MARGIN}│ {nic.address!s:>{width}} ├{cable}")
    lines.append(f"{_MARGIN}└─{'─' * width}─┘{empty}")
    return lines


def _bar(column: _Column, before: str, middle: str, after: str) -> str:
    left = (column.width - 1) // 2
    return before * left + middle + after * (column.width - 1 - left)


def _row(cells: list[str]) -> str:
    return (" " * _GAP).join(cells)


def _label(host: Server | ClientHost) -> str:
    if isinstance(host, ClientHost):
        return f" {host.name} client host "
    version = f" {host.version}" if host.version else ""
    return f" {host.host} {host.role}{version} "


def _summary(topology: Topology) -> str:
    options = topology.zookeeper
    addresses = "every address of a server is used" if options.multi_address else "only first addresses are used"
    if all(len(s.nics) == 1 for s in topology.servers):
        addresses = "one address per server"
    participants = _count(len(topology.participants), "participant")
    return f"{participants}, quorum {topology.quorum_size}; ZooKeeper {options.version}, {addresses}"


def _proxied(topology: Topology) -> str:
    """Whose streams pass proxies; empty where none do."""
    options = topology.proxies
    return " and ".join(name for name, on in (("clients", options.clients), ("servers", options.servers)) if on)


def _roles(topology: Topology) -> str:
    observers = sum(s.role is Role.OBSERVER for s in topology.servers)
    return f" ({_count(observers, 'observer')})" if observers else ""


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
