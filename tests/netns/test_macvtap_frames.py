# SPDX-License-Identifier: Apache-2.0
"""A VM's frames with work left to do: checksums to complete, segments to cut, in both directions."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.frames import (
    DESTINATION_OPTIONS,
    SYN,
    TCP,
    UDP,
    VIRTUAL,
    checksum,
    checksums_hold,
    datagram,
    frame,
    ip,
    ipv6,
    patched,
    pseudo_sum,
    tcp,
    u16,
    udp,
)
from tests.support.counting import counted, refused_but_chatter
from tests.support.namespace import SOCKET_SECONDS
from tests.support.vm import GATEWAY, GATEWAY_IPV6, Guests
from tests.support.vmm import NEEDS_CHECKSUM, TCPV4, TcpConnection, VirtioHeader, Vmm
from tests.world import Container

pytestmark = pytest.mark.vm

SUPER_FRAME = 30_000
BULK = 1 << 19


@contextmanager
def listening(container: Container, port: int) -> Iterator[socket.socket]:
    with container.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((container.ip, port))
        listener.listen(1)
        yield listener


def accept_and_read(listener: socket.socket, size: int) -> bytes:
    connection, _ = listener.accept()
    connection.settimeout(SOCKET_SECONDS)
    with connection, connection.makefile("rb") as stream:
        return stream.read(size)


def send_bulk(container: Container, address: tuple[str, int], data: bytes) -> None:
    with container.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as sender:
        sender.connect(address)
        sender.sendall(data)


def partial(source: str, destination: str, packet: bytes) -> bytes:
    """A UDP datagram whose checksum is left to others."""
    return patched(packet, 6, u16(pseudo_sum(source, destination, UDP, len(packet))))


COMPLETE_UDP = VirtioHeader(NEEDS_CHECKSUM, checksum_start=34, checksum_offset=6)
COMPLETE_TCP = VirtioHeader(NEEDS_CHECKSUM, checksum_start=34, checksum_offset=16)
FAR_AWAY = "10.9.9.9"


# -- from the VM -------------------------------------------------------------------------------------------


def test_a_checksum_left_to_others(container: Container, vmm: Vmm) -> None:
    payload = random.Random(1).randbytes(1001)
    with container.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((container.ip, 9))
        packet = udp(1234, 9, payload)
        vmm.send(container.ip, partial(vmm.ip, container.ip, packet), COMPLETE_UDP)
        assert receiver.recvfrom(2000) == (payload, (vmm.ip, 1234))


def test_a_super_frame(guests: Guests, container: Container, vmm: Vmm) -> None:
    data = random.Random(2).randbytes(SUPER_FRAME)
    with listening(container, 5001) as listener, ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(accept_and_read, listener, len(data))
        connection = TcpConnection(vmm, container.ip, port=4001, peer_port=5001)
        connection.connect()
        since = counted(guests.host.agent, lambda: connection.send(data))
        connection.await_acknowledgement()
        assert receiving.result(3 * SOCKET_SECONDS) == data
    sent = Verdict.DELIVERED_LOCALLY if container is guests.near else Verdict.ENCAPSULATED
    assert since.agent[sent].bytes > SUPER_FRAME  # nobody cut it before the agent saw it
    assert refused_but_chatter(since) == {}


def test_a_frame_that_is_longer_than_the_mtu(guests: Guests, vm: mz.Endpoint, vmm: Vmm) -> None:
    mtu = vm.state().mtu
    most, more = (
        datagram(vmm.mac, vmm.ip, guests.near.ip, destination_mac=guests.near.mac, payload=bytes(size))
        for size in (mtu - 28, mtu - 27)
    )
    vmm.write(most)
    assert vm.stats().sent.packets == 1
    since = counted(guests.host.agent, lambda: vmm.write(more))
    assert refused_but_chatter(since) == {Verdict.OVERSIZED: 1}


# -- to the VM ---------------------------------------------------------------------------------------------


def test_super_frames_arrive_whole(container: Container, vmm: Vmm) -> None:
    data = random.Random(3).randbytes(BULK)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send_bulk, container, (vmm.ip, 5002), data)
        connection = TcpConnection(vmm, container.ip, port=5002)
        connection.accept()
        assert connection.receive(len(data)) == data
        sending.result(SOCKET_SECONDS)
    header, frame = connection.longest
    assert header.gso_type == TCPV4
    assert header.segment_bytes <= 1410
    assert len(frame) > 1450 + 14


def test_a_vm_without_offloads_gets_plain_frames(container: Container, plain: Vmm) -> None:
    data = random.Random(4).randbytes(BULK // 8)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send_bulk, container, (plain.ip, 5003), data)
        connection = TcpConnection(plain, container.ip, port=5003)
        connection.accept()
        assert connection.receive(len(data)) == data
        sending.result(SOCKET_SECONDS)
    header, frame = connection.longest
    assert (header.flags & NEEDS_CHECKSUM, header.gso_type) == (0, 0)
    assert len(frame) <= 1450 + 14


# -- from the gateway --------------------------------------------------------------------------------------


TCP_SYN = tcp(1234, 33434, SYN)


@pytest.mark.parametrize(
    ("protocol", "header", "size"),
    [
        (17, VirtioHeader(), 35),
        (17, COMPLETE_UDP, 35),
        (6, COMPLETE_TCP, 35),
        (6, VirtioHeader(NEEDS_CHECKSUM, TCPV4, 54, 1410, 34, 16), SUPER_FRAME),
    ],
    ids=["complete", "udp", "tcp", "super-frame"],
)
def test_time_exceeded_has_a_right_checksum(
    plain: Vmm, protocol: int, header: VirtioHeader, size: int
) -> None:
    question = TCP_SYN + bytes(size)
    plain.send(FAR_AWAY, question, header, by=GATEWAY, protocol=protocol, hops=1)
    _, reply = plain.read(lambda frame: frame[23:24] == b"\x01")
    assert reply[26:30] == ip(GATEWAY)
    assert reply[34:42] == b"\x0b\0" + reply[36:38] + bytes(4)
    assert checksums_hold(reply)
    assert reply[58:62] == ip(FAR_AWAY)
    assert reply[62:] == question[:8]


@pytest.mark.parametrize("options", [0, 16, 64, 256])
@pytest.mark.parametrize("flags", [0, NEEDS_CHECKSUM], ids=["complete", "partial"])
def test_time_exceeded_over_ipv6_has_a_right_checksum(
    vm: mz.Endpoint, plain: Vmm, flags: int, options: int
) -> None:
    """Also behind destination options, where the place of the packet's own checksum is in the midst of the reply."""
    source, there = "fd00::1", "fd00:1::1"
    header = bytes([6, options // 8 - 1, 0x1E, options - 4]) + bytes(options - 4) if options else b""
    question = header + TCP_SYN + bytes(35)
    packet = ipv6(source, there, question, protocol=DESTINATION_OPTIONS if options else TCP, hops=1)
    left = VirtioHeader(flags, checksum_start=54 + options, checksum_offset=16) if flags else VirtioHeader()
    plain.write(frame(VIRTUAL, plain.mac, packet), left)
    _, reply = plain.read(lambda frame: frame[20:21] == b"\x3a")
    assert reply[22:54] == ip(GATEWAY_IPV6) + ip(source)
    assert reply[54:62] == b"\x03\0" + reply[56:58] + bytes(4)
    assert checksums_hold(reply)
    assert reply[86:102] == ip(there)
    assert reply[102:] == question[:8]


def test_no_time_exceeded_for_a_packet_with_a_checksum_in_its_midst(guests: Guests, plain: Vmm) -> None:
    """The kernel lets nobody cut it off: the packet is dropped, and the next one is answered."""
    midst = VirtioHeader(NEEDS_CHECKSUM, checksum_start=200, checksum_offset=16)
    agent, question = guests.host.agent, TCP_SYN + bytes(300)
    since = counted(agent, lambda: plain.send(FAR_AWAY, question, midst, by=GATEWAY, protocol=6, hops=1))
    assert refused_but_chatter(since) == {Verdict.UNREADABLE: 1}
    plain.send(FAR_AWAY, question, COMPLETE_TCP, by=GATEWAY, protocol=6, hops=1)
    _, reply = plain.read(lambda frame: frame[23:24] == b"\x01")
    assert checksum(reply[34:]) == 0
