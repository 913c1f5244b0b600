# SPDX-License-Identifier: Apache-2.0
"""Any number of hosts with networks, transit switches, routers and endpoints, built from a lab."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import attrs

import mizarnet as mz
from mizarnet import Verdict
from tests.support.invariants import assert_accounts_add_up
from tests.support.namespace import Namespace
from tests.support.services import Services, exchange_everything
from tests.support.topology import Container, EncapName, Host

_labs = itertools.count()
SWITCH_VERDICTS = frozenset(
    verdict for verdict in Verdict if verdict is Verdict.BOUNCED or verdict.name.startswith("PASSED")
)
"""All that a transit switch may decide: XDP_TX, and XDP_PASS under its names."""


class LabNamespace(Namespace):
    """A namespace that belongs to a lab."""

    def __init__(self, name: str) -> None:
        """Adopt it."""
        self.name = name
        self.path = f"/run/netns/{name}"


@attrs.frozen
class Net:
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


ROUTES = ("0.0.0.0/0", "::/0")


class Fabric:
    """Hosts and containers that vanish with the ``with`` block; no agent knows of anything it was not told."""

    def __init__(self, encap: EncapName, *, hosts: int, mtu: int = 1500, ipv6: bool = False) -> None:
        """Build the lab."""
        self._undo = ExitStack()
        self._numbers = itertools.count()
        self.services = Services()
        self._undo.callback(self.services.close)
        name = f"fabric{os.getpid()}-{next(_labs)}"
        try:
            self.lab = self._undo.enter_context(
                mz.Lab(hosts=hosts, mtu=mtu, encap=encap, name=name, ipv6=ipv6)
            )
        except BaseException:
            self._undo.close()
            raise
        self.hosts = tuple(
            Host(LabNamespace(host.netns), str(host.address), host.tunnel, host.agent)
            for host in self.lab.hosts
        )
        self.containers: list[Container] = []

    # -- tables

    def network(self, net: Net, *, switches: Sequence[Host] = (), on: Iterable[Host] | None = None) -> None:
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
        for host in hosts:
            host.agent.endpoints.update(
                ((each.endpoint.vni, address.ip), mz.Remote(each.host.address))
                for each in (self.containers if about is None else about)
                if each.host is not host
                for address in each.endpoint.addresses
            )

    # -- things

    def switch(self, *hosts: Host) -> None:
        """Make hosts transit switches."""
        for host in hosts:
            mz.TransitSwitch.attach(host.agent, mode="generic")

    def space(self) -> Namespace:
        """A new namespace, with the services in it."""
        namespace = LabNamespace(self.lab.container(f"c{next(self._numbers)}"))
        self.services.add(namespace)
        return namespace

    def container(self, host: Host, net: Net, number: int, *, space: Namespace | None = None) -> Container:
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

    # -- the end

    def __enter__(self) -> Fabric:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        with self._undo:
            if error is None:
                assert_accounts_add_up()
            for host in self.hosts:
                counted = {
                    verdict for verdict, counter in host.agent.stats().switch.items() if counter.packets
                }
                assert counted <= SWITCH_VERDICTS, f"the transit switch decided {counted - SWITCH_VERDICTS}"


def address(container: Container, version: int) -> str:
    """The container's address of a family."""
    return next(str(each.ip) for each in container.endpoint.addresses if each.version == version)


def common_tests(a: Container, b: Container, version: int) -> None:
    """Ping, HTTP, and files over TCP and UDP, both ways, compared byte by byte."""
    exchange_everything(a.namespace, address(b, version))
    exchange_everything(b.namespace, address(a, version))


def total(hosts: Iterable[Host], program: str, verdict: Verdict) -> int:
    """Packets that the hosts counted for a verdict."""
    return sum(getattr(host.agent.stats(), program)[verdict].packets for host in hosts)
