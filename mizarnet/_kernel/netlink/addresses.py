# SPDX-License-Identifier: Apache-2.0
"""IPv4 and IPv6 addresses of links."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from mizarnet._kernel.netlink.links import SAME_NAMESPACE, no_namespace
from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.refusals import explained
from mizarnet._kernel.rtnetlink import HEADER_BYTES, Flag, Rtm, attribute, attributes, number
from mizarnet._model.arguments import IPInterface, IPNetwork
from mizarnet._model.layout import read_number
from mizarnet.errors import NetlinkError, NetnsNotFoundError

FAMILIES = {4: int(socket.AF_INET), 6: int(socket.AF_INET6)}

_IFA_F_SECONDARY = 0x01  # in IPv6: temporary
_IFA_F_NODAD = 0x02
_IFA_F_DADFAILED = 0x08
_IFA_F_DEPRECATED = 0x20
_IFA_F_TENTATIVE = 0x40
_UNFIT = _IFA_F_SECONDARY | _IFA_F_DADFAILED | _IFA_F_DEPRECATED | _IFA_F_TENTATIVE
_IFADDRMSG = struct.Struct("=BBBBI")
"""``struct ifaddrmsg``: family, length of the prefix, flags, scope and ifindex."""
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS, _IFA_TARGET_NETNSID = 1, 2, 8, 10
_WANTED = {_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS}
_INTERFACES: Mapping[int, Callable[[tuple[bytes, int]], IPInterface]] = {
    4: ipaddress.IPv4Interface,
    16: ipaddress.IPv6Interface,
}
_SCOPE_GLOBAL = 0
_RTF_LOCAL = 0x80000000  # <linux/ipv6_route.h>


class Address(NamedTuple):
    """An address of a link.

    Attributes:
        packed: The address, in network byte order.
        prefix_length: Length of its prefix, in bits.
        ifindex: Index of the link.
        scope: Scope of the address: 0 is global, 253 link, 254 host.
        flags: Bits of IFA_F_*.
    """

    packed: bytes
    prefix_length: int
    ifindex: int
    scope: int
    flags: int

    @property
    def interface(self) -> IPInterface:
        """Address with prefix length: made when asked for, since that takes longer than all the rest."""
        return _INTERFACES[len(self.packed)]((self.packed, self.prefix_length))

    def overlaps(self, network: IPNetwork) -> bool:
        """Whether its on-link prefix and a network overlap; its bits tell, without an object for its prefix."""
        bits = 8 * len(self.packed)
        apart = int.from_bytes(self.packed, "big") ^ int(network.network_address)
        shared = min(self.prefix_length, network.prefixlen)
        return bits == network.max_prefixlen and not apart >> bits - shared

    @property
    def is_link_local(self) -> bool:
        """Whether it is one that every link may have: of fe80::/10, or of 169.254.0.0/16."""
        return is_link_local(self.packed)

    @property
    def is_global(self) -> bool:
        """Whether its scope is neither a link nor the host."""
        return self.scope == _SCOPE_GLOBAL

    @property
    def tentative(self) -> bool:
        """Whether IPv6 is still asking if someone else has it; it is not usable until then."""
        return bool(self.flags & _IFA_F_TENTATIVE)

    @property
    def secondary(self) -> bool:
        """Whether it is IPv4, and stands behind another one of its prefix, with which the kernel removes it."""
        return self.interface.version == 4 and bool(self.flags & _IFA_F_SECONDARY)

    @property
    def failed(self) -> bool:
        """Whether IPv6 found that someone else has it; it is never usable."""
        return bool(self.flags & _IFA_F_DADFAILED)


def add_address(session: Session, ifindex: int, interface: IPInterface, *, dad: bool = True) -> None:
    """Give a link an address, together with its on-link route.

    Args:
        session: Session of the link's namespace.
        ifindex: Index of the link.
        interface: Address with prefix length.
        dad: Whether IPv6 asks first if someone else has it: False makes it usable at once.

    Raises:
        NetlinkError: The kernel refused (EEXIST: the link has it; EACCES: IPv6 is off on the link).
    """
    usable = interface.version == 6 and not dad
    body = _body(ifindex, interface) + (number(_IFA_FLAGS, _IFA_F_NODAD) if usable else b"")
    operation = f"add address {interface} on link {ifindex}"
    session.request(operation, Rtm.NEWADDR, body, Flag.NEW)


def wait_for_address(session: Session, interface: IPInterface, *, timeout: float = 5.0) -> None:
    """Wait until the namespace takes packets to an IPv6 address of a link that is up.

    The kernel adds that route in its own time after the address, without duplicate address detection too: until then
    packets to it are lost.

    Raises:
        NetlinkError: It did not come about within ``timeout`` seconds (errno ETIMEDOUT).
    """
    deadline = time.monotonic() + timeout
    while not session.run(_has_local_route, interface):
        if time.monotonic() > deadline:
            raise NetlinkError(f"wait for the local route of {interface.ip}", errno=errno.ETIMEDOUT)
        time.sleep(0.001)


def _has_local_route(interface: IPInterface) -> bool:
    # Destination and its prefix length begin each line, in hexadecimal. Names of devices may be any bytes.
    wanted = f"{interface.ip.packed.hex()} 80 ".encode()
    with explained("read the IPv6 routes"):
        lines = Path("/proc/thread-self/net/ipv6_route").read_bytes().splitlines()
    return any(line.startswith(wanted) and int(line.split()[8], 16) & _RTF_LOCAL for line in lines)


def delete_address(session: Session, ifindex: int, interface: IPInterface) -> None:
    """Take an address from a link.

    Raises:
        NetlinkError: The kernel refused (EADDRNOTAVAIL: the link does not have it).
    """
    operation = f"delete address {interface} on link {ifindex}"
    session.request(operation, Rtm.DELADDR, _body(ifindex, interface))


def _body(ifindex: int, interface: IPInterface) -> bytes:
    head = _IFADDRMSG.pack(FAMILIES[interface.version], interface.network.prefixlen, 0, 0, ifindex)
    packed = interface.packed
    return head + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)


def list_addresses(
    session: Session, *, ifindex: int | None = None, nsid: int = SAME_NAMESPACE
) -> list[Address]:
    """The addresses of one link (filtered by the kernel), or of all.

    Args:
        session: Session of the namespace, or of one that knows it as ``nsid``.
        ifindex: Index of the link; None: all links.
        nsid: Id of the link's namespace, from `nsid_of`.

    Raises:
        NetnsNotFoundError: The namespace that ``nsid`` means has ended, or is ending.
        NetlinkError: The kernel refused (ENODEV: no such link).
    """
    body = _IFADDRMSG.pack(0, 0, 0, 0, ifindex or 0)
    if nsid != SAME_NAMESPACE:
        body += number(_IFA_TARGET_NETNSID, nsid)
    try:
        return list(map(decode_address, session.request_all("list addresses", Rtm.GETADDR, body)))
    except NetlinkError as refused:
        ending = refused.errno == errno.ENODEV and nsid != SAME_NAMESPACE
        if ending or no_namespace(refused, nsid):
            raise NetnsNotFoundError(f"the namespace with the id {nsid} has ended") from None
        raise


def primary_address(session: Session, ifindex: int, *, version: Literal[4, 6]) -> IPInterface | None:
    """The address that stands for a link: the first global one that is usable and lasting.

    Args:
        session: Session of the link's namespace.
        ifindex: Index of the link.
        version: Version of IP.
    """
    for address in list_addresses(session, ifindex=ifindex):
        usable = address.is_global and not address.flags & _UNFIT
        if usable and address.interface.version == version:
            return address.interface
    return None


def decode_address(message: bytes) -> Address:
    """The address that an RTM_NEWADDR message, its header included, describes."""
    _, prefix_length, flags, scope, ifindex = _IFADDRMSG.unpack_from(message, HEADER_BYTES)
    found = attributes(message, _WANTED, at=HEADER_BYTES + _IFADDRMSG.size)
    # On a point-to-point link IFA_ADDRESS is the other end's; IPv6 has IFA_LOCAL only there.
    packed = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    return Address(
        packed=packed,
        prefix_length=prefix_length,
        ifindex=ifindex,
        scope=scope,
        flags=read_number(found[_IFA_FLAGS]) if _IFA_FLAGS in found else flags,
    )


def is_link_local(packed: bytes) -> bool:
    """Whether the bytes of an address are of fe80::/10 or 169.254.0.0/16."""
    if len(packed) == 4:
        return packed.startswith(b"\xa9\xfe")
    return packed[0] == 0xFE and packed[1] & 0xC0 == 0x80
