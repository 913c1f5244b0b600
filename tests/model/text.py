# SPDX-License-Identifier: Apache-2.0
"""States, cases and outcomes as JSON that a person can read: one short line for most cases.

Addresses are written as usual, frames and options in hexadecimal, numbers with a name by it, and what has its
default is left out. How a field is written follows from its annotation.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Generic, NamedTuple, TypeVar

import attrs

from mizarnet import Verdict
from tests.model.case import (
    Action,
    Case,
    DeferredChecksum,
    Hop,
    HopResult,
    Outcome,
    Outer,
    Received,
    RoutedBy,
    Sent,
    SentBy,
    TcAction,
    TunnelKey,
    XdpAction,
)
from tests.model.state import Config, Elsewhere, Ip, Local, Mac, Network, Prefix, Remote, SenderRecord, State

T = TypeVar("T")


class Form(NamedTuple, Generic[T]):
    """How a type of value is written and read."""

    write: Callable[[T], Any]
    read: Callable[[Any], T]


# -- addresses and prefixes


def _write_ip(ip: Ip) -> str:
    return str(ip_address(ip))


def _read_ip(text: str) -> Ip:
    return ip_address(text).packed


def _write_mac(mac: Mac) -> str:
    return mac.hex(":")


def _read_mac(text: str) -> Mac:
    return bytes.fromhex(text.replace(":", ""))


def _write_prefix(prefix: Prefix) -> str:
    return f"{_write_ip(prefix[0])}/{prefix[1]}"


def _read_prefix(text: str) -> Prefix:
    ip, length = text.split("/")
    return _read_ip(ip), int(length)


# -- values made of others


def _same(value: Any) -> Any:
    return value


def _optional(form: Form) -> Form:
    return Form(
        lambda value: None if value is None else form.write(value),
        lambda data: None if data is None else form.read(data),
    )


def _sequence(form: Form, kind: Callable[[Any], Any] = tuple) -> Form:
    return Form(
        lambda values: [form.write(value) for value in values],
        lambda data: kind(form.read(item) for item in data),
    )


def _default(field: attrs.Attribute[Any]) -> Any:
    return field.default.factory() if isinstance(field.default, attrs.Factory) else field.default


def _record(kind: type[T]) -> Form[T]:
    def write(value: T) -> dict[str, Any]:
        fields = [field for field in attrs.fields(kind) if getattr(value, field.name) != _default(field)]
        return {field.name: _FORMS[str(field.type)].write(getattr(value, field.name)) for field in fields}

    def read(data: dict[str, Any]) -> T:
        known = {field.name: _FORMS[str(field.type)] for field in attrs.fields(kind)}
        return kind(**{name: known[name].read(item) for name, item in data.items()})

    return Form(write, read)


def _one_of(*kinds: tuple[type[Any], str]) -> Form[Any]:
    """The first of the kinds whose field, the one named by it, is there."""
    forms = {kind: _record(kind) for kind, _ in kinds}
    return Form(
        lambda value: forms[type(value)].write(value),
        lambda data: next(forms[kind] for kind, mark in kinds if mark in data).read(data),
    )


def _table(key: Form, value: Form) -> Form:
    return Form(
        lambda table: {key.write(name): value.write(entry) for name, entry in table.items()},
        lambda data: {key.read(name): value.read(entry) for name, entry in data.items()},
    )


def _in_vni(form: Form) -> Form:
    def read(text: str) -> tuple[int, Any]:
        vni, rest = text.split()
        return int(vni), form.read(rest)

    return Form(lambda key: f"{key[0]} {form.write(key[1])}", read)


def _named(kind: type[Verdict | HopResult]) -> Form:
    return Form(lambda value: value.name, lambda name: kind[name])


def _read_action(data: str | int) -> Action:
    return data if isinstance(data, int) else {**TcAction.__members__, **XdpAction.__members__}[data]


_PLAIN = Form(_same, _same)
_ACTION = Form(lambda action: getattr(action, "name", action), _read_action)
_BYTES = Form(bytes.hex, bytes.fromhex)
_IP, _MAC, _PREFIX = Form(_write_ip, _read_ip), Form(_write_mac, _read_mac), Form(_write_prefix, _read_prefix)

_FORMS: dict[str, Form] = {
    "ProgramName": _PLAIN,
    "int": _PLAIN,
    "int | None": _PLAIN,
    "bool": _PLAIN,
    "Literal['vxlan', 'geneve']": _PLAIN,
    "Literal['ingress', 'egress'] | None": _PLAIN,
    "bytes": _BYTES,
    "bytes | None": _optional(_BYTES),
    "Ip": _IP,
    "Ip | None": _optional(_IP),
    "Mac": _MAC,
    "tuple[Ip, ...]": _sequence(_IP),
    "tuple[Ip, Ip] | None": _optional(_sequence(_IP)),
    "tuple[tuple[Ip, int], ...]": _sequence(_PREFIX),
    "frozenset[Prefix]": Form(
        lambda peers: sorted(map(_write_prefix, peers)), _sequence(_PREFIX, frozenset).read
    ),
    "Action": _ACTION,
    "Verdict": _named(Verdict),
    "HopResult": _named(HopResult),
    "RoutedBy | SentBy | None": _optional(_one_of((RoutedBy, "ifindex"), (SentBy, "family"))),
    "DeferredChecksum | None": _optional(_record(DeferredChecksum)),
    "TunnelKey | None": _optional(_record(TunnelKey)),
    "Hop | None": _optional(_record(Hop)),
    "Outer | None": _optional(_record(Outer)),
    "Sent | None": _optional(_record(Sent)),
    "Received | None": _optional(_record(Received)),
    "Config": _record(Config),
    "Mapping[Mac, SenderRecord]": _table(_MAC, _record(SenderRecord)),
    "Mapping[tuple[int, Ip], Place]": _table(
        _in_vni(_IP), _one_of((Elsewhere, "place"), (Local, "mac"), (Remote, "host"))
    ),
    "Mapping[tuple[int, Prefix], Network]": _table(_in_vni(_PREFIX), _record(Network)),
    "Mapping[tuple[int, Ip], tuple[Ip, ...]]": _table(_in_vni(_IP), _sequence(_IP)),
}

state_to_json, state_from_json = _record(State)
case_to_json, case_from_json = _record(Case)
outcome_to_json, outcome_from_json = _record(Outcome)
