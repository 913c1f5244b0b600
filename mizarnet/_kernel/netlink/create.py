# SPDX-License-Identifier: Apache-2.0
"""Creating links: each is born with its final name, and a failure leaves nothing behind."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal

from mizarnet._kernel.netlink.link import (
    IFF_UP,
    IFINFOMSG,
    IFLA_ADDRESS,
    IFLA_GENEVE_COLLECT_METADATA,
    IFLA_GENEVE_PORT,
    IFLA_IFNAME,
    IFLA_LINK,
    IFLA_LINK_NETNSID,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    IFLA_NUM_TX_QUEUES,
    IFLA_VXLAN_COLLECT_METADATA,
    IFLA_VXLAN_PORT,
    Link,
)
from mizarnet._kernel.netlink.links import (
    delete_link,
    found_link,
    get_link,
    link_info,
    link_request,
    macvlan_mode,
    set_link,
)
from mizarnet._kernel.netlink.netns import NetnsHandle
from mizarnet._kernel.netlink.nsid import own_nsid
from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.netlink.sysctl import write_sysctl
from mizarnet._kernel.rtnetlink import (
    Flag,
    Refusal,
    Request,
    Rtm,
    attribute,
    byte,
    mac_address,
    nested,
    number,
    text,
)
from mizarnet._model.arguments import SMALLEST_IPV6_MTU, UNFINISHED
from mizarnet.errors import KernelError, MizarnetError, NetlinkError, UnsupportedError

_IFLA_NUM_RX_QUEUES = 32
_IFLA_VXLAN_LEARNING, _IFLA_VXLAN_UDP_ZERO_CSUM6_RX = 7, 20
_IFLA_GENEVE_UDP_ZERO_CSUM6_RX = 10
_VETH_INFO_PEER = 1
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
        NetlinkError: The kernel refused (EEXIST: the name, or that of unfinished tunnels, or the port is taken).
        UnsupportedError: The kernel has no such kind of device.
    """
    return session.run(_create_tunnel, session, name, kind, port, mtu, alias)


def _create_tunnel(session: Session, name: str, kind: str, port: int, mtu: int, alias: str) -> Link:
    own_nsid(session)  # the earlier, the cheaper will all be to read that stands on the tunnel
    queues = number(IFLA_NUM_TX_QUEUES, 1) + number(_IFLA_NUM_RX_QUEUES, 1)
    link = _create(session, UNFINISHED, kind, data=_tunnel_data(kind, port), others=queues, final_name=name)
    with _deleted_on_failure(session, ifindex=link.ifindex):
        return silence(session, link, mtu=mtu, alias=alias, name=name)


def _tunnel_data(kind: str, port: int) -> bytes:
    packed = port.to_bytes(2, "big")
    # The agent sends with a zero outer checksum; over IPv6 a receiver must be told to accept it.
    if kind == "vxlan":
        return (
            byte(IFLA_VXLAN_COLLECT_METADATA, 1)
            + attribute(IFLA_VXLAN_PORT, packed)
            + byte(_IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 1)
            # Learning would fill a table that metadata mode never reads.
            + byte(_IFLA_VXLAN_LEARNING, 0)
        )
    return (
        attribute(IFLA_GENEVE_COLLECT_METADATA, b"")
        + attribute(IFLA_GENEVE_PORT, packed)
        + byte(_IFLA_GENEVE_UDP_ZERO_CSUM6_RX, 1)
    )


def silence(
    session: Session, link: Link, *, mtu: int | None = None, alias: str | None = None, name: str | None = None
) -> Link:
    """Keep a link that is down from ever sending of its own accord: no IPv6, ARP or multicast; the link after that.

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
    changed = set_link(
        session,
        link.ifindex,
        arp=False,
        multicast=False,
        address_generation="none" if ipv6 else None,
        mtu=mtu,
        alias=alias,
        name=name,
    )
    return _there(changed, name or link.name)


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
    others = number(IFLA_LINK, parent_ifindex) + mac_address(IFLA_ADDRESS, mac) + number(IFLA_MTU, mtu)
    if parent_nsid is not None:
        others += number(IFLA_LINK_NETNSID, parent_nsid)

    def create(name: str, up: bool) -> Link:
        return _create(session, name, kind, data=macvlan_mode("private"), others=others, up=up)

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
        return _there(set_link(session, link.ifindex, name=new_name, up=up, alias=alias or None), name)


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
    far = IFINFOMSG.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, peer) + _of_an_end(mtu, peer_mac)
    if peer_netns is not None:
        far += number(IFLA_NET_NS_FD, peer_netns.fileno())
    return session.run(
        _create, session, name, "veth", data=nested(_VETH_INFO_PEER, far), others=_of_an_end(mtu, mac)
    )


def _of_an_end(mtu: int, mac: str | None) -> bytes:
    return number(IFLA_MTU, mtu) + (b"" if mac is None else mac_address(IFLA_ADDRESS, mac))


def create_bridge(session: Session, name: str) -> Link:
    """Create a bridge, down and without ports; `set_link` with ``master`` adds one.

    Raises:
        NetlinkError: The kernel refused (EEXIST: the name is taken).
        UnsupportedError: The kernel has no bridge.
    """
    return session.run(_create, session, name, "bridge")


def _create(
    session: Session,
    name: str,
    kind: str,
    *,
    data: bytes = b"",
    others: bytes = b"",
    up: bool = False,
    final_name: str | None = None,
) -> Link:
    body = IFINFOMSG.pack(0, 0, 0, IFF_UP if up else 0, IFF_UP)
    body += text(IFLA_IFNAME, name) + others + link_info(kind, data)
    created, found = session.request_together(
        f"create {kind} {(final_name or name)!r}",
        # Without EXCL the kernel would change whatever has the name already.
        Request(Rtm.NEWLINK, body, Flag.NEW),
        link_request(name),  # the kernel does not say its index
    )
    if isinstance(created, Refusal):
        error = created.error()
        if created.errno == errno.EOPNOTSUPP:
            raise UnsupportedError(str(error), feature=kind, hint=f"load or build the {kind} driver")
        raise error
    with _deleted_on_failure(session, name=name):
        return _there(found_link(found), name)


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


def _there(link: Link | None, name: str) -> Link:
    """A link that was just made or changed; raises ``NetlinkError`` (ENODEV) if it is gone."""
    if link is None:
        raise NetlinkError(f"read link {name!r} after its creation", errno=errno.ENODEV)
    return link
