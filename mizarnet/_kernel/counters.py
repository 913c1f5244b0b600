# SPDX-License-Identifier: Apache-2.0
"""Counters of the kernel about what it lost in a namespace, or on a CPU, whatever the reason was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mizarnet._kernel.refusals import explained

MEANINGS: Mapping[str, str] = {
    "Ip.InAddrErrors": "packets for an address that this host does not have",
    "Ip.OutNoRoutes": "packets of this host without a route",
    "Ip.OutDiscards": "packets of this host that the kernel discarded",
    "Ip.InDiscards": "packets for this host that the kernel discarded",
    "Ip.ReasmFails": "fragmented packets that were never complete",
    "Ip.FragFails": "packets that were too large for a link and must not be fragmented",
    "IpExt.InNoRoutes": "packets from elsewhere without a route",
    "IpExt.InCsumErrors": "packets with a wrong checksum",
    "Udp.NoPorts": "datagrams for a UDP port that nobody has",
    "Udp.InErrors": "datagrams that a socket could not take",
    "Udp.RcvbufErrors": "datagrams that no socket buffer had room for",
    "Udp.InCsumErrors": "datagrams with a wrong checksum",
    "Ip6.InAddrErrors": "IPv6 packets for an address that this host does not have",
    "Ip6.OutNoRoutes": "IPv6 packets of this host without a route",
    "Ip6.InNoRoutes": "IPv6 packets from elsewhere without a route",
    "Ip6.InDiscards": "IPv6 packets for this host that the kernel discarded",
    "Ip6.OutDiscards": "IPv6 packets of this host that the kernel discarded",
    "Ip6.FragFails": "IPv6 packets that were too large for a link",
    "Ip6.ReasmFails": "fragmented IPv6 packets that were never complete",
    "Udp6.NoPorts": "datagrams over IPv6 for a UDP port that nobody has",
    "Udp6.InErrors": "datagrams over IPv6 that a socket could not take",
    "Udp6.InCsumErrors": "datagrams over IPv6 with a wrong checksum",
    "softnet.dropped": "packets that a CPU's backlog had no room for",
}
"""Names of the counters that are read, and what each counts."""


def read_counters() -> dict[str, int]:
    """The counters of the calling thread's namespace, and those of the CPUs."""
    found = {
        **dict(_pairs(_read("thread-self/net/snmp"))),
        **dict(_pairs(_read("thread-self/net/netstat"))),
        **dict(_single(_read("thread-self/net/snmp6"))),
        "softnet.dropped": _softnet(_read("net/softnet_stat")),
    }
    return {name: found[name] for name in MEANINGS if name in found}


def _read(name: str) -> str:
    """Content of a file of /proc; empty where there is none, as without IPv6."""
    path = Path("/proc") / name
    with explained(f"read {path}"):
        try:
            return path.read_text()
        except FileNotFoundError:
            return ""


def _pairs(text: str) -> Iterator[tuple[str, int]]:
    """Counters of lines that come in twos: names, then numbers."""
    lines = text.splitlines()
    for names, numbers in zip(lines[::2], lines[1::2], strict=False):
        group, *listed = names.split()
        for name, number in zip(listed, numbers.split()[1:], strict=False):
            yield f"{group}{name}".replace(":", "."), int(number)


def _single(text: str) -> Iterator[tuple[str, int]]:
    """Counters of IPv6, one in each line: ``Ip6InReceives  12``."""
    for line in text.splitlines():
        name, number = line.split()
        for group in ("Ip6", "Udp6"):
            if name.startswith(group):
                yield f"{group}.{name.removeprefix(group)}", int(number)


def _softnet(text: str) -> int:
    """Packets dropped, over all CPUs: the second column, in hexadecimal."""
    return sum(int(line.split()[1], 16) for line in text.splitlines())
