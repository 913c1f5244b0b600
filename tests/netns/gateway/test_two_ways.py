# SPDX-License-Identifier: Apache-2.0
"""A host between two networks, with gateways and transit switches on both: it routes for nobody else."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import run

import attrs
import pytest

import mizarnet as mz
from mizarnet import FindingKind
from mizarnet._kernel import nftables
from tests.support.namespace import Namespace
from tests.support.outside import need_nftables, outside
from tests.support.wait import wait_until
from tests.world import new_namespace, quiet

PORT = 9999


@attrs.frozen
class Between:
    """A host with eth0 and eth1, and a neighbour behind each.

    Attributes:
        host: Its namespace.
        neighbours: Those of the neighbours.
        agents: Agents of a tunnel on either device.
    """

    host: Namespace
    neighbours: tuple[Namespace, Namespace]
    agents: tuple[mz.TransitAgent, mz.TransitAgent]

    def routes(self, version: int = 4) -> list[bool]:
        """Whether it routes what comes from eth0 for the neighbour behind eth1, and the other way round."""
        return [self._arrives(at, version) for at in (0, 1)]

    def _arrives(self, at: int, version: int) -> bool:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        to = f"192.0.{3 - at}.2" if version == 4 else f"fd00:{3 - at}::2"
        with (
            self.neighbours[1 - at].socket(family, socket.SOCK_DGRAM) as there,
            self.neighbours[at].socket(family, socket.SOCK_DGRAM) as here,
        ):
            there.bind(("", PORT))
            there.settimeout(0.3)
            here.sendto(b"for others", (to, PORT))
            with suppress(TimeoutError):
                return bool(there.recv(100))
        return False

    def findings(self) -> list[FindingKind]:
        """What a check of the host says."""
        with mz.Host.open(netns=self.host.name) as host:
            return [each.kind for each in host.check()]

    def repair(self) -> None:
        """Mend it."""
        with mz.Host.open(netns=self.host.name) as host:
            assert host.repair()


@pytest.fixture
def between() -> Iterator[Between]:
    need_nftables()
    host, *others = (new_namespace(name) for name in ("host", "one", "other"))
    try:
        for number, other in enumerate(others):
            other.run("ip", "link", "set", "lo", "up")
            host.run(
                *("ip", "link", "add", f"eth{number}", "type", "veth"),
                *("peer", "name", "eth0", "netns", other.name),
            )
            for space, name, last in ((host, f"eth{number}", 1), (other, "eth0", 2)):
                space.run("ip", "address", "add", f"192.0.{number + 2}.{last}/24", "dev", name)
                space.run("ip", "address", "add", f"fd00:{number + 2}::{last}/64", "dev", name, "nodad")
                space.run("ip", "link", "set", name, "up")
            other.run("ip", "route", "add", "default", "via", f"192.0.{number + 2}.1")
            other.run("ip", "-6", "route", "add", "default", "via", f"fd00:{number + 2}::1")
        host.set(**{"ipv4/ip_forward": 0})
        with ExitStack() as stack:
            agents: list[mz.TransitAgent] = []
            for at in (0, 1):
                where = {"underlay": f"eth{at}", "netns": host.name}
                tunnel = mz.Tunnel.create(f"tunnel{at}", encap="vxlan", port=4789 + at, **where)
                agents.append(stack.enter_context(mz.TransitAgent.attach(stack.enter_context(tunnel))))
            yield Between(host, (others[0], others[1]), (agents[0], agents[1]))
        with mz.Host.open(netns=host.name) as seen:
            seen.clear(force=True)
    finally:
        for each in (host, *others):
            each.delete()


def test_two_switches_make_no_router_of_their_host(between: Between) -> None:
    assert between.routes() == [False, False]
    one = mz.TransitSwitch.attach(between.agents[0], mode="generic")
    other = mz.TransitSwitch.attach(between.agents[1], mode="generic")
    assert between.routes() == [False, False]
    other.detach()
    assert between.routes() == [False, False]
    mz.TransitSwitch.attach(between.agents[1], mode="generic")
    one.detach()
    assert between.routes() == [False, False]


def test_a_switch_whose_rule_was_flushed_is_told_and_closed_again(between: Between) -> None:
    for agent in between.agents:
        mz.TransitSwitch.attach(agent, mode="generic")
    between.host.run("nft", "flush", "ruleset")
    wait_until(lambda: between.routes() == [True, True])
    assert between.findings() == [FindingKind.RULES_DIFFER] * 2
    between.repair()
    assert between.routes() == [False, False]
    assert between.findings() == []


@pytest.mark.parametrize("first", ["gateway", "switch"])
def test_what_a_gateway_opened_for_itself_is_closed_with_it(between: Between, first: str) -> None:
    before = between.routes(6)
    alone = Path("/proc/sys/net/ipv6/conf/all/force_forwarding").exists()  # 6.17
    ip = ["10.0.0.254/24", "fd00:7::fe/64"]
    if first == "switch":
        mz.TransitSwitch.attach(between.agents[0], mode="generic")
    gateway = mz.Gateway.create(between.agents[0], vni=7, egress="eth0", ip=ip, forward_all_ipv6=not alone)
    if first == "gateway":
        mz.TransitSwitch.attach(between.agents[0], mode="generic")
    assert between.routes(6) == before == [False, False]
    gateway.delete()
    assert between.routes(6) == [False, False]
    assert between.routes() == [False, False]


def test_a_published_port_is_open_by_the_egress_of_its_own_gateway(between: Between) -> None:
    web = new_namespace("web")
    try:
        quiet(web)
        end = mz.Endpoint.create(
            between.agents[0], vni=7, ip="10.0.0.5/24", gateway="10.0.0.254", netns=web.name, name="web"
        )
        mz.Gateway.create(
            between.agents[0],
            vni=7,
            egress="eth0",
            ip="10.0.0.254/24",
            publish=[mz.Publish("udp", 5300, "10.0.0.5", 5301)],
        )
        mz.Gateway.create(between.agents[0], vni=8, egress="eth1", ip="10.8.0.254/24")
        got: list[bool] = []
        with web.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("", 5301))
            server.settimeout(2)
            for number, neighbour in enumerate(between.neighbours):
                with neighbour.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.sendto(b"hello", (f"192.0.{number + 2}.1", 5300))
                    try:
                        got.append(bool(server.recv(100)))
                    except TimeoutError:
                        got.append(False)
        assert got == [True, False]
        end.delete()
    finally:
        web.delete()


def test_no_tenant_reaches_a_tunnel_of_other_software() -> None:
    with outside("vxlan", (7,)) as way:
        host = way.host.namespace
        near, _ = way.tenants[7]
        flannel = ("flannel.1", "type", "vxlan", "id", "1", "dev", "eth0", "dstport", "8472", "nolearning")
        host.run("ip", "link", "add", *flannel)
        gateway = way.gateway(7)
        with (
            way.peer.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
            near.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as tenant,
        ):
            peer.settimeout(0.5)
            peer.bind(("", 8472))
            tenant.sendto(b"a frame", (way.peer.address, 8472))
            with pytest.raises(TimeoutError):
                peer.recv(100)
        host.run("ip", "link", "delete", "flannel.1")
        gateway.delete()


# -- the command nft


FAILING = """
import os, signal, sys
from mizarnet._kernel import nftables
from mizarnet._kernel.netlink import Session

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with Session.open(sys.argv[1]) as session:
    try:
        nftables.apply(session, "delete table inet nothing\\n", "try")
    except Exception as error:
        print(type(error).__name__)
"""


def test_a_failure_is_seen_where_nobody_knows_an_exit_status(between: Between) -> None:
    done = run([sys.executable, "-c", FAILING, between.host.name], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "KernelError", done.stdout + done.stderr


@pytest.mark.parametrize("text", nftables._KNOWN)
def test_nft_says_errors_in_the_words_of_the_c_library(text: str) -> None:
    code = f"import os; print(os.strerror({nftables._KNOWN[text]}))"
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"LC_ALL": "C"})
    assert done.stdout.strip() == text
    assert errno.errorcode[nftables._KNOWN[text]]
