# SPDX-License-Identifier: Apache-2.0
"""The entries that lead a VNI's packets to its gateway: those of 0.0.0.0/0 and ::/0, on the gateway's host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set

from mizarnet._datapath import next_hops
from mizarnet._datapath.feeds import Feed, register
from mizarnet._datapath.maps import Maps, present, write
from mizarnet._kernel.netlink import DEFAULTS
from mizarnet._model import codec
from mizarnet._model.arguments import IPInterface, IPNetwork
from mizarnet._model.specs import Network, NetworkKey

FEED = Feed.of("gateway")
"""The writer of these entries: what others prune is theirs. Where they wrote the same themselves, that will do."""


def of_vni(maps: Maps, vni: int) -> dict[IPNetwork, Network]:
    """The networks of a VNI that others wrote, for a caller that holds the tables' lock."""
    found = (
        (codec.unpack_network_key(key), value)
        for key, value in maps.networks.items()
        if codec.network_feed(value) != FEED.number
    )
    return {key.prefix: codec.unpack_network(value) for key, value in found if key.vni == vni}


def leading(vni: int, addresses: Iterable[IPInterface]) -> Iterator[tuple[NetworkKey, Network]]:
    """The networks that lead to a gateway.

    Args:
        vni: VNI that it leads out of.
        addresses: Its addresses: the first of each IP version is the next hop.
    """
    found: set[int] = set()
    for address in addresses:
        if address.version not in found:
            found.add(address.version)
            yield NetworkKey(vni, DEFAULTS[address.version]), Network(via=address.ip)


def wanted(vni: int, addresses: Iterable[IPInterface]) -> dict[bytes, bytes]:
    """The entries of a gateway, packed; arguments as for :func:`leading`."""
    return {
        codec.pack_network_key(key): codec.pack_network(key, network, feed=FEED.number)
        for key, network in leading(vni, addresses)
    }


def keys(vni: int) -> set[bytes]:
    """The keys that a gateway's entries can have."""
    return {codec.pack_network_key(NetworkKey(vni, prefix)) for prefix in DEFAULTS.values()}


def change(maps: Maps, put: Mapping[bytes, bytes], gone: Set[bytes] = frozenset()) -> None:
    """Write entries and remove others, as far as they are gateways'; the caller holds the tables' lock.

    Raises:
        CapacityError: They do not fit.
        BpfError: The kernel refused one.
    """
    there = present(maps.networks, put.keys() | gone)
    edit = FEED.edit(codec.network_feed, there, put, [*gone])
    if edit.put:
        register(maps, FEED)
    to_renew = next_hops.begin_networks(maps, edit, there)
    if edit.put or edit.gone:
        write(maps.networks, edit.put, leaving=edit.gone)
    if to_renew:
        next_hops.renew(maps)
