# SPDX-License-Identifier: Apache-2.0
"""The facts that a program gets in a dry run, and the record of its calls (``csrc/bpf/dry_run/facts.h``).

The layouts are compared with the object at each load. The classes below explain their members.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from mizarnet._model.layout import Layout, new

NO_IP, NO_MAC = bytes(16), bytes(6)
_OPTION_ROOM = 256

KEY: Final = Layout(
    "dry_key",
    ("family", "I"),
    ("vni", "I"),
    ("ttl", "I"),
    ("flags", "I"),
    ("remote", "16s"),
    ("local", "16s"),
)
FACTS: Final = Layout(
    "dry_facts",
    ("length", "I"),
    ("tag", "I"),
    ("hash", "I"),
    ("refuse_key", "I"),
    ("clock", "Q"),
    ("origin", "I"),
    ("origin_ifindex", "I"),
    ("origin_cookie", "Q"),
    ("origin_family", "I"),
    ("hop_result", "i"),
    ("hop_ifindex", "I"),
    ("hop_destination_mac", "6s"),
    ("hop_source_mac", "6s"),
    ("key", KEY),
    ("other_host", "I"),
    ("segment_size", "I"),
    ("refuse_room", "I"),
    ("pad", "4x"),
    ("is_checksum_deferred", "I"),
    ("checksum_start", "I"),
    ("checksum_place", "I"),
    ("option_bytes", "I"),
    ("options", f"{_OPTION_ROOM}s"),
    ("socket_family", "I"),
    ("socket_type", "I"),
    ("copy_result", "i"),
    ("pad", "4x"),
)
ASKED: Final = Layout(
    "dry_asked",
    ("verdicts", "I"),
    ("program", "I"),
    ("verdict", "I"),
    ("length", "I"),
    ("sent", "I"),
    ("sent_slot", "I"),
    ("sent_verdict", "I"),
    ("sent_length", "I"),
    ("received", "I"),
    ("received_slot", "I"),
    ("received_length", "I"),
    ("undelivered", "I"),
    ("undelivered_slot", "I"),
    ("undelivered_verdict", "I"),
    ("undelivered_length", "I"),
    ("redirects", "I"),
    ("redirect_ifindex", "I"),
    ("redirect_flags", "I"),
    ("keys", "I"),
    ("key", KEY),
    ("key_extra", "I"),
    ("hops", "I"),
    ("hop_family", "I"),
    ("hop_protocol", "I"),
    ("hop_ifindex", "I"),
    ("hop_source", "16s"),
    ("hop_destination", "16s"),
    ("copies", "I"),
)


class Origin(enum.IntEnum):
    """Kind of a frame's origin (``enum origin_kind``)."""

    NONE = 0
    DEVICE = 1
    """The frame was routed through a device."""
    SOCKET = 2
    """The frame has no route, but a socket."""


class Key(NamedTuple):
    """Tunnel key: facts of a received packet's outer headers, or the outer headers that a program sets.

    Addresses are 16 bytes in network byte order. An IPv4 address is in the last four of them. The twelve bytes before
    it may have any value in facts, and are zero in a recorded call.

    Attributes:
        family: IP version of the outer headers, 4 or 6; 0: no tunnel key.
        vni: VNI of the tenant network.
        ttl: TTL or hop limit of the outer header.
        flags: In facts: flags as ``BPF_F_TUNINFO_FLAGS`` gives them, in network byte order. In a call: ``BPF_F_*``.
        remote: In facts: outer source address. In a call: outer destination address.
        local: Underlay address of this host.
    """

    family: int = 0
    vni: int = 0
    ttl: int = 0
    flags: int = 0
    remote: bytes = NO_IP
    local: bytes = NO_IP


class Facts(NamedTuple):
    """Facts that a program gets in a dry run in place of the kernel's answers.

    Attributes:
        tag: VLAN tag that is kept beside the frame, with its protocol in the upper 16 bits; 0: none.
        hash: Hash of the flow.
        refuse_key: Whether setting a tunnel key fails.
        clock: Monotonic time, in nanoseconds.
        origin: Kind of the frame's origin, an :class:`Origin`.
        origin_ifindex: Index of the device that the frame was routed through.
        origin_cookie: Cookie of the device's or socket's namespace.
        origin_family: Address family of the socket, ``AF_*``.
        hop_result: Result of the FIB look-up for the way to a host: ``BPF_FIB_LKUP_RET_*``.
        hop_ifindex: Index of the device that the way leads out of.
        hop_destination_mac: MAC address of the next hop.
        hop_source_mac: MAC address of the device that the way leads out of.
        key: Tunnel key of the packet; family 0: none.
        other_host: Whether the outer Ethernet address is not that of the device; for the shortcut.
        segment_size: Payload of each segment in bytes, if the frame is to be segmented, for the shortcut: a test run
            takes no outer headers off a packet whose segment size is in its context.
        refuse_room: Whether taking the outer headers off fails.
        is_checksum_deferred: Whether a checksum is left to the device.
        checksum_start: Offset of the first byte that the checksum covers.
        checksum_place: Offset at which the checksum is written.
        options: Geneve options of the tunnel packet.
        socket_family: Address family of the socket that a frame of this host comes from, ``AF_*``.
        socket_type: Type of that socket, ``SOCK_*``; 0: none.
        copy_result: Result of copying the frame; below 0: the kernel refused.
    """

    tag: int = 0
    hash: int = 0
    refuse_key: bool = False
    clock: int = 0
    origin: int = Origin.NONE
    origin_ifindex: int = 0
    origin_cookie: int = 0
    origin_family: int = 0
    hop_result: int = 0
    hop_ifindex: int = 0
    hop_destination_mac: bytes = NO_MAC
    hop_source_mac: bytes = NO_MAC
    key: Key = Key()
    other_host: bool = False
    segment_size: int = 0
    refuse_room: bool = False
    is_checksum_deferred: bool = False
    checksum_start: int = 0
    checksum_place: int = 0
    options: bytes = b""
    socket_family: int = 0
    socket_type: int = 0
    copy_result: int = 0

    def pack(self, length: int) -> bytes:
        """Packed ``struct dry_facts``, for a frame that is cut or lengthened to ``length`` bytes; 0: neither."""
        options = self.options
        return FACTS.pack(length, *self[:12], *self.key, *self[13:19], len(options), options, *self[20:])


class Asked(NamedTuple):
    """Recorded calls of a program, and what it counted (``struct dry_asked``).

    Members other than the numbers of calls describe the last call of their kind.

    Attributes:
        verdicts: Number of verdicts that were counted.
        program: Program for which the verdict was counted.
        verdict: Verdict that was counted.
        length: Frame length in bytes that was counted.
        sent: Number of counts for a sender.
        sent_slot: Interface of the sender.
        sent_verdict: Verdict that was counted for the sender.
        sent_length: Frame length in bytes that was counted for the sender.
        received: Number of counts for a receiver.
        received_slot: Interface of the receiver.
        received_length: Frame length in bytes that was counted for the receiver.
        undelivered: Number of counts for an endpoint that did not get the frame.
        undelivered_slot: Interface of that endpoint.
        undelivered_verdict: Verdict that was counted for that endpoint.
        undelivered_length: Frame length in bytes that was counted for that endpoint.
        redirects: Number of redirects of the frame.
        redirect_ifindex: Index of the device that the frame was redirected to.
        redirect_flags: Flags of the redirect: ``BPF_F_INGRESS`` (1), or 0.
        keys: Number of tunnel keys that were set.
        key_family: Member ``family`` of :attr:`key`.
        key_vni: Member ``vni`` of :attr:`key`.
        key_ttl: Member ``ttl`` of :attr:`key`.
        key_flags: Member ``flags`` of :attr:`key`.
        key_remote: Member ``remote`` of :attr:`key`.
        key_local: Member ``local`` of :attr:`key`.
        key_extra: Not zero if another member of the kernel's tunnel key was not zero.
        hops: Number of FIB look-ups.
        hop_family: Address family of the look-up, ``AF_*``.
        hop_protocol: Upper protocol of the look-up, such as 17 for UDP.
        hop_ifindex: Index of the device of the look-up.
        hop_source: Source address of the look-up, 16 bytes in network byte order; IPv4 is in the first four.
        hop_destination: Destination address of the look-up, in the same form.
        copies: Number of copies of the frame.
    """

    verdicts: int = 0
    program: int = 0
    verdict: int = 0
    length: int = 0
    sent: int = 0
    sent_slot: int = 0
    sent_verdict: int = 0
    sent_length: int = 0
    received: int = 0
    received_slot: int = 0
    received_length: int = 0
    undelivered: int = 0
    undelivered_slot: int = 0
    undelivered_verdict: int = 0
    undelivered_length: int = 0
    redirects: int = 0
    redirect_ifindex: int = 0
    redirect_flags: int = 0
    keys: int = 0
    key_family: int = 0
    key_vni: int = 0
    key_ttl: int = 0
    key_flags: int = 0
    key_remote: bytes = NO_IP
    key_local: bytes = NO_IP
    key_extra: int = 0
    hops: int = 0
    hop_family: int = 0
    hop_protocol: int = 0
    hop_ifindex: int = 0
    hop_source: bytes = NO_IP
    hop_destination: bytes = NO_IP
    copies: int = 0

    @classmethod
    def unpack(cls, data: bytes) -> Asked:
        """The record of calls from a packed ``struct dry_asked``."""
        return new(Asked, ASKED.unpack(data))

    @property
    def key(self) -> Key:
        """Tunnel key that was set last."""
        return Key(*self[19:25])
