# SPDX-License-Identifier: Apache-2.0
"""Reading, changing and deleting links."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from typing import Literal

from mizarnet._kernel.netlink.link import (
    IFF_MULTICAST,
    IFF_NOARP,
    IFF_UP,
    IFINFOMSG,
    IFLA_ADDRESS,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MACVLAN_MODE,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    MACVLAN_MODES,
    Link,
    decode_link,
)
from mizarnet._kernel.netlink.netns import NetnsHandle
from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.rtnetlink import (
    HEADER_BYTES,
    Answer,
    Refusal,
    Request,
    Rtm,
    attribute,
    attributes,
    byte,
    mac_address,
    nested,
    number,
    text,
)
from mizarnet.errors import NetlinkError

LOOPBACK_IFINDEX = 1
SAME_NAMESPACE = -1
"""The session's own namespace, in place of the id of another."""

ADDRGENMODE_NONE = 1
_IFLA_AF_SPEC, _IFLA_INET6_ADDR_GEN_MODE = 26, 8
_IFLA_TARGET_NETNSID = 46
_WITHOUT_STATISTICS = number(29, 8)
"""IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS: a third of the reply less."""


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
    bodies = [_question(ifindex or 0, nsid) + _named(name)]
    (answer,) = session.request_each(f"read link {name or ifindex}", Rtm.GETLINK, bodies, reads=True)
    return found_link(answer, nsid)


def read_links(session: Session, places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Link]:
    """Those of many links that there are, by their places, in the places' order.

    One request each, many to a datagram: a link costs the kernel 8 microseconds so, and 6 in a dump, which describes
    links that nobody asked for. The cost depends neither on the number of links in these namespaces nor, thanks to
    `own_nsid`, on that of namespaces.

    Args:
        session: Session of a namespace that knows those of the links by their ids.
        places: For each link the id of its namespace, from `nsid_of`, or `SAME_NAMESPACE`; and its index. One without
            a link, or of a namespace that ended, is left out of the result.

    Raises:
        NetlinkError: The kernel refused, for a reason other than absence.
    """
    wanted = list(dict.fromkeys(places))
    bodies = [_question(ifindex, nsid) for nsid, ifindex in wanted]
    answers = session.request_each("read links", Rtm.GETLINK, bodies, reads=True)
    links = [found_link(answer, nsid) for answer, (nsid, _) in zip(answers, wanted, strict=True)]
    return {place: link for place, link in zip(wanted, links, strict=True) if link is not None}


_IFLA_STATS64 = 23
STATISTICS = (
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
    "multicast",
    "collisions",
    "rx_length_errors",
    "rx_over_errors",
    "rx_crc_errors",
    "rx_frame_errors",
    "rx_fifo_errors",
    "rx_missed_errors",
    "tx_aborted_errors",
    "tx_carrier_errors",
    "tx_fifo_errors",
    "tx_heartbeat_errors",
    "tx_window_errors",
    "rx_compressed",
    "tx_compressed",
    "rx_nohandler",
    "rx_otherhost_dropped",
)
"""Members of ``struct rtnl_link_stats64`` in their order; the last is of kernel 5.19."""


def read_statistics(session: Session, ifindex: int) -> dict[str, int]:
    """Counters of a link by their names in ``STATISTICS``; none when there is no such link.

    Raises:
        NetlinkError: The kernel refused, for a reason other than absence.
    """
    body = IFINFOMSG.pack(0, 0, ifindex, 0, 0)
    (answer,) = session.request_each(f"read counters of link {ifindex}", Rtm.GETLINK, [body], reads=True)
    if not isinstance(answer, bytes):
        if is_absence(answer, SAME_NAMESPACE):
            return {}
        raise answer.error()
    packed = attributes(answer, {_IFLA_STATS64}, at=HEADER_BYTES + IFINFOMSG.size).get(_IFLA_STATS64, b"")
    return dict(zip(STATISTICS, memoryview(packed).cast("Q"), strict=False))


def set_macvlan_mode(session: Session, ifindex: int, *, kind: str, mode: str) -> None:
    """Change the mode of a MACVLAN or MACVTAP; traffic goes on.

    Raises:
        NetlinkError: The kernel refused (EINVAL: to or from passthru).
    """
    body = IFINFOMSG.pack(0, 0, ifindex, 0, 0) + link_info(kind, macvlan_mode(mode))
    session.request(f"change the mode of link {ifindex}", Rtm.NEWLINK, body)


def link_info(kind: str, *data: bytes) -> bytes:
    """The attribute that says of which kind a link is, with that kind's own attributes."""
    return nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, kind), nested(IFLA_INFO_DATA, *data))


def macvlan_mode(mode: str) -> bytes:
    """The attribute with the mode of a MACVLAN or MACVTAP."""
    return number(IFLA_MACVLAN_MODE, next(each for each, name in MACVLAN_MODES.items() if name == mode))


_TCMSG = struct.Struct("=BxxxiIII")
_TC_H_ROOT = 0xFFFFFFFF


def delete_root_qdisc(session: Session, ifindex: int) -> None:
    """Delete the queueing discipline of a link, which then has the default one of its kind of device.

    Raises:
        NetlinkError: The kernel refused (ENOENT: it has the default one).
    """
    body = _TCMSG.pack(0, ifindex, 0, _TC_H_ROOT, 0)
    (answer,) = session.request_each(f"delete the qdisc of link {ifindex}", Rtm.DELQDISC, [body])
    if not isinstance(answer, bytes):
        raise answer.error()


def link_request(name: str | None = None, *, ifindex: int = 0) -> Request:
    """The request for one link of the session's namespace, to be sent behind one that makes or changes it."""
    return Request(Rtm.GETLINK, _question(ifindex, SAME_NAMESPACE) + _named(name), reads=True)


def found_link(answer: Answer, nsid: int = SAME_NAMESPACE) -> Link | None:
    """The link that an answer describes; None where it says that there is none, or no namespace of that id."""
    if isinstance(answer, bytes):
        return decode_link(answer)
    if is_absence(answer, nsid):
        return None
    raise answer.error()


def _question(ifindex: int, nsid: int) -> bytes:
    return IFINFOMSG.pack(0, 0, ifindex, 0, 0) + _WITHOUT_STATISTICS + _target(nsid)


def dump_links(session: Session, *, kind: str | None = None, nsid: int = SAME_NAMESPACE) -> list[Link]:
    """All links of a namespace, or those of one kind (filtered by the kernel).

    Args:
        session: Session of the namespace, or of one that knows it as ``nsid``.
        kind: Kind of the links to return; None: any.
        nsid: Id of the namespace, from `nsid_of`; one that ended has no links.
    """
    body = _question(0, nsid)
    if kind is not None:
        body += nested(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind.encode()))
    try:
        links = list(map(decode_link, session.request_all("list links", Rtm.GETLINK, body)))
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
    netns: NetnsHandle | None = None,
) -> Link | None:
    """Change what is given of a link, in one message; the link after that, None if it is in another namespace by then.

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
        netns: Namespace that it moves to; a new name is the one that it has there.

    Raises:
        NetlinkError: The kernel refused (ENODEV: no such link).
    """
    flags, change = _flag_bits(
        {IFF_UP: up, IFF_NOARP: None if arp is None else not arp, IFF_MULTICAST: multicast}
    )
    body = IFINFOMSG.pack(0, 0, ifindex, flags, change) + _named(name)
    if mtu is not None:
        body += number(IFLA_MTU, mtu)
    if mac is not None:
        body += mac_address(IFLA_ADDRESS, mac)
    if alias is not None:
        body += text(IFLA_IFALIAS, alias)
    if master is not None:
        body += number(IFLA_MASTER, master)
    if netns is not None:
        body += number(IFLA_NET_NS_FD, netns.fileno())
    if address_generation is not None:
        mode = byte(_IFLA_INET6_ADDR_GEN_MODE, ADDRGENMODE_NONE)
        body += nested(_IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    changed, found = session.request_together(
        f"change link {ifindex}", Request(Rtm.SETLINK, body), link_request(ifindex=ifindex)
    )
    if isinstance(changed, Refusal):
        raise changed.error()
    return found_link(found)


def _flag_bits(wanted: dict[int, bool | None]) -> tuple[int, int]:
    flags = sum(bit for bit, value in wanted.items() if value)
    change = sum(bit for bit, value in wanted.items() if value is not None)
    return flags, change


def delete_link(
    session: Session, ifindex: int | None = None, *, name: str | None = None, nsid: int = SAME_NAMESPACE
) -> bool:
    """Delete a link, by ifindex or by name, as `get_link` finds it; False when it was gone already.

    Raises:
        NetlinkError: The kernel refused (EOPNOTSUPP: a device that cannot be deleted).
    """
    body = IFINFOMSG.pack(0, 0, ifindex or 0, 0, 0) + _named(name) + _target(nsid)
    try:
        session.request(f"delete link {name or ifindex}", Rtm.DELLINK, body)
    except NetlinkError as error:
        if is_absence(error, nsid):
            return False
        raise
    return True


def _target(nsid: int) -> bytes:
    return b"" if nsid == SAME_NAMESPACE else number(_IFLA_TARGET_NETNSID, nsid)


def _named(name: str | None) -> bytes:
    return b"" if name is None else text(IFLA_IFNAME, name)


def is_absence(refused: NetlinkError | Refusal, nsid: int) -> bool:
    """Whether the kernel says that there is no such link, or that the namespace of an id has ended."""
    return refused.errno == errno.ENODEV or no_namespace(refused, nsid)


def no_namespace(refused: NetlinkError | Refusal, nsid: int) -> bool:
    """Whether the kernel says that the namespace of an id has ended."""
    return nsid != SAME_NAMESPACE and refused.errno == errno.EINVAL
