# SPDX-License-Identifier: Apache-2.0
"""Reading, changing and deleting links."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Literal

import attrs

from mizarnet._kernel.netlink._messages import Attribute, Reply, Request, nested
from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.rtnetlink import Flag, Rtm
from mizarnet.errors import NetlinkError

LOOPBACK_IFINDEX = 1
SAME_NAMESPACE = -1
"""The session's own namespace, in place of the id of another."""

IFF_UP = 0x1
IFF_NOARP = 0x80
IFF_MULTICAST = 0x1000

ADDRGENMODE_NONE = 1
_SKIP_STATS = 8  # RTEXT_FILTER_SKIP_STATS: a third of the reply


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

    @property
    def up(self) -> bool:
        """Whether it is administratively up."""
        return bool(self.flags & IFF_UP)

    @property
    def silent(self) -> bool:
        """Whether it neither resolves neighbours nor takes part in multicast."""
        return bool(self.flags & IFF_NOARP) and not self.flags & IFF_MULTICAST


def get_link(
    session: Session, name: str | None = None, *, ifindex: int | None = None, nsid: int = SAME_NAMESPACE
) -> Link | None:
    """One link, by name or by ifindex; None when there is no such link, or no such namespace.

    A filtered request: its cost does not depend on the number of links.

    Args:
        session: Session of the link's namespace, or of one that knows it as ``nsid``.
        name: Name of the link.
        ifindex: Or its index.
        nsid: Id of the link's namespace, from `nsid_of`.

    Raises:
        NetlinkError: The kernel refused, for a reason other than absence.
    """
    attributes: list[Attribute] = [("IFLA_EXT_MASK", _SKIP_STATS)]
    if name is not None:
        attributes.append(("IFLA_IFNAME", name))
    attributes += _target(nsid)
    request = Request(Rtm.GETLINK, fields={"index": ifindex or 0}, attributes=attributes)
    try:
        replies = session.request(f"read link {name or ifindex}", request)
    except NetlinkError as error:
        if error.errno == errno.ENODEV or no_namespace(error, nsid):
            return None
        raise
    return _link(replies[0])


def dump_links(session: Session, *, kind: str | None = None, nsid: int = SAME_NAMESPACE) -> list[Link]:
    """All links of a namespace, or those of one kind (filtered by the kernel).

    Args:
        session: Session of the namespace, or of one that knows it as ``nsid``.
        kind: Kind of the links to return; None: any.
        nsid: Id of the namespace, from `nsid_of`; one that ended has no links.
    """
    attributes: list[Attribute] = [("IFLA_EXT_MASK", _SKIP_STATS), *_target(nsid)]
    if kind is not None:
        attributes.append(("IFLA_LINKINFO", nested(("IFLA_INFO_KIND", kind))))
    request = Request(Rtm.GETLINK, attributes=attributes, flags=Flag.DUMP)
    try:
        links = [_link(reply) for reply in session.request("list links", request)]
    except NetlinkError as error:
        if not no_namespace(error, nsid):
            raise
        return []
    # The kernel does not filter by a kind whose module is not loaded.
    return [link for link in links if kind is None or link.kind == kind]


def set_link(
    session: Session,
    ifindex: int,
    *,
    up: bool | None = None,
    arp: bool | None = None,
    multicast: bool | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    name: str | None = None,
    alias: str | None = None,
    address_generation: Literal["none"] | None = None,
    master: int | None = None,
) -> None:
    """Change what is given of a link, in one message.

    Args:
        session: Session of the link's namespace.
        ifindex: Index of the link.
        up: Whether it is administratively up.
        arp: Whether it resolves neighbours.
        multicast: Whether it takes part in multicast.
        mtu: MTU in bytes.
        mac: MAC address, as ``"aa:bb:cc:dd:ee:ff"``.
        name: New name.
        alias: Free text, at most 254 bytes.
        address_generation: ``"none"``: no IPv6 link-local address when it goes up.
        master: Index of the bridge that it becomes a port of.

    Raises:
        NetlinkError: The kernel refused (ENODEV: no such link).
    """
    flags, change = _flag_bits(
        {IFF_UP: up, IFF_NOARP: None if arp is None else not arp, IFF_MULTICAST: multicast}
    )
    values = (
        ("IFLA_MTU", mtu),
        ("IFLA_ADDRESS", mac),
        ("IFLA_IFNAME", name),
        ("IFLA_IFALIAS", alias),
        ("IFLA_MASTER", master),
    )
    attributes: list[Attribute] = [(key, value) for key, value in values if value is not None]
    if address_generation is not None:
        inet6 = nested(("IFLA_INET6_ADDR_GEN_MODE", ADDRGENMODE_NONE))
        attributes.append(("IFLA_AF_SPEC", nested(("AF_INET6", inet6))))
    fields = {"index": ifindex, "flags": flags, "change": change}
    session.request(f"change link {ifindex}", Request(Rtm.SETLINK, fields=fields, attributes=attributes))


def _flag_bits(wanted: dict[int, bool | None]) -> tuple[int, int]:
    flags = sum(bit for bit, value in wanted.items() if value)
    change = sum(bit for bit, value in wanted.items() if value is not None)
    return flags, change


def delete_link(session: Session, ifindex: int, *, nsid: int = SAME_NAMESPACE) -> bool:
    """Delete a link, as `get_link` finds it; False when it was gone already.

    Raises:
        NetlinkError: The kernel refused (EOPNOTSUPP: a device that cannot be deleted).
    """
    try:
        request = Request(Rtm.DELLINK, fields={"index": ifindex}, attributes=_target(nsid))
        session.request(f"delete link {ifindex}", request)
    except NetlinkError as error:
        if error.errno == errno.ENODEV or no_namespace(error, nsid):
            return False
        raise
    return True


def delete_links(session: Session, ifindexes: Iterable[int], *, nsid: int = SAME_NAMESPACE) -> None:
    """Delete links of one namespace; those that are gone already are no error."""
    for ifindex in ifindexes:
        delete_link(session, ifindex, nsid=nsid)


def _target(nsid: int) -> list[Attribute]:
    return [] if nsid == SAME_NAMESPACE else [("IFLA_IF_NETNSID", nsid)]


def no_namespace(error: NetlinkError, nsid: int) -> bool:
    """Whether an error says that the namespace of an id has ended."""
    return nsid != SAME_NAMESPACE and error.errno == errno.EINVAL


def _link(reply: Reply) -> Link:
    info = reply.nested("IFLA_LINKINFO")
    kind = (info.text("IFLA_INFO_KIND") if info else None) or ""
    data = info.nested("IFLA_INFO_DATA") if info else None
    tunnel = data if kind in ("vxlan", "geneve") else None
    macvlan = data if kind in ("macvlan", "macvtap") else None
    prefix = f"IFLA_{kind.upper()}"
    external = bool(tunnel and tunnel.number(f"{prefix}_COLLECT_METADATA"))
    return Link(
        ifindex=reply.field("index"),
        name=reply.text("IFLA_IFNAME") or "",
        kind=kind,
        mtu=reply.number("IFLA_MTU") or 0,
        mac=reply.text("IFLA_ADDRESS"),
        flags=reply.field("flags"),
        alias=reply.text("IFLA_IFALIAS") or "",
        parent_ifindex=reply.number("IFLA_LINK"),
        parent_nsid=reply.number("IFLA_LINK_NETNSID"),
        num_tx_queues=reply.number("IFLA_NUM_TX_QUEUES") or 0,
        qdisc=reply.text("IFLA_QDISC") or "",
        port=tunnel.number(f"{prefix}_PORT") if tunnel else None,
        external=external,
        vni=tunnel.number(f"{prefix}_ID") if tunnel and not external else None,
        mode=macvlan.text(f"{prefix}_MODE") if macvlan else None,
        xdp_ids=_xdp_ids(reply),
        master_ifindex=reply.number("IFLA_MASTER"),
    )


def _xdp_ids(reply: Reply) -> tuple[int, ...]:
    xdp = reply.nested("IFLA_XDP")
    if xdp is None:
        return ()
    # One program is reported as such; several, in different modes, each under its mode.
    names = ("IFLA_XDP_PROG_ID", "IFLA_XDP_DRV_PROG_ID", "IFLA_XDP_SKB_PROG_ID", "IFLA_XDP_HW_PROG_ID")
    return tuple(sorted({program_id for name in names if (program_id := xdp.number(name))}))
