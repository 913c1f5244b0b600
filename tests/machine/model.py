# SPDX-License-Identifier: Apache-2.0
"""What must be there: endpoints by name, entries by key, namespaces, and the switch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

import attrs

import mizarnet as mz
from mizarnet import EndpointKey, EndpointSpec, Kind, Life, MacAddress

IPInterface = IPv4Interface | IPv6Interface
Entries = Mapping[Any, tuple[Any, str]]
"""Value and feed of each entry, by key."""
HALF = (Life.MAKING, Life.DELETING)
TABLES = ("endpoints", "networks", "peers")


@attrs.frozen
class Known:
    """What is known of an endpoint.

    Attributes:
        spec: What it was made from, with the MAC.
        life: How far it has come.
        instance: Tells it from others of its name; 0: not seen yet.
        up: Whether its device is up.
        addresses: Those that its device has.
    """

    spec: EndpointSpec
    life: Life = Life.LIVE
    instance: int = 0
    up: bool = True
    addresses: frozenset[IPInterface] = frozenset()

    @classmethod
    def made_from(cls, spec: EndpointSpec) -> Known:
        """One that was made just now."""
        mac = spec.mac or MacAddress.derive(spec.vni, spec.ip[0].ip)
        return cls(attrs.evolve(spec, mac=mac)).whole()

    def whole(self) -> Known:
        """The same with everything that its device is to have; a VM's has nothing, and is down until it is opened."""
        vm = self.spec.kind is Kind.MACVTAP
        return attrs.evolve(self, up=not vm, addresses=frozenset(() if vm else self.spec.ip))

    @property
    def keys(self) -> frozenset[EndpointKey]:
        """Its keys in ``endpoints``."""
        return frozenset(EndpointKey(self.spec.vni, each.ip) for each in self.spec.ip)

    def clashes(self, other: Known) -> bool:
        """Whether it has an address or the MAC of another."""
        return bool(self.keys & other.keys) or self.spec.mac == other.spec.mac

    def is_beside(self, other: Known) -> bool:
        """Whether its device is in the namespace of another's."""
        containers = self.spec.kind is other.spec.kind is Kind.MACVLAN
        return containers and self.spec.netns == other.spec.netns

    def shares_subnet(self, other: Known) -> bool:
        """Whether it would have a subnet of its VNI in the namespace of a device that has it; both may not forward."""
        there = [each.network for each in other.addresses]
        own = [each.network for each in self.spec.ip]  # all of them have others on the link
        overlap = any(a.version == b.version and a.overlaps(b) for a in own for b in there)
        forward = self.spec.forwarding and other.spec.forwarding
        return self.is_beside(other) and self.spec.vni == other.spec.vni and overlap and not forward

    def is_as(self, wanted: EndpointSpec) -> bool:
        """Whether it is what ``wanted`` asks for, in which a None leaves open."""
        own = self.spec
        fixed = ("vni", "ip", "ifname", "kind", "forwarding")
        place = (wanted.kind, wanted.netns) == (own.kind, own.netns)
        mtu = wanted.mtu in (None, own.mtu)
        return place and mtu and wanted.mac in (None, own.mac) and _of(wanted, fixed) == _of(own, fixed)


def _of(spec: EndpointSpec, names: Collection[str]) -> list[object]:
    return [getattr(spec, name) for name in names]


@attrs.frozen
class Model:
    """All of it.

    Attributes:
        spaces: Names of the namespaces that there are.
        endpoints: Endpoints of the host by name.
        entries: Entries of each table; of ``endpoints``, those that users wrote.
        switch: Whether the host is a switch; None: half.
    """

    spaces: frozenset[str]
    endpoints: Mapping[str, Known] = attrs.Factory(dict)
    entries: Mapping[str, Entries] = attrs.field(factory=lambda: {name: {} for name in TABLES})
    switch: bool | None = False

    def with_endpoint(self, known: Known) -> Model:
        """With another endpoint, or another one of its name; a live one has its entries."""
        made = attrs.evolve(self, endpoints={**self.endpoints, known.spec.name: known})
        taken = known.keys if known.life is Life.LIVE else ()
        return made.with_entries("endpoints", gone=taken)

    def without(self, names: Collection[str]) -> Model:
        """Without some endpoints."""
        left = {name: known for name, known in self.endpoints.items() if name not in names}
        return attrs.evolve(self, endpoints=left)

    def with_entries(self, table: str, put: Entries | None = None, gone: Collection[Any] = ()) -> Model:
        """With some entries of a table, and without others."""
        left = {key: entry for key, entry in self.entries[table].items() if key not in gone}
        return attrs.evolve(self, entries={**self.entries, table: left | dict(put or {})})

    def others(self, name: str) -> list[Known]:
        """All endpoints but that of a name."""
        return [known for other, known in self.endpoints.items() if other != name]

    def of_life(self, *lives: Life) -> Iterator[Known]:
        """Those endpoints that have come so far."""
        return (known for known in self.endpoints.values() if known.life in lives)

    def holders(self, keys: Collection[Any]) -> list[Known]:
        """Endpoints that have some of those addresses."""
        return [known for known in self.endpoints.values() if known.keys & set(keys)]


def names_of(each: Collection[Known]) -> frozenset[str]:
    """Their names."""
    return frozenset(known.spec.name for known in each)


def dead_of(each: Collection[Known]) -> frozenset[str]:
    """Names of those that lost their devices: they give up what they have to whoever asks for it."""
    return names_of([known for known in each if known.life is Life.DEAD])


def halves_of(each: Collection[Known]) -> frozenset[str]:
    """Names of those that are half made or deleted: they do the same, as far as they have it."""
    return names_of([known for known in each if known.life in HALF])


@attrs.frozen
class End:
    """One way in which a deed may end.

    Attributes:
        model: What is there then.
        error: What it raises; None: it succeeds.
        may_go: Names of endpoints, none of them live, that may be gone as well.
        tried: Endpoints that it began to make, and did not make.
    """

    model: Model
    error: type[mz.MizarnetError] | None = None
    may_go: frozenset[str] = frozenset()
    tried: tuple[Known, ...] = ()
