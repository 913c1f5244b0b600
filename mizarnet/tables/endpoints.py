# SPDX-License-Identifier: Apache-2.0
"""The table of where each (VNI, address) lives."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from typing import TypeVar

import attrs

from mizarnet._datapath.endpoints import LocalEndpoints
from mizarnet._datapath.lock import TABLE_WRITER
from mizarnet._datapath.maps import Maps, present, write
from mizarnet._kernel.bpf import Map
from mizarnet._kernel.jobs import whole
from mizarnet._model import codec
from mizarnet._model.arguments import check_vni
from mizarnet._model.described import Described
from mizarnet._model.differences import differences
from mizarnet._model.public import public
from mizarnet._model.specs import AddressLike, EndpointKey, Local, Remote
from mizarnet.errors import (
    CapacityError,
    EntryNotFoundError,
    InvalidTypeError,
    InvalidValueError,
    LocalEndpointError,
)
from mizarnet.tables._table import Table, pairs

# A type variable, since the key type of a mapping is invariant: EndpointKey is one of the types that fit.
_EndpointLike = TypeVar("_EndpointLike", bound="tuple[int, AddressLike]")


@public
@attrs.frozen
class Changes(Described):
    """Result of :meth:`EndpointTable.sync`.

    Attributes:
        added: Number of entries that were added.
        changed: Number of entries whose host changed.
        removed: Number of entries that were removed.
    """

    added: int
    changed: int
    removed: int


@public
class EndpointTable(Table[EndpointKey, "Local | Remote"]):
    """``agent.endpoints``: where each address of a VNI lives. An endpoint with two addresses has two entries.

    Keys are pairs of VNI and address, such as ``(7, "10.0.0.9")``. Only :class:`mizarnet.Remote` can be written, since
    local entries belong to :class:`mizarnet.Endpoint`. Every write holds the host's lock.

    Each call also raises what :class:`mizarnet.TransitAgent` raises for a handle that is closed, stale or of another
    process.

    Raises:
        LockTimeoutError: In each writing call: another process held the host's lock for 10 s.
    """

    _what = "endpoint"
    _rows = "addresses"
    _header = ("vni", "address", "where")

    def _map(self, maps: Maps) -> Map:
        return maps.endpoints

    def _pack_key(self, key: object) -> bytes:
        return codec.pack_endpoint_key(EndpointKey.parse(key))

    def _unpack(self, key: bytes, value: bytes) -> tuple[EndpointKey, Local | Remote]:
        return codec.unpack_endpoint_key(key), codec.unpack_endpoint(value)

    @whole
    def __setitem__(self, key: tuple[int, AddressLike], value: Remote) -> None:
        """Set the host that an endpoint of another host lives on.

        Raises:
            LocalEndpointError: The key belongs to a local endpoint.
            InvalidValueError: The host's address is not of the underlay's address family, or is this host's.
            CapacityError: The table is full.
        """
        packed, data = self._pack_key(key), self._pack_remote(value)
        with self._datapath.writing(*TABLE_WRITER) as maps:
            self._refuse_local(maps, packed)
            maps.endpoints.update(packed, data)
            self._yield_to_locals(maps, [packed])
        self._log_change(written=1)

    @whole
    def __delitem__(self, key: tuple[int, AddressLike]) -> None:
        """Remove the entry of a remote endpoint, or of one of this host whose device is gone.

        Raises:
            EntryNotFoundError: There is no entry of that key.
            LocalEndpointError: The key belongs to a local endpoint.
        """
        packed = self._pack_key(key)
        with self._datapath.writing(*TABLE_WRITER) as maps:
            there = maps.endpoints.lookup(packed) is not None
            self._refuse_local(maps, packed)  # which removes the entry of an endpoint that lost its device
            maps.endpoints.delete(packed)
            self._yield_to_locals(maps, [packed])
            if not there:
                raise EntryNotFoundError(f"no endpoint {key!r}")
        self._log_change(removed=1)

    @whole
    def update(
        self,
        entries: Mapping[_EndpointLike, Remote] | Iterable[tuple[_EndpointLike, Remote]],
        /,
    ) -> None:
        """Write many entries: all of them and the room for them are checked, then they are written in batches.

        Args:
            entries: Mapping, or pairs of key and value.

        Raises:
            LocalEndpointError: A key belongs to a local endpoint; nothing was written.
            InvalidValueError: A host's address is not of the underlay's address family, or is this host's.
            CapacityError: The entries do not fit; nothing was written.
            BpfError: The kernel refused an entry; the message says how many were written before it.
        """
        packed = self._pack_all(entries)
        with self._datapath.writing(*TABLE_WRITER) as maps:
            self._refuse_locals(maps, packed.keys())
            self._write(maps, packed)
        self._log_change(written=len(packed))

    @whole
    def sync(
        self,
        remotes: Mapping[_EndpointLike, Remote] | Iterable[tuple[_EndpointLike, Remote]],
        *,
        vni: int | None = None,
    ) -> Changes:
        """Make the remote entries, of one VNI or of all, exactly ``remotes``; local entries stay.

        Superfluous entries are removed first, so that a full table can be renewed.

        Args:
            remotes: Mapping, or pairs of key and value.
            vni: VNI whose entries are replaced; None: those of every VNI.

        Returns:
            Numbers of entries that were added, changed and removed.

        Raises:
            InvalidValueError: A key is of another VNI than ``vni``; also as for :meth:`update`.
            LocalEndpointError: As for :meth:`update`.
            CapacityError: As for :meth:`update`.
            BpfError: As for :meth:`update`.
        """
        if vni is not None:
            check_vni(vni)
        wanted = self._pack_all(remotes)
        if vni is not None and any(codec.unpack_endpoint_key(key).vni != vni for key in wanted):
            raise InvalidValueError(f"an entry is not of VNI {vni}", argument="remotes", value=vni)
        with self._datapath.writing(*TABLE_WRITER) as maps:
            self._refuse_locals(maps, wanted.keys())
            there = dict(self._remotes(maps, vni))
            different = differences(wanted, there)
            superfluous = [key for key in there if key not in wanted]
            self._write(maps, {key: wanted[key] for key in different}, leaving=superfluous)
        self._log_change(written=len(different), removed=len(superfluous))
        added = sum(found is None for _, found in different.values())
        return Changes(added=added, changed=len(different) - added, removed=len(superfluous))

    def _write(self, maps: Maps, entries: Mapping[bytes, bytes], *, leaving: Collection[bytes] = ()) -> None:
        try:
            write(maps.endpoints, entries, leaving=leaving)
        except CapacityError:
            _restored(maps, [*entries, *leaving])
            raise
        self._yield_to_locals(maps, entries, removed=leaving)

    def _remotes(self, maps: Maps, vni: int | None) -> Iterator[tuple[bytes, bytes]]:
        for key, value in maps.endpoints.items():
            if not codec.is_local(value) and vni in (None, codec.unpack_endpoint_key(key).vni):
                yield key, value

    def _pack_all(
        self,
        entries: Mapping[_EndpointLike, Remote] | Iterable[tuple[_EndpointLike, Remote]],
    ) -> dict[bytes, bytes]:
        return {self._pack_key(key): self._pack_remote(value) for key, value in pairs(entries)}

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
        return codec.pack_endpoint(value)

    def _refuse_local(self, maps: Maps, packed: bytes) -> None:
        value = maps.endpoints.lookup(packed)
        if packed in maps.addresses or (value is not None and codec.is_local(value)):
            self._release_or_refuse(maps, packed)

    def _refuse_locals(self, maps: Maps, entries: Set[bytes]) -> None:
        there = present(maps.endpoints, entries)
        local = {key for key, value in there.items() if codec.is_local(value)}
        for packed in local | (_claims(maps, entries) & entries):
            self._release_or_refuse(maps, packed)

    def _release_or_refuse(self, maps: Maps, packed: bytes) -> None:
        if not LocalEndpoints(self._datapath, maps).release(codec.unpack_endpoint_key(packed)):
            raise _local_error(packed)

    def _yield_to_locals(
        self, maps: Maps, written: Collection[bytes], *, removed: Collection[bytes] = ()
    ) -> None:
        """Restore local entries that were just overwritten; a process that does not see the lock may have made one."""
        _restored(maps, removed)
        claimed = _restored(maps, written)
        if claimed:
            raise _local_error(claimed[0])


def _restored(maps: Maps, keys: Collection[bytes]) -> list[bytes]:
    """The keys that endpoints of this host claim, after their entries were written again."""
    claims = _claims(maps, keys)
    return [key for key in keys if key in claims and maps.restore_local(key)]


def _claims(maps: Maps, keys: Collection[bytes]) -> set[bytes]:
    """Those of some keys, at least, that endpoints of this host claim."""
    if len(keys) > _FEWER:
        return set(maps.addresses.keys())
    return {key for key in keys if key in maps.addresses}


# The claims of this host are far fewer than the entries of all hosts: from here on, reading them all is quicker.
_FEWER = 64


def _local_error(packed: bytes) -> LocalEndpointError:
    key = codec.unpack_endpoint_key(packed)
    return LocalEndpointError(
        f"({key.vni}, {key.ip}) is an endpoint of this host", hint="use Endpoint to change or delete it"
    )
