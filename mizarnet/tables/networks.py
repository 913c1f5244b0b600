# SPDX-License-Identifier: Apache-2.0
"""The prefixes of each VNI, with gateways and transit switches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from mizarnet._datapath.maps import Maps, write
from mizarnet._kernel.bpf import Map
from mizarnet._model import codec
from mizarnet._model.arguments import check_address, check_vni
from mizarnet._model.specs import AddressLike, Network, NetworkKey, PrefixLike
from mizarnet.errors import EndpointNotFoundError, InvalidTypeError, InvalidValueError
from mizarnet.tables._table import Table, pairs

# Not the bound itself: a mapping's type of keys is invariant, and NetworkKey is one of them.
_NetworkLike = TypeVar("_NetworkLike", bound="tuple[int, PrefixLike]")


class NetworkTable(Table[NetworkKey, Network]):
    """``agent.networks``: prefixes of a VNI, with gateway and transit switches.

    Every write holds the host's lock, and so does all reading but :meth:`find`: the kernel walks a prefix table along
    nodes that a change moves, and could miss an entry that stays.

    Raises:
        LockTimeoutError: In each of these calls: another process is writing all the time.
    """

    _what = "network"

    def _map(self, maps: Maps) -> Map:
        return maps.networks

    def _pack_key(self, key: object) -> bytes:
        return codec.pack_network_key(NetworkKey.parse(key))

    def _unpack(self, key: bytes, value: bytes) -> tuple[NetworkKey, Network]:
        return codec.unpack_network_key(key), codec.unpack_network(value)

    def _find(self, packed: bytes) -> bytes | None:
        # The kernel's look-up answers with the longest prefix; a mapping wants this one.
        return dict(self._entries()).get(packed)

    def _entries(self) -> list[tuple[bytes, bytes]]:
        with self._datapath.reading() as maps:
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
        with self._datapath.writing() as maps:
            if not maps.networks.delete(packed):
                raise EndpointNotFoundError(f"no network {key!r}")

    def update(
        self,
        entries: Mapping[_NetworkLike, Network] | Iterable[tuple[_NetworkLike, Network]],
        /,
    ) -> None:
        """Write many entries: all are checked, room is checked, then they are written in batches."""
        packed = {self._pack_key(key): self._pack_network(key, value) for key, value in pairs(entries)}
        with self._datapath.writing() as maps:
            write(self._map(maps), packed)

    def find(self, vni: int, ip: AddressLike) -> Network | None:
        """The network that packets to ``ip`` belong to: the longest prefix of the VNI that holds it."""
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
