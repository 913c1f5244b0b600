# SPDX-License-Identifier: Apache-2.0
"""The library's own records for a test that minds a few of their members: the rest is filled in."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, TypeVar

import attrs

from mizarnet import Encap, EndpointSpec, MacAddress
from mizarnet._model.codec import Config, Head, Meta, Record
from mizarnet._model.enumerations import Limit, State
from mizarnet._model.specs import VIRTUAL_MAC

T = TypeVar("T", bound=attrs.AttrsInstance)
LOCAL = ip_address("192.0.2.1")


def config(**known: Any) -> Config:
    """The constants of an agent on VXLAN over IPv4."""
    mac = MacAddress.parse("02:00:00:00:00:04")
    tunnel = {"encap": Encap.VXLAN, "port": 4789, "mtu": 1450, "local": LOCAL, "tunnel_mac": mac}
    return _filled(Config, tunnel | {"virtual_mac": VIRTUAL_MAC, "token_bounced": bytes(12)}, known)


def meta(**known: Any) -> Meta:
    """What a data path says of itself."""
    head = _filled(Head, {"schema": Limit.SCHEMA}, {})
    tunnel = {"encap": Encap.VXLAN, "local": LOCAL, "tunnel": "tunnel0", "underlay": "eth0"}
    return _filled(Meta, tunnel | {"head": head, "state": State.LIVE}, known)


def record(spec: EndpointSpec, **known: Any) -> Record:
    """A local endpoint."""
    return _filled(Record, {"spec": spec, "netns_id": (0, 0), "state": State.LIVE}, known)


def _filled(kind: type[T], usual: dict[str, Any], known: dict[str, Any]) -> T:
    """What is not known is as usual, and every other number zero."""
    numbers = {field.name: 0 for field in attrs.fields(kind) if field.type == "int"}
    return kind(**numbers | usual | known)
