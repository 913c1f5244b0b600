# SPDX-License-Identifier: Apache-2.0
"""What a host shall have, as one value: read from TOML or JSON, for one host or for all of a fleet."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Self, TypeAlias, TypeVar, cast

import attrs

from mizarnet._kernel.refusals import explained
from mizarnet._model import arguments
from mizarnet._model.arguments import IPAddress, IPNetwork
from mizarnet._model.described import Described
from mizarnet._model.fields import Errors, judged, read_list, read_table, unknown
from mizarnet._model.gateways import GatewaySpec, Publish
from mizarnet._model.public import public
from mizarnet._model.specs import (
    AddressLike,
    Encap,
    EndpointKey,
    EndpointSpec,
    Hook,
    MacAddress,
    Network,
    NetworkKey,
    PrefixLike,
    Remote,
    Route,
    Shortcut,
    XdpMode,
    check_network,
    parse_member,
)
from mizarnet._plain import plain
from mizarnet.errors import InvalidTypeError, InvalidValueError, NotFoundError, SpecError

PathLike: TypeAlias = str | os.PathLike[str]
_K = TypeVar("_K")
_P = TypeVar("_P")


def _to_encap(value: Any) -> Encap:
    return parse_member(Encap, value, argument="encap")


def _to_hook(value: Any) -> Hook | None:
    return None if value in (None, "auto") else parse_member(Hook, value, argument="hook")


def _to_shortcut(value: Any) -> Shortcut | None:
    return None if value is None else parse_member(Shortcut, value, argument="shortcut")


def _to_mode(value: Any) -> XdpMode | None:
    return None if value in (None, "auto") else parse_member(XdpMode, value, argument="mode")


def _to_underlay(value: Any) -> str:
    return arguments.check_device_name(value, argument="underlay")


def _to_device(value: Any) -> str | None:
    return None if value is None else _to_underlay(value)


def _to_local(value: Any) -> IPAddress | None:
    return None if value is None else arguments.check_host_address(value, argument="local")


def _to_port(value: Any) -> int | None:
    return None if value is None else arguments.check_port(value)


def _to_mtu(value: Any) -> int | None:
    return None if value is None else arguments.check_mtu(value)


def _to_netns(value: Any) -> str | None:
    return None if value is None else arguments.check_netns(value)


def _to_max_endpoints(value: Any) -> int | None:
    return (
        None if value is None else arguments.check_int(value, argument="max_endpoints", low=1, high=1 << 24)
    )


def _to_max_local(value: Any) -> int | None:
    return None if value is None else arguments.check_int(value, argument="max_local", low=1, high=1 << 16)


@public
@attrs.frozen(kw_only=True)
class TunnelPart(Described):
    """The tunnel of a host's specification: keywords of :meth:`mizarnet.Tunnel.create`. None: left open.

    Attributes:
        encap: Encapsulation.
        underlay: Name of the device that leads to the other hosts.
        name: Name of the device.
        local: Underlay address of the host.
        port: UDP port.
        mtu: Largest inner packet, in bytes.
        netns: Network namespace of the host, for the caller: a plan is made of the host whose handle makes it.
    """

    encap: Encap = attrs.field(converter=_to_encap)
    underlay: str = attrs.field(converter=_to_underlay)
    name: str = attrs.field(default="tunnel0", converter=arguments.check_tunnel_name)
    local: IPAddress | None = attrs.field(default=None, converter=_to_local)
    port: int | None = attrs.field(default=None, converter=_to_port)
    mtu: int | None = attrs.field(default=None, converter=_to_mtu)
    netns: str | None = attrs.field(default=None, converter=_to_netns)


@public
@attrs.frozen(kw_only=True)
class AgentPart(Described):
    """The agent of a host's specification: keywords of :meth:`mizarnet.TransitAgent.attach`. None: left open.

    Attributes:
        hook: The one kind of hook that its programs stand on.
        max_endpoints: Room for endpoints, local and remote together.
        max_local: Room for endpoints of this host.
        shortcut: Whether plain tunnel packets take the shortcut on the way in; changed in place.
    """

    hook: Hook | None = attrs.field(default=None, converter=_to_hook)
    max_endpoints: int | None = attrs.field(default=None, converter=_to_max_endpoints)
    max_local: int | None = attrs.field(default=None, converter=_to_max_local)
    shortcut: Shortcut | None = attrs.field(default=None, converter=_to_shortcut)


@public
@attrs.frozen(kw_only=True)
class SwitchPart(Described):
    """The transit switch of a host's specification: keywords of :meth:`mizarnet.TransitSwitch.attach`.

    Attributes:
        underlay: Name of the device that it is on; None: left open.
        mode: Where its program runs; None: left open.
    """

    underlay: str | None = attrs.field(default=None, converter=_to_device)
    mode: XdpMode | None = attrs.field(default=None, converter=_to_mode)


def _given_of(spec: EndpointSpec | GatewaySpec) -> frozenset[str]:
    """The fields of an endpoint or gateway that count as given: those that are not as they are by default."""
    values = attrs.asdict(spec, recurse=False)
    if not values.get("labels"):
        values["labels"] = None  # as they are by default
    return frozenset(
        field.name
        for field in attrs.fields(type(spec))
        if values[field.name] != field.default or field.name == "name"
    )


def _to_given(
    value: Mapping[_K, Iterable[str]], cls: type[EndpointSpec] | type[GatewaySpec], argument: str
) -> dict[_K, frozenset[str]]:
    """Names of fields, by the name or VNI of what they are of; raises ``InvalidTypeError``, ``InvalidValueError``."""
    known = {field.name for field in attrs.fields(cls)}
    if not isinstance(value, Mapping):
        raise InvalidTypeError(f"{argument} must be a mapping, not {type(value).__name__}", argument=argument)
    found: dict[_K, frozenset[str]] = {}
    for key, fields in value.items():
        names = [*arguments.check_items(fields, argument=argument, what="names of fields")]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InvalidValueError(
                f"{argument}: {cls.__name__} has no field {unknown[0]!r}", argument=argument, value=unknown[0]
            )
        found[key] = frozenset(names)
    return found


def _checked(value: _P | None, cls: type[_P], name: str) -> _P | None:
    if value is not None and not isinstance(value, cls):
        raise InvalidTypeError(
            f"{name} must be a {cls.__name__}, not {type(value).__name__}",
            argument=name,
            hint="HostSpec.from_dict() takes tables",
        )
    return value


def _to_tunnel(value: TunnelPart | None) -> TunnelPart | None:
    return _checked(value, TunnelPart, "tunnel")


def _to_agent(value: AgentPart | None) -> AgentPart | None:
    return _checked(value, AgentPart, "agent")


def _to_switch(value: SwitchPart | None) -> SwitchPart | None:
    return _checked(value, SwitchPart, "switch")


def _to_peers(value: Iterable[PrefixLike] | None) -> tuple[IPNetwork, ...] | None:
    if value is None:
        return None
    given = arguments.check_items(value, argument="peers", what="prefixes")
    return tuple(dict.fromkeys(arguments.check_prefix(each, argument="peers") for each in given))


def _to_endpoints(value: Iterable[EndpointSpec] | None) -> tuple[EndpointSpec, ...] | None:
    if value is None:
        return None
    given = arguments.check_items(value, argument="endpoints", what="EndpointSpec")
    return tuple(arguments.check_all(given, EndpointSpec, argument="endpoints"))


def _to_gateways(value: Iterable[GatewaySpec] | None) -> tuple[GatewaySpec, ...] | None:
    if value is None:
        return None
    given = arguments.check_items(value, argument="gateways", what="GatewaySpec")
    return tuple(arguments.check_all(given, GatewaySpec, argument="gateways"))


def _to_networks(
    value: Mapping[tuple[int, PrefixLike], Network] | None,
) -> Mapping[NetworkKey, Network] | None:
    if value is None:
        return None
    found: dict[NetworkKey, Network] = {}
    for vni, prefix, network in _entries(value, Network, "networks"):
        key = NetworkKey(arguments.check_vni(vni), arguments.check_prefix(prefix))
        check_network(key, network)
        found[key] = network
    return found


def _to_remotes(
    value: Mapping[tuple[int, AddressLike], Remote] | None,
) -> Mapping[EndpointKey, Remote] | None:
    if value is None:
        return None
    return {
        EndpointKey(arguments.check_vni(vni), arguments.check_address(ip)): remote
        for vni, ip, remote in _entries(value, Remote, "remotes")
    }


def _entries(value: object, cls: type[_P], name: str) -> Iterator[tuple[Any, Any, _P]]:
    """The entries of a table by its pairs; raises ``InvalidTypeError``."""
    if not isinstance(value, Mapping):
        raise InvalidTypeError(f"{name} must be a mapping, not {type(value).__name__}", argument=name)
    for key, each in cast("Mapping[object, object]", value).items():
        pair = cast("tuple[object, ...]", key)
        if not isinstance(key, tuple) or len(pair) != 2 or not isinstance(each, cls):
            raise InvalidTypeError(
                f"{name} must have pairs and {cls.__name__} objects, not {key!r} and {type(each).__name__}",
                argument=name,
            )
        yield pair[0], pair[1], each


@public
@attrs.frozen(kw_only=True)
class HostSpec(Described):
    """What a host shall have. A section that is None is left open; an empty one says that there shall be nothing.

    Attributes:
        tunnel: The tunnel.
        agent: The transit agent.
        switch: The transit switch.
        networks: Networks, by VNI and prefix.
        peers: Underlay prefixes that tunnel packets are accepted from.
        endpoints: Endpoints of this host. Of each, the fields that were given are compared.
        remotes: Endpoints of other hosts, by VNI and address.
        gateways: Gateways of this host, one for each VNI. Of each, the fields that were given are compared.
        given: Names of the fields that were given, by the endpoint's name: all that are not as they are by default, and
            others.
        given_gateways: The same of gateways, by their VNI.

    Raises:
        InvalidTypeError: A section, or something in it, has the wrong type.
        InvalidValueError: A prefix, an address or a VNI cannot be right.
        SpecError: Two endpoints or gateways have one name, address or MAC, or one has the address of a remote.
    """

    tunnel: TunnelPart | None = attrs.field(default=None, converter=_to_tunnel)
    agent: AgentPart | None = attrs.field(default=None, converter=_to_agent)
    switch: SwitchPart | None = attrs.field(default=None, converter=_to_switch)
    networks: Mapping[NetworkKey, Network] | None = attrs.field(
        default=None, converter=_to_networks, hash=False
    )
    peers: tuple[IPNetwork, ...] | None = attrs.field(default=None, converter=_to_peers)
    endpoints: tuple[EndpointSpec, ...] | None = attrs.field(default=None, converter=_to_endpoints)
    remotes: Mapping[EndpointKey, Remote] | None = attrs.field(
        default=None, converter=_to_remotes, hash=False
    )
    gateways: tuple[GatewaySpec, ...] | None = attrs.field(default=None, converter=_to_gateways)
    given: Mapping[str, frozenset[str]] = attrs.field(factory=dict[str, frozenset[str]], hash=False, eq=False)
    given_gateways: Mapping[int, frozenset[str]] = attrs.field(
        factory=dict[int, frozenset[str]], hash=False, eq=False
    )

    _DESCRIBED = ("tunnel", "agent", "switch", "networks", "peers", "endpoints", "remotes", "gateways")

    def __attrs_post_init__(self) -> None:
        given = _to_given(self.given, EndpointSpec, "given")
        union = {
            each.name: given.get(each.name, frozenset()) | _given_of(each) for each in self.endpoints or ()
        }
        object.__setattr__(self, "given", union)
        of_ways = _to_given(self.given_gateways, GatewaySpec, "given_gateways")
        ways = {
            each.vni: of_ways.get(each.vni, frozenset()) | _given_of(each) for each in self.gateways or ()
        }
        object.__setattr__(self, "given_gateways", ways)
        errors = Errors()
        homes: dict[tuple[str, object], str] = {}
        vnis: dict[int, str] = {}
        for path, spec in _homes(self.endpoints, self.gateways):
            _claim(spec, path, homes, errors)
            if isinstance(spec, GatewaySpec) and vnis.setdefault(spec.vni, path) != path:
                errors.add(f"{path}.vni", f"VNI {spec.vni} has a gateway already, {vnis[spec.vni]}")
        for key in self.remotes or ():
            home = homes.get(("address", key))
            if home is not None:
                errors.add(f"remotes ({key.vni}, {key.ip})", f"is an address of {home}, on this host")
        _refuse(errors, "the specification")

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Read the specification of one host.

        Args:
            path: Path of a TOML file, or of a JSON file, whose name ends with ``.json``.

        Raises:
            InvalidTypeError: The path has the wrong type.
            InvalidValueError: It cannot be a path.
            NotFoundError: There is no such file.
            SpecError: It has errors, all of which are told.
            KernelError: It cannot be read.
        """
        where = arguments.check_path(path)
        return cls._read(_document(where), where)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The specification in what TOML and JSON are made of; raises ``SpecError``."""
        return cls._read(data, "the specification")

    @classmethod
    def _read(cls, data: object, where: str) -> Self:
        errors = Errors()
        sections = [("", data)]
        values = _read_sections(sections, errors)
        _refuse(errors, where)
        return cls(**values)

    @classmethod
    def fleet(cls, path: PathLike) -> Mapping[str, Self]:
        """Read the specifications of all hosts from one file, by the host's name.

        ``[hosts.NAME]`` has the sections of one host, and what stands outside is for all of them: tables are merged
        field by field, lists are joined. The remotes and peers of each host follow from the endpoints and addresses of
        the others, so each tunnel has its ``local``.

        Args:
            path: Path of a TOML file, or of a JSON file, whose name ends with ``.json``.

        Raises:
            InvalidTypeError: The path has the wrong type.
            InvalidValueError: It cannot be a path.
            NotFoundError: There is no such file.
            SpecError: It has errors, all of which are told.
            KernelError: It cannot be read.
        """
        where = arguments.check_path(path)
        data, errors = _document(where), Errors()
        hosts = data.get("hosts")
        if not isinstance(hosts, Mapping) or not hosts:
            raise SpecError(f"{where} has errors", errors={"hosts": "must be a table of hosts, [hosts.NAME]"})
        common = {name: value for name, value in data.items() if name != "hosts"}
        found: dict[str, dict[str, Any]] = {}
        for name, own in cast("Mapping[str, Any]", hosts).items():
            found[name] = _read_sections([("", common), (f"hosts.{name}.", own)], errors)
        _refuse(errors, where)
        _add_others(found, errors)
        _refuse(errors, where)
        return {name: cls(**values) for name, values in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """The specification as :meth:`from_dict` takes it, in a form that JSON can hold."""
        form: dict[str, Any] = {}
        for name in ("tunnel", "agent", "switch"):
            part = getattr(self, name)
            if part is not None:
                form[name] = {key: value for key, value in part.to_dict().items() if value is not None}
        if self.networks is not None:
            form["networks"] = [{**key.to_dict(), **_without_none(of)} for key, of in self.networks.items()]
        if self.peers is not None:
            form["peers"] = plain(self.peers)
        if self.endpoints is not None:
            form["endpoints"] = [
                _filled(value for value in each.to_dict().items() if value[0] in self.given[each.name])
                for each in self.endpoints
            ]
        if self.remotes is not None:
            form["remotes"] = [{**key.to_dict(), **_without_none(of)} for key, of in self.remotes.items()]
        if self.gateways is not None:
            form["gateways"] = [
                _filled(
                    (name, plain(getattr(each, name)))
                    for name in _names(each)
                    if name in self.given_gateways[each.vni]
                )
                for each in self.gateways
            ]
        return form


def _homes(
    endpoints: Iterable[EndpointSpec] | None, gateways: Iterable[GatewaySpec] | None
) -> Iterator[tuple[str, EndpointSpec | GatewaySpec]]:
    """What has addresses on a host, with the path of each."""
    for number, endpoint in enumerate(endpoints or ()):
        yield f"endpoints[{number}]", endpoint
    for number, gateway in enumerate(gateways or ()):
        yield f"gateways[{number}]", gateway


def _names(spec: GatewaySpec) -> list[str]:
    return [field.name for field in attrs.fields(type(spec))]


def _filled(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A table of a document, in which nothing stands for what is left open; so do the tables in it."""
    found: dict[str, Any] = {}
    for name, value in items:
        if name in ("routes", "publish"):
            found[name] = [_filled(each.items()) for each in value]
        elif value is not None:
            found[name] = value
    return found


def _without_none(value: Described) -> dict[str, Any]:
    return {name: each for name, each in value.to_dict().items() if each not in (None, [])}


def _refuse(errors: Errors, where: str) -> None:
    if errors.found:
        count = len(errors.found)
        raise SpecError(f"{where} has {count} error{'s' if count > 1 else ''}", errors=errors.found)


def _document(where: str) -> Mapping[str, Any]:
    """What a file has; raises ``SpecError`` if it is no TOML or JSON."""
    with explained(f"read {where!r}", capability="CAP_DAC_OVERRIDE"):
        try:
            content = Path(where).read_bytes()
        except FileNotFoundError:
            raise NotFoundError(
                f"there is no file {where!r}", hint="give the path of a specification"
            ) from None
    try:
        text = content.decode()
        found: object = json.loads(text) if where.endswith(".json") else tomllib.loads(text)
    except ValueError as error:
        kind = "JSON" if where.endswith(".json") else "TOML"
        raise SpecError(f"{where} is no {kind}", errors={where: str(error)}) from None
    except RecursionError:
        raise SpecError(f"{where} is no specification", errors={where: "nests too deep"}) from None
    if not isinstance(found, dict):
        raise SpecError(f"{where} has no table", errors={where: "must be a table"})
    return cast("dict[str, Any]", found)


# -- sections ----------------------------------------------------------------------------------------------

_Sources: TypeAlias = Sequence[tuple[str, object]]
"""Where the values of a section stand: the beginning of the path, and what was read, the weaker first."""


def _read_sections(sources: _Sources, errors: Errors) -> dict[str, Any]:
    """The fields of a ``HostSpec``, from one table or several."""
    values: dict[str, Any] = {}
    there: dict[str, list[tuple[str, object]]] = {}
    for prefix, data in sources:
        if not isinstance(data, Mapping):
            errors.add(prefix.rstrip("."), "must be a table")
            continue
        for name, value in cast("Mapping[str, object]", data).items():
            if name in SECTIONS:
                there.setdefault(name, []).append((prefix, value))
            else:
                errors.add(f"{prefix}{name}", unknown(name, [*SECTIONS]))
    for name, parts in there.items():
        values.update(SECTIONS[name](name, parts, errors))
    return values


def _table(cls: type[Any]) -> Callable[[str, _Sources, Errors], dict[str, Any]]:
    """A section that is one table; of several, each field is that of the strongest."""

    def read(name: str, sources: _Sources, errors: Errors) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        origin: dict[str, str] = {}
        for prefix, table in sources:
            if not isinstance(table, Mapping):
                errors.add(f"{prefix}{name}", "must be a table")
                return {}
            for field, value in cast("Mapping[str, Any]", table).items():
                merged[field], origin[field] = value, prefix
        strongest = sources[-1][0]

        def path(field: str) -> str:
            return f"{origin.get(field, strongest)}{name}" + (f".{field}" if field else "")

        made, _ = read_table(cls, merged, path, errors)
        return {name: made}

    return read


def _items(
    read: Callable[[object, str, Errors], Any | None],
    join: Callable[[str, list[tuple[str, Any]], Errors], dict[str, Any]],
) -> Callable[[str, _Sources, Errors], dict[str, Any]]:
    """A section that is a list; several are joined."""

    def read_all(name: str, sources: _Sources, errors: Errors) -> dict[str, Any]:
        found: list[tuple[str, Any]] = []
        for prefix, items in sources:

            def one(item: object, path: str) -> Any:
                made = read(item, path, errors)
                return None if made is None else (path, made)

            found += read_list(items, f"{prefix}{name}", errors, one)
        return join(name, found, errors)

    return read_all


def _at(path: str) -> Callable[[str], str]:
    return lambda field: f"{path}.{field}" if field else path


def _read_network(item: object, path: str, errors: Errors) -> tuple[NetworkKey, Network] | None:
    network, rest = read_table(Network, item, _at(path), errors, keys=("vni", "prefix"))
    if network is None:
        return None
    vni = judged(arguments.check_vni, rest["vni"], f"{path}.vni", errors)
    prefix = judged(arguments.check_prefix, rest["prefix"], f"{path}.prefix", errors)
    if vni is None or prefix is None:
        return None
    key = NetworkKey(vni, prefix)
    try:
        check_network(key, network)
    except InvalidValueError as error:
        errors.at(f"{path}.{error.argument}", error)
        return None
    return key, network


def _read_remote(item: object, path: str, errors: Errors) -> tuple[EndpointKey, Remote] | None:
    remote, rest = read_table(Remote, item, _at(path), errors, keys=("vni", "ip"))
    if remote is None:
        return None
    vni = judged(arguments.check_vni, rest["vni"], f"{path}.vni", errors)
    ip = judged(arguments.check_address, rest["ip"], f"{path}.ip", errors)
    return None if vni is None or ip is None else (EndpointKey(vni, ip), remote)


def _read_peer(item: object, path: str, errors: Errors) -> IPNetwork | None:
    found = judged(lambda value: arguments.check_prefix(value, argument="peers"), item, path, errors)
    return cast("IPNetwork | None", found)


def _read_routes(value: object, path: str, errors: Errors) -> tuple[Route, ...]:
    return read_list(value, path, errors, lambda item, where: read_table(Route, item, _at(where), errors)[0])


def _read_endpoint(item: object, path: str, errors: Errors) -> tuple[EndpointSpec, frozenset[str]] | None:
    spec, _ = read_table(EndpointSpec, item, _at(path), errors, parts={"routes": _read_routes})
    return None if spec is None else (spec, frozenset({*cast("Mapping[str, Any]", item), "name"}))


def _join_peers(name: str, found: list[tuple[str, IPNetwork]], errors: Errors) -> dict[str, Any]:
    return {name: tuple(dict.fromkeys(each for _, each in found))}


def _join_pairs(name: str, found: list[tuple[str, tuple[Any, Any]]], errors: Errors) -> dict[str, Any]:
    first: dict[Any, str] = {}
    for path, (key, _) in found:
        if key in first:
            errors.add(path, f"is the same as {first[key]}: {' '.join(map(str, key))}")
        first.setdefault(key, path)
    return {name: {key: value for _, (key, value) in found}}


def _join_endpoints(
    name: str, found: list[tuple[str, tuple[EndpointSpec, frozenset[str]]]], errors: Errors
) -> dict[str, Any]:
    homes: dict[tuple[str, object], str] = {}
    for path, (spec, _) in found:
        _claim(spec, path, homes, errors)
    return {
        name: tuple(spec for _, (spec, _) in found),
        "given": {spec.name: given for _, (spec, given) in found},
    }


def _claim(
    spec: EndpointSpec | GatewaySpec,
    path: str,
    homes: dict[tuple[str, object], str],
    errors: Errors,
    *,
    on_host: bool = True,
) -> None:
    """Note whose a name, MAC and addresses are; an error for each that is another's already.

    Args:
        spec: Whose they are.
        path: Path of it.
        homes: Whose is what, so far.
        errors: Takes what is wrong.
        on_host: Whether ``homes`` are those of one host; else MACs, and names of gateways, do not count.
    """
    claims: dict[str, tuple[str, object]] = {}
    if on_host or isinstance(spec, EndpointSpec):
        claims["name"] = ("name", spec.name)
    if on_host:
        given = spec.mac if isinstance(spec, EndpointSpec) else None
        claims["mac"] = ("MAC", given or MacAddress.derive(spec.vni, spec.ip[0].ip))
    for number, address in enumerate(spec.ip):
        claims["ip" if len(spec.ip) == 1 else f"ip[{number}]"] = (
            "address",
            EndpointKey(spec.vni, address.ip),
        )
    own = f"{path} ({spec.name})"
    taken = {field: claim for field, claim in claims.items() if homes.setdefault(claim, own) != own}
    if len(taken) > 1:  # equal addresses alone make equal MACs
        taken.pop("mac", None)
    for field, (what, value) in taken.items():
        shown = (
            f"({', '.join(map(str, cast('EndpointKey', value)))})" if what == "address" else repr(str(value))
        )
        errors.add(f"{path}.{field}", f"{shown} of {spec.name} is that of {homes[what, value]} as well")


def _read_published(value: object, path: str, errors: Errors) -> tuple[Publish, ...]:
    return read_list(
        value, path, errors, lambda item, where: read_table(Publish, item, _at(where), errors)[0]
    )


def _read_gateway(item: object, path: str, errors: Errors) -> tuple[GatewaySpec, frozenset[str]] | None:
    spec, _ = read_table(GatewaySpec, item, _at(path), errors, parts={"publish": _read_published})
    return None if spec is None else (spec, frozenset(cast("Mapping[str, Any]", item)))


def _join_gateways(
    name: str, found: list[tuple[str, tuple[GatewaySpec, frozenset[str]]]], errors: Errors
) -> dict[str, Any]:
    first: dict[int, str] = {}
    for path, (spec, _) in found:
        if first.setdefault(spec.vni, path) != path:
            errors.add(f"{path}.vni", f"VNI {spec.vni} has a gateway already, {first[spec.vni]}")
    return {
        name: tuple(spec for _, (spec, _) in found),
        "given_gateways": {spec.vni: given for _, (spec, given) in found},
    }


SECTIONS: Mapping[str, Callable[[str, _Sources, Errors], dict[str, Any]]] = {
    "tunnel": _table(TunnelPart),
    "agent": _table(AgentPart),
    "switch": _table(SwitchPart),
    "peers": _items(_read_peer, _join_peers),
    "networks": _items(_read_network, _join_pairs),
    "endpoints": _items(_read_endpoint, _join_endpoints),
    "remotes": _items(_read_remote, _join_pairs),
    "gateways": _items(_read_gateway, _join_gateways),
}
"""Reader of each section: it gives the fields of a ``HostSpec`` that follow from it."""


# -- a fleet -----------------------------------------------------------------------------------------------


def _add_others(found: Mapping[str, dict[str, Any]], errors: Errors) -> None:
    """Give each host the remotes and peers that follow from the others."""
    homes: dict[tuple[str, object], str] = {}
    locals_: dict[IPAddress, str] = {}
    for name, values in found.items():
        path, tunnel = f"hosts.{name}.tunnel.local", cast("TunnelPart | None", values.get("tunnel"))
        if tunnel is None or tunnel.local is None:
            errors.add(path, "is missing: the other hosts' entries lead there")
        elif locals_.setdefault(tunnel.local, name) != name:
            errors.add(path, f"{tunnel.local} is the address of host {locals_[tunnel.local]} as well")
        elif tunnel.local.version != (first := next(iter(locals_))).version:
            errors.add(
                path, f"{tunnel.local} is no IPv{first.version} address, as that of host {locals_[first]} is"
            )
        own: dict[tuple[str, object], str] = {}
        for path, spec in _homes(values.get("endpoints"), values.get("gateways")):
            _claim(spec, f"hosts.{name}.{path}", own, errors)
            _claim(spec, f"hosts.{name}.{path}", homes, errors, on_host=False)
    if errors.found:
        return
    for name, values in found.items():
        others = [each for other, each in found.items() if other != name]
        values["remotes"] = {**(values.get("remotes") or {}), **dict(_remotes(others))}
        prefixes = [ip_network(each["tunnel"].local) for each in others]
        values["peers"] = tuple(dict.fromkeys([*(values.get("peers") or ()), *prefixes]))


def _remotes(others: Sequence[Mapping[str, Any]]) -> Iterator[tuple[EndpointKey, Remote]]:
    for values in others:
        remote = Remote(values["tunnel"].local)
        for spec in (*(values.get("endpoints") or ()), *(values.get("gateways") or ())):
            for address in spec.ip:
                yield EndpointKey(spec.vni, address.ip), remote
