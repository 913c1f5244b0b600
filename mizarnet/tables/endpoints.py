# SPDX-License-Identifier: Apache-2.0
"""The table of where each (VNI, address) lives."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from typing import TypeAlias, TypeVar

from mizarnet._datapath.endpoints import LocalEndpoints
from mizarnet._datapath.feeds import Edit, Feed
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.next_hops import begin_endpoints
from mizarnet._kernel.bpf import Map
from mizarnet._model import codec, columns
from mizarnet._model.arguments import check_items
from mizarnet._model.columns import EndpointColumns
from mizarnet._model.public import public
from mizarnet._model.specs import AddressLike, EndpointKey, Local, Remote
from mizarnet.errors import EntryNotFoundError, InvalidTypeError, InvalidValueError
from mizarnet.tables._changes import Changes
from mizarnet.tables._owned import pairs
from mizarnet.tables._table import Table

# A type variable, since the key type of a mapping is invariant: EndpointKey is one of the types that fit.
_EndpointLike = TypeVar("_EndpointLike", bound="tuple[int, AddressLike]")
_Remotes: TypeAlias = (
    Mapping[_EndpointLike, Remote] | Iterable[tuple[_EndpointLike, Remote]] | EndpointColumns
)


@public
class EndpointTable(Table[EndpointKey, "Local | Remote"]):
    """``agent.endpoints``: where each address of a VNI lives. An endpoint with two addresses has two entries.

    Keys are pairs of VNI and address, such as ``(7, "10.0.0.9")``. Only :class:`mizarnet.Remote` can be written, since
    local entries belong to :class:`mizarnet.Endpoint`: an endpoint that is made takes its addresses, whichever feed has
    entries of them. Each remote entry belongs to the feed that wrote it, or was written by hand (``feed=""``). A feed
    changes and removes its own entries only, unless the call says ``take=True``: then it takes over those that the call
    names. Every write holds the host's lock.

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
        return codec.pack_usual_key(key) or codec.pack_endpoint_key(EndpointKey.parse(key))

    def _unpack_key(self, packed: bytes) -> EndpointKey:
        return codec.unpack_endpoint_key(packed)

    def _vni(self, packed: bytes) -> int:
        return codec.endpoint_vni(packed)

    def _unpack_value(self, packed: bytes) -> Local | Remote:
        return codec.unpack_endpoint(packed)

    def _owner(self, value: bytes) -> int | None:
        return codec.endpoint_owner(value)

    def _begin(self, maps: Maps, edit: Edit, there: Mapping[bytes, bytes]) -> bool:
        return begin_endpoints(maps, edit)

    def columns(self) -> EndpointColumns:
        """All entries as columns, read as by :meth:`snapshot` in a fifth of its time."""
        keys, values, _ = self._map(self._datapath.maps).lookup_all()
        return columns.from_packed(keys, values)

    def __setitem__(self, key: tuple[int, AddressLike], value: Remote) -> None:
        """Set by hand the host that an endpoint of another host lives on; raises as :meth:`update` does."""
        self.update([(key, value)])

    def __delitem__(self, key: tuple[int, AddressLike]) -> None:
        """Remove an entry that was written by hand, or one of an endpoint of this host whose device is gone.

        Raises:
            EntryNotFoundError: There is no entry of that key.
            ForeignEntryError: The entry belongs to a feed.
            LocalEndpointError: The key belongs to a local endpoint.
        """
        if not self._remove(self._pack_key(key)):
            raise EntryNotFoundError(f"no endpoint {key!r}")

    def update(
        self,
        entries: _Remotes[_EndpointLike],
        /,
        *,
        feed: str = "",
        take: bool = False,
    ) -> None:
        """Write many entries: all of them and the room for them are checked, then they are written in batches.

        Args:
            entries: Mapping, pairs of key and value, or columns.
            feed: Name of the feed that writes, at most 31 bytes in UTF-8; empty: by hand.
            take: Whether to take over entries of other feeds.

        Raises:
            LocalEndpointError: A key belongs to a local endpoint; nothing was written.
            ForeignEntryError: An entry belongs to another feed; nothing was written.
            InvalidValueError: A host's address is not of the underlay's address family, or is this host's.
            CapacityError: The entries do not fit, or 16 other feeds have entries; nothing was written.
            BpfError: The kernel refused an entry; nothing was changed.
        """
        writer = Feed.of(feed, take=take)
        self._update(self._pack_all(entries, writer, "entries"), writer)

    def sync(
        self,
        remotes: _Remotes[_EndpointLike],
        *,
        vni: int | None = None,
        feed: str = "",
        take: bool = False,
    ) -> Changes[EndpointKey]:
        """Make the entries of a feed, of one VNI or of all, exactly ``remotes``; all other entries stay.

        Superfluous entries are removed first, so that a full table can be renewed.

        Args:
            remotes: Mapping, pairs of key and value, or columns.
            vni: VNI whose entries are replaced; None: those of every VNI.
            feed: Name of the feed, as for :meth:`update`.
            take: Whether to take over the entries of other feeds that are in ``remotes``.

        Returns:
            Numbers of entries that were added, changed and removed.

        Raises:
            InvalidValueError: A key is of another VNI than ``vni``; also as for :meth:`update`.
            LocalEndpointError: As for :meth:`update`.
            ForeignEntryError: As for :meth:`update`.
            CapacityError: As for :meth:`update`.
            BpfError: As for :meth:`update`.
        """
        writer = Feed.of(feed, take=take)
        return self._sync_within(self._pack_all(remotes, writer, "remotes"), writer, vni)

    def apply(
        self,
        put: _Remotes[_EndpointLike],
        gone: Iterable[tuple[int, AddressLike]] = (),
        *,
        feed: str = "",
        take: bool = False,
    ) -> Changes[EndpointKey]:
        """Write some entries of a feed and remove others, at the cost of these; what is not the feed's is left alone.

        Args:
            put: Entries to write: mapping, pairs of key and value, or columns.
            gone: Keys of entries to remove; one that is not there is harmless.
            feed: Name of the feed, as for :meth:`update`.
            take: Whether to take over, and to remove, the entries of other feeds that are named.

        Returns:
            Numbers of entries that were added, changed and removed, and the keys that were left alone: those of
            endpoints of this host, and those of other feeds.

        Raises:
            InvalidValueError: A key is in ``put`` and in ``gone``; also as for :meth:`update`.
            CapacityError: As for :meth:`update`.
            BpfError: As for :meth:`update`.
        """
        writer = Feed.of(feed, take=take)
        keys = {self._pack_key(key) for key in check_items(gone, argument="gone", what="keys")}
        return self._apply(self._pack_all(put, writer, "put"), keys, writer)

    def _pack_all(
        self,
        entries: _Remotes[_EndpointLike],
        writer: Feed,
        argument: str,
    ) -> dict[bytes, bytes]:
        if isinstance(entries, EndpointColumns):
            return columns.pack(entries, lambda host: self._pack_remote(Remote(host), writer))
        packed: dict[bytes, bytes] = {}
        known: dict[
            int, tuple[Remote, bytes]
        ] = {}  # by the object's id, which is its own as long as it is here
        for key, value in pairs(entries, argument=argument):
            if (there := known.get(id(value))) is None:
                there = known[id(value)] = (value, self._pack_remote(value, writer))
            packed[self._pack_key(key)] = there[1]
        return packed

    def _pack_remote(self, value: Remote, writer: Feed) -> bytes:
        if not isinstance(value, Remote):
            raise InvalidTypeError(
                f"an entry is a Remote, not {type(value).__name__}",
                argument="value",
                hint="local entries are made by Endpoint.create()",
            )
        self._check_host(value.host, "host")
        if value.host == self._datapath.local:
            raise InvalidValueError(f"host {value.host} is this host", argument="host", value=value.host)
        return codec.pack_endpoint(value, feed=writer.number)

    def _held(self, maps: Maps, local: Set[bytes], keys: Set[bytes]) -> set[bytes]:
        own = LocalEndpoints(self._datapath, maps)
        claimed = {key for key in _claims(maps, keys) if key in keys}
        return {key for key in local | claimed if not own.release(codec.unpack_endpoint_key(key))}

    def _reclaimed(self, maps: Maps, keys: Collection[bytes]) -> set[bytes]:
        return {key for key in _claims(maps, keys).intersection(keys) if maps.restore_local(key)}


def _claims(maps: Maps, keys: Collection[bytes]) -> set[bytes]:
    """Those of some keys, at least, that endpoints of this host claim."""
    if len(keys) > _FEWER:
        return set(maps.addresses.keys())
    return {key for key in keys if key in maps.addresses}


# The claims of this host are far fewer than the entries of all hosts: from here on, reading them all is quicker.
_FEWER = 64
