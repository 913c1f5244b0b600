# SPDX-License-Identifier: Apache-2.0
"""What a sender leaves to be done after the checks, or never takes: checksums written later, frames not read."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import pytest

from mizarnet import Verdict
from tests.frames import (
    BROADCAST,
    ICMPV6,
    SOLICITATION,
    SOURCE_MAC,
    TARGET_MAC,
    TYPE_ARP,
    VIRTUAL,
    arp,
    checksum,
    checksums_hold,
    echo_request,
    ethernet,
    frame,
    ip,
    ipv4,
    ipv6,
    link_option,
    neighbour,
    u16,
    udp,
)
from tests.support.counting import counted, refused_but_chatter
from tests.support.native_xdp import set_tx_checksums
from tests.support.traffic import ping
from tests.support.vm import GATEWAY_IPV6, Guests
from tests.support.vmm import NEEDS_CHECKSUM, VirtioHeader, Vmm
from tests.world import Container

pytestmark = pytest.mark.vm

SOL_PACKET, PACKET_VNET_HDR = 263, 15
VNET_HEADER_BYTES = 10
MARKER = b"spoof!"
SOLICITED_NODE = bytes.fromhex("3333ff000002")


@contextmanager
def software_checksums(guests: Guests) -> Iterator[None]:
    """The underlay of the first host has them completed before it sends."""
    set_tx_checksums(guests.host, False)
    try:
        yield
    finally:
        set_tx_checksums(guests.host, True)


# -- a checksum over what was checked ----------------------------------------------------------------------


def becoming(claimed: str, own: str, to: str, macs: bytes) -> tuple[bytes, VirtioHeader]:
    """A datagram from ``own``, whose source ends as that of ``claimed`` once its "checksum" is written there."""
    packet = ipv4(own, to, udp(9, 9, MARKER + bytes(2)))
    target = int.from_bytes(ip(claimed)[2:], "big")
    packet = packet[:-2] + u16(_seeded(packet[14:], target))
    return frame(macs[:6], macs[6:], packet), VirtioHeader(
        NEEDS_CHECKSUM, checksum_start=28, checksum_offset=0
    )


def _seeded(covered: bytes, target: int) -> int:
    """The last two bytes with which the sum over ``covered`` comes to ``target``."""
    so_far = 0xFFFF ^ checksum(covered[:-2] + bytes(2))
    return ((0xFFFF ^ target) - so_far) % 0xFFFF


@attrs.frozen
class Attacker:
    """Who sends: its address, its MAC, and how it writes a frame with a virtio header."""

    ip: str
    mac: bytes
    write: Callable[[bytes, VirtioHeader], object]


@contextmanager
def attacker(kind: str, guests: Guests, plain: Vmm) -> Iterator[Attacker]:
    if kind == "vm":
        yield Attacker(plain.ip, plain.mac, plain.write)
        return
    with guests.near.namespace.packet_socket("eth0") as raw:
        raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)

        def write(frame: bytes, header: VirtioHeader) -> None:
            try:
                raw.send(header.pack()[:VNET_HEADER_BYTES] + frame)
            except OSError as refused:
                assert refused.errno == errno.ENOBUFS  # what the agent drops, its sender is told of

        yield Attacker(guests.near.ip, guests.near.mac, write)


@pytest.mark.parametrize("kind", ["vm", "packet socket"])
def test_a_deferred_checksum_changes_no_address(guests: Guests, plain: Vmm, kind: str) -> None:
    """Two bytes of the sender's choice, written over its source address after that was found to be its own."""
    agent = guests.host.agent
    with attacker(kind, guests, plain) as by, software_checksums(guests), listening(guests.far) as there:
        frame, header = becoming("10.0.0.77", by.ip, guests.far.ip, VIRTUAL + by.mac)
        since = counted(agent, lambda: by.write(frame, header))
        by.write(frame, VirtioHeader())  # nobody changes this one
        assert there.recvfrom(100)[1][0] == by.ip
    assert refused_but_chatter(since) == {Verdict.BAD_OFFLOAD: 1}


def test_a_deferred_checksum_changes_no_address_for_a_neighbour(guests: Guests, plain: Vmm) -> None:
    """The tap of a VM without offloads is where it would be written."""
    with attacker("packet socket", guests, plain) as by:
        frame, header = becoming("10.0.0.77", by.ip, plain.ip, plain.mac + by.mac)
        since = counted(guests.host.agent, lambda: by.write(frame, header))
        by.write(frame, VirtioHeader())
        _, seen = plain.read(lambda each: MARKER in each)
    assert seen[26:30] == ip(by.ip)
    assert refused_but_chatter(since) == {Verdict.BAD_OFFLOAD: 1}


def test_a_deferred_checksum_makes_no_advertisement(guests: Guests, plain: Vmm) -> None:
    """An echo request by its type, until the checksum is written over that."""
    with attacker("packet socket", guests, plain) as by:
        packet = advertised(by.mac)
        header = VirtioHeader(NEEDS_CHECKSUM, checksum_start=54, checksum_offset=0)
        question = frame(plain.mac, by.mac, packet)
        since = counted(guests.host.agent, lambda: by.write(question, header))
    assert refused_but_chatter(since) == {Verdict.BAD_OFFLOAD: 1}


def advertised(mac: bytes) -> bytes:
    """An echo request that a checksum of 0x8800 would turn into an advertisement of the gateway's address."""
    body = neighbour(GATEWAY_IPV6, link_option(TARGET_MAC, mac) + bytes(2), flags=0x60000000)
    message = bytes([128, 0, 0, 0]) + body
    message = message[:-2] + u16(_seeded(message, 0x8800))
    return ipv6("fd00::2", "fd00::1", message, protocol=ICMPV6, hops=255)


# -- a checksum that is left in a question ------------------------------------------------------------------


@pytest.mark.parametrize("offset", [2, 6])
def test_an_advertisement_is_not_changed_by_the_checksum_of_the_question(
    guests: Guests, plain: Vmm, offset: int
) -> None:
    body = neighbour("fd00::2", link_option(SOURCE_MAC, plain.mac))
    question = bytes([SOLICITATION, 0, 0, 0]) + body
    packet = ipv6("fd00::1", "ff02::1:ff00:2", question, protocol=ICMPV6, hops=255)
    left = VirtioHeader(NEEDS_CHECKSUM, checksum_start=54, checksum_offset=offset)
    plain.write(frame(SOLICITED_NODE, plain.mac, packet), left)
    _, answer = plain.read(lambda frame: frame[20:21] == b"\x3a" and frame[54:55] == b"\x88")
    assert checksums_hold(answer)
    assert answer[62:86] == ip("fd00::2") + link_option(TARGET_MAC, guests.near.mac)


def test_a_question_of_arp_has_no_checksum_to_leave(guests: Guests, plain: Vmm) -> None:
    question = ethernet(BROADCAST, plain.mac, TYPE_ARP, arp(plain.mac, plain.ip, guests.near.ip)) + bytes(18)
    left = VirtioHeader(NEEDS_CHECKSUM, checksum_start=22, checksum_offset=6)
    since = counted(guests.host.agent, lambda: plain.write(question, left))
    assert refused_but_chatter(since) == {Verdict.BAD_OFFLOAD: 1}
    plain.write(question)
    _, answer = plain.read(lambda frame: frame[12:14] == b"\x08\x06")
    assert answer[22:32] == guests.near.mac + ip(guests.near.ip)


def test_time_exceeded_is_not_changed_by_a_checksum_farther_behind(guests: Guests, plain: Vmm) -> None:
    """Of a datagram in a tunnel of the VM's own, for instance."""
    inner = ipv4("10.9.9.8", "10.9.9.9", udp(9, 9, b"inside" * 10))
    packet = ipv4(plain.ip, "10.9.9.9", inner, protocol=4, hops=1)
    left = VirtioHeader(NEEDS_CHECKSUM, checksum_start=54, checksum_offset=6)
    plain.write(frame(VIRTUAL, plain.mac, packet), left)
    _, answer = plain.read(lambda frame: frame[23:24] == b"\x01")
    assert checksums_hold(answer)
    assert answer[42:70] == packet[:28]


# -- frames that nobody takes ------------------------------------------------------------------------------


def test_a_vm_that_does_not_read_silences_nobody(guests: Guests, plain: Vmm) -> None:
    """Echo replies take room of a socket that all namespaces share, for as long as they wait in a tap."""
    quiet = (guests.world.hosts[1].namespace, "192.0.2.1"), (guests.far.namespace, guests.near.ip)
    request = ipv4(plain.ip, guests.near.ip, echo_request(1, 1, bytes(1300)), protocol=1)
    ping_of_vm = frame(guests.near.mac, plain.mac, request)
    plain.resolve(guests.near.ip)
    before, cpus = guests.host.agent.stats(), os.sched_getaffinity(0)
    try:
        for cpu in cpus:
            os.sched_setaffinity(0, {cpu})
            for _ in range(300):
                plain.write(ping_of_vm)
        heard = [ping(of, to) for of, to in quiet for _ in range(4)]
    finally:
        os.sched_setaffinity(0, cpus)
    since = guests.host.agent.stats().since(before)
    assert since.guard[Verdict.COPIED].packets >= 200
    assert len(plain.pending()) >= 200  # they did wait
    assert all(heard)


@contextmanager
def listening(container: Container) -> Iterator[socket.socket]:
    with container.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((container.ip, 9))
        yield listener
