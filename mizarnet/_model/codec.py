# SPDX-License-Identifier: Apache-2.0
"""The library's values as the structures of ``mizarnet/abi.h``, and back.

Addresses are in network byte order, numbers in the host's.
"""

from __future__ import annotations

import functools
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface, ip_network
from typing import NamedTuple, cast

import attrs

from mizarnet._model import arguments, layouts
from mizarnet._model.arguments import UNKNOWN_FEED, IPAddress, IPInterface, IPNetwork
from mizarnet._model.enumerations import (
    EncapNumber,
    ItemKind,
    KindNumber,
    Limit,
    Place,
    SenderFlag,
    ShortcutNumber,
    State,
)
from mizarnet._model.layout import Layout, checked, cut, new
from mizarnet._model.layout import u32 as u32
from mizarnet._model.specs import (
    DefaultRoute,
    Encap,
    EndpointKey,
    EndpointSpec,
    Kind,
    Local,
    MacAddress,
    Network,
    NetworkKey,
    Remote,
    Route,
    Shortcut,
    in_order_of_addresses,
    in_order_of_routes,
)
from mizarnet.errors import LayoutError

MAPPED = bytes(10) + b"\xff\xff"
_NO_IP = layouts.Ip(family=0, words=bytes(16))
_NO_MAC, _NO_HOST = bytes(6), bytes(16)
_HOSTS = struct.Struct(f"{len(_NO_HOST)}s")
_NO_ADDRESS = layouts.OwnAddress(ip=_NO_IP, prefix_length=0)


def boot_time() -> int:
    """Nanoseconds since the machine was started, asleep or not: a clock that nobody sets."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def host_words(address: IPAddress) -> bytes:
    """An underlay address, where the family is known from the tunnel."""
    return MAPPED + address.packed if address.version == 4 else address.packed


def ip_fields(address: IPAddress | None) -> layouts.Ip:
    """An address as ``mzn_ip``; None is "no address"."""
    return _NO_IP if address is None else layouts.Ip(address.version, host_words(address))


def ip_from(fields: layouts.Ip) -> IPAddress | None:
    """The address of an ``mzn_ip``; None if it has none."""
    return _address(fields) if fields.family else None


def _address(fields: layouts.Ip) -> IPAddress:
    family, words = fields
    if family == 4:
        return IPv4Address(words.removeprefix(MAPPED))
    if family == 6:
        return IPv6Address(words)
    raise ValueError(f"an address of family {family} in a map")


def host_from(words: bytes) -> IPAddress:
    return IPv4Address(words.removeprefix(MAPPED)) if words.startswith(MAPPED) else IPv6Address(words)


def _mapped_length(prefix: IPNetwork) -> int:
    return prefix.prefixlen + (96 if prefix.version == 4 else 0)


# -- feeds -------------------------------------------------------------------------------------------------


def feed_number(name: str) -> int:
    """What the entries of a feed carry: a digest of its name, since nobody has to hand those out; 0: by hand."""
    if not name:
        return 0
    digest = blake2b(name.encode(), digest_size=4, person=b"mizarnet-feed").digest()
    return int.from_bytes(digest, "little") or 1


def feed_text(number: int, names: Iterable[str]) -> str:
    """The name that a number is the digest of, else a text with the number; empty: by hand."""
    if number == 0:
        return ""
    return next((name for name in names if feed_number(name) == number), f"{UNKNOWN_FEED}{number:08x}")


# -- endpoints ---------------------------------------------------------------------------------------------


def pack_endpoint_key(key: EndpointKey) -> bytes:
    """A key of ``endpoints``, packed as ``mzn_endpoint_key``."""
    return layouts.ENDPOINT_KEY.pack(key.vni, key.ip.version, host_words(key.ip))


def pack_usual_key(key: object) -> bytes | None:
    """The same of what needs no parsing, and of an IPv4 address as text, in a tenth of the time.

    Args:
        key: What a caller gave as key.

    Returns:
        None: whether it is a key, ``EndpointKey.parse()`` has to say.
    """
    if not isinstance(key, tuple):
        return None
    pair = cast("tuple[object, ...]", key)
    if len(pair) != 2:
        return None
    vni, ip = pair
    if type(vni) is not int or not 0 < vni <= Limit.VNI_MAX:
        return None
    if type(ip) is IPv4Address:
        return layouts.ENDPOINT_KEY.pack(vni, 4, MAPPED + ip.packed)
    if type(ip) is IPv6Address and ip.ipv4_mapped is None and ip.scope_id is None:
        return layouts.ENDPOINT_KEY.pack(vni, 6, ip.packed)
    if type(ip) is str:
        with suppress(OSError, ValueError):
            return layouts.ENDPOINT_KEY.pack(vni, 4, MAPPED + socket.inet_pton(socket.AF_INET, ip))
    return None


def unpack_endpoint_key(data: bytes) -> EndpointKey:
    """The key of ``endpoints`` in a packed ``mzn_endpoint_key``."""
    vni, family, words = layouts.ENDPOINT_KEY.unpack(data)
    if family == 4:
        return new(EndpointKey, (vni, IPv4Address(int.from_bytes(words[-4:], "big"))))
    return new(EndpointKey, (vni, _address(layouts.Ip(family, words))))


def pack_endpoint(value: Local | Remote, *, feed: int = 0, prefix_length: int = 0) -> bytes:
    """An entry of ``endpoints``, packed as ``mzn_endpoint``.

    Args:
        value: Where the address lives.
        feed: Number of the writer.
        prefix_length: Length of the on-link prefix of an address of this host.
    """
    if isinstance(value, Local):
        place, slot, mac, host = Place.LOCAL, value.slot, value.mac.packed, _NO_HOST
        flags = SenderFlag.FORWARDING if value.forwarding else 0
        flags |= SenderFlag.TAP if value.tap else 0
    else:
        place, slot, mac, host, flags = Place.REMOTE, 0, _NO_MAC, host_words(value.host), 0
    return layouts.Endpoint(
        place=place,
        slot=slot,
        mac=mac,
        host=host,
        group=0,
        feed=feed,
        flags=flags,
        prefix_length=prefix_length,
    ).pack()


def unpack_endpoint(data: bytes) -> Local | Remote:
    """The entry of ``endpoints`` in a packed ``mzn_endpoint``."""
    fields = layouts.Endpoint.unpack(data)
    if fields.place == Place.LOCAL:
        forwarding, tap = (bool(fields.flags & each) for each in (SenderFlag.FORWARDING, SenderFlag.TAP))
        return Local(MacAddress(fields.mac), fields.slot, forwarding, tap)
    if fields.place == Place.REMOTE:
        return Remote(host_from(fields.host))
    raise unknown_place(fields.place)


endpoint_feed: Callable[[bytes], int] = layouts.ENDPOINT.reader("feed")
"""The number of the feed that wrote a packed ``mzn_endpoint``; 0 for one that lives on this host, too."""

endpoint_vni: Callable[[bytes], int] = layouts.ENDPOINT_KEY.reader("vni")
"""The VNI of a packed ``mzn_endpoint_key``."""


# Entries of one host and feed are the same bytes, of which a table has few different ones.
@functools.lru_cache(maxsize=1 << 12)
def endpoint_owner(data: bytes) -> int | None:
    """The number of the feed that wrote a packed ``mzn_endpoint``; None: it is of an endpoint of this host."""
    return None if is_local(data) else endpoint_feed(data)


_place_of = layouts.ENDPOINT.reader("place")
_host_of = layouts.ENDPOINT.reader("host")


def is_local(data: bytes) -> bool:
    """Whether a packed ``mzn_endpoint`` lives on this host; raises ``LayoutError`` if that cannot be known."""
    place: int = _place_of(data)
    if place not in (Place.LOCAL, Place.REMOTE):
        raise unknown_place(place)
    return place == Place.LOCAL


def unknown_place(place: int) -> LayoutError:
    return LayoutError(
        f"an entry of endpoints has the place {place}, which this version of mizarnet does not know",
        struct="mzn_endpoint",
        differences=[f"place {place}"],
        hint="another version, or something else, wrote it: use that version, or delete the tunnel with force=True",
    )


# -- networks and peers ------------------------------------------------------------------------------------

_NETWORK_KEY_FIXED = 8 * (layouts.NETWORK_KEY.offset("ip.words") - layouts.NETWORK_KEY.offset("vni"))
_PEER_KEY_FIXED = 8 * (layouts.PEER_KEY.offset("ip.words") - layouts.PEER_KEY.offset("ip.family"))


def _is_of(key: Layout, value: Layout) -> Callable[[bytes, bytes], bool]:
    asked, found = key.reader("prefix_length"), value.reader("prefix_length")
    return lambda packed_key, packed_value: bool(asked(packed_key) == found(packed_value))


is_network_of: Callable[[bytes, bytes], bool] = _is_of(layouts.NETWORK_KEY, layouts.NETWORK)
"""Whether the ``mzn_network`` that was found for a ``mzn_network_key`` is of that very prefix, not of a shorter one."""

is_peer_of: Callable[[bytes, bytes], bool] = _is_of(layouts.PEER_KEY, layouts.PEER)
"""Whether the ``mzn_peer`` that was found for a ``mzn_peer_key`` is of that very prefix, not of a shorter one."""


def _network_length(key: NetworkKey) -> int:
    return _NETWORK_KEY_FIXED + _mapped_length(key.prefix)


def _peer_length(prefix: IPNetwork) -> int:
    return _PEER_KEY_FIXED + _mapped_length(prefix)


def pack_network_key(key: NetworkKey) -> bytes:
    """A key of ``networks``, packed as ``mzn_network_key``: VNI and family are always compared whole."""
    ip = ip_fields(key.prefix.network_address)
    return layouts.NetworkKey(prefix_length=_network_length(key), vni=key.vni, ip=ip).pack()


def unpack_network_key(data: bytes) -> NetworkKey:
    """The key of ``networks`` in a packed ``mzn_network_key``."""
    fields = layouts.NetworkKey.unpack(data)
    return NetworkKey(fields.vni, _prefix(fields.prefix_length - _NETWORK_KEY_FIXED, fields.ip))


def pack_host_key(vni: int, ip: IPAddress) -> bytes:
    """A key of ``networks`` that finds the network of one address."""
    return pack_network_key(NetworkKey(vni, ip_network(ip)))


network_feed: Callable[[bytes], int] = layouts.NETWORK.reader("feed")
"""The number of the feed that wrote a packed ``mzn_network``."""

network_vni: Callable[[bytes], int] = layouts.NETWORK_KEY.reader("vni")
"""The VNI of a packed ``mzn_network_key``."""


def pack_network(key: NetworkKey, value: Network, *, feed: int = 0) -> bytes:
    """The entry of a key of ``networks``, packed as ``mzn_network``; ``feed`` is the number of its writer."""
    return layouts.Network(
        prefix_length=_network_length(key),
        gateway=ip_fields(value.gateway),
        via=ip_fields(value.via),
        switch_count=len(value.switches),
        switches=b"".join(map(host_words, value.switches)),
        feed=feed,
    ).pack()


def unpack_network(data: bytes) -> Network:
    """The entry of ``networks`` in a packed ``mzn_network``."""
    fields = layouts.Network.unpack(data)
    hosts = [host_from(words) for (words,) in _HOSTS.iter_unpack(fields.switches)]
    return Network(
        gateway=ip_from(fields.gateway), switches=hosts[: fields.switch_count], via=ip_from(fields.via)
    )


def host_of(endpoint: bytes) -> bytes | None:
    """The words of the host in a packed ``mzn_endpoint``; None: the endpoint is not on another host."""
    fields = layouts.Endpoint.unpack(endpoint)
    return fields.host if fields.place == Place.REMOTE else None


def may_forward(endpoint: bytes) -> bool:
    """Whether a packed ``mzn_endpoint`` may be a next hop; that of another host is judged there."""
    fields = layouts.Endpoint.unpack(endpoint)
    here = fields.place == Place.LOCAL and bool(fields.flags & SenderFlag.FORWARDING)
    return here or fields.place == Place.REMOTE


def next_hop(network_key: bytes, network: bytes) -> bytes | None:
    """The key in ``endpoints`` of the next hop in a packed ``mzn_network``; None: it has none."""
    via = layouts.Network.unpack(network).via
    return layouts.EndpointKey(network_vni(network_key), via).pack() if via.family else None


def pack_router_key(vni: int, host: bytes) -> bytes:
    """A key of ``routers``, packed as ``mzn_router_key``; ``host`` is what :func:`host_of` returns."""
    return layouts.RouterKey(vni, host).pack()


def pack_router(next_hops: Sequence[bytes]) -> bytes:
    """An entry of ``routers``, packed as ``mzn_router``, of the first of some next hops: keys in ``endpoints``."""
    known = [layouts.EndpointKey.unpack(key).ip for key in next_hops[: Limit.WITNESSES]]
    return layouts.Router(len(known), (*known, *[_NO_IP] * (Limit.WITNESSES - len(known)))).pack()


def unpack_router(key: bytes, data: bytes) -> list[bytes]:
    """The keys in ``endpoints`` of the next hops in a packed ``mzn_router``."""
    (vni, _), (count, via) = layouts.RouterKey.unpack(key), layouts.Router.unpack(data)
    return [layouts.EndpointKey(vni, ip).pack() for ip in via[:count]]


NEXT_HOPS_CHANGING = layouts.EndpointKey(0, _NO_IP).pack()
"""The key in ``vias`` of no next hop, which is there while a call changes them."""


peer_feed: Callable[[bytes], int] = layouts.PEER.reader("feed")
"""The number of the feed that wrote a packed ``mzn_peer``."""


def pack_peer(prefix: IPNetwork, *, feed: int = 0) -> bytes:
    """The entry of a prefix of ``peers``, packed as ``mzn_peer``; programs read only that it is there."""
    return layouts.Peer(prefix_length=_peer_length(prefix), feed=feed).pack()


def pack_peer_key(prefix: IPNetwork) -> bytes:
    """A key of ``peers``, packed as ``mzn_peer_key``."""
    ip = ip_fields(prefix.network_address)
    return layouts.PeerKey(prefix_length=_peer_length(prefix), ip=ip).pack()


def unpack_peer_key(data: bytes) -> IPNetwork:
    """The prefix in a packed ``mzn_peer_key``."""
    fields = layouts.PeerKey.unpack(data)
    return _prefix(fields.prefix_length - _PEER_KEY_FIXED, fields.ip)


def _prefix(mapped_length: int, ip: layouts.Ip) -> IPNetwork:
    length = mapped_length - (96 if ip.family == 4 else 0)
    return ip_interface((_address(ip), length)).network


# -- local endpoints ---------------------------------------------------------------------------------------


def mac_key(mac: MacAddress) -> bytes:
    """A key of ``senders``, packed as ``mzn_mac``."""
    return layouts.MAC.pack(mac.packed)


def mac_from(key: bytes) -> MacAddress:
    """The reverse of :func:`mac_key`."""
    return MacAddress(key[:6])


record_of: Callable[[bytes], bytes] = layouts.SENDER.reader("record")
"""The key in ``records`` of a packed ``mzn_sender``."""


slot_of: Callable[[bytes], int] = layouts.SENDER.reader("slot")
"""The index into ``traffic`` of a packed ``mzn_sender``."""


def addresses_of(sender: bytes) -> list[bytes]:
    """The keys in ``endpoints`` of the addresses in a packed ``mzn_sender``."""
    fields = layouts.Sender.unpack(sender)
    own = _interfaces(fields.addresses)
    return [pack_endpoint_key(EndpointKey(fields.vni, address.ip)) for address in own]


slot_holder: Callable[[bytes], bytes] = layouts.SLOT.reader("record")
"""The key in ``records`` of the endpoint that a packed ``mzn_slot`` is of."""

instance_in_slot: Callable[[bytes], int] = layouts.SLOT.reader("instance")
"""The instance of the endpoint that a packed ``mzn_slot`` is of."""

claimant: Callable[[bytes], bytes] = layouts.ADDRESS.reader("record")
"""The key in ``records`` of the endpoint that a packed ``mzn_address`` is of."""

instance_claiming: Callable[[bytes], int] = layouts.ADDRESS.reader("instance")
"""The instance of the endpoint that made the claim in a packed ``mzn_address``."""

prefix_length_of: Callable[[bytes], int] = layouts.ADDRESS.reader("prefix_length")
"""The length of the on-link prefix in a packed ``mzn_address``."""

instance_of: Callable[[bytes], int] = layouts.RECORD.reader("instance")
"""The instance of a packed ``mzn_record``: what tells it from another of the same name."""


def record_key(name: str) -> bytes:
    """A key of ``records``, packed as ``mzn_record_key``: the digest of an endpoint's name."""
    return blake2b(name.encode(), digest_size=16, person=b"mizarnet-name").digest()


_vni_of_record: Callable[[bytes], int] = layouts.RECORD.reader("vni")
_slot_of_record: Callable[[bytes], int] = layouts.RECORD.reader("slot")
_labels_of_record: Callable[[bytes], bytes] = layouts.RECORD.reader("labels")
_name_of_record: Callable[[bytes], bytes] = layouts.RECORD.reader("name")


class Counted(NamedTuple):
    """An endpoint, as far as it takes to find its counters.

    Attributes:
        name: Name of the endpoint.
        vni: VNI of the endpoint.
        slot: Index into ``traffic``.
        instance: Instance of the endpoint, by which ``drops`` knows it.
        labels: Labels of the endpoint.
    """

    name: str
    vni: int
    slot: int
    instance: int
    labels: Mapping[str, str]

    @classmethod
    def unpack(cls, data: bytes) -> Counted:
        """Of a packed ``mzn_record``."""
        return cls(
            _text(_name_of_record(data)),
            _vni_of_record(data),
            _slot_of_record(data),
            instance_of(data),
            _labels(_labels_of_record(data)),
        )


def no_traffic(instance: int) -> bytes:
    """An endpoint's counters on one CPU, packed as ``mzn_traffic``, before it has sent or received anything."""
    return layouts.Traffic(instance, 0, *[layouts.Counter(0, 0)] * 4).pack()


instance_counted: Callable[[bytes], int] = layouts.TRAFFIC.reader("instance")
"""The instance of the endpoint whose counters a packed ``mzn_traffic`` has."""


def drop_key(instance: int, verdict: int) -> bytes:
    """A key of ``drops``, packed as ``mzn_drop_key``."""
    return layouts.DropKey(instance, verdict).pack()


items_below: Callable[[bytes], int] = layouts.RECORD.reader("items")
"""The number that those of all items of a packed ``mzn_record`` are below."""

instance_of_item: Callable[[bytes], int] = layouts.ITEM_KEY.reader("instance")
"""The instance of the endpoint that a packed ``mzn_item_key`` is of."""


number_of_item: Callable[[bytes], int] = layouts.ITEM_KEY.reader("number")
"""The number in a packed ``mzn_item_key``."""


def item_key(instance: int, number: int) -> bytes:
    """A key of ``items``, packed as ``mzn_item_key``."""
    return layouts.ItemKey(instance=instance, number=number).pack()


@attrs.frozen
class Item:
    """A further address or a route of an endpoint, and the generations of the record that it counts in.

    Attributes:
        content: The address or the route.
        since: The first generation.
        until: The first one after the last; 0: there is no last one.
    """

    content: IPInterface | Route
    since: int = 0
    until: int = 0

    def counts_in(self, generation: int) -> bool:
        """Whether the endpoint has it in that generation."""
        return self.since <= generation and (not self.until or generation < self.until)

    def pack(self) -> bytes:
        """The bytes of ``mzn_item``."""
        if isinstance(self.content, Route):
            kind, prefix, gateway = ItemKind.ROUTE, self.content.prefix, self.content.gateway
            ip, length = prefix.network_address, prefix.prefixlen
        else:
            kind, gateway = ItemKind.ADDRESS, None
            ip, length = self.content.ip, self.content.network.prefixlen
        return layouts.Item(
            since=self.since,
            until=self.until,
            ip=ip_fields(ip),
            gateway=ip_fields(gateway),
            prefix_length=length,
            kind=kind,
        ).pack()

    @classmethod
    def unpack(cls, data: bytes) -> Item:
        """The reverse of :meth:`pack`."""
        fields = layouts.Item.unpack(data)
        own = ip_interface((_address(fields.ip), fields.prefix_length))
        if fields.kind == ItemKind.ADDRESS:
            return cls(own, fields.since, fields.until)
        route = checked(Route, prefix=own.network, gateway=ip_from(fields.gateway))
        return cls(route, fields.since, fields.until)


def items_of(spec: EndpointSpec) -> dict[int, Item]:
    """The items of an endpoint that is to be made, by their numbers."""
    return {number: Item(content) for number, content in enumerate((*spec.further, *spec.routes))}


NO_SLOT = 0xFFFFFFFF
"""No index into ``traffic`` yet, in place of one."""


@attrs.frozen(kw_only=True)
class Record:
    """A local endpoint, complete: what was asked for, and what it became.

    Attributes:
        spec: The specification with MAC, MTU and gateways filled in.
        private: Whether the namespace was made for the endpoint and ends with it.
        instance: Random number; tells two endpoints apart that had one name.
        slot: Index into the per-endpoint counters.
        ifindex: Index of the device, in its namespace; 0 while it is being made.
        netns_cookie: Cookie of the endpoint's namespace.
        netns_id: Device and inode of the namespace, while it exists.
        nsid: Id by which the host's namespace knows the endpoint's, while that exists.
        maker: Identity of the lock that the maker held.
        state: How far the endpoint has come.
        routed: IP versions whose default route the endpoint added.
        own_mtu: Whether its MTU was asked for; else it follows the tunnel's.
        changed: Time at which the state was written, in nanoseconds of the boot clock; 0: when it is packed.
        generation: How often the endpoint was changed in place.
        items: Further addresses and routes by their numbers, with those that do not count yet, or no more.
        items_below: What the packed record said that all their numbers are below.
    """

    spec: EndpointSpec
    instance: int
    slot: int
    ifindex: int
    netns_cookie: int
    netns_id: tuple[int, int]
    nsid: int
    maker: int = 0
    state: State = State.LIVE
    changed: int = attrs.field(default=0, eq=False)
    private: bool = False
    routed: frozenset[int] = frozenset()
    own_mtu: bool = False
    generation: int = 0
    items: Mapping[int, Item] = attrs.field(factory=dict[int, Item])
    items_below: int = attrs.field(default=0, eq=False)

    @property
    def may_have_device(self) -> bool:
        """Whether the endpoint had got so far that its device may exist: its MAC was claimed by then."""
        return self.netns_id != (0, 0)

    @property
    def mac(self) -> MacAddress:
        """MAC of the device."""
        return self.spec.mac or MacAddress.parse(bytes(6))

    @property
    def mtu(self) -> int:
        """MTU of the device, in bytes."""
        return self.spec.mtu or 0

    @property
    def first_free_number(self) -> int:
        """The number that those of all its items are below."""
        return max(self.items, default=-1) + 1

    @property
    def unsettled(self) -> dict[int, Item]:
        """The items of a change that is not finished: what does not count, or shall not."""
        return {
            number: item
            for number, item in self.items.items()
            if item.until or not item.counts_in(self.generation)
        }

    def pack(self) -> bytes:
        """The bytes of ``mzn_record``."""
        spec = self.spec
        device, inode = self.netns_id
        return layouts.Record(
            instance=self.instance,
            maker=self.maker,
            changed=self.changed or boot_time(),
            generation=self.generation,
            netns_cookie=self.netns_cookie,
            netns_device=device,
            netns_inode=inode,
            vni=spec.vni,
            slot=self.slot,
            ifindex=self.ifindex,
            mtu=spec.mtu or 0,
            kind=KindNumber[spec.kind.name],
            flags=_flags(spec) | self._own_flags(),
            nsid=self.nsid,
            state=self.state,
            group=0,
            items=self.first_free_number,
            mac=self.mac.packed,
            addresses=_own_addresses(spec.first),
            gateways=_gateways(spec.gateway or ()),
            ifname=spec.ifname.encode(),
            netns=(spec.netns or "").encode(),
            name=spec.name.encode(),
            labels=arguments.pack_labels(spec.labels),
        ).pack()

    @classmethod
    def unpack(cls, data: bytes, items: Mapping[int, Item] | None = None) -> Record:
        """The reverse of :meth:`pack`; the values were checked before that.

        Args:
            data: Packed record.
            items: Items of its instance, by number.
        """
        fields = layouts.Record.unpack(data)
        flags, held = fields.flags, items or {}
        counting = [item.content for item in held.values() if item.counts_in(fields.generation)]
        further = [each for each in counting if not isinstance(each, Route)]
        routes = [each for each in counting if isinstance(each, Route) and each.prefix.prefixlen]
        first = tuple(_interfaces(fields.addresses))
        spec = checked(
            EndpointSpec,
            name=_text(fields.name),
            vni=fields.vni,
            ip=in_order_of_addresses((*first, *further)) if further else first,
            netns=_text(fields.netns) or None,
            ifname=_text(fields.ifname),
            mac=checked(MacAddress, packed=fields.mac),
            kind=_KINDS[fields.kind],
            gateway=tuple(ip for ip in map(ip_from, fields.gateways) if ip is not None),
            routes=in_order_of_routes(routes),
            default_route=_default_route(flags),
            mtu=fields.mtu,
            forwarding=bool(flags & SenderFlag.FORWARDING),
            trust_user_namespace=bool(flags & SenderFlag.TRUSTED_NETNS),
            labels=_labels(fields.labels),
        )
        return cls(
            spec=spec,
            instance=fields.instance,
            slot=fields.slot,
            ifindex=fields.ifindex,
            netns_cookie=fields.netns_cookie,
            netns_id=(fields.netns_device, fields.netns_inode),
            nsid=fields.nsid,
            maker=fields.maker,
            state=State(fields.state),
            changed=fields.changed,
            private=bool(flags & SenderFlag.PRIVATE_NETNS),
            routed=_routed(flags),
            own_mtu=bool(flags & SenderFlag.OWN_MTU),
            generation=fields.generation,
            items=held,
            items_below=fields.items,
        )

    def _own_flags(self) -> int:
        private = SenderFlag.PRIVATE_NETNS if self.private else 0
        own_mtu = SenderFlag.OWN_MTU if self.own_mtu else 0
        return private | own_mtu | sum(_ROUTED_FLAGS[version] for version in self.routed)

    def pack_sender(self) -> bytes:
        """The bytes of ``mzn_sender``: the hot half, which the programs read."""
        spec = self.spec
        return layouts.Sender(
            netns_cookie=self.netns_cookie,
            ifindex=self.ifindex,
            vni=spec.vni,
            slot=self.slot,
            flags=_flags(spec) | (SenderFlag.MORE_ADDRESSES if spec.further else 0),
            addresses=_own_addresses(spec.first),
            gateways=_gateways(spec.gateway or ()),
            group=0,
            record=record_key(spec.name),
        ).pack()

    def pack_sender_until(self, changed: Record) -> bytes:
        """The bytes of ``mzn_sender`` while an endpoint is changed: it may speak from all that comes or stays.

        The first addresses are those of this record, and the flag for further ones covers all others.
        """
        fields = layouts.Sender.unpack(self.pack_sender())
        return fields._replace(
            flags=fields.flags | SenderFlag.MORE_ADDRESSES, gateways=_gateways(changed.spec.gateway or ())
        ).pack()

    def is_sender(self, data: bytes) -> bool:
        """Whether a packed ``mzn_sender`` is of this endpoint: of its name and index."""
        return slot_of(data) == self.slot and record_of(data) == record_key(self.spec.name)

    def pack_endpoint(self, prefix_length: int) -> bytes:
        """The bytes of ``mzn_endpoint`` of an address with that on-link prefix."""
        return pack_endpoint(self._local(), prefix_length=prefix_length)

    def pack_endpoints(self) -> dict[bytes, bytes]:
        """The entries of the addresses, ``mzn_endpoint_key`` to ``mzn_endpoint``."""
        return {
            self.address_key(address): self.pack_endpoint(address.network.prefixlen)
            for address in self.spec.ip
        }

    def is_endpoint(self, data: bytes) -> bool:
        """Whether a packed ``mzn_endpoint`` is of this endpoint, whatever rights it gives: of its MAC and index."""
        if not is_local(data):
            return False
        found = unpack_endpoint(data)
        return isinstance(found, Local) and (found.mac, found.slot) == (self.mac, self.slot)

    def _local(self) -> Local:
        return Local(self.mac, self.slot, self.spec.forwarding, self.spec.kind is Kind.MACVTAP)

    def pack_slot(self) -> bytes:
        """The bytes of ``mzn_slot``: the claim of the index."""
        return layouts.Slot(instance=self.instance, record=record_key(self.spec.name)).pack()

    def pack_addresses(self) -> dict[bytes, bytes]:
        """The claims of the addresses, ``mzn_endpoint_key`` to ``mzn_address``."""
        return {self.address_key(address): self.pack_address(address) for address in self.spec.ip}

    def pack_address(self, address: IPInterface) -> bytes:
        """The bytes of ``mzn_address``: the claim of an address."""
        return layouts.Address(
            instance=self.instance,
            record=record_key(self.spec.name),
            prefix_length=address.network.prefixlen,
            flags=0,
        ).pack()

    def is_claim(self, data: bytes) -> bool:
        """Whether a packed ``mzn_address`` is of this endpoint."""
        return instance_claiming(data) == self.instance and claimant(data) == record_key(self.spec.name)

    def address_keys(self) -> list[bytes]:
        """Keys in ``endpoints`` and ``addresses`` of every address, also of those that do not count yet, or no more."""
        items = (item.content for item in self.items.values())
        rest = (content for content in items if not isinstance(content, Route))
        return [*dict.fromkeys(self.address_key(address) for address in (*self.spec.ip, *rest))]

    def address_key(self, address: IPInterface) -> bytes:
        """The key in ``endpoints`` and ``addresses`` of an address."""
        return pack_endpoint_key(EndpointKey(self.spec.vni, address.ip))


def _flags(spec: EndpointSpec) -> int:
    forwarding = SenderFlag.FORWARDING if spec.forwarding else 0
    trusted = SenderFlag.TRUSTED_NETNS if spec.trust_user_namespace else 0
    return forwarding | trusted | _ROUTE_FLAGS[spec.default_route]


def _default_route(flags: int) -> DefaultRoute:
    if flags & SenderFlag.ROUTE_NEVER:
        return DefaultRoute.NEVER
    return DefaultRoute.IF_NONE if flags & SenderFlag.ROUTE_IF_NONE else DefaultRoute.ALWAYS


def _routed(flags: int) -> frozenset[int]:
    if not flags & _ANY_ROUTED:
        return _NOT_ROUTED
    return frozenset(version for version, flag in _ROUTED_FLAGS.items() if flags & flag)


_KINDS = {number.value: Kind[number.name] for number in KindNumber}
_ROUTED_FLAGS = {4: SenderFlag.ROUTED_IPV4, 6: SenderFlag.ROUTED_IPV6}
_ANY_ROUTED = SenderFlag.ROUTED_IPV4 | SenderFlag.ROUTED_IPV6
_NOT_ROUTED: frozenset[int] = frozenset()
_ROUTE_FLAGS = {
    DefaultRoute.ALWAYS: 0,
    DefaultRoute.IF_NONE: SenderFlag.ROUTE_IF_NONE,
    DefaultRoute.NEVER: SenderFlag.ROUTE_NEVER,
}


def _own_addresses(given: Sequence[IPInterface]) -> tuple[layouts.OwnAddress, ...]:
    own = [layouts.OwnAddress(ip_fields(each.ip), each.network.prefixlen) for each in given]
    return (*own, *[_NO_ADDRESS] * (Limit.ADDRESSES - len(own)))


def _gateways(given: Sequence[IPAddress]) -> tuple[layouts.Ip, ...]:
    return (*map(ip_fields, given), *[_NO_IP] * (Limit.ADDRESSES - len(given)))


def _interfaces(own: Sequence[layouts.OwnAddress]) -> Iterator[IPInterface]:
    for (family, words), length in own:
        if family == 4:
            yield IPv4Interface((words.removeprefix(MAPPED), length))
        elif family == 6:
            yield IPv6Interface((words, length))


def _labels(data: bytes) -> Mapping[str, str]:
    pairs = (line.partition("\t") for line in _text(data).splitlines())
    return {name: value for name, _, value in pairs}


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode()


def _device(data: bytes) -> str:
    return os.fsdecode(data.split(b"\0", 1)[0])


def _pack_feeds(names: Iterable[str]) -> bytes:
    return b"".join(name.encode().ljust(Limit.FEED_BYTES, b"\0") for name in names)


def _unpack_feeds(data: bytes) -> tuple[str, ...]:
    # A name that is being written may be read in half; then it is not what the entries' numbers are digests of.
    return tuple(
        each.split(b"\0", 1)[0].decode(errors="ignore") for each in cut(data, Limit.FEED_BYTES) if each[0]
    )


# -- the agent ---------------------------------------------------------------------------------------------

FIRST = u32(0)
"""The only key of an array with one entry."""
MAGIC = b"mizarnet"


@attrs.frozen(kw_only=True)
class Head:
    """The beginning of ``meta``, the same in every version of this package.

    Attributes:
        schema: Version of everything else in the maps.
        ifindex: Index of the tunnel.
        netns_cookie: Cookie of the host's namespace.
        instance: Random number; tells two data paths apart.
        build: Digest of the object that was loaded last.
    """

    schema: int
    ifindex: int
    netns_cookie: int
    instance: int
    build: int

    def fields(self) -> layouts.Head:
        """The members of ``mzn_head``."""
        return layouts.Head(magic=MAGIC, **attrs.asdict(self))

    @classmethod
    def unpack(cls, data: bytes) -> Head | None:
        """The head that the value of ``meta`` begins with; None if it is another array's."""
        if len(data) < layouts.HEAD.size:
            return None
        fields = layouts.Head.unpack(data[: layouts.HEAD.size])
        return cls.of(fields) if fields.magic == MAGIC else None

    @classmethod
    def of(cls, fields: layouts.Head) -> Head:
        """The reverse of :meth:`fields`."""
        return cls(
            schema=fields.schema,
            ifindex=fields.ifindex,
            netns_cookie=fields.netns_cookie,
            instance=fields.instance,
            build=fields.build,
        )


@attrs.frozen(kw_only=True)
class Meta:
    """The tunnel that a data path was made for, and how far it has come.

    Attributes:
        head: Part that other versions can read, too.
        state: How far the data path has come.
        layers: Bits of ``Layer``: where agent and guard shall stand.
        encap: Encapsulation.
        port: UDP port.
        mtu: MTU of inner packets, in bytes.
        local: Address of this host on the underlay.
        underlay_ifindex: Index of the underlay.
        tunnel: Name of the tunnel when it was written.
        underlay: Name of the underlay when it was written.
        generation: How often the programs were replaced.
        feeds: Names of the writers of entries, without those by hand.
        shortcut: Whether there shall be a shortcut on the way in.
        changed: Time at which it was written, in nanoseconds of the boot clock.
    """

    head: Head
    state: State
    layers: int
    encap: Encap
    port: int
    mtu: int
    local: IPAddress
    underlay_ifindex: int
    tunnel: str
    underlay: str
    generation: int = 0
    feeds: tuple[str, ...] = ()
    shortcut: Shortcut = Shortcut.OFF
    changed: int = attrs.field(default=0, eq=False)

    def pack(self) -> bytes:
        """The bytes of ``mzn_meta``."""
        return layouts.Meta(
            head=self.head.fields(),
            state=self.state,
            layers=self.layers,
            changed=boot_time(),
            generation=self.generation,
            encap=EncapNumber[self.encap.name],
            port=self.port,
            mtu=self.mtu,
            underlay_ifindex=self.underlay_ifindex,
            schemas=b"",
            local=ip_fields(self.local),
            tunnel=os.fsencode(self.tunnel),  # a device's name may be no text, and is read from the kernel so
            underlay=os.fsencode(self.underlay),
            feeds=_pack_feeds(self.feeds),
            shortcut=ShortcutNumber[self.shortcut.name],
        ).pack()

    @classmethod
    def unpack(cls, data: bytes) -> Meta:
        """The reverse of :meth:`pack`, for the value of a ``meta`` of this schema."""
        return _unpack_meta(data)


# It is read three times by each call that changes something, and is hardly ever another one.
@functools.lru_cache(maxsize=8)
def _unpack_meta(data: bytes) -> Meta:
    fields = layouts.Meta.unpack(data)
    return Meta(
        head=Head.of(fields.head),
        state=State(fields.state),
        layers=fields.layers,
        encap=Encap[EncapNumber(fields.encap).name],
        port=fields.port,
        mtu=fields.mtu,
        local=_address(fields.local),
        underlay_ifindex=fields.underlay_ifindex,
        tunnel=_device(fields.tunnel),
        underlay=_device(fields.underlay),
        generation=fields.generation,
        feeds=_unpack_feeds(fields.feeds),
        shortcut=Shortcut[ShortcutNumber(fields.shortcut).name],
        changed=fields.changed,
    )


@attrs.frozen(kw_only=True)
class Switching:
    """The transit switch of a data path.

    Attributes:
        ifindex: Index of the switch's device; 0: there is no switch.
        flags: Bits of ``SwitchFlag``.
        generation: How often a program was put there.
    """

    ifindex: int
    flags: int
    generation: int

    def pack(self) -> bytes:
        """The bytes of ``mzn_switching``."""
        return layouts.Switching(**attrs.asdict(self)).pack()

    @classmethod
    def unpack(cls, data: bytes) -> Switching:
        """The reverse of :meth:`pack`."""
        fields = layouts.Switching.unpack(data)
        return cls(ifindex=fields.ifindex, flags=fields.flags, generation=fields.generation)


def tunnel_mac(config: bytes) -> MacAddress:
    """MAC address of the tunnel in packed constants, of which the rest are secrets."""
    return MacAddress.parse(layouts.Config.unpack(config).tunnel_mac)


def constants_at(config: bytes, *, local: IPAddress, mtu: int) -> bytes:
    """Packed constants as they were, secrets among them, but for the underlay address and the MTU."""
    return layouts.Config.unpack(config)._replace(local=ip_fields(local), mtu=mtu).pack()


def whereabouts(config: bytes) -> str:
    """Underlay address and MTU in packed constants, for people; the rest are secrets."""
    fields = layouts.Config.unpack(config)
    return f"{_address(fields.local)}, MTU {fields.mtu}"


def remote_hosts(values: Iterable[bytes]) -> set[IPAddress]:
    """Underlay addresses of the other hosts that packed values of ``endpoints`` lead to."""
    found = {_host_of(value) for value in values if not is_local(value)}
    return set(map(host_from, found))


@attrs.frozen(kw_only=True)
class Config:
    """The constants of one attached agent, written before the programs are loaded.

    Attributes:
        mark_local: Secret mark of frames that the agent hands to the guard.
        mark_bounced: Secret mark of frames that the guard hands to the agent.
        token_bounced: Secret bytes in the control block of frames that the guard hands to the agent.
        local: Address of this host on the underlay.
        virtual_mac: MAC address of whatever is not on this host.
        tunnel_mac: MAC address of the tunnel.
        encap: Encapsulation.
        port: UDP port.
        mtu: MTU of inner packets, in bytes.
    """

    mark_local: int
    mark_bounced: int
    token_bounced: bytes
    local: IPAddress
    virtual_mac: MacAddress
    tunnel_mac: MacAddress
    encap: Encap
    port: int
    mtu: int

    def pack(self) -> bytes:
        """The bytes of ``mzn_config``."""
        return layouts.Config(
            mark_local=self.mark_local,
            mark_bounced=self.mark_bounced,
            token_bounced=self.token_bounced,
            local=ip_fields(self.local),
            virtual_mac=self.virtual_mac.packed,
            tunnel_mac=self.tunnel_mac.packed,
            encap=EncapNumber[self.encap.name],
            port=self.port,
            mtu=self.mtu,
        ).pack()
