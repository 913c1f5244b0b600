# SPDX-License-Identifier: Apache-2.0
"""What a program is told and asks for when it runs without a network (``csrc/bpf/dry_run/facts.h``).

The layouts are compared with the object at each load. What the members mean stands with their names.
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
    ("origin", "I"),
    ("origin_ifindex", "I"),
    ("origin_cookie", "Q"),
    ("origin_family", "I"),
    ("hop_result", "i"),
    ("hop_ifindex", "I"),
    ("hop_destination_mac", "6s"),
    ("hop_source_mac", "6s"),
    ("key", KEY),
    ("is_checksum_deferred", "I"),
    ("checksum_start", "I"),
    ("checksum_place", "I"),
    ("option_bytes", "I"),
    ("options", f"{_OPTION_ROOM}s"),
)
ASKED: Final = Layout(
    "dry_asked",
    ("verdicts", "I"),
    ("program", "I"),
    ("verdict", "I"),
    ("length", "I"),
    ("sent", "I"),
    ("sent_interface", "I"),
    ("sent_verdict", "I"),
    ("sent_length", "I"),
    ("received", "I"),
    ("received_interface", "I"),
    ("received_length", "I"),
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
)


class Origin(enum.IntEnum):
    """Where a frame comes from (``enum origin_kind``)."""

    NONE = 0
    DEVICE = 1
    """It was routed through a device."""
    SOCKET = 2
    """It has no route, but a socket."""


class Key(NamedTuple):
    """Outer headers: those a tunnel packet had, or those a program asks for.

    Addresses are 16 bytes in network order. An IPv4 address stands in the last four of them; before it, anything may
    stand in what is told, and zeros stand in what was asked.

    Attributes:
        family: 4 or 6; 0: no tunnel key.
        vni: Tenant network space.
        ttl: Outer TTL or hop limit.
        flags: Told: as ``BPF_F_TUNINFO_FLAGS`` gives them, in network order. Asked: ``BPF_F_*``.
        remote: Told: outer source. Asked: outer destination.
        local: Of this host.
    """

    family: int = 0
    vni: int = 0
    ttl: int = 0
    flags: int = 0
    remote: bytes = NO_IP
    local: bytes = NO_IP


class Facts(NamedTuple):
    """What a program is told that no run has by itself.

    Attributes:
        tag: VLAN protocol (upper half) and tag that are kept beside the frame; 0: none.
        hash: The kernel's hash of the flow.
        refuse_key: Whether the kernel refuses the tunnel key that a program sets.
        origin: Where the frame comes from.
        origin_ifindex: The device it was routed through.
        origin_cookie: Cookie of the device's or socket's namespace.
        origin_family: Address family of the socket.
        hop_result: What the kernel's routes say about the way to a host: ``BPF_FIB_LKUP_RET_*``.
        hop_ifindex: The device that the way leads out of.
        hop_destination_mac: Of the next hop.
        hop_source_mac: Of that device.
        key: The tunnel packet's outer headers.
        is_checksum_deferred: Whether a device shall complete a checksum.
        checksum_start: Where what it covers starts.
        checksum_place: Where it is written.
        options: Geneve options of the tunnel packet.
    """

    tag: int = 0
    hash: int = 0
    refuse_key: bool = False
    origin: int = Origin.NONE
    origin_ifindex: int = 0
    origin_cookie: int = 0
    origin_family: int = 0
    hop_result: int = 0
    hop_ifindex: int = 0
    hop_destination_mac: bytes = NO_MAC
    hop_source_mac: bytes = NO_MAC
    key: Key = Key()
    is_checksum_deferred: bool = False
    checksum_start: int = 0
    checksum_place: int = 0
    options: bytes = b""

    def pack(self, length: int) -> bytes:
        """``struct dry_facts``, for a frame that is cut to ``length`` bytes if that is not zero."""
        options = self.options
        return FACTS.pack(length, *self[:11], *self.key, *self[12:15], len(options), options)


class Asked(NamedTuple):
    """What a program asked for, and what it counted (``struct dry_asked``).

    Attributes:
        verdicts: How often a verdict was counted.
        program: For which program, the last time.
        verdict: Which.
        length: With which length.
        sent: How often something was counted for a sender.
        sent_interface: For which, the last time.
        sent_verdict: With which verdict.
        sent_length: With which length.
        received: How often something was counted for a receiver.
        received_interface: For which, the last time.
        received_length: With which length.
        redirects: How often the frame was redirected.
        redirect_ifindex: To which device, the last time.
        redirect_flags: ``BPF_F_INGRESS`` (1), or 0.
        keys: How often a tunnel key was set.
        key_family: The members of :attr:`key`.
        key_vni: As ``key_family``.
        key_ttl: As ``key_family``.
        key_flags: As ``key_family``.
        key_remote: As ``key_family``.
        key_local: As ``key_family``.
        key_extra: Not zero if anything else in the key was not.
        hops: How often the way to a host was asked for.
        hop_family: With which address family, the last time.
        hop_protocol: For which upper protocol.
        hop_ifindex: By which device.
        hop_source: From where; an IPv4 address stands in the first four bytes.
        hop_destination: Where to.
    """

    verdicts: int = 0
    program: int = 0
    verdict: int = 0
    length: int = 0
    sent: int = 0
    sent_interface: int = 0
    sent_verdict: int = 0
    sent_length: int = 0
    received: int = 0
    received_interface: int = 0
    received_length: int = 0
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

    @classmethod
    def unpack(cls, data: bytes) -> Asked:
        """Of the bytes in the map."""
        return new(Asked, ASKED.unpack(data))

    @property
    def key(self) -> Key:
        """The tunnel key that was set last."""
        return Key(*self[15:21])
