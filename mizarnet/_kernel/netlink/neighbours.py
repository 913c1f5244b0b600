# SPDX-License-Identifier: Apache-2.0
"""Neighbours of a namespace, and the kernel's tables of them, which all namespaces share."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress

import attrs

from mizarnet._kernel.netlink.addresses import FAMILIES
from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.rtnetlink import HEADER_BYTES, Rtm, attribute, attributes
from mizarnet._model.arguments import IPAddress
from mizarnet._model.layout import read_number
from mizarnet.errors import KernelError

_NDMSG = struct.Struct("=BxxxiHBB")
"""``struct ndmsg``: family, ifindex, state, flags and type."""
_NDTMSG = struct.Struct("=Bxxx")
"""``struct ndtmsg``: family."""
_NDA_DST, _NDA_LLADDR, _NDA_CACHEINFO, _NDA_IFINDEX = 1, 2, 3, 8
_NUD_INCOMPLETE, _NUD_FAILED, _NUD_PERMANENT = 0x01, 0x20, 0x80
_NTF_EXT_LEARNED = 0x10
_NDTA_NAME, _NDTA_THRESH3, _NDTA_CONFIG, _NDTA_STATS = 1, 4, 5, 7
_ENTRIES_AT = 4  # struct ndt_config: two __u16, then the entries
_TABLE_FULLS_AT = 80  # struct ndt_stats: the eleventh __u64
_VERSIONS = {"arp_cache": 4, "ndisc_cache": 6}
_ADDRESSES: Mapping[int, Callable[[bytes], IPAddress]] = {
    int(socket.AF_INET): ipaddress.IPv4Address,
    int(socket.AF_INET6): ipaddress.IPv6Address,
}


@attrs.frozen
class Neighbour:
    """A neighbour as the kernel knows it.

    Attributes:
        ip: Its address.
        awaited: Whether it was asked for its MAC, and has not answered yet.
        failed: Whether it did not answer when it was asked for its MAC.
        lasting: Whether it counts towards no limit: somebody else than the kernel put it there.
        age: Time in seconds since its state changed.
        mac: Its MAC, as ``"aa:bb:cc:dd:ee:ff"``; None: not known.
    """

    ip: IPAddress
    awaited: bool
    failed: bool
    lasting: bool
    age: float
    mac: str | None


@attrs.frozen
class NeighbourTable:
    """One of the kernel's tables of neighbours, for all namespaces together.

    Attributes:
        version: Version of IP.
        entries: Neighbours in it.
        limit: Most that there is room for, ``gc_thresh3``.
        refused: How often a neighbour was refused for want of room, since boot.
    """

    version: int
    entries: int
    limit: int
    refused: int


def list_neighbours(session: Session, ifindex: int | None = None) -> list[Neighbour]:
    """Neighbours on one link (filtered by the kernel) or all, of both IP versions."""
    body = _NDMSG.pack(0, 0, 0, 0, 0)
    if ifindex is not None:
        body += attribute(_NDA_IFINDEX, struct.pack("=I", ifindex))
    found: list[Neighbour] = []
    for message in session.request_all("list neighbours", Rtm.GETNEIGH, body):
        family, _, state, flags, _ = _NDMSG.unpack_from(message, HEADER_BYTES)
        carried = attributes(message, {_NDA_DST, _NDA_LLADDR, _NDA_CACHEINFO}, at=HEADER_BYTES + _NDMSG.size)
        if family in _ADDRESSES and _NDA_DST in carried:
            mac = carried.get(_NDA_LLADDR)
            ip = _ADDRESSES[family](carried[_NDA_DST])
            lasting = bool(state & _NUD_PERMANENT or flags & _NTF_EXT_LEARNED)
            age = _age(carried.get(_NDA_CACHEINFO, b""))
            awaited, failed = bool(state & _NUD_INCOMPLETE), bool(state & _NUD_FAILED)
            found.append(Neighbour(ip, awaited, failed, lasting, age, mac.hex(":") if mac else None))
    return found


def ask_again(session: Session, ifindex: int) -> None:
    """Have the kernel ask at once for each neighbour on a link that it is waiting for, when the next packet goes there.

    It would repeat its question only after a second (``retrans_time_ms``). Packets that wait for the answer are lost.
    What the kernel refuses is left: a second is not worth an error of a call that has done its work.
    """
    awaited: list[Neighbour] = []
    with suppress(KernelError):
        awaited = [each for each in list_neighbours(session, ifindex) if each.awaited]
    for each in awaited:
        body = _NDMSG.pack(FAMILIES[each.ip.version], ifindex, 0, 0, 0) + attribute(_NDA_DST, each.ip.packed)
        with suppress(KernelError):  # it may have answered meanwhile, and be gone
            session.request(f"forget neighbour {each.ip}", Rtm.DELNEIGH, body)


def _age(packed: bytes) -> float:
    """Seconds since the last change, in ``struct nda_cacheinfo``: four __u32, the third in hundredths of a second."""
    return struct.unpack_from("=I", packed, 8)[0] / 100 if len(packed) >= 12 else 0.0


def neighbour_tables(session: Session) -> list[NeighbourTable]:
    """The tables of IPv4 and IPv6; any namespace may ask for them."""
    found: list[NeighbourTable] = []
    for message in session.request_all("read the neighbour tables", Rtm.GETNEIGHTBL, _NDTMSG.pack(0)):
        carried = attributes(message, at=HEADER_BYTES + _NDTMSG.size)
        version = _VERSIONS.get(carried.get(_NDTA_NAME, b"").rstrip(b"\0").decode())
        # The messages that follow in the same dump have the settings of single devices.
        if version is None or _NDTA_CONFIG not in carried:
            continue
        (entries,) = struct.unpack_from("=I", carried[_NDTA_CONFIG], _ENTRIES_AT)
        stats = carried.get(_NDTA_STATS, b"")
        refused = struct.unpack_from("=Q", stats, _TABLE_FULLS_AT)[0] if len(stats) > _TABLE_FULLS_AT else 0
        found.append(NeighbourTable(version, entries, read_number(carried[_NDTA_THRESH3]), refused))
    return found
