# SPDX-License-Identifier: Apache-2.0
"""The values of the public interface: frozen, compared by content, checked when made, no I/O."""

from __future__ import annotations

import enum
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, cast

import attrs

from mizarnet._model import arguments
from mizarnet._model.arguments import IPAddress, IPInterface, IPNetwork
from mizarnet._model.described import Described
from mizarnet._model.enumerations import Limit
from mizarnet._model.public import public
from mizarnet.errors import InvalidTypeError, InvalidValueError

AddressLike: TypeAlias = str | IPAddress
InterfaceLike: TypeAlias = str | IPAddress | IPInterface
PrefixLike: TypeAlias = str | IPNetwork
NetnsLike: TypeAlias = str | os.PathLike[str]
MacLike: TypeAlias = "str | bytes | MacAddress"

_E = TypeVar("_E", bound=enum.Enum)


def parse_member(cls: type[_E], value: object, *, argument: str) -> _E:
    """The member of ``cls`` that ``value`` is or names."""
    if isinstance(value, cls):
        return value
    names = ", ".join(repr(member.value) for member in cls)
    if not isinstance(value, str):
        raise InvalidTypeError(f"{argument} must be {names}, not {type(value).__name__}", argument=argument)
    try:
        return cls(value)
    except ValueError:
        raise InvalidValueError(
            f"{argument} {value!r} is unknown", argument=argument, value=value, hint=f"it is one of {names}"
        ) from None


class Encap(enum.Enum):
    """The encapsulation of a tunnel."""

    VXLAN = "vxlan"
    """RFC 7348, UDP port 4789."""
    GENEVE = "geneve"
    """RFC 8926, UDP port 6081."""

    @property
    def default_port(self) -> int:
        """The UDP port that IANA assigned."""
        return 4789 if self is Encap.VXLAN else 6081

    def overhead(self, version: int) -> int:
        """Bytes around an inner packet on an IPv4 or IPv6 underlay: IP, UDP, tunnel and inner Ethernet header."""
        if version not in (4, 6):
            raise InvalidValueError(f"version {version!r} is not 4 or 6", argument="version", value=version)
        return (20 if version == 4 else 40) + 8 + 8 + 14


class Hook(enum.Enum):
    """How the transit agent is attached to the tunnel."""

    TCX = "tcx"
    """Programs at the head of the tcx hooks; needs kernel 6.6."""
    CLSACT = "clsact"
    """Filters of the clsact qdisc, for older kernels."""


class Shortcut(enum.Enum):
    """Whether plain tunnel packets take the shortcut on the way in."""

    OFF = "off"
    """All of them go the kernel's way."""
    AUTO = "auto"
    """They take it where the kernel and the underlay's device allow it."""


class XdpMode(enum.Enum):
    """Where an XDP program runs."""

    NATIVE = "native"
    """In the driver."""
    GENERIC = "generic"
    """Above the driver, on packets that the kernel has already taken up."""


class Kind(enum.Enum):
    """The device of an endpoint."""

    MACVLAN = "macvlan"
    """A network device in the container's namespace."""
    MACVTAP = "macvtap"
    """A device that a VM reads and writes through a descriptor."""


class MacvlanMode(enum.Enum):
    """What a MACVLAN or MACVTAP shares with the others on its tunnel."""

    PRIVATE = "private"
    """Nothing: every frame passes the transit agent. mizarnet makes no other."""
    VEPA = "vepa"
    BRIDGE = "bridge"
    PASSTHRU = "passthru"
    SOURCE = "source"


class Life(enum.Enum):
    """How far an endpoint has come."""

    MAKING = "making"
    """Begun by a call that goes on, or was ended halfway; ``Endpoint.create()`` makes it anew."""
    LIVE = "live"
    """Whole."""
    DEAD = "dead"
    """Its device is gone, as when its container ended; it makes room for any other that wants its address or MAC."""
    DELETING = "deleting"
    """Its end has begun, in a call that goes on, or was ended halfway; any ``delete`` finishes it."""


class DefaultRoute(enum.Enum):
    """When an endpoint gets a default route by its gateway."""

    ALWAYS = "always"
    """With a gateway that was asked for, or else fail; with that of the network, if the namespace has none yet."""
    IF_NONE = "if-none"
    """If the namespace has no default route of that IP version yet."""
    NEVER = "never"


class Keep(enum.Enum):
    """The type of :data:`mizarnet.KEEP`."""

    KEEP = "keep"
    """As it is."""


KEEP: Final = Keep.KEEP
"""Default of each argument of an ``update()``: leave it as it is. None means what it means in ``create()``."""


@public
@attrs.frozen(order=True, repr=False)
class MacAddress:
    """A unicast Ethernet address.

    Attributes:
        packed: The six bytes of the address.
    """

    packed: bytes

    @classmethod
    def parse(cls, value: MacLike, /) -> MacAddress:
        """From text like ``"02:00:00:00:00:01"``, six bytes, or another one.

        Raises:
            InvalidTypeError: For any other type.
            InvalidValueError: For a malformed, multicast or all-zero address.
        """
        if isinstance(value, MacAddress):
            return value
        if isinstance(value, str):
            return cls._checked(_mac_bytes(value), value)
        if isinstance(value, bytes):
            return cls._checked(value if len(value) == 6 else None, value)
        raise InvalidTypeError(f"mac must be a str or six bytes, not {type(value).__name__}", argument="mac")

    @classmethod
    def derive(cls, vni: int, ip: IPAddress, /) -> MacAddress:
        """The MAC of an endpoint that was given none: the same on every host, locally administered."""
        packed = arguments.check_vni(vni).to_bytes(4, "big") + arguments.check_address(ip).packed
        digest = blake2b(packed, digest_size=6, person=b"mizarnet-mac").digest()
        return cls(bytes([digest[0] & 0xFC | 0x02]) + digest[1:])

    @classmethod
    def _checked(cls, packed: bytes | None, given: str | bytes) -> MacAddress:
        def refuse(reason: str) -> InvalidValueError:
            return InvalidValueError(
                f"mac {given!r} {reason}", argument="mac", value=given, hint="write it like 02:00:00:00:00:01"
            )

        if packed is None:
            raise refuse("is not a MAC address")
        if packed[0] & 1:
            raise refuse("is a multicast or broadcast address")
        if not any(packed):
            raise refuse("is all zero")
        return cls(packed)

    def __str__(self) -> str:
        return self.packed.hex(":")

    def __repr__(self) -> str:
        return f"MacAddress.parse({str(self)!r})"


VIRTUAL_MAC = MacAddress(bytes.fromhex("026d7a6e0001"))
"""MAC of whatever is not on this host: the same on all, so that an endpoint may move with its neighbour table."""


_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def _mac_bytes(text: str) -> bytes | None:
    parts = text.split(":")
    # bytes.fromhex() would skip white space.
    if len(parts) != 6 or not all(len(part) == 2 and _HEX_DIGITS.issuperset(part) for part in parts):
        return None
    return bytes.fromhex("".join(parts))


@public
class EndpointKey(NamedTuple):
    """Key of ``agent.endpoints``: an address within a VNI."""

    vni: int
    ip: IPAddress

    @classmethod
    def parse(cls, value: object, /) -> EndpointKey:
        """From a pair of a VNI and an address; raises ``InvalidTypeError`` or ``InvalidValueError``."""
        vni, ip = _pair(value, "(vni, ip)")
        return cls(arguments.check_vni(vni), arguments.check_address(ip))

    def to_dict(self) -> dict[str, Any]:
        """VNI, and the address as text."""
        return {"vni": self.vni, "ip": str(self.ip)}


@public
class NetworkKey(NamedTuple):
    """Key of ``agent.networks``: a prefix within a VNI."""

    vni: int
    prefix: IPNetwork

    @classmethod
    def parse(cls, value: object, /) -> NetworkKey:
        """From a pair of a VNI and a prefix; raises ``InvalidTypeError`` or ``InvalidValueError``."""
        vni, prefix = _pair(value, "(vni, prefix)")
        return cls(arguments.check_vni(vni), arguments.check_prefix(prefix))

    def to_dict(self) -> dict[str, Any]:
        """VNI, and the prefix as text."""
        return {"vni": self.vni, "prefix": str(self.prefix)}


def _pair(value: object, shape: str) -> tuple[int, str]:
    # The checks that follow judge the items' types; here only the shape is known.
    if not isinstance(value, tuple):
        raise InvalidTypeError(f"a key is {shape}, not {type(value).__name__}", argument="key")
    pair = cast("tuple[int, str]", value)
    if len(pair) != 2:
        raise InvalidTypeError(f"a key is {shape}, not a tuple of {len(pair)}", argument="key")
    return pair


@public
@attrs.frozen
class Local(Described):
    """An endpoint on this host. Only :class:`mizarnet.Endpoint` makes such entries.

    Attributes:
        mac: MAC address of the endpoint.
        slot: Index of the endpoint in the host's per-endpoint counters.
        forwarding: Whether it may be the next hop of networks, and receive what is for others.
        tap: Whether it is a MACVTAP, whose frames go to a VM.
    """

    mac: MacAddress
    slot: int
    forwarding: bool = False
    tap: bool = False


def _to_host(value: AddressLike) -> IPAddress:
    return arguments.check_host_address(value, argument="host")


@public
@attrs.frozen
class Remote(Described):
    """An endpoint on another host.

    Attributes:
        host: Underlay address of that host, of the tunnel's address family.
    """

    host: IPAddress = attrs.field(converter=_to_host)


def _to_gateway(value: AddressLike | None) -> IPAddress | None:
    return None if value is None else arguments.check_host_address(value, argument="gateway")


def _to_via(value: AddressLike | None) -> IPAddress | None:
    return None if value is None else arguments.check_host_address(value, argument="via")


def _to_switches(values: Iterable[AddressLike]) -> tuple[IPAddress, ...]:
    given = arguments.check_items(values, argument="switches", what="addresses")
    switches = tuple(arguments.check_host_address(value, argument="switches") for value in given)
    if len(set(switches)) < len(switches):
        twice = next(each for each in switches if switches.count(each) > 1)
        raise InvalidValueError(f"switch {twice} is given twice", argument="switches", value=switches)
    if len(switches) > Limit.SWITCHES:
        raise InvalidValueError(
            f"{len(switches)} switches are given, a network has at most {Limit.SWITCHES}",
            argument="switches",
            value=switches,
        )
    return switches


@public
@attrs.frozen
class Network(Described):
    """A prefix inside a VNI.

    Attributes:
        gateway: The address that routes out of it, of the prefix's family; the transit agent answers for it.
        switches: Underlay addresses of the transit switches that know its endpoints; at most 16.
        via: The next hop: the address in the VNI of an endpoint with ``forwarding=True``, on any host, which gets all
            packets into the prefix that no endpoint has the destination of; of the prefix's family, and outside the
            prefix unless that is 0.0.0.0/0 or ::/0. As long as no such endpoint is known, the packets are dropped
            (``Verdict.NO_NEXT_HOP``).

    Raises:
        InvalidValueError: ``via`` is given together with ``gateway`` or ``switches``, or an address is none of a host.
    """

    gateway: IPAddress | None = attrs.field(default=None, converter=_to_gateway)
    switches: tuple[IPAddress, ...] = attrs.field(default=(), converter=_to_switches)
    via: IPAddress | None = attrs.field(default=None, converter=_to_via)

    def __attrs_post_init__(self) -> None:
        if self.via is not None and (self.gateway is not None or self.switches):
            raise InvalidValueError(
                "a network has a next hop, or a gateway and transit switches, and not both",
                argument="via",
                value=self.via,
                hint="an entry of its own for the prefix of the gateway; via= for what is beyond it",
            )


def check_network(key: NetworkKey, network: Network) -> None:
    """Raises ``InvalidValueError`` if a network's gateway or next hop does not fit its prefix."""
    prefix, gateway, via = key.prefix, network.gateway, network.via
    if gateway is not None and gateway not in prefix:
        raise InvalidValueError(f"gateway {gateway} is not in {prefix}", argument="gateway", value=gateway)
    if via is not None and via.version != prefix.version:
        raise InvalidValueError(f"next hop {via} is not of the family of {prefix}", argument="via", value=via)
    if via is not None and via in prefix and prefix.prefixlen:
        raise InvalidValueError(
            f"next hop {via} is in {prefix}, which would be reached by it",
            argument="via",
            value=via,
            hint="a next hop is outside its prefix, unless that is 0.0.0.0/0 or ::/0",
        )


def _to_prefix(value: PrefixLike) -> IPNetwork:
    return arguments.check_prefix(value)


@public
@attrs.frozen
class Route(Described):
    """A route of an endpoint's namespace through the endpoint's device.

    Attributes:
        prefix: Where it leads to; a default route to 0.0.0.0/0 or ::/0.
        gateway: Next hop; None: the prefix is on the link.
    """

    prefix: IPNetwork = attrs.field(converter=_to_prefix)
    gateway: IPAddress | None = attrs.field(default=None, converter=_to_gateway)


def _to_addresses(values: InterfaceLike | Iterable[InterfaceLike]) -> tuple[IPInterface, ...]:
    addresses = [arguments.check_interface(value) for value in _items(values)]
    if not addresses:
        raise InvalidValueError("an endpoint has at least one address", argument="ip", value=values)
    counted = Counter(address.ip for address in addresses)
    twice = next((ip for ip, count in counted.items() if count > 1), None)
    if twice is not None:
        raise InvalidValueError(f"address {twice} is given twice", argument="ip", value=values)
    return in_order_of_addresses(addresses)


def parse_addresses(values: InterfaceLike | Iterable[InterfaceLike]) -> tuple[IPInterface, ...]:
    """Addresses in the order of a specification, of any form that an argument ``ip`` may have."""
    return _to_addresses(values)


def in_order_of_addresses(addresses: Sequence[IPInterface]) -> tuple[IPInterface, ...]:
    """Addresses in the order of a specification.

    The first of a family is the one that the endpoint speaks from; of the others the order says nothing.
    """
    families = [[address for address in addresses if address.version == version] for version in (4, 6)]
    return tuple(
        address for own in families for address in (*own[:1], *sorted(own[1:], key=lambda each: each.ip))
    )


def _to_gateways(values: AddressLike | Iterable[AddressLike] | None) -> tuple[IPAddress, ...] | None:
    if values is None:
        return None
    return tuple(arguments.check_host_address(value, argument="gateway") for value in _items(values))


def _to_routes(values: Iterable[Route]) -> tuple[Route, ...]:
    routes = list(arguments.check_items(values, argument="routes", what="Route"))
    for route in routes:
        if not isinstance(route, Route):
            raise InvalidTypeError(f"a route is a Route, not {type(route).__name__}", argument="routes")
    counted = Counter(route.prefix for route in routes)
    twice = next((prefix for prefix, count in counted.items() if count > 1), None)
    if twice is not None:
        raise InvalidValueError(f"two routes lead to {twice}", argument="routes", value=values)
    return in_order_of_routes(routes)


def in_order_of_routes(routes: Iterable[Route]) -> tuple[Route, ...]:
    """Routes in the order of a specification."""
    return tuple(sorted(routes, key=lambda route: arguments.in_order(route.prefix)))


def parse_field(name: str, value: Any) -> Any:
    """What a field of an ``EndpointSpec`` makes of a value: one that an endpoint can change."""
    return _CHANGING[name](value)


def _items(values: object) -> Iterable[str]:
    # The checks that follow judge the items' types.
    # A network is iterable, but its addresses are not meant.
    if isinstance(values, (str, bytes, IPv4Network, IPv6Network)) or not isinstance(values, Iterable):
        return (cast(str, values),)
    return cast("Iterable[str]", values)


def _to_mac(value: MacLike | None) -> MacAddress | None:
    if value is None:
        return None
    mac = MacAddress.parse(value)
    if mac == VIRTUAL_MAC:
        raise InvalidValueError(
            f"mac {mac} is what every agent answers with for endpoints of other hosts",
            argument="mac",
            value=value,
            hint="give another one, or none",
        )
    return mac


def _to_kind(value: Kind | Literal["macvlan", "macvtap"]) -> Kind:
    return parse_member(Kind, value, argument="kind")


def _to_default_route(value: DefaultRoute | Literal["always", "if-none", "never"]) -> DefaultRoute:
    return parse_member(DefaultRoute, value, argument="default_route")


def _to_netns(value: NetnsLike | None) -> str | None:
    if value is None:
        return None
    return arguments.check_netns(value)


def _to_ifname(value: str) -> str:
    return arguments.check_device_name(value, argument="ifname")


def _to_mtu(value: int | None) -> int | None:
    return None if value is None else arguments.check_mtu(value)


def _to_forwarding(value: bool) -> bool:
    return arguments.check_bool(value, argument="forwarding")


def _to_trust(value: bool) -> bool:
    return arguments.check_bool(value, argument="trust_user_namespace")


def _to_name(value: str | None) -> str:
    return "" if value is None else arguments.check_endpoint_name(value)


def _to_labels(values: Mapping[str, str] | None) -> Mapping[str, str]:
    return {} if values is None else arguments.check_labels(values)


_CHANGING: Mapping[str, Callable[[Any], Any]] = {
    "ip": _to_addresses,
    "gateway": _to_gateways,
    "routes": _to_routes,
    "mtu": _to_mtu,
    "ifname": _to_ifname,
    "forwarding": _to_forwarding,
    "trust_user_namespace": _to_trust,
    "labels": _to_labels,
}


@attrs.frozen(kw_only=True)
class TunnelSpec:
    """What a tunnel shall be; None: left open.

    Attributes:
        encap: Encapsulation.
        underlay: Name of the device that leads to the other hosts.
        local: Own underlay address.
        port: UDP port.
        mtu: Largest inner packet, in bytes.
    """

    encap: Encap
    underlay: str
    local: IPAddress | None = None
    port: int | None = None
    mtu: int | None = None


MAX_ENDPOINTS, MAX_LOCAL = 65536, 4096
"""Room for endpoints, of all hosts and of this one, where nothing else was asked for."""


@attrs.frozen(kw_only=True)
class AgentSpec:
    """What a transit agent shall be; None: left open.

    Attributes:
        hook: The one kind of hook that its programs stand on; None: every kind that the kernel has.
        max_endpoints: Room for endpoints, local and remote together.
        max_local: Room for endpoints of this host.
        peers: Underlay prefixes that tunnel packets are accepted from; None: the underlay's on-link ones.
        shortcut: Whether there shall be a shortcut on the way in.
    """

    hook: Hook | None = None
    max_endpoints: int | None = None
    max_local: int | None = None
    peers: frozenset[IPNetwork] | None = None
    shortcut: Shortcut | None = None


def _bad_route(route: Route, what: str, hint: str = "") -> InvalidValueError:
    return InvalidValueError(f"the route to {route.prefix} {what}", argument="routes", value=route, hint=hint)


@public
@attrs.frozen(kw_only=True)
class EndpointSpec(Described):
    """What an endpoint is to be. Everything is checked here, before any system call.

    Attributes:
        name: The caller's key, unique per agent; by default ``"<vni>/<ip>"``.
        vni: Tenant network, 1 to 2^24-1.
        ip: Own addresses with their on-link prefixes, any number of each family. The first of a family comes first; the
            others are sorted. One may be given alone.
        netns: Name under ``/run/netns`` or path of the container's namespace; None: the agent's own.
        ifname: Name of the device in that namespace.
        mac: MAC address; None: derived from VNI and first address, the same on every host.
        kind: Kind of the device: ``macvlan`` for a container, ``macvtap`` for a VM.
        gateway: Default gateway, one per address family at most; one in no own prefix, such as ``fe80::1``, is taken
            for a neighbour, too; ``()``: none; None: that of the network, if there is one and the namespace has no
            default route yet (never for the agent's own namespace).
        default_route: Whether the namespace gets a default route by the gateway: ``"always"``, ``"if-none"`` (if it has
            none of that IP version yet) or ``"never"``.
        routes: Other routes of the namespace through the device, in any order.
        mtu: MTU in bytes; None: the tunnel's.
        forwarding: Whether it may send from addresses that are not its own (a router or NAT).
        trust_user_namespace: Whether the namespace may belong to another user namespace. Its root could then add
            devices to the tunnel and copy frames of other tenants.
        labels: What the caller wants to find with it again, text by text: at most 128 bytes in all, with two for each.
            Nothing is decided by them.
    """

    vni: int = attrs.field(converter=arguments.check_vni)
    ip: tuple[IPInterface, ...] = attrs.field(converter=_to_addresses)
    netns: str | None = attrs.field(default=None, converter=_to_netns)
    ifname: str = attrs.field(default="eth0", converter=_to_ifname)
    mac: MacAddress | None = attrs.field(default=None, converter=_to_mac)
    kind: Kind = attrs.field(default=Kind.MACVLAN, converter=_to_kind)
    gateway: tuple[IPAddress, ...] | None = attrs.field(default=None, converter=_to_gateways)
    default_route: DefaultRoute = attrs.field(default=DefaultRoute.ALWAYS, converter=_to_default_route)
    routes: tuple[Route, ...] = attrs.field(default=(), converter=_to_routes)
    mtu: int | None = attrs.field(default=None, converter=_to_mtu)
    forwarding: bool = attrs.field(default=False, converter=_to_forwarding)
    trust_user_namespace: bool = attrs.field(default=False, converter=_to_trust)
    labels: Mapping[str, str] = attrs.field(default=None, converter=_to_labels, hash=False)
    name: str = attrs.field(default=None, converter=_to_name)

    def __attrs_post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", f"{self.vni}/{self.ip[0].ip}")
        self._check_mtu()
        self._check_gateways()
        self._check_routes()

    @property
    def first(self) -> tuple[IPInterface, ...]:
        """The first address of each family."""
        versions = dict.fromkeys(address.version for address in self.ip)
        return tuple(next(each for each in self.ip if each.version == version) for version in versions)

    @property
    def further(self) -> tuple[IPInterface, ...]:
        """The addresses behind the first of each family."""
        first = self.first
        return tuple(address for address in self.ip if address not in first)

    def _check_mtu(self) -> None:
        smallest = arguments.SMALLEST_IPV6_MTU if self.ip[-1].version == 6 else arguments.SMALLEST_MTU
        if self.mtu is not None and self.mtu < smallest:
            raise InvalidValueError(f"mtu {self.mtu} is below {smallest}", argument="mtu", value=self.mtu)

    def _check_gateways(self) -> None:
        gateways = self.gateway or ()
        if len({gateway.version for gateway in gateways}) < len(gateways):
            raise InvalidValueError(
                "more than one gateway of a family", argument="gateway", value=self.gateway
            )
        for gateway in gateways:
            reason = self._not_a_gateway(gateway)
            if reason:
                raise InvalidValueError(f"gateway {gateway} {reason}", argument="gateway", value=gateway)

    def _check_routes(self) -> None:
        versions, networks = {each.version for each in self.ip}, {each.network for each in self.ip}
        for route in self.routes:
            if not route.prefix.prefixlen:
                raise _bad_route(route, "is a default route", "give gateway=")
            if route.prefix.version not in versions:
                raise _bad_route(route, f"needs an address of IPv{route.prefix.version}", "give one in ip=")
            if route.prefix in networks:
                raise _bad_route(route, "comes with an address", "leave the route out")
            if route.gateway is None:
                continue
            if route.gateway.version != route.prefix.version:
                raise _bad_route(route, f"has a gateway of IPv{route.gateway.version}")
            reason = self._not_a_gateway(route.gateway)
            if reason:
                raise _bad_route(route, f"has a gateway, {route.gateway}, that {reason}")

    def _not_a_gateway(self, ip: IPAddress) -> str:
        """Why an address cannot be the next hop of a route through the device; empty: it can."""
        own = [address.ip for address in self.ip if address.version == ip.version]
        if not own:
            return f"needs an address of IPv{ip.version}"
        return "is the endpoint's own" if ip in own else ""

    def covers(self, ip: AddressLike) -> bool:
        """Whether an address is in an on-link prefix of the endpoint."""
        given = arguments.check_address(ip)
        return any(given in address.network for address in self.ip if address.version == given.version)
