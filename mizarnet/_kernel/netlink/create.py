# SPDX-License-Identifier: Apache-2.0
"""Creating links: each is born with its final name, and a failure leaves nothing behind."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Literal

from mizarnet._kernel.netlink._messages import Attribute, Request, nested
from mizarnet._kernel.netlink.link import IFF_UP, Link
from mizarnet._kernel.netlink.links import delete_link, get_link, set_link
from mizarnet._kernel.netlink.netns import NetnsHandle
from mizarnet._kernel.netlink.nsid import own_nsid
from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.netlink.sysctl import write_sysctl
from mizarnet._kernel.rtnetlink import Flag, Rtm
from mizarnet._model.arguments import SMALLEST_IPV6_MTU
from mizarnet.errors import KernelError, MizarnetError, NetlinkError, UnsupportedError

_MACVLAN_PRIVATE = "private"
UNFINISHED = "mizarnet-new"
"""A tunnel's name until it is finished. Whoever dies before that leaves this one, and nothing that looks whole."""
UNNAMED = "mz"
"""Beginning of a device's name while it is made, if its own is free in its namespace and not beside its parent."""


def create_tunnel(
    session: Session, name: str, *, kind: Literal["vxlan", "geneve"], port: int, mtu: int, alias: str = ""
) -> Link:
    """Create a silent tunnel device in metadata mode, down, with one queue.

    It has no IPv6, no multicast and no ARP of its own. On failure nothing is left behind. Two calls for one namespace
    must not overlap.

    Args:
        session: Session of the namespace that it is to live in.
        name: Name of the device.
        kind: Encapsulation.
        port: UDP port it listens on.
        mtu: MTU in bytes.
        alias: Free text kept by the kernel, at most 254 bytes.

    Raises:
        NetlinkError: The kernel refused (EEXIST: the name or the port is taken).
        UnsupportedError: The kernel has no such kind of device.
    """
    return session.run(_create_tunnel, session, name, kind, port, mtu, alias)


def _create_tunnel(session: Session, name: str, kind: str, port: int, mtu: int, alias: str) -> Link:
    own_nsid(session)  # the earlier, the cheaper will all be to read that stands on the tunnel
    queues: list[Attribute] = [("IFLA_NUM_TX_QUEUES", 1), ("IFLA_NUM_RX_QUEUES", 1)]
    leftover = get_link(session, UNFINISHED)
    if leftover is not None:
        delete_link(session, leftover.ifindex)
    data = _tunnel_data(kind, port)
    link = _create(session, UNFINISHED, kind, data=data, attributes=queues, final_name=name)
    with _deleted_on_failure(session, ifindex=link.ifindex):
        silence(session, link, mtu=mtu, alias=alias, name=name)
        return _read_back(session, name)


def _tunnel_data(kind: str, port: int) -> list[Attribute]:
    prefix = f"IFLA_{kind.upper()}"
    # The agent sends with a zero outer checksum; over IPv6 a receiver must be told to accept it.
    data: list[Attribute] = [
        (f"{prefix}_COLLECT_METADATA", 1),
        (f"{prefix}_PORT", port),
        (f"{prefix}_UDP_ZERO_CSUM6_RX", 1),
    ]
    # Learning would fill a table that metadata mode never reads.
    return [*data, (f"{prefix}_LEARNING", 0)] if kind == "vxlan" else data


def silence(
    session: Session, link: Link, *, mtu: int | None = None, alias: str | None = None, name: str | None = None
) -> None:
    """Keep a link that is down from ever sending of its own accord: no IPv6, ARP or multicast.

    Args:
        session: Session of the link's namespace.
        link: Link to silence.
        mtu: New MTU in bytes, set in the same message. Below 1280 the kernel takes IPv6 off; it comes back, and speaks,
            if somebody raises the MTU.
        alias: New alias, set in the same message.
        name: New name, set in the same message.
    """
    # On a link without IPv6 the kernel refuses to set anything of it.
    ipv6 = (mtu is None or mtu >= SMALLEST_IPV6_MTU) and _disable_ipv6(session, link)
    set_link(
        session,
        link.ifindex,
        arp=False,
        multicast=False,
        address_generation="none" if ipv6 else None,
        mtu=mtu,
        alias=alias,
        name=name,
    )


def _disable_ipv6(session: Session, link: Link) -> bool:
    """False when the link has no IPv6: below 1280 bytes, or on a kernel without it."""
    try:
        write_sysctl(session, f"ipv6/conf/{link.name}/disable_ipv6", "1")
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True


def create_macvlan(
    session: Session,
    name: str,
    *,
    parent_ifindex: int,
    parent_nsid: int | None = None,
    mac: str,
    mtu: int,
    kind: Literal["macvlan", "macvtap"] = "macvlan",
    up: bool = True,
    alias: str = "",
) -> Link:
    """Create a MACVLAN or MACVTAP in private mode, finished: in one message on kernels >= 6.15, two with an alias.

    The kernel looks up names in the sender's namespace: sent from the target's, ``eth0`` there never meets
    the host's ``eth0``. Older kernels make the device in the parent's namespace and move it, which takes it
    down and needs its name to be free in both: what that spoils is put right in a second message. No kernel heeds
    the alias of a device that it makes, so the alias is in that message, too.

    Args:
        session: Session of the namespace that it is to live in.
        name: Name of the device there.
        parent_ifindex: Index of the lower device, in its own namespace.
        parent_nsid: Id of the lower device's namespace, from `nsid_of`; None when it is the session's.
        mac: MAC address, as ``"aa:bb:cc:dd:ee:ff"``.
        mtu: MTU in bytes; at most the lower device's.
        kind: Kind of the device.
        up: Whether it is up from the start.
        alias: Free text kept by the kernel, at most 254 bytes. It is there before the device is up: whoever finds it
            up finds it marked.

    Raises:
        NetlinkError: The kernel refused (EEXIST: the name is taken; EBUSY or EADDRINUSE: the MAC is).
        UnsupportedError: The kernel has no such kind of device.
    """
    attributes: list[Attribute] = [("IFLA_LINK", parent_ifindex), ("IFLA_ADDRESS", mac), ("IFLA_MTU", mtu)]
    if parent_nsid is not None:
        attributes.append(("IFLA_LINK_NETNSID", parent_nsid))
    data: list[Attribute] = [(f"IFLA_{kind.upper()}_MODE", _MACVLAN_PRIVATE)]

    def create(name: str, up: bool) -> Link:
        return _create(session, name, kind, data=data, attributes=attributes, up=up)

    return session.run(_create_across, session, create, name, up, alias)


def _create_across(
    session: Session, create: Callable[[str, bool], Link], name: str, up: bool, alias: str
) -> Link:
    try:
        link = create(name, up and not alias)
    except NetlinkError as error:
        if error.errno != errno.EEXIST or get_link(session, name) is not None:
            raise
        # The name is free here, but not beside the parent.
        link = create(f"{UNNAMED}{secrets.token_hex(6)}", False)
    if (link.name, link.up, link.alias) == (name, up, alias):
        return link
    with _deleted_on_failure(session, ifindex=link.ifindex):
        new_name = None if link.name == name else name
        set_link(session, link.ifindex, name=new_name, up=up, alias=alias or None)
        return _read_back(session, name)


def create_veth(
    session: Session,
    name: str,
    *,
    peer: str,
    peer_netns: NetnsHandle | None = None,
    mtu: int = 1500,
    mac: str | None = None,
    peer_mac: str | None = None,
) -> Link:
    """Create a pair of virtual Ethernet devices, both down, and return the near one.

    Args:
        session: Session of the near end's namespace.
        name: Name of the near end.
        peer: Name of the far end.
        peer_netns: Namespace of the far end; None is the session's.
        mtu: MTU of both ends, in bytes.
        mac: MAC address of the near end; random when None.
        peer_mac: MAC address of the far end; random when None.

    Raises:
        NetlinkError: The kernel refused (EEXIST: a name is taken).
        UnsupportedError: The kernel has no veth.
    """
    far = [("IFLA_IFNAME", peer), *_veth_attributes(mtu, peer_mac)]
    if peer_netns is not None:
        far.append(("IFLA_NET_NS_FD", peer_netns.fileno()))
    return session.run(
        _create,
        session,
        name,
        "veth",
        data=[("VETH_INFO_PEER", nested(*far))],
        attributes=_veth_attributes(mtu, mac),
    )


def _veth_attributes(mtu: int, mac: str | None) -> list[Attribute]:
    attributes: list[Attribute] = [("IFLA_MTU", mtu)]
    return attributes if mac is None else [*attributes, ("IFLA_ADDRESS", mac)]


def create_bridge(session: Session, name: str) -> Link:
    """Create a bridge, down and without ports; `set_link` with ``master`` adds one.

    Raises:
        NetlinkError: The kernel refused (EEXIST: the name is taken).
        UnsupportedError: The kernel has no bridge.
    """
    return session.run(_create, session, name, "bridge", data=(), attributes=())


def _create(
    session: Session,
    name: str,
    kind: str,
    *,
    data: Sequence[Attribute],
    attributes: Sequence[Attribute],
    up: bool = False,
    final_name: str | None = None,
) -> Link:
    info = nested(("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", nested(*data)))
    request = Request(
        Rtm.NEWLINK,
        fields={"flags": IFF_UP if up else 0, "change": IFF_UP},
        attributes=[("IFLA_IFNAME", name), *attributes, ("IFLA_LINKINFO", info)],
        # Without EXCL the kernel would change whatever has the name already.
        flags=Flag.CREATE | Flag.EXCLUSIVE,
    )
    try:
        session.request(f"create {kind} {(final_name or name)!r}", request)
    except NetlinkError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise UnsupportedError(
                str(error), feature=kind, hint=f"load or build the {kind} driver"
            ) from None
        raise
    with _deleted_on_failure(session, name=name):  # the kernel does not say its index
        return _read_back(session, name)


@contextmanager
def _deleted_on_failure(
    session: Session, *, name: str | None = None, ifindex: int | None = None
) -> Generator[None, None, None]:
    """Delete a link that was just made if the block fails; the error is the block's, whatever becomes of the link."""
    try:
        yield
    except BaseException as failure:
        try:
            delete_link(session, ifindex, name=name)
        except MizarnetError as refused:
            failure.add_note(f"the link {name or ifindex} stays: {refused}")
        raise


def _read_back(session: Session, name: str) -> Link:
    link = get_link(session, name)
    if link is None:
        raise NetlinkError(f"read link {name!r} after its creation", errno=errno.ENODEV)
    return link
