# SPDX-License-Identifier: Apache-2.0
"""What a gateway out of a VNI is to be: frozen, checked when made, no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import attrs

from mizarnet._model import arguments
from mizarnet._model.arguments import IPAddress, IPInterface
from mizarnet._model.described import Described
from mizarnet._model.public import public
from mizarnet._model.specs import AddressLike, parse_addresses
from mizarnet.errors import InvalidValueError

_PROTOCOLS = ("tcp", "udp")
_WITH_A_MEANING = '"*\\'
"""Characters of a device name that a rule of nftables would take for something else."""


def _to_protocol(value: str) -> Literal["tcp", "udp"]:
    arguments.check_str(value, argument="protocol")
    if value not in _PROTOCOLS:
        raise InvalidValueError(
            f"protocol {value!r} is unknown", argument="protocol", value=value, hint="it is 'tcp' or 'udp'"
        )
    return "tcp" if value == "tcp" else "udp"


def _to_port(value: int) -> int:
    return arguments.check_int(value, argument="port", low=1, high=65535)


def _to_target_port(value: int) -> int:
    return arguments.check_int(value, argument="to_port", low=1, high=65535)


def _to_target(value: AddressLike) -> IPAddress:
    return arguments.check_host_address(value, argument="ip")


@public
@attrs.frozen
class Publish(Described):
    """A port of a host that leads to an address in a VNI, such as ``Publish("tcp", 8080, "10.0.0.5", 80)``.

    Attributes:
        protocol: ``"tcp"`` or ``"udp"``.
        port: Port of each address of the host.
        ip: Address in the VNI that it leads to.
        to_port: Port of that address.
    """

    protocol: Literal["tcp", "udp"] = attrs.field(converter=_to_protocol)
    port: int = attrs.field(converter=_to_port)
    ip: IPAddress = attrs.field(converter=_to_target)
    to_port: int = attrs.field(converter=_to_target_port)

    @property
    def key(self) -> tuple[str, int]:
        """What one gateway of a host alone can have: protocol and port."""
        return self.protocol, self.port

    def __str__(self) -> str:
        return f"{self.protocol} port {self.port}"


def to_publish(values: Iterable[Publish]) -> tuple[Publish, ...]:
    """Published ports in the order of a specification; raises ``InvalidTypeError`` or ``InvalidValueError``."""
    given = arguments.check_all(
        arguments.check_items(values, argument="publish", what="Publish"), Publish, argument="publish"
    )
    counted = Counter(each.key for each in given)
    twice = next((each for each in given if counted[each.key] > 1), None)
    if twice is not None:
        raise InvalidValueError(f"{twice} is published twice", argument="publish", value=twice)
    return tuple(sorted(given, key=lambda each: each.key))


def _to_egress(value: str) -> str:
    arguments.check_device_name(value, argument="egress")
    if set(value) & set(_WITH_A_MEANING):
        raise InvalidValueError(
            f"egress {value!r} has a character with a meaning in rules of nftables",
            argument="egress",
            value=value,
            hint="rename the device",
        )
    return value


def _to_nat(value: bool) -> bool:
    return arguments.check_bool(value, argument="nat")


def _to_host_access(value: bool) -> bool:
    return arguments.check_bool(value, argument="host_access")


def _to_forward_all_ipv6(value: bool) -> bool:
    return arguments.check_bool(value, argument="forward_all_ipv6")


def _to_name(value: str | None) -> str:
    return "" if value is None else arguments.check_endpoint_name(value)


def _refuse_addresses(addresses: Sequence[IPInterface]) -> None:
    """Raises ``InvalidValueError`` if a gateway cannot lead out by its addresses."""

    def refuse(address: IPInterface, why: str, hint: str) -> InvalidValueError:
        return InvalidValueError(f"ip {address} {why}", argument="ip", value=address, hint=hint)

    seen: dict[int, IPInterface] = {}
    for each in addresses:
        if each.ip.is_link_local:
            raise refuse(
                each, "is link-local: nothing is sent on by it", "give an address of the VNI's network"
            )
        if not each.network.prefixlen:
            raise refuse(
                each, "has everything on its link, and nothing to lead to", "give the network's prefix"
            )
        if each.version in seen:
            why = f"is the second of IPv{each.version}, after {seen[each.version].ip}"
            raise refuse(each, why, "a gateway has one address of each IP version")
        seen[each.version] = each


@attrs.frozen(kw_only=True)
class GatewaySpec:
    """What a gateway is to be.

    Attributes:
        vni: VNI that it leads out of.
        egress: Name of the host's device that it leads to.
        ip: Own addresses in the VNI, one of each IP version, with their on-link prefixes; one without its prefix is in
            the network that the agent has of it.
        publish: Published ports, sorted by protocol and port.
        nat: Whether what leaves gets an address of the host.
        host_access: Whether the tenant reaches the host's own services.
        name: Name of its endpoint.
        forward_all_ipv6: Whether IPv6 may be forwarded for the whole host: a permission, which compares with nothing.
    """

    vni: int = attrs.field(converter=arguments.check_vni)
    egress: str = attrs.field(converter=_to_egress)
    ip: tuple[IPInterface, ...] = attrs.field(converter=parse_addresses)
    publish: tuple[Publish, ...] = attrs.field(default=(), converter=to_publish)
    nat: bool = attrs.field(default=True, converter=_to_nat)
    host_access: bool = attrs.field(default=False, converter=_to_host_access)
    name: str = attrs.field(default=None, converter=_to_name)
    forward_all_ipv6: bool = attrs.field(default=False, converter=_to_forward_all_ipv6, eq=False)

    def __attrs_post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", f"gateway/{self.vni}")
        _refuse_addresses(self.ip)
        for each in self.publish:
            if each.ip.version not in self.versions:
                raise InvalidValueError(
                    f"{each} leads to {each.ip}, and the gateway has no address of IPv{each.ip.version}",
                    argument="publish",
                    value=each,
                )

    def compared(self) -> dict[str, Any]:
        """The fields by which two gateways differ."""
        return {each.name: getattr(self, each.name) for each in attrs.fields(GatewaySpec) if each.eq}

    @property
    def versions(self) -> tuple[int, ...]:
        """IP versions that it serves."""
        return tuple(dict.fromkeys(each.version for each in self.ip))
