# SPDX-License-Identifier: Apache-2.0
"""Tunnel packets around a legal inner frame, whose outer addresses or tunnel header are not legal."""

from __future__ import annotations

from collections.abc import Iterator

import mizarnet as mz
from mizarnet import Verdict
from tests.frames import datagram, geneve, geneve_option, patched, vxlan
from tests.support.wire import HOST, OTHER_ADDRESSES, STRANGER, Kind, Packet, Wire
from tests.world import BLUE

CONTROL, CRITICAL = 0x80, 0x40
"""Flags of a Geneve header."""
CRITICAL_OPTION = 0x80
"""Bit of an option's type."""


# -- addresses ---------------------------------------------------------------------------------------------


def hosts_that_are_no_peers(wire: Wire) -> Iterator[Packet]:
    inner = wire.legal(wire.net.blue1)
    for number in range(256):
        for network in ("203.0.113", "192.0.3", "10.0.0", "193.0.2"):
            yield wire.packet(Verdict.FOREIGN_PEER, inner, source=f"{network}.{number}")


def a_host_that_an_entry_names(wire: Wire) -> Iterator[Packet]:
    """In its endpoint's name: to those of the attacked host, and to one that a peer's frame would be sent on to."""
    net, host, ip = wire.net, "203.0.113.60", "10.0.0.60"
    net.first.agent.endpoints[BLUE, ip] = mz.Remote(host)
    for to in (net.blue1, net.blue2, net.blue3):
        inner = datagram(STRANGER, ip, to.ip, destination_mac=to.mac)
        yield wire.packet(Verdict.FOREIGN_PEER, inner, source=host)


def hosts_that_cannot_be(wire: Wire) -> Iterator[Packet]:
    """The host itself, nobody, everybody: the kernel refuses them as martians.

    Of the host's other addresses the shortcut does not know: one in a peer's prefix is believed, as any forged one.
    """
    others = [] if wire.has_shortcut else [OTHER_ADDRESSES[0]]
    for source in (HOST, *others, "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"):
        yield wire.packet(None, wire.legal(wire.net.blue1), source=source)


def another_address_of_the_host(wire: Wire) -> Iterator[Packet]:
    """The UDP socket of a tunnel takes what comes to any address of the host, broadcast and multicast ones too."""
    for destination in (OTHER_ADDRESSES[0], "192.0.2.255", "255.255.255.255", "224.0.0.1"):
        yield wire.packet(Verdict.FOREIGN_LOCAL, wire.legal(wire.net.blue1), to=destination)


def an_address_of_another_host(wire: Wire) -> Iterator[Packet]:
    for destination in ("192.0.2.77", "203.0.113.1", "127.0.0.1"):
        yield wire.packet(None, wire.legal(wire.net.blue1), to=destination)


# -- tunnel headers ----------------------------------------------------------------------------------------


def headers_that_say_more(wire: Wire) -> Iterator[Packet]:
    make = vxlan_headers if wire.net.world.encap == "vxlan" else geneve_headers
    for verdict, tunnel in make(wire.legal(wire.net.blue1)):
        yield Packet(wire.outer(tunnel), verdict)


def vxlan_headers(inner: bytes) -> Iterator[tuple[Verdict | None, bytes]]:
    """Each flag and each reserved byte, and no VNI: the kernel decapsulates none of them."""
    good = vxlan(BLUE, inner)
    for flags in (0, *(1 << bit for bit in range(8) if bit != 3)):
        yield None, patched(good, 0, bytes([flags]))
        yield None, patched(good, 0, bytes([flags | 8 if flags else 0]))
    for reserved in (1, 2, 3, 7):
        yield None, patched(good, reserved, b"\1")


def geneve_headers(inner: bytes) -> Iterator[tuple[Verdict | None, bytes]]:
    """Control frames, options that must be understood, lengths that lie; versions and contents that are not known."""
    harmless, critical = geneve_option(1, bytes(8)), geneve_option(CRITICAL_OPTION | 1, bytes(4))
    for flags in (CONTROL, CRITICAL, CONTROL | CRITICAL):
        for options in (b"", harmless, critical):
            yield Verdict.GENEVE_OPTIONS, geneve(BLUE, inner, options=options, flags=flags)
    for options in (critical, harmless + critical, critical + harmless, harmless * 20 + geneve_option(0xFF)):
        yield Verdict.GENEVE_OPTIONS, geneve(BLUE, inner, options=options)
    for length in (3, 15, 31):
        yield Verdict.GENEVE_OPTIONS, geneve(BLUE, inner, options=geneve_option(1, bytes(4), length=length))
    # The header ends before its options, in the midst of one or after one: the rest is read as a frame, and is none.
    yield Verdict.GENEVE_OPTIONS, geneve(BLUE, harmless + inner, units=1)
    yield Verdict.UNKNOWN_ETHERTYPE, geneve(BLUE, geneve_option(1) + harmless + inner, units=1)
    # The header ends within the frame: the address that it swallows is an option with a length that lies.
    yield Verdict.GENEVE_OPTIONS, geneve(BLUE, b"\xff\x00\x01\x1f" + inner, units=2)
    yield None, geneve(BLUE, inner, units=63)
    for version in (1, 2, 3):
        yield None, geneve(BLUE, inner, units=version << 6)
    for contents in (0, 0x0800, 0x86DD, 0x0806):
        yield None, geneve(BLUE, inner, contents=contents)


KINDS: dict[str, Kind] = {
    "from hosts that are no peers": hosts_that_are_no_peers,
    "from a host that only an entry names": a_host_that_an_entry_names,
    "from hosts that cannot be": hosts_that_cannot_be,
    "to another address of the host": another_address_of_the_host,
    "to an address of another host": an_address_of_another_host,
    "with a tunnel header that says more than a VNI": headers_that_say_more,
}
