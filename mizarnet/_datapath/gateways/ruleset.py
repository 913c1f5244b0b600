# SPDX-License-Identifier: Apache-2.0
"""The rules of gateways, as commands of nftables: one table of the host, and one in each gateway's namespace.

A table is always written whole, in one transaction, from what the notes say. Connections that are there go on: their
translation is the kernel's, and does not change with rules.

What leaves is translated twice: in the gateway's namespace into its address between the two, and in the host's into the
host's own. So tenants with equal addresses are never in one table of connections. Ports are chosen from a range that
no tunnel's is in: whoever sent from a tunnel's port would get the answers, which are other hosts' frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Literal

import attrs

from mizarnet._datapath.gateway_notes import LINKS, Note
from mizarnet._model.gateways import Publish

FAMILY, TABLE = "inet", "mizarnet"
INSIDE, OUTSIDE = "eth0", "up0"
"""Names of the two devices in a gateway's namespace."""
CLOSED = "closed"
"""What the comment of a rule begins with that closes a device, whose forwarding was turned on."""
PUBLISHED = "publish"
"""What the comment of a published port begins with."""
_TUNNEL_PORTS = (4789, 6081)
_LOWEST, _HIGHEST = 32768, 60999
_LINK_LOCAL = "169.254.0.0/16"
_NFT = {4: "ip", 6: "ip6"}
_BEFORE_CONNECTIONS = -300
_AHEAD = -10
"""Priority of filters: ahead of those of others, who have the last word."""


@attrs.frozen
class Way:
    """What the host's rules need to know of one gateway.

    Attributes:
        note: Its note. Devices of the host are matched by their index: another one may get the name.
        publish: Its published ports.
    """

    note: Note
    publish: tuple[Publish, ...]


@attrs.frozen
class Closed:
    """A device whose forwarding was turned on for gateways: what is neither theirs nor an answer is dropped.

    Attributes:
        ifindex: Index of the device; 0: every device.
        version: IP version.
    """

    ifindex: int
    version: int


EVERY = Closed(0, 6)
"""All devices, where IPv6 forwarding was turned on for the whole host."""


def tunnel_ports(ports: Iterable[int]) -> set[int]:
    """The UDP ports that nothing of a tenant may reach: those of the host's tunnels, and those of any tunnel."""
    return {*_TUNNEL_PORTS, *ports}


def of_host(
    ways: Sequence[Way], closed: Iterable[Closed], ports: Iterable[int], *, others: Iterable[int] = ()
) -> str:
    """The commands that make the host's table what gateways need; without gateways only what closes devices is left.

    Args:
        ways: Its gateways.
        closed: Devices that were no routers before.
        ports: UDP ports of the host's tunnels.
        others: UDP ports of tunnels of other software, whose connections its own rules may count on.
    """
    last = [*_closing(closed)]
    if not ways:
        return _clean() + (_table([_chain("forwarded", "filter", "forward", _AHEAD, last)]) if last else "")
    own = {*ports, *(way.note.port for way in ways)}
    ports = {*own, *others}
    chains = [
        _chain("early", "filter", "prerouting", _BEFORE_CONNECTIONS, _early(ways, ports) + _untracked(own)),
        _chain("untracked", "filter", "output", _BEFORE_CONNECTIONS, _untracked(own)),
        _chain("published", "nat", "prerouting", -100, _published(ways, arriving=True)),
        _chain("own", "nat", "output", -100, _published(ways, arriving=False)),
        _chain("translated", "nat", "postrouting", 100, _translated(ways, ports)),
        _chain("services", "filter", "input", _AHEAD, _services(ways)),
        _chain("forwarded", "filter", "forward", _AHEAD, [*_forwarded(ways, ports), *last]),
    ]
    return _clean() + _table(chains)


def of_gateway(note: Note, publish: Iterable[Publish], ports: Iterable[int]) -> str:
    """The commands that make the table in a gateway's namespace.

    Args:
        note: Its note.
        publish: Its published ports.
        ports: UDP ports of the host's tunnels.
    """
    ports = {*ports, note.port}
    links = [f"oifname {_name(INSIDE)} {_NFT[each]} saddr {LINKS[each]} masquerade" for each in _NFT]
    chains = [
        _chain(
            "early",
            "filter",
            "prerouting",
            _BEFORE_CONNECTIONS,
            _no_tunnel(f"iifname {_name(INSIDE)}", ports),
        ),
        _chain("published", "nat", "prerouting", -100, [_inner_published(each) for each in publish]),
        _chain(
            "translated", "nat", "postrouting", 100, [*links, *(_inner_translated(ports) if note.nat else ())]
        ),
        _chain("forwarded", "filter", "forward", 0, _inner_forwarded(ports), policy="drop"),
    ]
    return _clean() + _table(chains)


def published_of(comment: str, *, device: str | None = None) -> Publish | None:
    """The published port that the comment of a rule tells; None if it tells none.

    Args:
        comment: The comment.
        device: For a rule of the host's table: device of the gateway that the port shall be of.
    """
    words = comment.split()
    if len(words) < 5 or words[0] != PUBLISHED or words[5:] != ([] if device is None else [device]):
        return None
    protocol, port, ip, to_port = words[1:5]
    return Publish("tcp" if protocol == "tcp" else "udp", int(port), ip, int(to_port))


def _publishing(each: Publish, *, device: str | None = None) -> str:
    """The end of a rule that tells a published port, for :func:`published_of`."""
    words = (PUBLISHED, each.protocol, each.port, each.ip, each.to_port, *([device] if device else []))
    return f'comment "{" ".join(map(str, words))}"'


def closed_of(comment: str) -> Closed | None:
    """The device that the rule of a comment closes; None if it closes none."""
    word, _, rest = comment.partition(" ")
    version, _, ifindex = rest.partition(" ")
    is_one = word == CLOSED and version in ("4", "6") and ifindex.isdecimal()
    return Closed(int(ifindex), int(version)) if is_one else None


# -- the host's chains


def _early(ways: Sequence[Way], ports: Set[int]) -> list[str]:
    rules: list[str] = []
    for way in ways:
        from_it = _from(way)
        rules += _no_tunnel(from_it, ports)
        rules.append(f"{from_it} fib saddr . iif oif missing drop")
    return rules


def _untracked(ports: Set[int]) -> list[str]:
    # A tenant that fills the table of connections does not stop the tunnel, and none takes its packets for answers.
    return [f"udp dport {_set(sorted(ports))} notrack"]


def _published(ways: Sequence[Way], *, arriving: bool) -> list[str]:
    tenants = f"iifname {_set(sorted({_name(way.note.device) for way in ways}))}"
    rules: list[str] = []
    for way in ways:
        by_device = [f"iif {way.note.egress}", tenants]
        for each in way.publish:
            version = each.ip.version
            to = way.note.address(version, inside=True).ip
            rules += [
                f"{where} fib daddr type local meta nfproto ipv{version} {each.protocol} dport {each.port} "
                f"dnat {_NFT[version]} to {to} {_publishing(each, device=way.note.device)}"
                for where in (by_device if arriving else [f"{_NFT[version]} daddr != {_LOOPBACK[version]}"])
            ]
    return rules


_LOOPBACK = {4: "127.0.0.0/8", 6: "::1"}


def _translated(ways: Sequence[Way], ports: Set[int]) -> list[str]:
    rules: list[str] = []
    for way in ways:
        device = _name(way.note.device)
        # From one gateway to a port that another, or the same, publishes: else the answers would not come by the host.
        rules += [f"{_NFT[each]} saddr {LINKS[each]} oifname {device} masquerade" for each in _NFT]
        if not way.note.nat:
            continue
        for version in _NFT:
            own = f"{_NFT[version]} saddr {way.note.address(version, inside=True).ip} oif {way.note.egress}"
            rules.append(f"{own} meta l4proto {{ tcp, udp }} masquerade to :{_range(ports)}")
            rules.append(f"{own} masquerade")
    return rules


def _services(ways: Sequence[Way]) -> list[str]:
    rules: list[str] = []
    for way in ways:
        if way.note.host_access:
            continue
        rules += [
            f"{_from(way)} ct state established,related accept",
            # What the gateway forwards arrives with a hop limit below this one.
            f"{_from(way)} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} ip6 hoplimit 255 accept",
            f"{_from(way)} drop",
        ]
    return rules


def _forwarded(ways: Sequence[Way], ports: Set[int]) -> list[str]:
    all_devices = _set(sorted(_name(way.note.device) for way in ways))
    rules: list[str] = []
    for way in ways:
        rules += [
            # Once more behind the translation of destinations.
            *_no_tunnel(_from(way), ports, source=False),
            f"{_from(way)} oifname {all_devices} ct status dnat accept",
        ]
        if not way.note.host_access:  # a cloud's metadata service takes whoever asks by the host for the host
            rules.append(f"{_from(way)} ip daddr {_LINK_LOCAL} drop")
        rules += [f"{_from(way)} oif {way.note.egress} accept", f"{_from(way)} drop"]
    for way in ways:
        to_it = f"oifname {_name(way.note.device)}"
        rules += [
            f"{to_it} ct state established,related accept",
            f"{to_it} ct status dnat accept",
            f"{to_it} drop",
        ]
    return rules


def _closing(closed: Iterable[Closed]) -> list[str]:
    return [
        f"{f'iif {each.ifindex} ' if each.ifindex else ''}meta nfproto ipv{each.version} drop "
        f'comment "{CLOSED} {each.version} {each.ifindex}"'
        for each in sorted(closed, key=lambda each: (each.ifindex, each.version))
    ]


# -- the chains of a gateway's namespace


def _inner_published(each: Publish) -> str:
    family = _NFT[each.ip.version]
    to = f"{each.ip}:{each.to_port}" if each.ip.version == 4 else f"[{each.ip}]:{each.to_port}"
    arriving = f"iifname {_name(OUTSIDE)} meta nfproto ipv{each.ip.version}"
    return f"{arriving} {each.protocol} dport {each.port} dnat {family} to {to} {_publishing(each)}"


def _inner_translated(ports: Set[int]) -> list[str]:
    leaving = f"oifname {_name(OUTSIDE)}"
    return [
        f"{leaving} meta l4proto {{ tcp, udp }} counter masquerade to :{_range(ports)}",
        f"{leaving} counter masquerade",
    ]


def _inner_forwarded(ports: Set[int]) -> list[str]:
    leaving = f"iifname {_name(INSIDE)} oifname {_name(OUTSIDE)}"
    arriving = f"iifname {_name(OUTSIDE)} oifname {_name(INSIDE)}"
    return [
        "ct state invalid drop",  # of which nothing would be translated
        *_no_tunnel(leaving, ports, source=False),
        f"{leaving} counter accept",
        f"{arriving} ct state established,related counter accept",
        f"{arriving} ct status dnat counter accept",
    ]


# -- their parts


def _no_tunnel(where: str, ports: Set[int], *, source: bool = True) -> list[str]:
    closed = _set(sorted(tunnel_ports(ports)))
    ends = ("dport", "sport") if source else ("dport",)
    return [f"{where} udp {end} {closed} drop" for end in ends]


def _range(ports: Set[int]) -> str:
    """The ports that what leaves is translated to: the widest range that has none of a tunnel."""
    within = sorted(port for port in ports if _LOWEST <= port <= _HIGHEST)
    between = zip(
        [_LOWEST, *(port + 1 for port in within)], [*(port - 1 for port in within), _HIGHEST], strict=True
    )
    low, high = max(between, key=lambda ends: ends[1] - ends[0])
    return f"{low}-{high}"


def _from(way: Way) -> str:
    return f"iifname {_name(way.note.device)}"


def _name(device: str) -> str:
    return f'"{device}"'


def _set(items: Iterable[object]) -> str:
    return f"{{ {', '.join(map(str, items))} }}"


def _chain(
    name: str,
    kind: Literal["filter", "nat"],
    hook: str,
    priority: int,
    rules: Iterable[str],
    *,
    policy: Literal["accept", "drop"] = "accept",
) -> str:
    body = "".join(f"    {rule}\n" for rule in rules)
    return (
        f"  chain {name} {{\n    type {kind} hook {hook} priority {priority}; policy {policy};\n{body}  }}\n"
    )


def _clean() -> str:
    return f"add table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\n"


def _table(chains: Iterable[str]) -> str:
    return f"table {FAMILY} {TABLE} {{\n{''.join(chains)}}}\n"
