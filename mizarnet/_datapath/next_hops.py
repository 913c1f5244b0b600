# SPDX-License-Identifier: Apache-2.0
"""Which hosts have next hops of a VNI: a consequence of the networks and endpoints, kept in step with both.

From these hosts the guard lets in what an endpoint of this host has sent, since a router may have given it another
destination. The map ``routers`` names next hops by VNI and host, and ``vias`` all next hops, so that who writes
endpoints knows which of them matter here.

A next hop that left a host is found out by the guard, which looks it up in ``endpoints``. It cannot find out that no
network names a next hop any more: so that one goes before the network does. While a call changes any of it, ``vias``
has an entry of VNI 0. Whoever finds it there, after the death of another, makes both maps anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from mizarnet._datapath.feeds import Edit
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.bpf import Map
from mizarnet._model import codec
from mizarnet._model.codec import NEXT_HOPS_CHANGING, u32

_NOTHING = u32(0)


def begin_networks(maps: Maps, edit: Edit, there: Mapping[bytes, bytes]) -> bool:
    """Before networks change: take out what no network will name; whether :func:`renew` must follow the change.

    Args:
        maps: Maps of the data path; the caller holds the tables' lock.
        edit: What will change.
        there: Entries that the table has now.
    """
    known = set(maps.vias.keys())
    changed = [(key, table[key]) for table in (there, edit.put) for key in _keys(edit) if key in table]
    if not _named(changed):
        return NEXT_HOPS_CHANGING in known
    maps.vias.update(NEXT_HOPS_CHANGING, _NOTHING)
    networks = {**dict(maps.networks.items()), **edit.put}
    left = _named((key, value) for key, value in networks.items() if key not in {*edit.gone})
    _forget(maps, known - left - {NEXT_HOPS_CHANGING})
    return True


def begin_endpoints(maps: Maps, edit: Edit) -> bool:
    """Before endpoints change; arguments and result as for :func:`begin_networks`."""
    known = set(maps.vias.keys())
    if known.isdisjoint(_keys(edit)):
        return NEXT_HOPS_CHANGING in known
    maps.vias.update(NEXT_HOPS_CHANGING, _NOTHING)
    return True


def mend(maps: Maps) -> None:
    """Make both maps anew if a change of them was begun and did not end."""
    if NEXT_HOPS_CHANGING in maps.vias:
        renew(maps)


def renew(maps: Maps) -> None:
    """Make both maps what networks and endpoints say."""
    named = _named(maps.networks.items())
    _replace(maps.vias, dict.fromkeys([*named, NEXT_HOPS_CHANGING], _NOTHING))
    _replace(maps.routers, _routers(maps, named))
    maps.vias.delete(NEXT_HOPS_CHANGING)


def _keys(edit: Edit) -> Collection[bytes]:
    return [*edit.put, *edit.gone]


def _named(networks: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """Keys in ``endpoints`` of the next hops of some networks."""
    return {hop for key, value in networks if (hop := codec.next_hop(key, value)) is not None}


def _routers(maps: Maps, named: Iterable[bytes]) -> dict[bytes, bytes]:
    """The entries of ``routers`` for some next hops."""
    by_host: dict[bytes, list[bytes]] = defaultdict(list)
    for hop in sorted(named):
        endpoint = maps.endpoints.lookup(hop)
        host = None if endpoint is None else codec.host_of(endpoint)
        if host is not None:
            by_host[codec.pack_router_key(codec.endpoint_vni(hop), host)].append(hop)
    return {key: codec.pack_router(hops) for key, hops in by_host.items()}


def _forget(maps: Maps, hops: Collection[bytes]) -> None:
    """Take some next hops out of both maps."""
    for key, value in dict(maps.routers.items()).items():
        before = codec.unpack_router(key, value)
        left = [hop for hop in before if hop not in hops]
        if not left:
            maps.routers.delete(key)
        elif left != before:
            maps.routers.update(key, codec.pack_router(left))
    maps.vias.delete_many(hops)


def _replace(table: Map, entries: Mapping[bytes, bytes]) -> None:
    there = dict(table.items())
    table.delete_many(key for key in there if key not in entries)
    table.update_many({key: value for key, value in entries.items() if there.get(key) != value})
