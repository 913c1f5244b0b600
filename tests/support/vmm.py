# SPDX-License-Identifier: Apache-2.0
"""A VM played on a descriptor: its frames with their virtio headers, and as much TCP as one connection needs."""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Callable

import attrs

import mizarnet as mz
from tests.frames import (
    ACK,
    BROADCAST,
    SYN,
    TCP,
    TYPE_ARP,
    arp,
    ethernet,
    frame,
    ip,
    ipv4,
    pseudo_sum,
    tcp,
    u16,
)
from tests.support.namespace import SOCKET_SECONDS

LARGEST = 12 + (1 << 16) + 14
NEEDS_CHECKSUM, TCPV4 = 1, 1  # <linux/virtio_net.h>: a flag, and a type of segmentation
MSS = 1410


@attrs.frozen
class VirtioHeader:
    """``struct virtio_net_hdr_v1``: what is left to do for a frame."""

    flags: int = 0
    gso_type: int = 0
    header_bytes: int = 0
    segment_bytes: int = 0
    checksum_start: int = 0
    checksum_offset: int = 0
    buffers: int = 0

    def pack(self) -> bytes:
        return struct.pack("=BB5H", *attrs.astuple(self))

    @classmethod
    def unpack(cls, data: bytes) -> VirtioHeader:
        return cls(*struct.unpack("=BB5H", data))


PLAIN = VirtioHeader()


class Vmm:
    """One descriptor of an endpoint's."""

    def __init__(self, endpoint: mz.Endpoint, fd: int) -> None:
        self.mac, self.ip = endpoint.mac.packed, str(endpoint.ip)
        self._fd = fd

    def write(self, frame: bytes, header: VirtioHeader = PLAIN) -> None:
        os.write(self._fd, header.pack() + frame)

    def read(
        self, wanted: Callable[[bytes], bool], *, timeout: float = SOCKET_SECONDS
    ) -> tuple[VirtioHeader, bytes]:
        """The first frame that is ``wanted``; the others are lost."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0 and select.select([self._fd], [], [], left)[0]:
            data = os.read(self._fd, LARGEST)
            if wanted(data[12:]):
                return VirtioHeader.unpack(data[:12]), data[12:]
        raise AssertionError("the frame did not come")

    def pending(self) -> list[bytes]:
        """All frames that wait."""
        found: list[bytes] = []
        while select.select([self._fd], [], [], 0)[0]:
            found.append(os.read(self._fd, LARGEST)[12:])
        return found

    def resolve(self, address: str) -> bytes:
        """The MAC of an address, by ARP."""
        self.write(ethernet(BROADCAST, self.mac, TYPE_ARP, arp(self.mac, self.ip, address)))
        answered = ip(address)
        _, reply = self.read(lambda frame: frame[12:14] == b"\x08\x06" and frame[28:32] == answered)
        return reply[22:28]

    def send(
        self,
        to: str,
        packet: bytes,
        header: VirtioHeader = PLAIN,
        *,
        by: str | None = None,
        protocol: int = 17,
        hops: int = 64,
    ) -> None:
        """An IPv4 packet from the VM's address, ``by`` a gateway."""
        datagram = ipv4(self.ip, to, packet, protocol=protocol, hops=hops)
        self.write(frame(self.resolve(by or to), self.mac, datagram), header)


class TcpConnection:
    """A VM's end of a TCP connection on a path that loses nothing."""

    def __init__(self, vmm: Vmm, peer: str, *, port: int, peer_port: int = 0) -> None:
        self._vmm, self._peer = vmm, peer
        self._port, self._peer_port = port, peer_port
        self._peer_mac = vmm.resolve(peer)
        self._sent, self._received = 1000, 0
        self.longest = VirtioHeader(), b""
        """The longest frame received so far, with its header."""

    def connect(self) -> None:
        self._emit(SYN)
        self._shake_hands()
        self._emit(ACK)

    def accept(self) -> None:
        self._shake_hands()
        self._emit(SYN | ACK)
        self._sent += 1

    def send(self, data: bytes) -> None:
        """All of it in one frame, for others to cut."""
        self._emit(ACK, data)
        self._sent += len(data)

    def receive(self, size: int) -> bytes:
        """That many bytes of what comes."""
        data = b""
        while len(data) < size:
            sequence, _, arrived = self._next()
            if arrived and sequence == self._received:
                data += arrived
                self._received += len(arrived)
            self._emit(ACK)
        return data

    def await_acknowledgement(self) -> None:
        """Of everything sent."""
        while self._next()[1] != self._sent:
            continue

    def _shake_hands(self) -> None:
        """Take the peer's SYN, and the first number of what it will send; ours counts as sent if it answers."""
        sequence, acknowledged, _ = self._next()
        self._received = sequence + 1
        if acknowledged == self._sent + 1:
            self._sent += 1

    def _next(self) -> tuple[int, int, bytes]:
        """Sequence number, acknowledgement and data of the connection's next segment."""
        peer, port = ip(self._peer), u16(self._port)
        header, frame = self._vmm.read(
            lambda frame: frame[23:24] == b"\x06" and (frame[26:30], frame[36:38]) == (peer, port)
        )
        self._peer_port = int.from_bytes(frame[34:36], "big")
        if len(frame) > len(self.longest[1]):
            self.longest = header, frame
        sequence, acknowledged = struct.unpack_from("!II", frame, 38)
        end = 14 + int.from_bytes(frame[16:18], "big")  # short frames are padded
        return sequence, acknowledged, frame[34 + 4 * (frame[46] >> 4) : end]

    def _emit(self, flags: int, data: bytes = b"") -> None:
        options = struct.pack("!BBHBBBx", 2, 4, MSS, 3, 3, 7) if flags & SYN else b""
        length = 20 + len(options) + len(data)
        seed = pseudo_sum(self._vmm.ip, self._peer, TCP, length)
        acknowledged = self._received if flags & ACK else 0
        numbers = {"sequence": self._sent, "acknowledged": acknowledged, "check": seed}
        segment = tcp(self._port, self._peer_port, flags, options=options, **numbers) + data
        packet = ipv4(self._vmm.ip, self._peer, segment, protocol=TCP)
        # The header's, for those who cut; and who does not cut completes the checksum alone.
        cut = (TCPV4, 54, MSS) if len(data) > MSS else (0, 0, 0)
        header = VirtioHeader(NEEDS_CHECKSUM, *cut, checksum_start=34, checksum_offset=16)
        self._vmm.write(frame(self._peer_mac, self._vmm.mac, packet), header)
