# SPDX-License-Identifier: Apache-2.0
"""Two hosts as namespaces joined by a cable, each with a tunnel and an agent, and containers on them."""

from __future__ import annotations

import itertools
import json
import os
from contextlib import ExitStack
from ipaddress import ip_interface
from typing import Any, Literal

import attrs

import mizarnet as mz
from mizarnet._kernel.bpf import Program
from mizarnet._kernel.netlink import Link, Session, add_address, create_veth, get_link, set_link, write_sysctl
from tests.support.invariants import assert_accounts_add_up
from tests.support.namespace import Namespace
from tests.support.wait import wait_until

EncapName = Literal["vxlan", "geneve"]
UNDERLAY, TUNNEL = "eth0", "tunnel0"
ADDRESSES = ("192.0.2.1", "192.0.2.2")
_numbers = itertools.count()


def new_namespace(label: str) -> Namespace:
    """A namespace whose name no other has."""
    return Namespace(f"mzt-{os.getpid()}-{next(_numbers)}-{label}")


def device(namespace: Namespace, name: str) -> Link:
    """A device as the kernel describes it; it must exist."""
    with Session.open(namespace.name) as session:
        link = get_link(session, name)
    assert link is not None, f"no {name} in {namespace.name}"
    return link


def mac_of(namespace: Namespace, name: str) -> bytes:
    """The MAC of a device."""
    return bytes.fromhex((device(namespace, name).mac or "").replace(":", ""))


def quiet(namespace: Namespace) -> None:
    """No IPv6 in a namespace, whose unasked-for messages would disturb the counting."""
    with Session.open(namespace.name) as session:
        for which in ("all", "default"):
            write_sysctl(session, f"ipv6/conf/{which}/disable_ipv6", "1")


def cable(a: Namespace, b: Namespace, *, mtu: int = 1500) -> None:
    """``eth0`` of one to ``eth0`` of the other, up, with the addresses of the two hosts."""
    with Session.open(a.name) as one, Session.open(b.name) as other, other.open_netns() as far:
        create_veth(one, UNDERLAY, peer=UNDERLAY, peer_netns=far, mtu=mtu)
        for session, address in zip((one, other), ADDRESSES, strict=True):
            link = get_link(session, UNDERLAY)
            assert link is not None
            add_address(session, link.ifindex, ip_interface(f"{address}/24"), dad=False)
            set_link(session, link.ifindex, up=True)


@attrs.frozen(eq=False)
class Host:
    """A namespace that plays a host."""

    namespace: Namespace
    address: str
    tunnel: mz.Tunnel
    agent: mz.TransitAgent


@attrs.frozen(eq=False)
class Container:
    """A namespace with an endpoint in it."""

    host: Host
    namespace: Namespace
    endpoint: mz.Endpoint

    @property
    def ip(self) -> str:
        """The endpoint's address."""
        return str(self.endpoint.ip)

    @property
    def mac(self) -> bytes:
        """The endpoint's MAC."""
        return self.endpoint.mac.packed

    def delete(self) -> None:
        """Endpoint and namespace, before the world ends."""
        self.endpoint.delete()
        self.namespace.delete()


class World:
    """Hosts and containers that vanish with the ``with`` block, which fails if programs or maps outlive it."""

    def __init__(self, encap: EncapName, *, hosts: int = 2, mtu: int = 1500, **agent: Any) -> None:
        """One host or two, with agents; keywords go to ``TransitAgent.attach``."""
        self.encap = encap
        self._undo = ExitStack()
        try:
            spaces = [self.namespace(f"h{number}") for number in (1, 2)]
            cable(*spaces, mtu=mtu)
            self.hosts = tuple(
                self._host(*each, agent) for each in zip(spaces[:hosts], ADDRESSES, strict=False)
            )
        except BaseException:
            self._undo.close()
            raise
        self.spaces = spaces

    def namespace(self, label: str) -> Namespace:
        """A new namespace."""
        made = new_namespace(label)
        self._undo.callback(made.delete)
        return made

    def _host(self, namespace: Namespace, address: str, options: dict[str, Any]) -> Host:
        tunnel = mz.Tunnel.create(TUNNEL, encap=self.encap, underlay=UNDERLAY, netns=namespace.name)
        self._undo.callback(tunnel.close)
        self._undo.callback(tunnel.delete, force=True)
        agent = mz.TransitAgent.attach(tunnel, **options)
        self._undo.callback(agent.close)
        return Host(namespace, address, tunnel, agent)

    def container(self, host: Host, vni: int, ip: str, **spec: Any) -> Container:
        """A new namespace on ``host`` with an IPv4 endpoint; the other hosts learn where it is."""
        namespace = self.namespace(f"c{vni}-{ip.split('/')[0].rpartition('.')[2]}")
        quiet(namespace)
        endpoint = mz.Endpoint.create(host.agent, vni=vni, ip=ip, netns=namespace.name, **spec)
        for other in self.hosts:
            if other is not host:
                other.agent.endpoints[vni, endpoint.ip] = mz.Remote(host.address)
        return Container(host, namespace, endpoint)

    def stats(self) -> list[mz.Stats]:
        """Of every host."""
        return [host.agent.stats() for host in self.hosts]

    def __enter__(self) -> World:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        programs = self._programs()
        with self._undo:
            if error is None:
                assert_accounts_add_up()
        wait_until(lambda: not alive(programs), lambda: f"programs live on: {alive(programs)}")

    def _programs(self) -> set[int]:
        programs: set[int] = set()
        for host in self.hosts:
            try:
                programs |= set(host.agent.state().programs.values())
            except (mz.StaleHandleError, mz.AgentNotFoundError, mz.ClosedError):
                continue  # the test has taken it off itself
        return programs


def alive(programs: set[int]) -> set[int]:
    """Which of these programs the kernel still has; numbers are never given again."""
    found: set[int] = set()
    for number in programs:
        program = Program.open_id(number)
        if program is not None:
            program.close()
            found.add(number)
    return found


def links(namespace: Namespace) -> list[str]:
    """Names of the devices in a namespace."""
    return [each["ifname"] for each in json.loads(namespace.run("ip", "-j", "link"))]
