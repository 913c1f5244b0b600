# SPDX-License-Identifier: Apache-2.0
"""A link, read from the bytes of the kernel's message."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Mapping

import attrs

from mizarnet._kernel.rtnetlink import HEADER_BYTES, attributes
from mizarnet._model.layout import read_number

IFF_UP = 0x1
IFF_NOARP = 0x80
IFF_MULTICAST = 0x1000
IFINDEXES = range(1, 1 << 31)
"""What the kernel may give to a device for its index."""
_MAC_TEXT = len("aa:bb:cc:dd:ee:ff")
_IFF_LOOPBACK = 0x8
_IFF_LOWER_UP = 0x10000

IFINFOMSG = struct.Struct("=BxHiII")
"""``struct ifinfomsg``: family, type, ifindex, flags, and which of the flags to change."""

# <linux/if_link.h>
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
_IFLA_QDISC = 6
IFLA_MASTER = 10
IFLA_LINKINFO = 18
IFLA_IFALIAS = 20
IFLA_GROUP = 27
IFLA_NET_NS_FD = 28
IFLA_NUM_TX_QUEUES = 31
IFLA_LINK_NETNSID = 37
_IFLA_XDP = 43
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
# The program; or several, in different modes, each under its mode: IFLA_XDP_{,DRV_,SKB_,HW_}PROG_ID.
_IFLA_XDP_PROG_IDS = {4, 5, 6, 7}
IFLA_MACVLAN_MODE = 1  # of macvtap, too
_IFLA_TUNNEL_ID = 1  # of vxlan and geneve
IFLA_VXLAN_PORT, IFLA_VXLAN_COLLECT_METADATA = 15, 25
IFLA_GENEVE_PORT, IFLA_GENEVE_COLLECT_METADATA = 5, 6

_WANTED = {
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_MTU,
    IFLA_LINK,
    _IFLA_QDISC,
    IFLA_MASTER,
    IFLA_LINKINFO,
    IFLA_IFALIAS,
    IFLA_GROUP,
    IFLA_NUM_TX_QUEUES,
    IFLA_LINK_NETNSID,
    _IFLA_XDP,
}
MACVLAN_MODES = {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}
"""Numbers of the modes of a MACVLAN or MACVTAP."""


@attrs.frozen
class Link:
    """A link as the kernel described it.

    Attributes:
        ifindex: Index in its namespace.
        name: Name of the device.
        kind: Kind of the device: ``"vxlan"``, ``"macvlan"``, …; empty for a physical device and for lo.
        mtu: MTU in bytes.
        mac: MAC address, as ``"aa:bb:cc:dd:ee:ff"``; None for a device without one.
        flags: Bits of IFF_*.
        alias: Free text kept by the kernel.
        parent_ifindex: Index of the lower device (for veth: of the peer); None without one.
        parent_nsid: Id by which this namespace knows the parent's; None when it is this one.
        num_tx_queues: How many transmit queues it has.
        qdisc: Kind of the root qdisc: ``"noqueue"``, ``"noop"`` while down, ….
        port: UDP port of a vxlan or geneve device.
        external: Whether a vxlan or geneve device is in metadata mode.
        vni: Fixed VNI of a vxlan or geneve device that is not in metadata mode.
        mode: Mode of a macvlan or macvtap device.
        xdp_ids: Ids of the XDP programs that the device runs.
        master_ifindex: Index of the bridge, bond or switch that it is a port of; None without one.
        group: Group of devices that it belongs to; 0 unless somebody changed it.
    """

    ifindex: int
    name: str
    kind: str
    mtu: int
    mac: str | None
    flags: int
    alias: str = ""
    parent_ifindex: int | None = None
    parent_nsid: int | None = None
    num_tx_queues: int = 1
    qdisc: str = ""
    port: int | None = None
    external: bool = False
    vni: int | None = None
    mode: str | None = None
    xdp_ids: tuple[int, ...] = ()
    master_ifindex: int | None = None
    group: int = 0

    @property
    def up(self) -> bool:
        """Whether it is administratively up."""
        return bool(self.flags & IFF_UP)

    @property
    def has_carrier(self) -> bool:
        """Whether the device below, the cable or the other end is there."""
        return bool(self.flags & _IFF_LOWER_UP)

    @property
    def is_ethernet(self) -> bool:
        """Whether it has an Ethernet header in front of its packets: a MAC of six bytes, and it is no loopback."""
        return self.mac is not None and len(self.mac) == _MAC_TEXT and not self.flags & _IFF_LOOPBACK

    @property
    def silent(self) -> bool:
        """Whether it neither resolves neighbours nor takes part in multicast."""
        return bool(self.flags & IFF_NOARP) and not self.flags & IFF_MULTICAST


def decode_link(message: bytes) -> Link:
    """The link that an RTM_NEWLINK message, its header included, describes."""
    _, _, ifindex, flags, _ = IFINFOMSG.unpack_from(message, HEADER_BYTES)
    found = attributes(message, _WANTED, at=HEADER_BYTES + IFINFOMSG.size)
    info = attributes(found[IFLA_LINKINFO]) if IFLA_LINKINFO in found else {}
    kind = _text(info, IFLA_INFO_KIND)
    data = info.get(IFLA_INFO_DATA, b"")
    port, external, vni = _tunnel(kind, data)
    mac, name = found.get(IFLA_ADDRESS), found.get(IFLA_IFNAME, b"")
    return Link(
        ifindex=ifindex,
        name=os.fsdecode(name.rstrip(b"\0")),
        kind=kind,
        mtu=_number(found, IFLA_MTU) or 0,
        mac=mac.hex(":") if mac else None,
        flags=flags,
        alias=_text(found, IFLA_IFALIAS),
        parent_ifindex=_number(found, IFLA_LINK),
        parent_nsid=_nsid(found.get(IFLA_LINK_NETNSID)),
        num_tx_queues=_number(found, IFLA_NUM_TX_QUEUES) or 0,
        qdisc=_text(found, _IFLA_QDISC),
        port=port,
        external=external,
        vni=vni,
        mode=_mode(kind, data),
        xdp_ids=_xdp_ids(found.get(_IFLA_XDP, b"")),
        master_ifindex=_number(found, IFLA_MASTER),
        group=_number(found, IFLA_GROUP) or 0,
    )


def _number(found: Mapping[int, bytes], kind: int) -> int | None:
    value = found.get(kind)
    return None if value is None else read_number(value)


def _nsid(value: bytes | None) -> int | None:
    """Unlike other numbers it may be below 0: the parent's namespace is ending, and has no id any more."""
    return None if value is None else int.from_bytes(value, sys.byteorder, signed=True)


def _text(found: Mapping[int, bytes], kind: int) -> str:
    value = found.get(kind)
    return "" if value is None else os.fsdecode(value.rstrip(b"\0"))


def _tunnel(kind: str, data: bytes) -> tuple[int | None, bool, int | None]:
    """Port, metadata mode and fixed VNI of a vxlan or geneve device."""
    if kind == "vxlan":
        found = attributes(data)
        port, external = IFLA_VXLAN_PORT, any(found.get(IFLA_VXLAN_COLLECT_METADATA, b""))
    elif kind == "geneve":
        found = attributes(data)
        port, external = IFLA_GENEVE_PORT, IFLA_GENEVE_COLLECT_METADATA in found  # without a value
    else:
        return None, False, None
    number = int.from_bytes(found[port], "big") if port in found else None
    return number, external, None if external else _number(found, _IFLA_TUNNEL_ID)


def _mode(kind: str, data: bytes) -> str | None:
    if kind not in ("macvlan", "macvtap"):
        return None
    number = _number(attributes(data, (IFLA_MACVLAN_MODE,)), IFLA_MACVLAN_MODE)
    return None if number is None else MACVLAN_MODES.get(number, str(number))


def _xdp_ids(data: bytes) -> tuple[int, ...]:
    found = attributes(data, _IFLA_XDP_PROG_IDS)
    return tuple(sorted({number for value in found.values() if (number := read_number(value))}))
