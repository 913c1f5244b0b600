# SPDX-License-Identifier: Apache-2.0
# Generated from csrc/include/mizarnet/abi.h by tools/gen_abi.py; do not edit.
"""The structures that BPF programs and Python share: the layout of each, and its members by name.

An array of numbers is bytes, since it holds an address, a text or a secret. A structure that has one member beside its
padding is that member.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from mizarnet._model.layout import Layout, new
from mizarnet._model.enumerations import Limit

Packed: TypeAlias = bytes

IP: Final = Layout("mzn_ip", ("family", "I"), ("words", "16s"))


class Ip(NamedTuple):
    """The members of ``mzn_ip``."""

    family: int
    words: bytes

    @classmethod
    def unpack(cls, data: Packed) -> Ip:
        """Of the bytes in a map."""
        return new(cls, IP.unpack(data))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return IP.pack(*self)


MAC: Final = Layout("mzn_mac", ("bytes", "6s"), ("pad", "2x"))


ENDPOINT_KEY: Final = Layout("mzn_endpoint_key", ("vni", "I"), ("ip", IP))


class EndpointKey(NamedTuple):
    """The members of ``mzn_endpoint_key``."""

    vni: int
    ip: Ip

    @classmethod
    def unpack(cls, data: Packed) -> EndpointKey:
        """Of the bytes in a map."""
        vni, ip_family, ip_words = ENDPOINT_KEY.unpack(data)
        return new(EndpointKey, (vni, new(Ip, (ip_family, ip_words))))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return ENDPOINT_KEY.pack(self.vni, *self.ip)


ENDPOINT: Final = Layout(
    "mzn_endpoint",
    ("place", "I"),
    ("slot", "I"),
    ("mac", MAC),
    ("host", "16s"),
    ("group", "I"),
    ("feed", "I"),
    ("flags", "I"),
    ("prefix_length", "I"),
)


class Endpoint(NamedTuple):
    """The members of ``mzn_endpoint``."""

    place: int
    slot: int
    mac: bytes
    host: bytes
    group: int
    feed: int
    flags: int
    prefix_length: int

    @classmethod
    def unpack(cls, data: Packed) -> Endpoint:
        """Of the bytes in a map."""
        return new(cls, ENDPOINT.unpack(data))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return ENDPOINT.pack(*self)


NETWORK_KEY: Final = Layout("mzn_network_key", ("prefix_length", "I"), ("vni", "I"), ("ip", IP))


class NetworkKey(NamedTuple):
    """The members of ``mzn_network_key``."""

    prefix_length: int
    vni: int
    ip: Ip

    @classmethod
    def unpack(cls, data: Packed) -> NetworkKey:
        """Of the bytes in a map."""
        prefix_length, vni, ip_family, ip_words = NETWORK_KEY.unpack(data)
        return new(NetworkKey, (prefix_length, vni, new(Ip, (ip_family, ip_words))))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return NETWORK_KEY.pack(self.prefix_length, self.vni, *self.ip)


NETWORK: Final = Layout(
    "mzn_network",
    ("prefix_length", "I"),
    ("gateway", IP),
    ("via", IP),
    ("switch_count", "I"),
    ("switches", f"{16 * Limit.SWITCHES}s"),
    ("feed", "I"),
)


class Network(NamedTuple):
    """The members of ``mzn_network``."""

    prefix_length: int
    gateway: Ip
    via: Ip
    switch_count: int
    switches: bytes
    feed: int

    @classmethod
    def unpack(cls, data: Packed) -> Network:
        """Of the bytes in a map."""
        (
            prefix_length, gateway_family, gateway_words, via_family, via_words, switch_count, switches, feed
        ) = NETWORK.unpack(data)
        return new(
            Network, (prefix_length, new(Ip, (gateway_family, gateway_words)), new(Ip, (via_family,
            via_words)), switch_count, switches, feed)
        )

    def pack(self) -> Packed:
        """The bytes in a map."""
        return NETWORK.pack(
            self.prefix_length, *self.gateway, *self.via, self.switch_count, self.switches, self.feed
        )


ROUTER_KEY: Final = Layout("mzn_router_key", ("vni", "I"), ("host", "16s"))


class RouterKey(NamedTuple):
    """The members of ``mzn_router_key``."""

    vni: int
    host: bytes

    @classmethod
    def unpack(cls, data: Packed) -> RouterKey:
        """Of the bytes in a map."""
        return new(cls, ROUTER_KEY.unpack(data))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return ROUTER_KEY.pack(*self)


ROUTER: Final = Layout("mzn_router", ("via_count", "I"), ("via", IP, Limit.WITNESSES))


class Router(NamedTuple):
    """The members of ``mzn_router``."""

    via_count: int
    via: tuple[Ip, ...]

    @classmethod
    def unpack(cls, data: Packed) -> Router:
        """Of the bytes in a map."""
        (
            via_count, via0_family, via0_words, via1_family, via1_words, via2_family, via2_words, via3_family,
            via3_words
        ) = ROUTER.unpack(data)
        return new(
            Router, (via_count, (new(Ip, (via0_family, via0_words)), new(Ip, (via1_family, via1_words)),
            new(Ip, (via2_family, via2_words)), new(Ip, (via3_family, via3_words))))
        )

    def pack(self) -> Packed:
        """The bytes in a map."""
        return ROUTER.pack(self.via_count, *self.via[0], *self.via[1], *self.via[2], *self.via[3])


PEER_KEY: Final = Layout("mzn_peer_key", ("prefix_length", "I"), ("ip", IP))


class PeerKey(NamedTuple):
    """The members of ``mzn_peer_key``."""

    prefix_length: int
    ip: Ip

    @classmethod
    def unpack(cls, data: Packed) -> PeerKey:
        """Of the bytes in a map."""
        prefix_length, ip_family, ip_words = PEER_KEY.unpack(data)
        return new(PeerKey, (prefix_length, new(Ip, (ip_family, ip_words))))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return PEER_KEY.pack(self.prefix_length, *self.ip)


PEER: Final = Layout("mzn_peer", ("prefix_length", "I"), ("feed", "I"))


class Peer(NamedTuple):
    """The members of ``mzn_peer``."""

    prefix_length: int
    feed: int

    @classmethod
    def unpack(cls, data: Packed) -> Peer:
        """Of the bytes in a map."""
        return new(cls, PEER.unpack(data))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return PEER.pack(*self)


OWN_ADDRESS: Final = Layout("mzn_own_address", ("ip", IP), ("prefix_length", "I"))


class OwnAddress(NamedTuple):
    """The members of ``mzn_own_address``."""

    ip: Ip
    prefix_length: int

    @classmethod
    def unpack(cls, data: Packed) -> OwnAddress:
        """Of the bytes in a map."""
        ip_family, ip_words, prefix_length = OWN_ADDRESS.unpack(data)
        return new(OwnAddress, (new(Ip, (ip_family, ip_words)), prefix_length))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return OWN_ADDRESS.pack(*self.ip, self.prefix_length)


SENDER: Final = Layout(
    "mzn_sender",
    ("netns_cookie", "Q"),
    ("ifindex", "I"),
    ("vni", "I"),
    ("slot", "I"),
    ("flags", "I"),
    ("addresses", OWN_ADDRESS, Limit.ADDRESSES),
    ("gateways", IP, Limit.ADDRESSES),
    ("group", "I"),
    ("pad", "4x"),
    ("record", "16s"),
)


class Sender(NamedTuple):
    """The members of ``mzn_sender``."""

    netns_cookie: int
    ifindex: int
    vni: int
    slot: int
    flags: int
    addresses: tuple[OwnAddress, ...]
    gateways: tuple[Ip, ...]
    group: int
    record: bytes

    @classmethod
    def unpack(cls, data: Packed) -> Sender:
        """Of the bytes in a map."""
        (
            netns_cookie, ifindex, vni, slot, flags, addresses0_ip_family, addresses0_ip_words,
            addresses0_prefix_length, addresses1_ip_family, addresses1_ip_words, addresses1_prefix_length,
            gateways0_family, gateways0_words, gateways1_family, gateways1_words, group, record
        ) = SENDER.unpack(data)
        return new(
            Sender, (netns_cookie, ifindex, vni, slot, flags, (new(OwnAddress, (new(Ip, (addresses0_ip_family,
            addresses0_ip_words)), addresses0_prefix_length)), new(OwnAddress, (new(Ip, (addresses1_ip_family,
            addresses1_ip_words)), addresses1_prefix_length))), (new(Ip, (gateways0_family, gateways0_words)),
            new(Ip, (gateways1_family, gateways1_words))), group, record)
        )

    def pack(self) -> Packed:
        """The bytes in a map."""
        return SENDER.pack(
            self.netns_cookie, self.ifindex, self.vni, self.slot, self.flags, *self.addresses[0].ip,
            self.addresses[0].prefix_length, *self.addresses[1].ip, self.addresses[1].prefix_length,
            *self.gateways[0], *self.gateways[1], self.group, self.record
        )


COUNTER: Final = Layout("mzn_counter", ("packets", "Q"), ("bytes", "Q"))


class Counter(NamedTuple):
    """The members of ``mzn_counter``."""

    packets: int
    bytes: int

    @classmethod
    def unpack(cls, data: Packed) -> Counter:
        """Of the bytes in a map."""
        return new(cls, COUNTER.unpack(data))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return COUNTER.pack(*self)


TRAFFIC: Final = Layout(
    "mzn_traffic",
    ("instance", "Q"),
    ("told", "Q"),
    ("sent", COUNTER),
    ("received", COUNTER),
    ("dropped", COUNTER),
    ("undelivered", COUNTER),
)


class Traffic(NamedTuple):
    """The members of ``mzn_traffic``."""

    instance: int
    told: int
    sent: Counter
    received: Counter
    dropped: Counter
    undelivered: Counter

    @classmethod
    def unpack(cls, data: Packed) -> Traffic:
        """Of the bytes in a map."""
        (
            instance, told, sent_packets, sent_bytes, received_packets, received_bytes, dropped_packets,
            dropped_bytes, undelivered_packets, undelivered_bytes
        ) = TRAFFIC.unpack(data)
        return new(
            Traffic, (instance, told, new(Counter, (sent_packets, sent_bytes)), new(Counter,
            (received_packets, received_bytes)), new(Counter, (dropped_packets, dropped_bytes)), new(Counter,
            (undelivered_packets, undelivered_bytes)))
        )

    def pack(self) -> Packed:
        """The bytes in a map."""
        return TRAFFIC.pack(
            self.instance, self.told, *self.sent, *self.received, *self.dropped, *self.undelivered
        )


DROP_KEY: Final = Layout("mzn_drop_key", ("instance", "Q"), ("verdict", "I"), ("pad", "4x"))


class DropKey(NamedTuple):
    """The members of ``mzn_drop_key``."""

    instance: int
    verdict: int

    @classmethod
    def unpack(cls, data: Packed) -> DropKey:
        """Of the bytes in a map."""
        return new(cls, DROP_KEY.unpack(data))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return DROP_KEY.pack(*self)


RECORD_KEY: Final = Layout("mzn_record_key", ("digest", "16s"))


RECORD: Final = Layout(
    "mzn_record",
    ("instance", "Q"),
    ("maker", "Q"),
    ("changed", "Q"),
    ("generation", "Q"),
    ("netns_cookie", "Q"),
    ("netns_device", "Q"),
    ("netns_inode", "Q"),
    ("vni", "I"),
    ("slot", "I"),
    ("ifindex", "I"),
    ("mtu", "I"),
    ("kind", "I"),
    ("flags", "I"),
    ("nsid", "i"),
    ("state", "I"),
    ("group", "I"),
    ("items", "I"),
    ("mac", MAC),
    ("addresses", OWN_ADDRESS, Limit.ADDRESSES),
    ("gateways", IP, Limit.ADDRESSES),
    ("ifname", f"{Limit.DEVICE_BYTES}s"),
    ("netns", f"{Limit.PATH_BYTES}s"),
    ("name", f"{Limit.NAME_BYTES}s"),
    ("labels", f"{Limit.LABEL_BYTES}s"),
)


class Record(NamedTuple):
    """The members of ``mzn_record``."""

    instance: int
    maker: int
    changed: int
    generation: int
    netns_cookie: int
    netns_device: int
    netns_inode: int
    vni: int
    slot: int
    ifindex: int
    mtu: int
    kind: int
    flags: int
    nsid: int
    state: int
    group: int
    items: int
    mac: bytes
    addresses: tuple[OwnAddress, ...]
    gateways: tuple[Ip, ...]
    ifname: bytes
    netns: bytes
    name: bytes
    labels: bytes

    @classmethod
    def unpack(cls, data: Packed) -> Record:
        """Of the bytes in a map."""
        (
            instance, maker, changed, generation, netns_cookie, netns_device, netns_inode, vni, slot, ifindex,
            mtu, kind, flags, nsid, state, group, items, mac, addresses0_ip_family, addresses0_ip_words,
            addresses0_prefix_length, addresses1_ip_family, addresses1_ip_words, addresses1_prefix_length,
            gateways0_family, gateways0_words, gateways1_family, gateways1_words, ifname, netns, name, labels
        ) = RECORD.unpack(data)
        return new(
            Record, (instance, maker, changed, generation, netns_cookie, netns_device, netns_inode, vni, slot,
            ifindex, mtu, kind, flags, nsid, state, group, items, mac, (new(OwnAddress, (new(Ip,
            (addresses0_ip_family, addresses0_ip_words)), addresses0_prefix_length)), new(OwnAddress, (new(Ip,
            (addresses1_ip_family, addresses1_ip_words)), addresses1_prefix_length))), (new(Ip,
            (gateways0_family, gateways0_words)), new(Ip, (gateways1_family, gateways1_words))), ifname,
            netns, name, labels)
        )

    def pack(self) -> Packed:
        """The bytes in a map."""
        return RECORD.pack(
            self.instance, self.maker, self.changed, self.generation, self.netns_cookie, self.netns_device,
            self.netns_inode, self.vni, self.slot, self.ifindex, self.mtu, self.kind, self.flags, self.nsid,
            self.state, self.group, self.items, self.mac, *self.addresses[0].ip,
            self.addresses[0].prefix_length, *self.addresses[1].ip, self.addresses[1].prefix_length,
            *self.gateways[0], *self.gateways[1], self.ifname, self.netns, self.name, self.labels
        )


ITEM_KEY: Final = Layout("mzn_item_key", ("instance", "Q"), ("number", "I"), ("pad", "4x"))


class ItemKey(NamedTuple):
    """The members of ``mzn_item_key``."""

    instance: int
    number: int

    @classmethod
    def unpack(cls, data: Packed) -> ItemKey:
        """Of the bytes in a map."""
        return new(cls, ITEM_KEY.unpack(data))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return ITEM_KEY.pack(*self)


ITEM: Final = Layout(
    "mzn_item",
    ("since", "Q"),
    ("until", "Q"),
    ("ip", IP),
    ("gateway", IP),
    ("prefix_length", "I"),
    ("kind", "I"),
)


class Item(NamedTuple):
    """The members of ``mzn_item``."""

    since: int
    until: int
    ip: Ip
    gateway: Ip
    prefix_length: int
    kind: int

    @classmethod
    def unpack(cls, data: Packed) -> Item:
        """Of the bytes in a map."""
        (
            since, until, ip_family, ip_words, gateway_family, gateway_words, prefix_length, kind
        ) = ITEM.unpack(data)
        return new(
            Item, (since, until, new(Ip, (ip_family, ip_words)), new(Ip, (gateway_family, gateway_words)),
            prefix_length, kind)
        )

    def pack(self) -> Packed:
        """The bytes in a map."""
        return ITEM.pack(self.since, self.until, *self.ip, *self.gateway, self.prefix_length, self.kind)


ADDRESS: Final = Layout(
    "mzn_address",
    ("instance", "Q"),
    ("record", "16s"),
    ("prefix_length", "I"),
    ("flags", "I"),
)


class Address(NamedTuple):
    """The members of ``mzn_address``."""

    instance: int
    record: bytes
    prefix_length: int
    flags: int

    @classmethod
    def unpack(cls, data: Packed) -> Address:
        """Of the bytes in a map."""
        return new(cls, ADDRESS.unpack(data))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return ADDRESS.pack(*self)


SLOT: Final = Layout("mzn_slot", ("instance", "Q"), ("record", "16s"))


class Slot(NamedTuple):
    """The members of ``mzn_slot``."""

    instance: int
    record: bytes

    @classmethod
    def unpack(cls, data: Packed) -> Slot:
        """Of the bytes in a map."""
        return new(cls, SLOT.unpack(data))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return SLOT.pack(*self)


HEAD: Final = Layout(
    "mzn_head",
    ("magic", "8s"),
    ("schema", "I"),
    ("ifindex", "I"),
    ("netns_cookie", "Q"),
    ("instance", "Q"),
    ("build", "Q"),
)


class Head(NamedTuple):
    """The members of ``mzn_head``."""

    magic: bytes
    schema: int
    ifindex: int
    netns_cookie: int
    instance: int
    build: int

    @classmethod
    def unpack(cls, data: Packed) -> Head:
        """Of the bytes in a map."""
        return new(cls, HEAD.unpack(data))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return HEAD.pack(*self)


META: Final = Layout(
    "mzn_meta",
    ("head", HEAD),
    ("state", "I"),
    ("layers", "I"),
    ("changed", "Q"),
    ("generation", "Q"),
    ("encap", "I"),
    ("port", "I"),
    ("mtu", "I"),
    ("underlay_ifindex", "I"),
    ("schemas", f"{4 * Limit.GROUPS}s"),
    ("local", IP),
    ("tunnel", f"{Limit.DEVICE_BYTES}s"),
    ("underlay", f"{Limit.DEVICE_BYTES}s"),
    ("feeds", f"{Limit.FEEDS * Limit.FEED_BYTES}s"),
    ("shortcut", "I"),
)


class Meta(NamedTuple):
    """The members of ``mzn_meta``."""

    head: Head
    state: int
    layers: int
    changed: int
    generation: int
    encap: int
    port: int
    mtu: int
    underlay_ifindex: int
    schemas: bytes
    local: Ip
    tunnel: bytes
    underlay: bytes
    feeds: bytes
    shortcut: int

    @classmethod
    def unpack(cls, data: Packed) -> Meta:
        """Of the bytes in a map."""
        (
            head_magic, head_schema, head_ifindex, head_netns_cookie, head_instance, head_build, state,
            layers, changed, generation, encap, port, mtu, underlay_ifindex, schemas, local_family,
            local_words, tunnel, underlay, feeds, shortcut
        ) = META.unpack(data)
        return new(
            Meta, (new(Head, (head_magic, head_schema, head_ifindex, head_netns_cookie, head_instance,
            head_build)), state, layers, changed, generation, encap, port, mtu, underlay_ifindex, schemas,
            new(Ip, (local_family, local_words)), tunnel, underlay, feeds, shortcut)
        )

    def pack(self) -> Packed:
        """The bytes in a map."""
        return META.pack(
            *self.head, self.state, self.layers, self.changed, self.generation, self.encap, self.port,
            self.mtu, self.underlay_ifindex, self.schemas, *self.local, self.tunnel, self.underlay,
            self.feeds, self.shortcut
        )


SWITCHING: Final = Layout("mzn_switching", ("ifindex", "I"), ("flags", "I"), ("generation", "I"))


class Switching(NamedTuple):
    """The members of ``mzn_switching``."""

    ifindex: int
    flags: int
    generation: int

    @classmethod
    def unpack(cls, data: Packed) -> Switching:
        """Of the bytes in a map."""
        return new(cls, SWITCHING.unpack(data))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return SWITCHING.pack(*self)


READER: Final = Layout(
    "mzn_reader",
    ("until", "Q"),
    ("owner", "Q"),
    ("endpoint", "Q"),
    ("slot", "I"),
    ("wishes", "I"),
    ("vni", "I"),
    ("sample", "I"),
    ("ip", IP),
    ("pad", "4x"),
)


class Reader(NamedTuple):
    """The members of ``mzn_reader``."""

    until: int
    owner: int
    endpoint: int
    slot: int
    wishes: int
    vni: int
    sample: int
    ip: Ip

    @classmethod
    def unpack(cls, data: Packed) -> Reader:
        """Of the bytes in a map."""
        until, owner, endpoint, slot, wishes, vni, sample, ip_family, ip_words = READER.unpack(data)
        return new(
            Reader, (until, owner, endpoint, slot, wishes, vni, sample, new(Ip, (ip_family, ip_words)))
        )

    def pack(self) -> Packed:
        """The bytes in a map."""
        return READER.pack(
            self.until, self.owner, self.endpoint, self.slot, self.wishes, self.vni, self.sample, *self.ip
        )


ATTENTION: Final = Layout("mzn_attention", ("any", "Q"), ("drops", "Q"), ("passes", "Q"))


class Attention(NamedTuple):
    """The members of ``mzn_attention``."""

    any: int
    drops: int
    passes: int

    @classmethod
    def unpack(cls, data: Packed) -> Attention:
        """Of the bytes in a map."""
        return new(cls, ATTENTION.unpack(data))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return ATTENTION.pack(*self)


HEARD: Final = Layout("mzn_heard", ("found", "Q"), ("lost", "Q"), ("second", "Q"), ("spent", "Q"))


class Heard(NamedTuple):
    """The members of ``mzn_heard``."""

    found: int
    lost: int
    second: int
    spent: int

    @classmethod
    def unpack(cls, data: Packed) -> Heard:
        """Of the bytes in a map."""
        return new(cls, HEARD.unpack(data))

    def pack(self) -> Packed:
        """The bytes in a map."""
        return HEARD.pack(*self)


EVENT: Final = Layout(
    "mzn_event",
    ("time", "Q"),
    ("endpoint", "Q"),
    ("slot", "I"),
    ("program", "I"),
    ("verdict", "I"),
    ("vni", "I"),
    ("flags", "I"),
    ("length", "I"),
    ("captured", "I"),
    ("ethertype", "I"),
    ("protocol", "I"),
    ("payload", "I"),
    ("source", IP),
    ("destination", IP),
    ("data", f"{Limit.EVENT_BYTES}s"),
)


class Event(NamedTuple):
    """The members of ``mzn_event``."""

    time: int
    endpoint: int
    slot: int
    program: int
    verdict: int
    vni: int
    flags: int
    length: int
    captured: int
    ethertype: int
    protocol: int
    payload: int
    source: Ip
    destination: Ip
    data: bytes

    @classmethod
    def unpack(cls, data: Packed) -> Event:
        """Of the bytes in a map."""
        (
            time, endpoint, slot, program, verdict, vni, flags, length, captured, ethertype, protocol,
            payload, source_family, source_words, destination_family, destination_words, data
        ) = EVENT.unpack(data)
        return new(
            Event, (time, endpoint, slot, program, verdict, vni, flags, length, captured, ethertype, protocol,
            payload, new(Ip, (source_family, source_words)), new(Ip, (destination_family, destination_words)),
            data)
        )

    def pack(self) -> Packed:
        """The bytes in a map."""
        return EVENT.pack(
            self.time, self.endpoint, self.slot, self.program, self.verdict, self.vni, self.flags,
            self.length, self.captured, self.ethertype, self.protocol, self.payload, *self.source,
            *self.destination, self.data
        )


CONFIG: Final = Layout(
    "mzn_config",
    ("mark_local", "I"),
    ("mark_bounced", "I"),
    ("token_bounced", "12s"),
    ("local", IP),
    ("virtual_mac", MAC),
    ("tunnel_mac", MAC),
    ("encap", "I"),
    ("port", "I"),
    ("mtu", "I"),
)


class Config(NamedTuple):
    """The members of ``mzn_config``."""

    mark_local: int
    mark_bounced: int
    token_bounced: bytes
    local: Ip
    virtual_mac: bytes
    tunnel_mac: bytes
    encap: int
    port: int
    mtu: int

    @classmethod
    def unpack(cls, data: Packed) -> Config:
        """Of the bytes in a map."""
        (
            mark_local, mark_bounced, token_bounced, local_family, local_words, virtual_mac, tunnel_mac,
            encap, port, mtu
        ) = CONFIG.unpack(data)
        return new(
            Config, (mark_local, mark_bounced, token_bounced, new(Ip, (local_family, local_words)),
            virtual_mac, tunnel_mac, encap, port, mtu)
        )

    def pack(self) -> Packed:
        """The bytes in a map."""
        return CONFIG.pack(
            self.mark_local, self.mark_bounced, self.token_bounced, *self.local, self.virtual_mac,
            self.tunnel_mac, self.encap, self.port, self.mtu
        )


LAYOUTS: Final[Mapping[str, Layout]] = {
    layout.name: layout
    for layout in (
        IP, MAC, ENDPOINT_KEY, ENDPOINT, NETWORK_KEY, NETWORK, ROUTER_KEY, ROUTER, PEER_KEY, PEER,
        OWN_ADDRESS, SENDER, COUNTER, TRAFFIC, DROP_KEY, RECORD_KEY, RECORD, ITEM_KEY, ITEM, ADDRESS, SLOT,
        HEAD, META, SWITCHING, READER, ATTENTION, HEARD, EVENT, CONFIG,
    )
}
"""By the name of the structure."""
