# SPDX-License-Identifier: Apache-2.0
"""What a sender leaves to be done after the checks, or never takes: checksums written later, frames not read."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import attrs
import pytest

from mizarnet import Verdict
from tests.support.counting import counted, refused_but_chatter
from tests.support.native_xdp import set_tx_checksums
from tests.support.packets import arp, checksum, echo_request, ethernet, ipv4, udp
from tests.support.topology import Container, World
from tests.support.traffic import ping
from tests.support.vm import GATEWAY_IPV6, VIRTUAL_MAC, Net
from tests.support.vmm import NEEDS_CHECKSUM, VirtioHeader, Vmm

pytestmark = pytest.mark.vm

TUNSETOFFLOAD = 0x400454D0
SOL_PACKET, PACKET_VNET_HDR = 263, 15
VNET_HEADER_BYTES = 10
MARKER = b"spoof!"
SOLICITED_NODE = bytes.fromhex("3333ff000002")


@pytest.fixture(scope="module")
def net(shared_world: World) -> Net:
    return Net.of(shared_world)


@pytest.fixture
def plain(net: Net) -> Iterator[Vmm]:
    """A VM without offloads: the host completes every checksum for it."""
    with net.vm() as endpoint, endpoint.open_tap() as tap:
        fcntl.ioctl(tap.fds[0], TUNSETOFFLOAD, 0)
        yield Vmm(endpoint, tap.fds[0])


@contextmanager
def software_checksums(net: Net) -> Iterator[None]:
    """The underlay of the first host has them completed before it sends."""
    set_tx_checksums(net.host, False)
    try:
        yield
    finally:
        set_tx_checksums(net.host, True)


# -- a checksum over what was checked ----------------------------------------------------------------------


def becoming(claimed: str, own: str, to: str, macs: bytes) -> tuple[bytes, VirtioHeader]:
    """A datagram from ``own``, whose source ends as that of ``claimed`` once its "checksum" is written there."""
    packet = ipv4(own, to, udp(9, 9, MARKER + bytes(2)))
    (target,) = struct.unpack("!H", ip_address(claimed).packed[2:])
    packet = packet[:-2] + struct.pack("!H", _seeded(packet[14:], target))
    return macs + b"\x08\0" + packet, VirtioHeader(NEEDS_CHECKSUM, checksum_start=28, checksum_offset=0)


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
def attacker(kind: str, net: Net, plain: Vmm) -> Iterator[Attacker]:
    if kind == "vm":
        yield Attacker(plain.ip, plain.mac, plain.write)
        return
    with net.near.namespace.packet_socket("eth0") as raw:
        raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)

        def write(frame: bytes, header: VirtioHeader) -> None:
            try:
                raw.send(header.pack()[:VNET_HEADER_BYTES] + frame)
            except OSError as refused:
                assert refused.errno == errno.ENOBUFS  # what the agent drops, its sender is told of

        yield Attacker(net.near.ip, net.near.mac, write)


@pytest.mark.parametrize("kind", ["vm", "packet socket"])
def test_a_deferred_checksum_changes_no_address(net: Net, plain: Vmm, kind: str) -> None:
    """Two bytes of the sender's choice, written over its source address after that was found to be its own."""
    agent = net.host.agent
    with attacker(kind, net, plain) as by, software_checksums(net), listening(net.far) as there:
        frame, header = becoming("10.0.0.77", by.ip, net.far.ip, VIRTUAL_MAC + by.mac)
        since = counted(agent, lambda: by.write(frame, header))
        by.write(frame, VirtioHeader())  # nobody changes this one
        assert there.recvfrom(100)[1][0] == by.ip
    assert refused_but_chatter(since) == {Verdict.BAD_OFFLOAD: 1}


def test_a_deferred_checksum_changes_no_address_for_a_neighbour(net: Net, plain: Vmm) -> None:
    """The tap of a VM without offloads is where it would be written."""
    with attacker("packet socket", net, plain) as by:
        frame, header = becoming("10.0.0.77", by.ip, plain.ip, plain.mac + by.mac)
        since = counted(net.host.agent, lambda: by.write(frame, header))
        by.write(frame, VirtioHeader())
        _, seen = plain.read(lambda each: MARKER in each)
    assert seen[26:30] == ip_address(by.ip).packed
    assert refused_but_chatter(since) == {Verdict.BAD_OFFLOAD: 1}


def test_a_deferred_checksum_makes_no_advertisement(net: Net, plain: Vmm) -> None:
    """An echo request by its type, until the checksum is written over that."""
    with attacker("packet socket", net, plain) as by:
        packet = advertised(by.mac)
        header = VirtioHeader(NEEDS_CHECKSUM, checksum_start=54, checksum_offset=0)
        frame = plain.mac + by.mac + b"\x86\xdd" + packet
        since = counted(net.host.agent, lambda: by.write(frame, header))
    assert refused_but_chatter(since) == {Verdict.BAD_OFFLOAD: 1}


def advertised(mac: bytes) -> bytes:
    """An echo request that a checksum of 0x8800 would turn into an advertisement of the gateway's address."""
    body = bytearray(struct.pack("!BBHI", 128, 0, 0, 0x60000000) + ip_address(GATEWAY_IPV6).packed)
    body += b"\x02\x01" + mac + bytes(2)
    body[-2:] = struct.pack("!H", _seeded(bytes(body), 0x8800))
    source, to = ip_address("fd00::2").packed, ip_address("fd00::1").packed
    return struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + to + bytes(body)


# -- a checksum that is left in a question ------------------------------------------------------------------


@pytest.mark.parametrize("offset", [2, 6])
def test_an_advertisement_is_not_changed_by_the_checksum_of_the_question(
    net: Net, plain: Vmm, offset: int
) -> None:
    source, target = ip_address("fd00::1").packed, ip_address("fd00::2").packed
    group = ip_address("ff02::1:ff00:2").packed
    question = struct.pack("!BBHI", 135, 0, 0, 0) + target + b"\x01\x01" + plain.mac
    packet = struct.pack("!IHBB", 6 << 28, len(question), 58, 255) + source + group + question
    left = VirtioHeader(NEEDS_CHECKSUM, checksum_start=54, checksum_offset=offset)
    plain.write(ethernet(SOLICITED_NODE, plain.mac, 0x86DD, packet), left)
    _, answer = plain.read(lambda frame: frame[20:21] == b"\x3a" and frame[54:55] == b"\x88")
    assert checksum(answer[22:54] + struct.pack("!II", 32, 58) + answer[54:]) == 0
    assert answer[62:86] == target + b"\x02\x01" + net.near.mac


def test_a_question_of_arp_has_no_checksum_to_leave(net: Net, plain: Vmm) -> None:
    question = ethernet(b"\xff" * 6, plain.mac, 0x0806, arp(plain.mac, plain.ip, net.near.ip)) + bytes(18)
    left = VirtioHeader(NEEDS_CHECKSUM, checksum_start=22, checksum_offset=6)
    since = counted(net.host.agent, lambda: plain.write(question, left))
    assert refused_but_chatter(since) == {Verdict.BAD_OFFLOAD: 1}
    plain.write(question)
    _, answer = plain.read(lambda frame: frame[12:14] == b"\x08\x06")
    assert answer[22:32] == net.near.mac + ip_address(net.near.ip).packed


def test_time_exceeded_is_not_changed_by_a_checksum_farther_behind(net: Net, plain: Vmm) -> None:
    """Of a datagram in a tunnel of the VM's own, for instance."""
    inner = ipv4("10.9.9.8", "10.9.9.9", udp(9, 9, b"inside" * 10))
    packet = ipv4(plain.ip, "10.9.9.9", inner, protocol=4, ttl=1)
    left = VirtioHeader(NEEDS_CHECKSUM, checksum_start=54, checksum_offset=6)
    plain.write(ethernet(VIRTUAL_MAC, plain.mac, 0x0800, packet), left)
    _, answer = plain.read(lambda frame: frame[23:24] == b"\x01")
    assert (checksum(answer[14:34]), checksum(answer[34:])) == (0, 0)
    assert answer[42:70] == packet[:28]


# -- frames that nobody takes ------------------------------------------------------------------------------


def test_a_vm_that_does_not_read_silences_nobody(net: Net, plain: Vmm) -> None:
    """Echo replies take room of a socket that all namespaces share, for as long as they wait in a tap."""
    quiet = (net.world.hosts[1].namespace, "192.0.2.1"), (net.far.namespace, net.near.ip)
    request = ipv4(plain.ip, net.near.ip, echo_request(1, 1, bytes(1300)), protocol=1)
    frame = ethernet(net.near.mac, plain.mac, 0x0800, request)
    plain.resolve(net.near.ip)
    before, cpus = net.host.agent.stats(), os.sched_getaffinity(0)
    try:
        for cpu in cpus:
            os.sched_setaffinity(0, {cpu})
            for _ in range(300):
                plain.write(frame)
        heard = [ping(of, to) for of, to in quiet for _ in range(4)]
    finally:
        os.sched_setaffinity(0, cpus)
    since = net.host.agent.stats().since(before)
    assert since.guard[Verdict.COPIED].packets >= 200
    assert len(plain.pending()) >= 200  # they did wait
    assert all(heard)


@contextmanager
def listening(container: Container) -> Iterator[socket.socket]:
    with container.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((container.ip, 9))
        yield listener
