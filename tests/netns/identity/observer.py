# SPDX-License-Identifier: Apache-2.0
"""An eye at the egress of a tunnel, ahead of the transit agent: whose socket and whose route a frame carries."""

from __future__ import annotations

import socket
import struct
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs

import mizarnet as mz
from mizarnet._kernel.bpf import Direction, ObjectSpec
from mizarnet._kernel.netlink import Session
from tests.support.standing import at_the_head

SOURCE = Path(__file__).with_name("observe.bpf.c")
FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror")

NO_SOCKET = 0xFFFF
_SEEN = struct.Struct("=QQIIHH6sBBBB2x")

_IPV6 = 0x86DD
_ARP = 0x0806
_ARP_KINDS = {1: "ARP request", 2: "ARP reply"}
_ICMP_KINDS = {0: "ICMP echo reply", 3: "ICMP unreachable", 8: "ICMP echo request"}
_ICMPV6_KINDS = {
    1: "ICMPv6 unreachable",
    128: "ICMPv6 echo request",
    129: "ICMPv6 echo reply",
    133: "router solicitation",
    135: "neighbour solicitation",
    143: "MLD report",
}
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16


def build(directory: Path) -> Path:
    """Compile the observer into ``directory``."""
    output = directory / "observe.bpf.o"
    include = f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"
    command = ["clang", *FLAGS, "-idirafter", include, "-c", str(SOURCE), "-o", str(output)]
    subprocess.run(command, check=True, timeout=60)
    subprocess.run(["llvm-strip", "-g", str(output)], check=True, timeout=60)
    return output


@attrs.frozen
class Frame:
    """Frames of one kind and origin, as they met the transit agent.

    Attributes:
        kind: What it was, such as ``"TCP SYN"``.
        socket: Whose socket it carried: ``"own"``, ``"initial"`` (of the initial namespace), ``"other"``, ``"none"``.
        device: Whose device it was routed through: ``"own"``, ``"other"``, ``"none"``.
        family: Of the socket; -1 without one.
        super_packet: Whether it is to be segmented later.
        mark: Of the packet.
    """

    kind: str
    socket: str
    device: str
    family: int
    super_packet: bool
    mark: int


@attrs.frozen
class Origin:
    """The endpoint that frames are asked about: its MAC, its namespace's cookie, its device's index."""

    mac: bytes
    cookie: int
    ifindex: int


class Observer:
    """The observing program on a tunnel; :meth:`close` takes it off."""

    def __init__(self, path: Path, tunnel: mz.Tunnel) -> None:
        """Load the object at ``path`` and put its program ahead of the agent's."""
        with Session.open() as initial:  # tests run in it
            self._initial = initial.cookie
        with ObjectSpec.open(path, name="observe") as spec:
            self._object = spec.load()
        self._ahead = ExitStack()
        program = self._object.programs["observe"]
        self._ahead.enter_context(at_the_head(tunnel._host, tunnel.ifindex, program, Direction.EGRESS))

    def close(self) -> None:
        """Take the program off."""
        self._ahead.close()
        self._object.close()

    def forget(self) -> None:
        """Forget what was seen."""
        frames = self._object.maps["frames"]
        for key in list(frames.keys()):
            frames.delete(key)

    def frames(self, origin: Origin) -> set[Frame]:
        """What was seen with the source MAC of ``origin``."""
        return set(self._decode(origin))

    def _decode(self, origin: Origin) -> Iterator[Frame]:
        for key, _ in self._object.maps["frames"].items():
            cookie, device_cookie, ifindex, mark, family, ethertype, mac, *what, super_packet, fragment = (
                _SEEN.unpack(key)
            )
            if mac != origin.mac:
                continue
            own_device = (device_cookie, ifindex) == (origin.cookie, origin.ifindex)
            yield Frame(
                kind="fragment" if fragment else kind(ethertype, *what),
                socket="none" if family == NO_SOCKET else self._whose(cookie, origin),
                device="own" if own_device else "other" if device_cookie else "none",
                family=-1 if family == NO_SOCKET else family,
                super_packet=bool(super_packet),
                mark=mark,
            )

    def _whose(self, cookie: int, origin: Origin) -> str:
        if cookie == origin.cookie:
            return "own"
        return "initial" if cookie == self._initial else "other"


def kind(ethertype: int, protocol: int, detail: int) -> str:
    """A name for a frame."""
    if ethertype == _ARP:
        return _ARP_KINDS[detail]
    if protocol == socket.IPPROTO_ICMP:
        return _ICMP_KINDS.get(detail, f"ICMP {detail}")
    if protocol == socket.IPPROTO_ICMPV6:
        return _ICMPV6_KINDS.get(detail, f"ICMPv6 {detail}")
    prefix = "IPv6 " if ethertype == _IPV6 else ""
    if protocol == socket.IPPROTO_TCP:
        return f"{prefix}TCP {tcp_kind(detail)}"
    return f"{prefix}UDP" if protocol == socket.IPPROTO_UDP else f"{prefix}protocol {protocol}"


def tcp_kind(flags: int) -> str:
    """A name for a segment by its flags."""
    if flags & _RST:
        return "RST"
    if flags & _SYN:
        return "SYN+ACK" if flags & _ACK else "SYN"
    return "FIN" if flags & _FIN else "ACK"
