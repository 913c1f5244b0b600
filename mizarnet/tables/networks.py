# SPDX-License-Identifier: Apache-2.0
"""The table of the prefixes of each VNI, with gateways and transit switches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from mizarnet._datapath.lock import TABLE_WRITER
from mizarnet._datapath.maps import Maps, write
from mizarnet._kernel.bpf import Map
from mizarnet._kernel.jobs import whole
from mizarnet._model import codec
from mizarnet._model.arguments import check_address, check_vni
from mizarnet._model.public import public
from mizarnet._model.specs import AddressLike, Network, NetworkKey, PrefixLike
from mizarnet.errors import EntryNotFoundError, InvalidTypeError, InvalidValueError
from mizarnet.tables._table import Table, pairs

# A type variable, since the key type of a mapping is invariant: NetworkKey is one of the types that fit.
_NetworkLike = TypeVar("_NetworkLike", bound="tuple[int, PrefixLike]")


@public
class NetworkTable(Table[NetworkKey, Network]):
    """``agent.networks``: prefixes of each VNI, with gateway and transit switches.

    Keys are pairs of VNI and prefix, such as ``(7, "10.0.0.0/24")``. Every call but :meth:`find` holds the host's lock,
    reading calls too: a change moves nodes of the LPM trie, and a walk along them could miss an entry.

    Each call also raises what :class:`mizarnet.TransitAgent` raises for a handle that is closed, stale or of another
    process.

    Raises:
        LockTimeoutError: In each call but :meth:`find`: another process held the host's lock for 10 s.
    """

    _what = "network"
    _rows = "networks"
    _header = ("vni", "prefix", "what")

    def _map(self, maps: Maps) -> Map:
        return maps.networks

    def _pack_key(self, key: object) -> bytes:
        return codec.pack_network_key(NetworkKey.parse(key))

    def _unpack(self, key: bytes, value: bytes) -> tuple[NetworkKey, Network]:
        return codec.unpack_network_key(key), codec.unpack_network(value)

    def _find(self, packed: bytes) -> bytes | None:
        # The kernel's look-up finds the longest prefix that matches; a mapping must find this very prefix.
        return dict(self._entries()).get(packed)

    @whole
    def _entries(self) -> list[tuple[bytes, bytes]]:
        with self._datapath.reading() as maps:
            return list(maps.networks.items())

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._entries())

    def __setitem__(self, key: tuple[int, PrefixLike], value: Network) -> None:
        """Add or replace a network; raises as :meth:`update` does."""
        self.update([(key, value)])

    @whole
    def __delitem__(self, key: tuple[int, PrefixLike]) -> None:
        """Remove the network of that very prefix.

        Raises:
            EntryNotFoundError: There is no network of that prefix; the error is a ``KeyError``.
        """
        packed = self._pack_key(key)
        with self._datapath.writing(*TABLE_WRITER) as maps:
            if not maps.networks.delete(packed):
                raise EntryNotFoundError(f"no network {key!r}")
        self._log_change(removed=1)

    @whole
    def update(
        self,
        entries: Mapping[_NetworkLike, Network] | Iterable[tuple[_NetworkLike, Network]],
        /,
    ) -> None:
        """Write many entries: all of them and the room for them are checked, then they are written in batches.

        Args:
            entries: Mapping, or pairs of key and value.

        Raises:
            InvalidValueError: A gateway is outside its prefix, or the address of a transit switch is not of the
                underlay's address family.
            InvalidTypeError: A value is no ``Network``.
            CapacityError: The entries do not fit; nothing was written.
            BpfError: The kernel refused an entry; the message says how many were written before it.
        """
        packed = {self._pack_key(key): self._pack_network(key, value) for key, value in pairs(entries)}
        with self._datapath.writing(*TABLE_WRITER) as maps:
            write(self._map(maps), packed)
        self._log_change(written=len(packed))

    def find(self, vni: int, ip: AddressLike) -> Network | None:
        """The network that packets to ``ip`` belong to: that of the longest prefix of the VNI that contains it."""
        address = check_address(ip)
        value = self._map(self._datapath.maps).lookup(codec.pack_host_key(check_vni(vni), address))
        return None if value is None else codec.unpack_network(value)

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
        return codec.pack_network(value)
