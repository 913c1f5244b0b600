# SPDX-License-Identifier: Apache-2.0
"""One frame before a program, with all that the kernel knows about it, and what becomes of it."""

from __future__ import annotations

import enum
from typing import Literal, TypeAlias

import attrs

from mizarnet import Verdict
from tests.model.state import Ip, Mac

ProgramName: TypeAlias = Literal["agent", "guard", "switch", "shortcut"]


class TcAction(enum.IntEnum):
    """What agent, guard and shortcut may return to the kernel."""

    TC_NEXT = 0xFFFFFFFF
    """-1: on to the next program of the hook."""
    TC_OK = 0
    TC_SHOT = 2
    TC_REDIRECT = 7


class XdpAction(enum.IntEnum):
    """What the switch may return."""

    XDP_PASS = 2
    XDP_TX = 3


Action: TypeAlias = TcAction | XdpAction | int
"""A program under test returns a plain number, whatever it is."""
TC_NEXT, TC_OK, TC_SHOT, TC_REDIRECT = TcAction
XDP_PASS, XDP_TX = XdpAction
NO_TOKEN = bytes(12)


@attrs.frozen
class RoutedBy:
    """The packet was routed through this device, in the namespace with this cookie."""

    netns_cookie: int
    ifindex: int


@attrs.frozen
class SentBy:
    """The packet has no route, but a socket of this address family (17: packet, 44: XDP, 0: a tap's)."""

    netns_cookie: int
    family: int


@attrs.frozen
class DeferredChecksum:
    """A checksum that the sender leaves to a device: where what it covers starts, and where it is written."""

    start: int
    place: int


@attrs.frozen(kw_only=True)
class TunnelKey:
    """What a tunnel packet had in its outer headers.

    Attributes:
        vni: As received; zero is possible.
        remote: Outer source.
        local: Outer destination.
        ttl: Outer TTL or hop limit.
        control: Geneve's "control" flag.
        critical: Geneve's "an option is critical" flag.
        options: Geneve options, whole.
        dont_fragment: The outer header forbids fragments, which is nobody's concern.
    """

    vni: int
    remote: Ip
    local: Ip
    ttl: int
    control: bool = False
    critical: bool = False
    options: bytes = b""
    dont_fragment: bool = False


@attrs.frozen
class Outer:
    """The outer headers that a program asks for: VNI, destination, source, TTL, and nothing else."""

    vni: int
    host: Ip
    local: Ip
    ttl: int


class HopResult(enum.IntEnum):
    """What the kernel's routes say about a way: ``BPF_FIB_LKUP_RET_*`` in <linux/bpf.h>."""

    SUCCESS = 0
    BLACKHOLE = 1
    UNREACHABLE = 2
    PROHIBIT = 3
    NOT_FORWARDED = 4
    FORWARDING_OFF = 5
    UNSUPPORTED_LIGHTWEIGHT_TUNNEL = 6
    NO_NEIGHBOUR = 7
    FRAGMENTATION_NEEDED = 8


@attrs.frozen
class Hop:
    """The kernel's answer about the way to a host.

    Attributes:
        result: Whether there is a way.
        same_device: Whether it leads out of the device the packet came in by.
        destination_mac: Of the next hop.
        source_mac: Of the device.
    """

    result: HopResult
    same_device: bool
    destination_mac: Mac
    source_mac: Mac


@attrs.frozen(kw_only=True)
class Case:
    """A frame before a program.

    Attributes:
        program: Which.
        frame: From the Ethernet header on, at least 14 bytes.
        mark: Of the packet.
        token: The first three words of its control block, twelve bytes.
        priority: Of the packet.
        tstamp: Its departure time.
        gso_size: Bytes of payload in each segment, if the frame is to be segmented; else 0.
        checksum: One that a device shall complete.
        tag: A VLAN tag that the kernel keeps beside the frame.
        from_tunnel: Whether the tunnel itself received it.
        origin: The device it was routed through, or the socket it was sent by.
        key: Tunnel key; None if it did not come out of the tunnel.
        flow_hash: The kernel's hash of its flow.
        key_refused: The kernel does not take the tunnel key that the program sets.
        hop: The kernel's answer if a transit switch asks for the way.
        clock: Monotonic time, in nanoseconds.
        to_other: Whether the Ethernet destination is not the device's own MAC; for the shortcut.
        room_refused: The kernel does not take the outer headers away; for the shortcut.
    """

    program: ProgramName
    frame: bytes
    mark: int = 0
    token: bytes = NO_TOKEN
    priority: int = 0
    tstamp: int = 0
    gso_size: int = 0
    checksum: DeferredChecksum | None = None
    tag: int | None = None
    from_tunnel: bool = False
    origin: RoutedBy | SentBy | None = None
    key: TunnelKey | None = None
    flow_hash: int = 0
    key_refused: bool = False
    hop: Hop | None = None
    clock: int = 0
    to_other: bool = False
    room_refused: bool = False


@attrs.frozen
class Sent:
    """Counted for the sending endpoint."""

    number: int
    bytes: int
    dropped: bool


@attrs.frozen
class Received:
    """Counted for the receiving endpoint, or for the one that the frame was for."""

    number: int
    bytes: int


@attrs.frozen(kw_only=True)
class Outcome:
    """What becomes of a frame.

    Attributes:
        verdict: What the program counts, once, with the length that the frame came with.
        action: What it returns to the kernel.
        frame: As it goes on; None if it is dropped.
        mark: As it goes on.
        token: As a bounced frame goes on; of others it is nobody's concern.
        priority: As it goes on.
        tstamp: As it goes on.
        outer: Outer headers asked for.
        redirect: Where the frame goes on the tunnel instead of straight on.
        sent: What is counted for the sender.
        received: What is counted for the receiver.
        undelivered: What is counted for the endpoint that does not get the frame, besides the sender.
        asked: Source and destination of the way a transit switch asked for.
        told: How often the sender has been told in this second that a packet is too long, if it is told now.
    """

    verdict: Verdict
    action: Action
    frame: bytes | None = None
    mark: int = 0
    token: bytes = NO_TOKEN
    priority: int = 0
    tstamp: int = 0
    outer: Outer | None = None
    redirect: Literal["ingress", "egress"] | None = None
    sent: Sent | None = None
    received: Received | None = None
    undelivered: Received | None = None
    asked: tuple[Ip, Ip] | None = None
    told: int | None = None
