# SPDX-License-Identifier: Apache-2.0
"""Hosts joined by an underlay, each with a tunnel and an agent, and containers on them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import attrs

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._kernel.bpf import Program
from tests.support.invariants import assert_accounts_add_up
from tests.support.namespace import Namespace
from tests.support.services import Services, exchange_everything
from tests.support.wait import wait_until
from tests.world.container import Container, Host
from tests.world.spaces import TUNNEL, UNDERLAY, EncapName, bridge, cable, calm, new_namespace, quiet

ROUTES = ("0.0.0.0/0", "::/0")
SWITCH_VERDICTS = frozenset(
    verdict for verdict in Verdict if verdict is Verdict.BOUNCED or verdict.name.startswith("PASSED")
)
"""All that a transit switch may decide: XDP_TX, and XDP_PASS under its names."""
SHORTCUT = os.environ.get("MIZARNET_TEST_SHORTCUT")
"""Whether hosts have the shortcut that say nothing about it: "auto" runs any test with it."""
_TAKEN_OFF = (mz.StaleHandleError, mz.AgentNotFoundError, mz.ClosedError)


@attrs.frozen
class Subnet:
    """A network of a VNI, of both families; all its addresses follow from its number."""

    vni: int
    number: int

    @property
    def prefixes(self) -> tuple[str, str]:
        """Both prefixes."""
        return f"10.{self.number}.0.0/24", f"fd00:{self.number:x}::/64"

    @property
    def gateways(self) -> tuple[str, str]:
        """Both gateways."""
        return f"10.{self.number}.0.1", f"fd00:{self.number:x}::1"

    def interfaces(self, number: int) -> tuple[str, str]:
        """Both addresses of an endpoint, with their prefix lengths."""
        return f"10.{self.number}.0.{number}/24", f"fd00:{self.number:x}::{number:x}/64"

    def address(self, number: int, version: int) -> str:
        """One address, whether somebody has it or not."""
        return self.interfaces(number)[version == 6].partition("/")[0]


class World:
    """Hosts and containers that vanish with the ``with`` block, which fails if programs or maps outlive it.

    Attributes:
        hosts: The hosts.
        spaces: Their namespaces; with one host that of the other end of its cable, too.
        containers: All that were made and not removed, the oldest first.
    """

    def __init__(
        self, encap: EncapName, *, hosts: int = 2, mtu: int = 1500, ipv6: bool = False, **agent: Any
    ) -> None:
        """Hosts with agents; keywords go to ``TransitAgent.attach``.

        Two are joined by a cable, so that nothing lies between them; more by a bridge.
        """
        self.encap = encap
        self.containers: list[Container] = []
        self._numbers = itertools.count()
        self._services: Services | None = None
        self._undo = ExitStack()
        numbers = range(1, max(hosts, 2) + 1)
        addresses = [f"fd00:6d7a::{number:x}" if ipv6 else f"192.0.2.{number}" for number in numbers]
        try:
            self.spaces = [self.namespace(f"h{number}") for number in numbers]
            if hosts > 2:
                self.hub = self.namespace("underlay")
                bridge(self.hub, self.spaces, addresses, mtu=mtu)
            else:
                cable(*self.spaces, mtu=mtu, addresses=addresses)
            places = zip(self.spaces[:hosts], addresses, strict=False)
            self.hosts = tuple(self._host(*place, agent) for place in places)
        except BaseException:
            self._undo.close()
            raise

    def _host(self, namespace: Namespace, address: str, options: dict[str, Any]) -> Host:
        tunnel = mz.Tunnel.create(TUNNEL, encap=self.encap, underlay=UNDERLAY, netns=namespace.name)
        self._undo.callback(tunnel.close)
        self._undo.callback(tunnel.delete, force=True)
        agent = mz.TransitAgent.attach(tunnel, **{"shortcut": SHORTCUT, **options})
        self._undo.callback(agent.close)
        return Host(namespace, address, tunnel, agent)

    def namespace(self, label: str) -> Namespace:
        """A new namespace."""
        made = new_namespace(label)
        self._undo.callback(made.delete)
        return made

    # -- containers whose whereabouts everybody knows

    def container(self, host: Host, vni: int, ip: str | tuple[str, ...], **spec: Any) -> Container:
        """A new endpoint in a new namespace that says nothing unasked; the other hosts learn where it is."""
        ips = (ip,) if isinstance(ip, str) else ip
        namespace = self.namespace(f"c{vni}-{ips[0].split('/')[0].rpartition('.')[2]}")
        (calm if any(":" in each for each in ips) else quiet)(namespace)
        return self.tell(self.add(host, namespace, vni=vni, ip=ip, **spec))

    def tell(self, container: Container) -> Container:
        """Tell the other hosts where it is."""
        self.inform(*self.hosts, about=[container])
        return container

    # -- containers of subnets, of which nobody knows who was not told

    def space(self) -> Namespace:
        """A new namespace, with the services in it."""
        return self.serve(self.namespace(f"c{next(self._numbers)}"))

    def serve(self, namespace: Namespace) -> Namespace:
        """Put the services into a namespace."""
        if self._services is None:
            self._services = Services()
            self._undo.callback(self._services.close)
        self._services.add(namespace)
        return namespace

    def member(self, host: Host, net: Subnet, number: int, *, space: Namespace | None = None) -> Container:
        """A new endpoint of both families, in a new namespace or the given one."""
        return self.add(host, space or self.space(), vni=net.vni, ip=net.interfaces(number))

    def add(self, host: Host, space: Namespace, **spec: Any) -> Container:
        """A new endpoint in a namespace."""
        # In the host's own namespace an endpoint is created without naming one.
        netns = None if space is host.namespace else space.name
        endpoint = mz.Endpoint.create(host.agent, netns=netns, **spec)
        self.containers.append(Container(host, space, endpoint))
        return self.containers[-1]

    def remove(self, container: Container) -> None:
        """Delete an endpoint on its host; its namespace stays."""
        container.endpoint.delete()
        self.containers.remove(container)

    def move(self, container: Container, host: Host) -> Container:
        """Delete an endpoint and create it, with the same addresses and in the same namespace, on another host.

        What the other hosts know of it is not changed, but the new host must forget that it was elsewhere.
        """
        self.remove(container)
        endpoint = container.endpoint
        return self.add(host, container.namespace, vni=endpoint.vni, ip=endpoint.addresses)

    # -- tables

    def network(
        self, net: Subnet, *, switches: Sequence[Host] = (), on: Iterable[Host] | None = None
    ) -> None:
        """Tell hosts, by default all, of a network and its transit switches."""
        addresses = [switch.address for switch in switches]
        for host in self.hosts if on is None else on:
            for prefix, gateway in zip(net.prefixes, net.gateways, strict=True):
                host.agent.networks[net.vni, prefix] = mz.Network(gateway=gateway, switches=addresses)

    def route(self, vni: int, *, routers: Sequence[Host], on: Iterable[Host]) -> None:
        """Tell hosts that everything else of a VNI goes to ``routers``."""
        for host in on:
            for prefix in ROUTES:
                host.agent.networks[vni, prefix] = mz.Network(switches=[each.address for each in routers])

    def inform(self, *hosts: Host, about: Iterable[Container] | None = None) -> None:
        """Tell hosts where endpoints are, by default all endpoints."""
        known = list(self.containers if about is None else about)
        for host in hosts:
            host.agent.endpoints.update(
                ((each.endpoint.vni, address.ip), mz.Remote(each.host.address))
                for each in known
                if each.host is not host
                for address in each.endpoint.addresses
            )

    def publish(self) -> None:
        """Tell every host where the endpoints of the others are, as their agents say; all else is forgotten."""
        homes = {
            (endpoint.vni, address.ip): host
            for host in self.hosts
            for endpoint in mz.Endpoint.list(host.agent)
            for address in endpoint.addresses
        }
        for host in self.hosts:
            others = ((key, mz.Remote(home.address)) for key, home in homes.items() if home is not host)
            host.agent.endpoints.sync(others)

    def switch(self, *hosts: Host) -> None:
        """Make hosts transit switches."""
        for host in hosts:
            mz.TransitSwitch.attach(host.agent, mode="generic")

    def stats(self) -> list[mz.Stats]:
        """Of every host."""
        return [host.agent.stats() for host in self.hosts]

    # -- the end

    def __enter__(self) -> World:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        programs: set[int] = set()
        with self._undo:
            for host in self.hosts:
                with suppress(*_TAKEN_OFF):
                    programs |= set(host.agent.state().programs.values())
                    assert_switch_passes_or_bounces(host)
            if error is None:
                assert_accounts_add_up()
        wait_until(lambda: not alive(programs), lambda: f"programs live on: {alive(programs)}")


def assert_switch_passes_or_bounces(host: Host) -> None:
    """Whatever a test did."""
    counted = {verdict for verdict, counter in host.agent.stats().switch.items() if counter.packets}
    assert counted <= SWITCH_VERDICTS, f"the transit switch decided {counted - SWITCH_VERDICTS}"


def alive(programs: set[int]) -> set[int]:
    """Which of these programs the kernel still has; numbers are never given again."""
    found: set[int] = set()
    for number in programs:
        program = Program.open_id(number)
        if program is not None:
            program.close()
            found.add(number)
    return found


def common_tests(a: Container, b: Container, version: int) -> None:
    """Ping, HTTP, and files over TCP and UDP, both ways, compared byte by byte."""
    exchange_everything(a.namespace, b.address(version))
    exchange_everything(b.namespace, a.address(version))


def total(hosts: Iterable[Host], program: str, verdict: Verdict) -> int:
    """Packets that the hosts counted for a verdict."""
    return sum(getattr(host.agent.stats(), program)[verdict].packets for host in hosts)
