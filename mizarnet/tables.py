# SPDX-License-Identifier: Apache-2.0
"""The tables of an agent as Python collections: live views, read from and written to the kernel at each call."""

from __future__ import annotations

import collections.abc
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from ipaddress import IPv4Network, IPv6Network
from typing import Generic, TypeVar, cast

import attrs

from mizarnet.abi import records
from mizarnet.bpf import Map
from mizarnet.checks import IPAddress, IPNetwork, check_address, check_prefix, check_vni
from mizarnet.errors import (
    CapacityError,
    EndpointNotFoundError,
    InvalidTypeError,
    InvalidValueError,
    LocalEndpointError,
)
from mizarnet.html import table
from mizarnet.store import Maps, Store
from mizarnet.values import AddressLike, EndpointKey, Local, Network, NetworkKey, PrefixLike, Remote

_K = TypeVar("_K")
_V = TypeVar("_V")
# Not the bounds themselves: a mapping's type of keys is invariant, and EndpointKey is one of them.
_EndpointLike = TypeVar("_EndpointLike", bound="tuple[int, AddressLike]")
_NetworkLike = TypeVar("_NetworkLike", bound="tuple[int, PrefixLike]")


@attrs.frozen
class Changes:
    """What :meth:`EndpointTable.sync` did, as numbers of entries."""

    added: int
    changed: int
    removed: int


class _Table(Mapping[_K, _V], Generic[_K, _V]):
    """A map of the agent, with typed keys and values."""

    _what: str

    def __init__(self, store: Store, local: IPAddress) -> None:
        self._store = store
        self._tunnel_local = local

    def _map(self, maps: Maps) -> Map:
        raise NotImplementedError

    def _pack_key(self, key: object) -> bytes:
        raise NotImplementedError

    def _unpack(self, key: bytes, value: bytes) -> tuple[_K, _V]:
        raise NotImplementedError

    def _find(self, packed: bytes) -> bytes | None:
        return self._map(self._store.maps).lookup(packed)

    def _entries(self) -> list[tuple[bytes, bytes]]:
        return list(self._map(self._store.maps).items())

    def __getitem__(self, key: object) -> _V:
        packed = self._pack_key(key)
        value = self._find(packed)
        if value is None:
            raise EndpointNotFoundError(f"no {self._what} {key!r}")
        return self._unpack(packed, value)[1]

    def __contains__(self, key: object) -> bool:
        return self._find(self._pack_key(key)) is not None

    def __iter__(self) -> Iterator[_K]:
        return iter(self.snapshot())

    def __len__(self) -> int:
        """How many entries. Reads the whole table: the kernel keeps no count."""
        return self._map(self._store.maps).count()

    def items(self) -> ItemsView[_K, _V]:
        """Keys and values of one `snapshot`."""
        return self.snapshot().items()

    def values(self) -> ValuesView[_V]:
        """The values of one `snapshot`."""
        return self.snapshot().values()

    def snapshot(self) -> dict[_K, _V]:
        """All entries, read in batches. Entries that change meanwhile are seen before or after their change."""
        return dict(self._unpack(key, value) for key, value in self._entries())

    def _check_host(self, host: IPAddress, argument: str) -> None:
        if host.version != self._tunnel_local.version:
            raise InvalidValueError(
                f"{argument} {host}: the tunnel's underlay is IPv{self._tunnel_local.version}",
                argument=argument,
                value=host,
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._store.directory.name}>"

    def _repr_html_(self) -> str:
        rows = [] if self._store.closed else [(*_flat(key), value) for key, value in self.items()]
        return table(self._what, ("vni", "address", "value"), rows)


def _pairs(entries: Mapping[_K, _V] | Iterable[tuple[_K, _V]]) -> Iterable[tuple[_K, _V]]:
    return cast("Mapping[_K, _V]", entries).items() if isinstance(entries, Mapping) else entries


def _write(target: Map, entries: Mapping[bytes, bytes]) -> None:
    """Writes all entries if there is room for all; the map is left alone otherwise."""
    existing = target.lookup_all()[0]
    size = target.key_size
    known = {existing[at : at + size] for at in range(0, len(existing), size)}
    needed = len(known) + sum(key not in known for key in entries)
    if needed > target.max_entries:
        raise CapacityError(
            f"{len(entries)} entries do not fit into {target.name}: {len(known)} of {target.max_entries} are used",
            table=target.name,
            capacity=target.max_entries,
            used=len(known),
            hint="attach the agent with a larger capacity",
        )
    target.update_many(entries.items())


def _flat(key: object) -> tuple[object, ...]:
    return cast("tuple[object, ...]", key) if isinstance(key, tuple) else (key,)


class EndpointTable(_Table[EndpointKey, "Local | Remote"]):
    """``agent.endpoints``: where each (VNI, address) lives.

    Reading takes keys like ``(7, "10.0.0.9")``; writing takes :class:`Remote` only, since local entries belong
    to :class:`mizarnet.Endpoint`. Every write holds the host's lock.
    """

    _what = "endpoint"

    def __init__(
        self, store: Store, local: IPAddress, *, release: Callable[[Maps, EndpointKey], bool]
    ) -> None:
        """``release`` takes a key from a local endpoint whose device is gone; false if it is not gone."""
        super().__init__(store, local)
        self._release = release

    def _map(self, maps: Maps) -> Map:
        return maps.endpoints

    def _pack_key(self, key: object) -> bytes:
        return records.pack_endpoint_key(EndpointKey.parse(key))

    def _unpack(self, key: bytes, value: bytes) -> tuple[EndpointKey, Local | Remote]:
        return records.unpack_endpoint_key(key), records.unpack_endpoint(value)

    def __setitem__(self, key: tuple[int, AddressLike], value: Remote) -> None:
        """Say where an endpoint of another host lives.

        Raises:
            LocalEndpointError: The key belongs to a local endpoint.
            InvalidValueError: The host's address is not of the underlay's family, or is this host's.
            CapacityError: The table is full.
        """
        packed, data = self._pack_key(key), self._pack_remote(value)
        with self._store.writing() as maps:
            self._refuse_local(maps, packed)
            maps.endpoints.update(packed, data)

    def __delitem__(self, key: tuple[int, AddressLike]) -> None:
        """Forget a remote endpoint; raises ``EndpointNotFoundError`` or ``LocalEndpointError``."""
        packed = self._pack_key(key)
        with self._store.writing() as maps:
            self._refuse_local(maps, packed)
            if not maps.endpoints.delete(packed):
                raise EndpointNotFoundError(f"no endpoint {key!r}")

    def update(
        self,
        entries: Mapping[_EndpointLike, Remote] | Iterable[tuple[_EndpointLike, Remote]],
        /,
    ) -> None:
        """Write many entries: all are checked, room is checked, then they are written in batches.

        Raises:
            LocalEndpointError: A key belongs to a local endpoint; nothing was written.
            CapacityError: They do not fit; nothing was written.
            BpfError: The kernel refused in the middle; the message says how many were written.
        """
        packed = self._pack_all(entries)
        with self._store.writing() as maps:
            self._refuse_locals(maps, packed)
            _write(self._map(maps), packed)

    def sync(
        self,
        remotes: Mapping[_EndpointLike, Remote] | Iterable[tuple[_EndpointLike, Remote]],
        *,
        vni: int | None = None,
    ) -> Changes:
        """Make the remote entries (of one VNI, or all) be exactly ``remotes``; local ones stay.

        What is new or different is written before what is superfluous goes. Raises as :meth:`update`.
        """
        if vni is not None:
            check_vni(vni)
        wanted = self._pack_all(remotes)
        if vni is not None and any(records.unpack_endpoint_key(key).vni != vni for key in wanted):
            raise InvalidValueError(f"an entry is not of VNI {vni}", argument="remotes", value=vni)
        with self._store.writing() as maps:
            self._refuse_locals(maps, wanted)
            present = dict(self._remotes(maps, vni))
            different = {key: value for key, value in wanted.items() if present.get(key) != value}
            superfluous = [key for key in present if key not in wanted]
            _write(self._map(maps), different)
            maps.endpoints.delete_many(superfluous)
        added = sum(key not in present for key in different)
        return Changes(added=added, changed=len(different) - added, removed=len(superfluous))

    def _remotes(self, maps: Maps, vni: int | None) -> Iterator[tuple[bytes, bytes]]:
        for key, value in maps.endpoints.items():
            if not records.is_local(value) and vni in (None, records.unpack_endpoint_key(key).vni):
                yield key, value

    def _pack_all(
        self,
        entries: Mapping[_EndpointLike, Remote] | Iterable[tuple[_EndpointLike, Remote]],
    ) -> dict[bytes, bytes]:
        return {self._pack_key(key): self._pack_remote(value) for key, value in _pairs(entries)}

    def _pack_remote(self, value: Remote) -> bytes:
        if not isinstance(value, Remote):
            raise InvalidTypeError(
                f"an entry is a Remote, not {type(value).__name__}",
                argument="value",
                hint="local entries are made by Endpoint.create()",
            )
        self._check_host(value.host, "host")
        if value.host == self._tunnel_local:
            raise InvalidValueError(f"host {value.host} is this host", argument="host", value=value.host)
        return records.pack_endpoint(value)

    def _refuse_local(self, maps: Maps, packed: bytes) -> None:
        value = maps.endpoints.lookup(packed)
        if value is not None and records.is_local(value):
            self._release_or_refuse(maps, packed)

    def _refuse_locals(self, maps: Maps, entries: Iterable[bytes]) -> None:
        local = {key for key, value in maps.endpoints.items() if records.is_local(value)}
        for packed in entries:
            if packed in local:
                self._release_or_refuse(maps, packed)

    def _release_or_refuse(self, maps: Maps, packed: bytes) -> None:
        if not self._release(maps, records.unpack_endpoint_key(packed)):
            raise _local_error(packed)


def _local_error(packed: bytes) -> LocalEndpointError:
    key = records.unpack_endpoint_key(packed)
    return LocalEndpointError(
        f"({key.vni}, {key.ip}) is an endpoint of this host", hint="use Endpoint to change or delete it"
    )


class NetworkTable(_Table[NetworkKey, Network]):
    """``agent.networks``: prefixes of a VNI, with gateway and transit switches.

    Every write holds the host's lock, and so does all reading but :meth:`find`: the kernel walks a prefix table along
    nodes that a change moves, and could miss an entry that stays.
    """

    _what = "network"

    def _map(self, maps: Maps) -> Map:
        return maps.networks

    def _pack_key(self, key: object) -> bytes:
        return records.pack_network_key(NetworkKey.parse(key))

    def _unpack(self, key: bytes, value: bytes) -> tuple[NetworkKey, Network]:
        return records.unpack_network_key(key), records.unpack_network(value)

    def _find(self, packed: bytes) -> bytes | None:
        # The kernel's look-up answers with the longest prefix; a mapping wants this one.
        return dict(self._entries()).get(packed)

    def _entries(self) -> list[tuple[bytes, bytes]]:
        with self._store.writing() as maps:
            return list(maps.networks.items())

    def __len__(self) -> int:
        """How many entries."""
        return len(self._entries())

    def __setitem__(self, key: tuple[int, PrefixLike], value: Network) -> None:
        """Add or replace a network; raises ``InvalidValueError``, ``InvalidTypeError`` or ``CapacityError``."""
        self.update([(key, value)])

    def __delitem__(self, key: tuple[int, PrefixLike]) -> None:
        """Remove a network; raises ``EndpointNotFoundError`` (a ``KeyError``) if there is none of that prefix."""
        packed = self._pack_key(key)
        with self._store.writing() as maps:
            if not maps.networks.delete(packed):
                raise EndpointNotFoundError(f"no network {key!r}")

    def update(
        self,
        entries: Mapping[_NetworkLike, Network] | Iterable[tuple[_NetworkLike, Network]],
        /,
    ) -> None:
        """Write many entries: all are checked, room is checked, then they are written in batches."""
        packed = {self._pack_key(key): self._pack_network(key, value) for key, value in _pairs(entries)}
        with self._store.writing() as maps:
            _write(self._map(maps), packed)

    def find(self, vni: int, ip: AddressLike) -> Network | None:
        """The network that packets to ``ip`` belong to: the longest prefix of the VNI that holds it."""
        address = check_address(ip)
        value = self._map(self._store.maps).lookup(records.pack_host_key(check_vni(vni), address))
        return None if value is None else records.unpack_network(value)

    def _pack_network(self, key: object, value: Network) -> bytes:
        if not isinstance(value, Network):
            raise InvalidTypeError(f"an entry is a Network, not {type(value).__name__}", argument="value")
        prefix = NetworkKey.parse(key).prefix
        if value.gateway is not None and value.gateway not in prefix:
            raise InvalidValueError(
                f"gateway {value.gateway} is not in {prefix}", argument="gateway", value=value.gateway
            )
        for host in value.switches:
            self._check_host(host, "switches")
        return records.pack_network(value)


class PeerSet(collections.abc.Set[IPNetwork]):
    """``agent.peers``: underlay prefixes that tunnel packets are accepted from.

    Writing and reading hold the host's lock, as for :class:`NetworkTable`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def _from_iterable(cls, it: Iterable[IPNetwork]) -> frozenset[IPNetwork]:  # type: ignore[override]
        return frozenset(it)  # the result of an operation on sets is no live view

    def __contains__(self, prefix: object) -> bool:
        return isinstance(prefix, (str, IPv4Network, IPv6Network)) and check_prefix(prefix) in set(self)

    def __iter__(self) -> Iterator[IPNetwork]:
        return map(records.unpack_peer_key, self._keys())

    def __len__(self) -> int:
        return len(self._keys())

    def _keys(self) -> list[bytes]:
        with self._store.writing() as maps:
            return list(maps.peers.keys())

    def add(self, prefix: PrefixLike) -> None:
        """Accept tunnel packets from ``prefix``; again is harmless. Raises ``CapacityError`` when full."""
        self.update([prefix])

    def discard(self, prefix: PrefixLike) -> None:
        """No longer accept tunnel packets from ``prefix``, if that very prefix is in the set."""
        packed = records.pack_peer_key(check_prefix(prefix))
        with self._store.writing() as maps:
            maps.peers.delete(packed)

    def update(self, prefixes: Iterable[PrefixLike], /) -> None:
        """Add all of ``prefixes``; raises ``CapacityError`` when they do not fit, with nothing added."""
        packed = {records.pack_peer_key(check_prefix(prefix)): PEER for prefix in prefixes}
        with self._store.writing() as maps:
            _write(maps.peers, packed)

    def covers(self, address: AddressLike) -> bool:
        """Whether a tunnel packet from ``address`` would be accepted."""
        ip = check_address(address, argument="address")
        return any(ip.version == prefix.version and ip in prefix for prefix in self)

    def __repr__(self) -> str:
        return f"<PeerSet of {self._store.directory.name}>"


PEER = (1).to_bytes(4, "little")
"""The value of every entry of ``peers``: only its presence is read."""
