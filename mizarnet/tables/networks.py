# SPDX-License-Identifier: Apache-2.0
"""The table of the prefixes of each VNI, with gateways, and transit switches or next hops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from mizarnet._datapath.feeds import Edit, Feed
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.next_hops import begin_networks
from mizarnet._kernel.bpf import Map
from mizarnet._model import codec
from mizarnet._model.arguments import check_address, check_items, check_vni
from mizarnet._model.public import public
from mizarnet._model.specs import AddressLike, Network, NetworkKey, PrefixLike, check_network
from mizarnet.errors import EntryNotFoundError, InvalidTypeError
from mizarnet.tables._changes import Changes
from mizarnet.tables._owned import pairs
from mizarnet.tables._prefixes import Prefixes
from mizarnet.tables._table import Table

# A type variable, since the key type of a mapping is invariant: NetworkKey is one of the types that fit.
_NetworkLike = TypeVar("_NetworkLike", bound="tuple[int, PrefixLike]")


@public
class NetworkTable(Prefixes[NetworkKey], Table[NetworkKey, Network]):
    """``agent.networks``: prefixes of each VNI, with gateway, and transit switches or next hop.

    Keys are pairs of VNI and prefix, such as ``(7, "10.0.0.0/24")``. Each entry belongs to the feed that wrote it, as
    in :class:`EndpointTable`. Every write holds the host's lock, and so does every call that reads all entries: a
    change moves nodes of the LPM trie, and a walk along them could miss an entry. One entry is read without the lock.

    Each call also raises what :class:`mizarnet.TransitAgent` raises for a handle that is closed, stale or of another
    process.

    Raises:
        LockTimeoutError: In each call that writes or reads all entries: another process held the host's lock for 10 s.
    """

    _what = "network"
    _rows = "networks"
    _header = ("vni", "prefix", "what")

    def _map(self, maps: Maps) -> Map:
        return maps.networks

    def _pack_key(self, key: object) -> bytes:
        return codec.pack_network_key(NetworkKey.parse(key))

    def _unpack_key(self, packed: bytes) -> NetworkKey:
        return codec.unpack_network_key(packed)

    def _vni(self, packed: bytes) -> int:
        return codec.network_vni(packed)

    def _unpack_value(self, packed: bytes) -> Network:
        return codec.unpack_network(packed)

    def _owner(self, value: bytes) -> int:
        return codec.network_feed(value)

    def _begin(self, maps: Maps, edit: Edit, there: Mapping[bytes, bytes]) -> bool:
        return begin_networks(maps, edit, there)

    def __setitem__(self, key: tuple[int, PrefixLike], value: Network) -> None:
        """Add or replace a network by hand; raises as :meth:`update` does."""
        self.update([(key, value)])

    def __delitem__(self, key: tuple[int, PrefixLike]) -> None:
        """Remove the network of that very prefix, which was written by hand.

        Raises:
            EntryNotFoundError: There is no network of that prefix; the error is a ``KeyError``.
            ForeignEntryError: The network belongs to a feed.
        """
        if not self._remove(self._pack_key(key)):
            raise EntryNotFoundError(f"no network {key!r}")

    def update(
        self,
        entries: Mapping[_NetworkLike, Network] | Iterable[tuple[_NetworkLike, Network]],
        /,
        *,
        feed: str = "",
        take: bool = False,
    ) -> None:
        """Write many entries: all of them and the room for them are checked, then they are written in batches.

        Args:
            entries: Mapping, or pairs of key and value.
            feed: Name of the feed that writes, at most 31 bytes in UTF-8; empty: by hand.
            take: Whether to take over entries of other feeds.

        Raises:
            ForeignEntryError: An entry belongs to another feed; nothing was written.
            InvalidValueError: A gateway is outside its prefix, a next hop inside it or of another family, or the
                address of a transit switch is not of the underlay's address family.
            InvalidTypeError: A value is no ``Network``.
            CapacityError: The entries do not fit, or 16 other feeds have entries; nothing was written.
            BpfError: The kernel refused an entry; nothing was changed.
        """
        writer = Feed.of(feed, take=take)
        self._update(self._pack_all(entries, writer, "entries"), writer)

    def sync(
        self,
        networks: Mapping[_NetworkLike, Network] | Iterable[tuple[_NetworkLike, Network]],
        *,
        vni: int | None = None,
        feed: str = "",
        take: bool = False,
    ) -> Changes[NetworkKey]:
        """Make the networks of a feed, of one VNI or of all, exactly ``networks``; all other entries stay.

        Args:
            networks: Mapping, or pairs of key and value.
            vni: VNI whose entries are replaced; None: those of every VNI.
            feed: Name of the feed, as for :meth:`update`.
            take: Whether to take over the entries of other feeds that are in ``networks``.

        Returns:
            Numbers of entries that were added, changed and removed.

        Raises:
            InvalidValueError: A key is of another VNI than ``vni``; also as for :meth:`update`.
            ForeignEntryError: As for :meth:`update`.
            CapacityError: As for :meth:`update`.
            BpfError: As for :meth:`update`.
        """
        writer = Feed.of(feed, take=take)
        return self._sync_within(self._pack_all(networks, writer, "networks"), writer, vni)

    def apply(
        self,
        put: Mapping[_NetworkLike, Network] | Iterable[tuple[_NetworkLike, Network]],
        gone: Iterable[tuple[int, PrefixLike]] = (),
        *,
        feed: str = "",
        take: bool = False,
    ) -> Changes[NetworkKey]:
        """Write some networks of a feed and remove others; what is not the feed's is left alone.

        Args:
            put: Entries to write: mapping, or pairs of key and value.
            gone: Keys of entries to remove; one that is not there is harmless.
            feed: Name of the feed, as for :meth:`update`.
            take: Whether to take over, and to remove, the entries of other feeds that are named.

        Returns:
            Numbers of entries that were added, changed and removed, and the keys of other feeds, which were left alone.

        Raises:
            InvalidValueError: A key is in ``put`` and in ``gone``; also as for :meth:`update`.
            CapacityError: As for :meth:`update`.
            BpfError: As for :meth:`update`.
        """
        writer = Feed.of(feed, take=take)
        keys = {self._pack_key(key) for key in check_items(gone, argument="gone", what="keys")}
        return self._apply(self._pack_all(put, writer, "put"), keys, writer)

    def find(self, vni: int, ip: AddressLike) -> Network | None:
        """The network that packets to ``ip`` belong to: that of the longest prefix of the VNI that contains it."""
        address = check_address(ip)
        value = self._map(self._datapath.maps).lookup(codec.pack_host_key(check_vni(vni), address))
        return None if value is None else codec.unpack_network(value)

    def _pack_all(
        self,
        entries: Mapping[_NetworkLike, Network] | Iterable[tuple[_NetworkLike, Network]],
        writer: Feed,
        argument: str,
    ) -> dict[bytes, bytes]:
        given = ((NetworkKey.parse(key), value) for key, value in pairs(entries, argument=argument))
        return {codec.pack_network_key(key): self._pack_network(key, value, writer) for key, value in given}

    def _pack_network(self, key: NetworkKey, value: Network, writer: Feed) -> bytes:
        if not isinstance(value, Network):
            raise InvalidTypeError(f"an entry is a Network, not {type(value).__name__}", argument="value")
        check_network(key, value)
        for host in value.switches:
            self._check_host(host, "switches")
        return codec.pack_network(key, value, feed=writer.number)
