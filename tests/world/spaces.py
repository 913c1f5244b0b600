# SPDX-License-Identifier: Apache-2.0
"""Namespaces, their devices, and the underlay between those that play hosts."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from ipaddress import ip_interface
from typing import Literal

from mizarnet._kernel.netlink import (
    Link,
    Session,
    add_address,
    create_bridge,
    create_veth,
    get_link,
    set_link,
)
from tests.support.namespace import Namespace

EncapName = Literal["vxlan", "geneve"]
UNDERLAY, TUNNEL, BRIDGE = "eth0", "tunnel0", "bridge0"
ADDRESSES = ("192.0.2.1", "192.0.2.2")
# Duplicate address detection, router solicitations and the repetition of multicast reports.
CALM = {
    "accept_dad": 0,
    "dad_transmits": 0,
    "router_solicitations": 0,
    "mldv2_unsolicited_report_interval": 10,
}
_numbers = itertools.count()


def new_namespace(label: str) -> Namespace:
    """A namespace whose name no other has."""
    return Namespace(f"mzt-{os.getpid()}-{next(_numbers)}-{label}")


def device(namespace: Namespace, name: str) -> Link:
    """A device as the kernel describes it; it must exist."""
    with Session.open(namespace.name) as session:
        return _link(session, name)


def mac_of(namespace: Namespace, name: str) -> bytes:
    """The MAC of a device."""
    return bytes.fromhex((device(namespace, name).mac or "").replace(":", ""))


def links(namespace: Namespace) -> list[str]:
    """Names of the devices in a namespace."""
    return [each["ifname"] for each in json.loads(namespace.run("ip", "-j", "link"))]


def quiet(namespace: Namespace) -> None:
    """No IPv6 in a namespace, whose unasked-for messages would disturb the counting."""
    namespace.set(**{f"ipv6/conf/{which}/disable_ipv6": 1 for which in ("all", "default")})


def calm(namespace: Namespace) -> None:
    """IPv6 in the devices to come that says nothing unasked once they are up."""
    namespace.set(**{f"ipv6/conf/default/{setting}": value for setting, value in CALM.items()})


# -- the underlay ------------------------------------------------------------------------------------------


def cable(a: Namespace, b: Namespace, *, mtu: int = 1500, addresses: Sequence[str] = ADDRESSES) -> None:
    """``eth0`` of one to ``eth0`` of the other, up, with the addresses of the two hosts."""
    with Session.open(a.name) as one, Session.open(b.name) as other, other.open_netns() as far:
        create_veth(one, UNDERLAY, peer=UNDERLAY, peer_netns=far, mtu=mtu)
        for session, address in zip((one, other), addresses, strict=True):
            _address(session, address)


def bridge(hub: Namespace, hosts: Sequence[Namespace], addresses: Sequence[str], *, mtu: int) -> None:
    """``eth0`` of each host to a bridge; its port of the first is called ``h1``."""
    with Session.open(hub.name) as far, far.open_netns() as netns:
        made = create_bridge(far, BRIDGE).ifindex
        set_link(far, made, up=True)
        for number, (host, address) in enumerate(zip(hosts, addresses, strict=True), 1):
            with Session.open(host.name) as near:
                create_veth(near, UNDERLAY, peer=f"h{number}", peer_netns=netns, mtu=mtu)
                set_link(far, _link(far, f"h{number}").ifindex, master=made, up=True)
                _address(near, address)


def _address(session: Session, address: str) -> None:
    ifindex = _link(session, UNDERLAY).ifindex
    interface = ip_interface(f"{address}/{64 if ':' in address else 24}")
    add_address(session, ifindex, interface, dad=False)
    set_link(session, ifindex, up=True)


def _link(session: Session, name: str) -> Link:
    link = get_link(session, name)
    assert link is not None, f"no {name}"
    return link
