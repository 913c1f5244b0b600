# SPDX-License-Identifier: Apache-2.0
"""Endpoints of one namespace: two of one subnet answer for each other, by devices that are not theirs."""

from __future__ import annotations

from collections.abc import Iterable

from mizarnet._datapath import age
from mizarnet._datapath.endpoints import entries
from mizarnet._datapath.endpoints.device import KINDS
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.netlink import Session, get_link, list_addresses
from mizarnet._model.arguments import IPInterface
from mizarnet._model.codec import Record
from mizarnet._model.enumerations import State
from mizarnet._model.specs import Kind, MacAddress
from mizarnet.errors import ExistsError


def refuse_same_subnet(maps: Maps, target: Session, record: Record, addresses: Iterable[IPInterface]) -> None:
    """Raises ``ExistsError`` if another endpoint of the VNI has one of the subnets in the same namespace.

    What the kernel would send from one of them may leave through the device of the other, where it is refused. If both
    may forward, it is not.

    Two may be made at the same moment. So who gives a device addresses looks before, to make nothing in vain, and after
    that, when either sees the other's: then one of them is refused, or both are.

    Args:
        maps: Maps of the data path.
        target: Session of the namespace.
        record: Record of the endpoint that shall get the addresses.
        addresses: Addresses with the on-link prefixes that are looked at.
    """
    wanted = [address.network for address in addresses if _has_subnet(address)]
    if not wanted or record.spec.kind is Kind.MACVTAP:  # a VM has its addresses for itself
        return
    for there in list_addresses(target):
        own = record.ifindex == there.ifindex
        if own or not any(map(there.overlaps, wanted)) or not _has_subnet(there.interface):
            continue
        holder = _endpoint_of(maps, target, there.ifindex)
        if holder is not None and _hinder(holder, record):
            raise ExistsError(
                f"endpoint {holder.spec.name!r} has {there.interface} in the same namespace",
                holder=holder.spec.name,
                hint="one endpoint takes all addresses of a subnet: ip=[...]",
            )


def _hinder(one: Record, other: Record) -> bool:
    """Whether two endpoints of one subnet are different ones, and not both may send what is the other's."""
    if one.spec.vni != other.spec.vni or one.instance == other.instance:
        return False
    return not (one.spec.forwarding and other.spec.forwarding)


def _has_subnet(address: IPInterface) -> bool:
    """Whether others may be on the link with an address; link-local ones are on every link."""
    return address.network.prefixlen < address.max_prefixlen and not address.is_link_local


def _endpoint_of(maps: Maps, target: Session, ifindex: int) -> Record | None:
    """The endpoint whose device has that index in a namespace, or may have; None if it is no endpoint's."""
    link = get_link(target, ifindex=ifindex)
    if link is None or link.kind not in KINDS:
        return None
    holder = entries.with_mac(maps, MacAddress.parse(link.mac or ""))
    if holder is None or holder.netns_cookie != target.cookie:
        return None
    if holder.state is State.LIVE:
        return holder if holder.ifindex == ifindex else None
    being_made = holder.state is State.MAKING and age.is_young(holder.state, holder.changed)
    return holder if being_made else None
