# SPDX-License-Identifier: Apache-2.0
"""Every structure of ``mizarnet/abi.h`` as Python packs it, and the records that are read back as a whole.

Names and order are the header's. Addresses are in network byte order, numbers in the host's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network
from typing import Any

import attrs

from mizarnet.abi.layout import Layout
from mizarnet.checks import IPAddress, IPInterface, IPNetwork
from mizarnet.errors import LayoutError
from mizarnet.numbers import EncapNumber, InterfaceFlag, KindNumber, Limit, Place
from mizarnet.values import (
    Encap,
    EndpointKey,
    EndpointSpec,
    Kind,
    Local,
    MacAddress,
    Network,
    NetworkKey,
    Remote,
)

IP = Layout("mzn_ip", ("family", "I"), ("words", "16s"))
MAC = Layout("mzn_mac", ("bytes", "6s"), ("pad", "2x"))
OWN_ADDRESS = Layout("mzn_own_address", ("ip", IP), ("prefix_length", "I"))
ENDPOINT_KEY = Layout("mzn_endpoint_key", ("vni", "I"), ("ip", IP))
ENDPOINT = Layout("mzn_endpoint", ("place", "I"), ("interface", "I"), ("mac", MAC), ("host", "16s"))
NETWORK_KEY = Layout("mzn_network_key", ("prefix_length", "I"), ("vni", "I"), ("ip", IP))
NETWORK = Layout(
    "mzn_network", ("gateway", IP), ("switch_count", "I"), ("switches", f"{16 * Limit.SWITCHES}s")
)
PEER_KEY = Layout("mzn_peer_key", ("prefix_length", "I"), ("ip", IP))
INTERFACE = Layout(
    "mzn_interface",
    ("netns_cookie", "Q"),
    ("ifindex", "I"),
    ("vni", "I"),
    ("interface", "I"),
    ("flags", "I"),
    ("addresses", OWN_ADDRESS, Limit.ADDRESSES),
    ("gateways", IP, Limit.ADDRESSES),
    ("record", "16s"),
)
COUNTER = Layout("mzn_counter", ("packets", "Q"), ("bytes", "Q"))
TRAFFIC = Layout("mzn_traffic", ("sent", COUNTER), ("received", COUNTER), ("dropped", COUNTER))
RECORD_KEY = Layout("mzn_record_key", ("digest", "16s"))
RECORD = Layout(
    "mzn_record",
    ("instance", "Q"),
    ("netns_cookie", "Q"),
    ("netns_device", "Q"),
    ("netns_inode", "Q"),
    ("vni", "I"),
    ("interface", "I"),
    ("ifindex", "I"),
    ("mtu", "I"),
    ("kind", "I"),
    ("flags", "I"),
    ("nsid", "i"),
    ("pad", "4x"),
    ("mac", MAC),
    ("addresses", OWN_ADDRESS, Limit.ADDRESSES),
    ("gateways", IP, Limit.ADDRESSES),
    ("ifname", f"{Limit.DEVICE_BYTES}s"),
    ("netns", f"{Limit.PATH_BYTES}s"),
    ("name", f"{Limit.NAME_BYTES}s"),
)
META = Layout(
    "mzn_meta",
    ("schema", "I"),
    ("encap", "I"),
    ("build", "Q"),
    ("tunnel_ifindex", "I"),
    ("port", "I"),
    ("mtu", "I"),
    ("switch_ifindex", "I"),
    ("switch_flags", "I"),
    ("local", IP),
    ("tunnel", f"{Limit.DEVICE_BYTES}s"),
    ("underlay", f"{Limit.DEVICE_BYTES}s"),
)
CONFIG = Layout(
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

LAYOUTS = {
    layout.name: layout
    for layout in (
        IP, MAC, OWN_ADDRESS, ENDPOINT_KEY, ENDPOINT, NETWORK_KEY, NETWORK, PEER_KEY, INTERFACE, COUNTER,
        TRAFFIC, RECORD_KEY, RECORD, META, CONFIG,
    )
}  # fmt: skip

_MAPPED = bytes(10) + b"\xff\xff"
_NO_IP = (0, bytes(16))
_NO_MAC = bytes(6)


def u32(number: int) -> bytes:
    """``__u32``: the key of an array, or a value that is a number, in this machine's byte order."""
    return number.to_bytes(4, sys.byteorder)


def ip_parts(address: IPAddress | None) -> tuple[int, bytes]:
    """The two members of ``mzn_ip``; None is "no address"."""
    if address is None:
        return _NO_IP
    return address.version, _MAPPED + address.packed if address.version == 4 else address.packed


def ip_from(family: int, words: bytes) -> IPAddress | None:
    """The reverse of :func:`ip_parts`."""
    if not family:
        return None
    return IPv4Address(words[12:]) if family == 4 else IPv6Address(words)


def host_words(address: IPAddress) -> bytes:
    """An underlay address where the family is known from the tunnel."""
    return ip_parts(address)[1]


def _host_from(words: bytes) -> IPAddress:
    return IPv4Address(words[12:]) if words.startswith(_MAPPED) else IPv6Address(words)


def _mapped_length(prefix: IPNetwork) -> int:
    return prefix.prefixlen + (96 if prefix.version == 4 else 0)


# -- endpoints ---------------------------------------------------------------------------------------------


def pack_endpoint_key(key: EndpointKey) -> bytes:
    """``mzn_endpoint_key``."""
    return ENDPOINT_KEY.pack(key.vni, *ip_parts(key.ip))


def unpack_endpoint_key(data: bytes) -> EndpointKey:
    """The reverse of :func:`pack_endpoint_key`."""
    vni, family, words = ENDPOINT_KEY.unpack(data)
    return EndpointKey(vni, _present(ip_from(family, words)))


def pack_endpoint(value: Local | Remote) -> bytes:
    """``mzn_endpoint``."""
    if isinstance(value, Local):
        return ENDPOINT.pack(Place.LOCAL, value.interface, value.mac.packed, bytes(16))
    return ENDPOINT.pack(Place.REMOTE, 0, _NO_MAC, host_words(value.host))


def unpack_endpoint(data: bytes) -> Local | Remote:
    """The reverse of :func:`pack_endpoint`."""
    place, interface, mac, host = ENDPOINT.unpack(data)
    if place == Place.LOCAL:
        return Local(MacAddress(mac), interface)
    if place == Place.REMOTE:
        return Remote(_host_from(host))
    raise _unknown_place(place)


def is_local(data: bytes) -> bool:
    """Whether a packed ``mzn_endpoint`` lives on this host; raises ``LayoutError`` if that cannot be known."""
    place = int.from_bytes(data[:4], sys.byteorder)
    if place not in (Place.LOCAL, Place.REMOTE):
        raise _unknown_place(place)
    return place == Place.LOCAL


def _unknown_place(place: int) -> LayoutError:
    return LayoutError(
        f"an entry of endpoints has the place {place}, which this version of mizarnet does not know",
        struct="mzn_endpoint",
        differences=[f"place {place}"],
        hint="another version, or something else, wrote it: use that version, or delete the tunnel with force=True",
    )


# -- networks and peers ------------------------------------------------------------------------------------

_NETWORK_KEY_FIXED = 8 * (NETWORK_KEY.offset("ip.words") - NETWORK_KEY.offset("vni"))
_PEER_KEY_FIXED = 8 * (PEER_KEY.offset("ip.words") - PEER_KEY.offset("ip.family"))


def pack_network_key(key: NetworkKey) -> bytes:
    """``mzn_network_key``: the VNI and the family are always compared whole."""
    length = _NETWORK_KEY_FIXED + _mapped_length(key.prefix)
    return NETWORK_KEY.pack(length, key.vni, *ip_parts(key.prefix.network_address))


def unpack_network_key(data: bytes) -> NetworkKey:
    """The reverse of :func:`pack_network_key`."""
    length, vni, family, words = NETWORK_KEY.unpack(data)
    return NetworkKey(vni, _prefix(length - _NETWORK_KEY_FIXED, family, words))


def pack_host_key(vni: int, ip: IPAddress) -> bytes:
    """The key that finds the network of one address."""
    return pack_network_key(NetworkKey(vni, ip_network(ip)))


def pack_network(value: Network) -> bytes:
    """``mzn_network``."""
    switches = b"".join(map(host_words, value.switches))
    return NETWORK.pack(*ip_parts(value.gateway), len(value.switches), switches)


def unpack_network(data: bytes) -> Network:
    """The reverse of :func:`pack_network`."""
    family, words, count, switches = NETWORK.unpack(data)
    hosts = [_host_from(switches[16 * i : 16 * (i + 1)]) for i in range(count)]
    return Network(gateway=ip_from(family, words), switches=hosts)


def pack_peer_key(prefix: IPNetwork) -> bytes:
    """``mzn_peer_key``."""
    return PEER_KEY.pack(_PEER_KEY_FIXED + _mapped_length(prefix), *ip_parts(prefix.network_address))


def unpack_peer_key(data: bytes) -> IPNetwork:
    """The reverse of :func:`pack_peer_key`."""
    length, family, words = PEER_KEY.unpack(data)
    return _prefix(length - _PEER_KEY_FIXED, family, words)


def _prefix(mapped_length: int, family: int, words: bytes) -> IPNetwork:
    length = mapped_length - (96 if family == 4 else 0)
    return ip_interface((_present(ip_from(family, words)), length)).network


def _present(address: IPAddress | None) -> IPAddress:
    if address is None:
        raise ValueError("an address without a family in a map")
    return address


# -- local endpoints ---------------------------------------------------------------------------------------


def mac_key(mac: MacAddress) -> bytes:
    """``mzn_mac``, the key of ``interfaces``."""
    return MAC.pack(mac.packed)


def record_key(name: str) -> bytes:
    """``mzn_record_key``: the digest of an endpoint's name."""
    return blake2b(name.encode(), digest_size=16, person=b"mizarnet-name").digest()


@attrs.frozen(kw_only=True)
class Record:
    """A local endpoint, complete: what was asked for, and what it became.

    Attributes:
        spec: The specification with MAC, MTU and gateways filled in.
        private: Whether the namespace was made for the endpoint and ends with it.
        instance: Random; tells two lives of one name apart.
        interface: Index into the per-endpoint counters.
        ifindex: Of its device, in its namespace; 0 while it is being made.
        netns_cookie: The kernel's number of the namespace.
        netns_id: Device and inode of the namespace, while it exists.
        nsid: The number under which the host's namespace sees it, while it exists.
    """

    spec: EndpointSpec
    instance: int
    interface: int
    ifindex: int
    netns_cookie: int
    netns_id: tuple[int, int]
    nsid: int
    private: bool = False

    @property
    def mac(self) -> MacAddress:
        """Of the device."""
        return MacAddress.parse(self.spec.mac or bytes(6))

    def pack(self) -> bytes:
        """``mzn_record``."""
        spec = self.spec
        return RECORD.pack(
            self.instance,
            self.netns_cookie,
            *self.netns_id,
            spec.vni,
            self.interface,
            self.ifindex,
            spec.mtu or 0,
            KindNumber[spec.kind.name],
            _flags(spec) | (InterfaceFlag.PRIVATE_NETNS if self.private else 0),
            self.nsid,
            self.mac.packed,
            *_own_parts(spec.ip),
            *_gateway_parts(spec.gateway or ()),
            spec.ifname.encode(),
            (spec.netns or "").encode(),
            spec.name.encode(),
        )

    @classmethod
    def unpack(cls, data: bytes) -> Record:
        """The reverse of :meth:`pack`."""
        instance, cookie, device, inode, vni, interface, ifindex, mtu, kind, flags, nsid, mac, *rest = (
            RECORD.unpack(data)
        )
        own, gateways, (ifname, netns, name) = rest[:6], rest[6:10], rest[10:]
        spec = EndpointSpec(
            name=_text(name),
            vni=vni,
            ip=list(_interfaces(own)),
            netns=_text(netns) or None,
            ifname=_text(ifname),
            mac=mac,
            kind=Kind[KindNumber(kind).name],
            gateway=[ip for ip in map(ip_from, gateways[::2], gateways[1::2]) if ip is not None],
            mtu=mtu,
            forwarding=bool(flags & InterfaceFlag.FORWARDING),
            trust_user_namespace=bool(flags & InterfaceFlag.TRUSTED_NETNS),
        )
        return cls(
            spec=spec,
            instance=instance,
            interface=interface,
            ifindex=ifindex,
            netns_cookie=cookie,
            netns_id=(device, inode),
            nsid=nsid,
            private=bool(flags & InterfaceFlag.PRIVATE_NETNS),
        )

    def pack_interface(self) -> bytes:
        """``mzn_interface``: the hot half, which the programs read."""
        spec = self.spec
        return INTERFACE.pack(
            self.netns_cookie,
            self.ifindex,
            spec.vni,
            self.interface,
            _flags(spec),
            *_own_parts(spec.ip),
            *_gateway_parts(spec.gateway or ()),
            record_key(spec.name),
        )


def _flags(spec: EndpointSpec) -> int:
    forwarding = InterfaceFlag.FORWARDING if spec.forwarding else 0
    return forwarding | (InterfaceFlag.TRUSTED_NETNS if spec.trust_user_namespace else 0)


def _own_parts(addresses: Sequence[IPInterface]) -> Iterator[int | bytes]:
    for address in addresses:
        yield from (*ip_parts(address.ip), address.network.prefixlen)
    for _ in range(Limit.ADDRESSES - len(addresses)):
        yield from (*_NO_IP, 0)


def _gateway_parts(gateways: Sequence[IPAddress]) -> Iterator[int | bytes]:
    for index in range(Limit.ADDRESSES):
        yield from ip_parts(gateways[index] if index < len(gateways) else None)


def _interfaces(parts: Sequence[Any]) -> Iterator[IPInterface]:
    for family, words, length in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        address = ip_from(family, words)
        if address is not None:
            yield ip_interface((address, length))


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode()


# -- the agent ---------------------------------------------------------------------------------------------

META_KEY = u32(0)
"""The only key of the map ``meta``."""


@attrs.frozen(kw_only=True)
class Meta:
    """The tunnel that an agent was attached to, and by whom."""

    schema: int
    build: int
    encap: Encap
    tunnel_ifindex: int
    port: int
    mtu: int
    local: IPAddress
    tunnel: str
    underlay: str
    switch_ifindex: int = 0
    switch_flags: int = 0

    def pack(self) -> bytes:
        """``mzn_meta``."""
        encap = EncapNumber[self.encap.name]
        numbers = (self.schema, encap, self.build, self.tunnel_ifindex, self.port, self.mtu)
        switch = (self.switch_ifindex, self.switch_flags)
        texts = (self.tunnel.encode(), self.underlay.encode())
        return META.pack(*numbers, *switch, *ip_parts(self.local), *texts)

    @classmethod
    def unpack(cls, data: bytes) -> Meta:
        """The reverse of :meth:`pack`."""
        schema, encap, build, ifindex, port, mtu, switch, flags, family, words, *texts = META.unpack(data)
        return cls(
            schema=schema,
            build=build,
            encap=Encap[EncapNumber(encap).name],
            tunnel_ifindex=ifindex,
            port=port,
            mtu=mtu,
            local=_present(ip_from(family, words)),
            tunnel=_text(texts[0]),
            underlay=_text(texts[1]),
            switch_ifindex=switch,
            switch_flags=flags,
        )


@attrs.frozen(kw_only=True)
class Config:
    """The constants of one attached agent, written before the programs are loaded."""

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
        """``mzn_config``."""
        macs = (self.virtual_mac.packed, self.tunnel_mac.packed)
        numbers = (EncapNumber[self.encap.name], self.port, self.mtu)
        secret = (self.mark_local, self.mark_bounced, self.token_bounced)
        return CONFIG.pack(*secret, *ip_parts(self.local), *macs, *numbers)
