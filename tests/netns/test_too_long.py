# SPDX-License-Identifier: Apache-2.0
"""VMs whose guests keep an MTU of 1500, which the tunnel does not carry: they are told, and go on with less."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import attrs
import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.frames import (
    DESTINATION_OPTIONS,
    HEADER_BYTES,
    ICMP,
    TCP,
    UDP,
    VIRTUAL,
    checksums_hold,
    frame,
    ip,
    ipv4,
    ipv6,
    pseudo_sum,
    tcp,
    u16,
    udp,
)
from tests.support.counting import counted, refused_but_chatter
from tests.support.guest_stack import CHECKSUMS, SEGMENTS_IPV4, SEGMENTS_IPV6, guest
from tests.support.icmp import family_of, level_of
from tests.support.namespace import Namespace
from tests.support.services import exchange_datagrams, exchange_file
from tests.support.vm import GATEWAY, GATEWAY_IPV6, Guests
from tests.support.vmm import NEEDS_CHECKSUM, PLAIN, TCPV4, VirtioHeader, Vmm
from tests.world import EncapName, Subnet, World

pytestmark = pytest.mark.vm

NET = Subnet(3, 1)
GUESTS_MTU = 1500
DONT_FRAGMENT = 0x4000
QUOTED = 48
TCPV6 = 4  # <linux/virtio_net.h>
IP_MTU, IPV6_MTU = 14, 24
FIRST = 2
ALL_OFFLOADS = CHECKSUMS | SEGMENTS_IPV4 | SEGMENTS_IPV6
ANSWERS_IN_A_SECOND = 100


# -- guests --------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Scene:
    """Guests of MTU 1500: two on the first host and one on the other, in a subnet without a gateway.

    The first leaves checksums and segments to its NIC, the others do all themselves.
    """

    world: World
    spaces: tuple[Namespace, ...]

    def told(self) -> int:
        """How often a packet was too long, and its guest told so."""
        return sum(host.agent.stats().agent[Verdict.OVERSIZED_ANSWERED].packets for host in self.world.hosts)


@pytest.fixture
def scene(encap: EncapName) -> Iterator[Scene]:
    with World(encap) as world, ExitStack() as stack:
        hosts = (world.hosts[0], *world.hosts)
        spaces = tuple(world.space() for _ in hosts)
        nics = [
            mz.Endpoint.create(host.agent, vni=NET.vni, ip=NET.interfaces(number), kind="macvtap")
            for number, host in enumerate(hosts, FIRST)
        ]
        world.publish()
        for nic, space, offloads in zip(nics, spaces, (ALL_OFFLOADS, 0, 0), strict=True):
            stack.enter_context(guest(nic, space, mtu=GUESTS_MTU, offloads=offloads))
        yield Scene(world, spaces)


def path_mtu(source: Namespace, address: str) -> int:
    """As the guest's stack knows it."""
    with source.socket(family_of(address), socket.SOCK_DGRAM) as asker:
        asker.connect((address, 9))
        return asker.getsockopt(level_of(address), IPV6_MTU if ":" in address else IP_MTU)


def test_guests_learn_the_tunnels_mtu(scene: Scene) -> None:
    """Of streams there and back, in both families, within a host and between two."""
    hosts, (first, *others) = scene.world.hosts, scene.spaces
    before, mtu = [host.agent.stats() for host in hosts], hosts[0].tunnel.mtu
    for version in (4, 6):
        here = NET.address(FIRST, version)
        for number, other in enumerate(others, FIRST + 1):
            there, told = NET.address(number, version), scene.told()
            ways = ((first, there), (other, here))
            assert [path_mtu(*way) for way in ways] == [GUESTS_MTU, GUESTS_MTU]
            exchange_file(first, there)
            assert scene.told() >= told + len(ways)
            assert [path_mtu(*way) for way in ways] == [mtu, mtu]
            exchange_datagrams(first, there, size=GUESTS_MTU)  # in fragments
    for host, earlier in zip(hosts, before, strict=True):
        assert refused_but_chatter(host.agent.stats().since(earlier)) == {}


# -- frames --------------------------------------------------------------------------------------------


def deferred(at: int, protocol: int) -> VirtioHeader:
    """The checksum of a transport header at that place is left to others."""
    return VirtioHeader(NEEDS_CHECKSUM, checksum_start=at, checksum_offset=16 if protocol == TCP else 6)


def long_packet(vm: mz.Endpoint, version: int, protocol: int, size: int, *, options: int = 0) -> bytes:
    """To nobody: whoever is too long is told so wherever the packet goes."""
    source, to = (("10.0.0.1", "10.0.0.99"), ("fd00::1", "fd00::99"))[version == 6]
    room = size - HEADER_BYTES[version] - options
    data = random.Random(size).randbytes(size)
    head = tcp(1234, 80, 0x10, check=pseudo_sum(source, to, TCP, room)) if protocol == TCP else b""
    upper = (head + data)[:room] if head else udp(1234, 80, data[: room - 8])
    if version == 4:
        return ipv4(source, to, upper, protocol=protocol, flags=DONT_FRAGMENT)
    before = bytes([protocol, options // 8 - 1, 0x1E, options - 4]) + bytes(options - 4) if options else b""
    return ipv6(source, to, before + upper, protocol=DESTINATION_OPTIONS if options else protocol)


def assert_told(vm: mz.Endpoint, vmm: Vmm, packet: bytes, header: VirtioHeader = PLAIN) -> None:
    """By the gateway, in a frame with right checksums, with the tunnel's MTU and the packet's beginning."""
    version = packet[0] >> 4
    vmm.pending()
    vmm.write(frame(VIRTUAL, vmm.mac, packet), header)
    kind = {4: b"\x03\x04", 6: b"\x02\x00"}[version]
    at = 14 + HEADER_BYTES[version]
    left, reply = vmm.read(lambda frame: frame[at : at + 2] == kind)
    assert left.flags & NEEDS_CHECKSUM == 0 and left.gso_type == 0
    assert reply[:12] == vmm.mac + VIRTUAL
    assert checksums_hold(reply)
    assert reply[26:30] == ip(GATEWAY) if version == 4 else reply[22:38] == ip(GATEWAY_IPV6)
    assert reply[at + 4 : at + 8] == vm.state().mtu.to_bytes(4, "big")
    assert reply[at + 8 :] == packet[: HEADER_BYTES[version] + QUOTED]


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_the_answer_is_right_whatever_is_left_to_others(
    guests: Guests, vm: mz.Endpoint, plain: Vmm, version: int
) -> None:
    mtu, at = vm.state().mtu, 14 + HEADER_BYTES[version]
    segments = VirtioHeader(
        NEEDS_CHECKSUM, TCPV4 if version == 4 else TCPV6, at + 20, GUESTS_MTU - 60, at, 16
    )

    def all_kinds() -> None:
        for protocol in (UDP, TCP):
            long = long_packet(vm, version, protocol, mtu + 1)
            assert_told(vm, plain, long)
            assert_told(vm, plain, long, deferred(at, protocol))
        assert_told(vm, plain, long_packet(vm, version, TCP, 30_000), segments)
        if version == 6:
            for options in (8, 64):
                behind = long_packet(vm, 6, TCP, mtu + 1, options=options)
                assert_told(vm, plain, behind, deferred(at + options, TCP))

    since = counted(guests.host.agent, all_kinds)
    assert refused_but_chatter(since) == {}
    assert since.agent[Verdict.OVERSIZED_ANSWERED].packets == (7 if version == 6 else 5)


def test_who_may_be_fragmented_and_who_tells_of_errors_is_not_told(
    guests: Guests, vm: mz.Endpoint, vmm: Vmm
) -> None:
    size = vm.state().mtu + 1 - HEADER_BYTES[4]
    packets = [
        ipv4("10.0.0.1", "10.0.0.99", udp(1, 2, bytes(size - 8))),
        ipv4("10.0.0.1", "10.0.0.99", b"\x03\x04" + bytes(size - 2), protocol=ICMP, flags=DONT_FRAGMENT),
        ipv4("10.0.0.1", "10.0.0.99", bytes(size), flags=DONT_FRAGMENT | 185),
        ipv4("10.0.0.2", "10.0.0.99", bytes(size), flags=DONT_FRAGMENT),
    ]
    vmm.pending()

    def write() -> None:
        for packet in packets:
            vmm.write(frame(VIRTUAL, vmm.mac, packet))

    since = counted(guests.host.agent, write)
    assert refused_but_chatter(since) == {Verdict.OVERSIZED: len(packets)}
    assert [each for each in vmm.pending() if each[12:14] == u16(0x0800)] == []


def test_no_answer_for_a_packet_with_a_checksum_in_its_midst(
    guests: Guests, vm: mz.Endpoint, vmm: Vmm
) -> None:
    """The kernel lets nobody cut it off: the packet is dropped, and the next one is answered."""
    long = long_packet(vm, 4, TCP, vm.state().mtu + 1)
    since = counted(guests.host.agent, lambda: vmm.write(frame(VIRTUAL, vmm.mac, long), deferred(200, TCP)))
    assert refused_but_chatter(since) == {Verdict.UNREADABLE: 1}
    assert_told(vm, vmm, long, deferred(34, TCP))


def test_a_hundred_in_a_second_from_whatever_cpu(guests: Guests, vm: mz.Endpoint, vmm: Vmm) -> None:
    cpus, frames = sorted(os.sched_getaffinity(0)), 600
    long = frame(VIRTUAL, vmm.mac, long_packet(vm, 4, UDP, vm.state().mtu + 1))

    def flood() -> tuple[int, int]:
        begun = time.monotonic_ns()
        for number in range(frames):
            os.sched_setaffinity(0, {cpus[number * len(cpus) // frames]})
            vmm.write(long)
            vmm.pending()  # answers take room of the VM's own socket until it has read them
        os.sched_setaffinity(0, cpus)
        return begun // 10**9, time.monotonic_ns() // 10**9

    seconds: list[int] = []
    since = counted(guests.host.agent, lambda: seconds.extend(flood()))
    answered = since.agent[Verdict.OVERSIZED_ANSWERED].packets
    assert ANSWERS_IN_A_SECOND <= answered <= ANSWERS_IN_A_SECOND * (seconds[1] - seconds[0] + 1)
    assert refused_but_chatter(since) == {Verdict.OVERSIZED: frames - answered}
