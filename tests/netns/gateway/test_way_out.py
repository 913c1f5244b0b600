# SPDX-License-Identifier: Apache-2.0
"""Tenants of VNIs with equal addresses leave by their gateways, from every host, and come in by published ports."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

import mizarnet as mz
from tests.support.depth import depth
from tests.support.icmp import assert_silence, datagram_error, echo, family_of
from tests.support.namespace import Namespace
from tests.support.outside import (
    SUBNETS,
    VNIS,
    WORLD,
    Outside,
    findings,
    host_address,
    outside,
    private_spaces,
)
from tests.support.services import (
    DATAGRAMS,
    HTTP,
    exchange_datagrams,
    exchange_everything,
    exchange_file,
    fetch_page,
)
from tests.support.traffic import Capture
from tests.world import UNDERLAY, Container, EncapName

MUCH = depth(1 << 20, 100 << 20)
UNREACHABLE = {4: 3, 6: 1}
TCP = (socket.AF_INET, socket.SOCK_STREAM)


@pytest.fixture(scope="module")
def way(encap: EncapName) -> Iterator[Outside]:
    """Two VNIs with equal addresses, and their gateways, which publish a port each."""
    with outside(encap) as made:
        before = settings(made.host.namespace)
        for vni in VNIS:
            near, far = (each.address(4) for each in made.tenants[vni])
            ports = [mz.Publish("tcp", 8000 + vni, far, HTTP), mz.Publish("tcp", 9000 + vni, near, HTTP)]
            ports += [mz.Publish("tcp", 6000 + vni, made.tenants[vni][1].ipv6, HTTP)]
            assert made.gateway(vni, publish=ports).created
        yield made
        for each in mz.Gateway.list(made.host.agent):
            each.delete()
        assert settings(made.host.namespace) == before
        assert not private_spaces(made.host.namespace)


def settings(namespace: Namespace) -> list[str]:
    """What a gateway could leave behind: settings, rules, devices, addresses and routes."""
    read = [
        namespace.run("sysctl", "-a", "--pattern", r"^net\.ipv[46]\.conf\.(eth0|all|default|lo|tunnel0)\.")
    ]
    read += [namespace.run("nft", "list", "ruleset"), namespace.run("ip", "-o", "address")]
    read += [namespace.run("ip", f"-{each}", "route", "show", "table", "all") for each in (4, 6)]
    # But for the age of an address, and what the kernel adds in its own time once a device is up.
    passing = ("valid_lft", "fe80:", "ff00::/8")
    lines = (line for text in read for line in text.splitlines())
    return sorted(line for line in lines if not any(word in line for word in passing))


@pytest.mark.vm
def test_everything_leaves_from_every_host(way: Outside, version: int) -> None:
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(exchange_everything, each.namespace, WORLD[version]) for each in way.all_tenants]
        for each in asked:
            each.result()


@pytest.mark.vm
def test_much_leaves_in_super_packets(way: Outside, version: int) -> None:
    near, far = way.tenants[VNIS[0]]
    for each in (near, far):
        with Capture(each.namespace, "eth0") as seen, ThreadPoolExecutor(1) as pool:
            file = pool.submit(exchange_file, each.namespace, WORLD[version], size=MUCH)
            seen.until(lambda frame: len(frame) > 2 * 1514)
            file.result(120)


def asker_of(way: Outside, tenant: Container, version: int) -> str:
    """The address that the outside sees of a tenant that asks it something, and gets an answer."""
    family = family_of(WORLD[version])
    with (
        way.space.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server,
        tenant.namespace.socket(family, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("::", 7777))
        client.sendto(b"who", (WORLD[version], 7777))
        asker = server.recvfrom(10)[1]
        server.sendto(b"you", asker)
        assert client.recv(10) == b"you"
        return str(asker[0]).removeprefix("::ffff:")


def test_the_outside_sees_the_host_alone(way: Outside, version: int) -> None:
    near, _ = way.tenants[VNIS[0]]
    assert asker_of(way, near, version) == host_address(way.host, version)


def learn_path(client: Namespace, address: str) -> None:
    """One datagram whose answer, in fragments of IPv6, is too large for the tenant: the outside learns the way."""
    with client.socket(family_of(address), socket.SOCK_DGRAM) as sender:
        sender.settimeout(0.3)
        sender.sendto(bytes(4000), (address, DATAGRAMS))
        with suppress(TimeoutError):
            sender.recv(1 << 16)


@pytest.mark.vm
def test_errors_and_the_path_mtu_come_back(way: Outside, version: int) -> None:
    for each in way.tenants[VNIS[1]]:
        own = SUBNETS[1].address(2, version)
        assert datagram_error(each.namespace, WORLD[version], hops=1).offender == own
        told = datagram_error(each.namespace, WORLD[version])
        assert (told.offender, told.type) == (WORLD[version], UNREACHABLE[version])
        learn_path(each.namespace, WORLD[version])
        exchange_datagrams(each.namespace, WORLD[version], size=4000)  # in fragments
    # The way on takes less than what a tenant sends.
    way.space.run("ip", "link", "set", UNDERLAY, "mtu", "1300")
    way.host.namespace.run(
        *("ip", f"-{version}", "route", "replace", WORLD[version]),
        *("via", host_address(way.world.hosts[2], version), "mtu", "lock", "1300"),
    )
    try:
        near, _ = way.tenants[VNIS[1]]
        with pytest.raises(OSError, match="Message too long"):
            echo(near.namespace, WORLD[version], size=1350, whole=True)
        exchange_file(near.namespace, WORLD[version])
    finally:
        way.space.run("ip", "link", "set", UNDERLAY, "mtu", "1500")
        way.host.namespace.run("ip", f"-{version}", "route", "del", WORLD[version])


@pytest.mark.vm
def test_published_ports(way: Outside) -> None:
    """From the outside, from tenants of both VNIs and from the host itself, on each address of the host."""
    near, far = way.tenants[VNIS[0]]
    own = way.host.address
    for asker in (
        way.space,
        near.namespace,
        far.namespace,
        way.tenants[VNIS[1]][0].namespace,
        way.host.namespace,
    ):
        for vni in VNIS:
            for port in (8000 + vni, 9000 + vni):
                fetch_page(asker, own, port=port)
    for asker in (way.space, far.namespace, way.host.namespace):
        fetch_page(asker, host_address(way.host, 6), port=6000 + VNIS[0])


def test_one_port_changes_and_connections_go_on(way: Outside) -> None:
    gateway = mz.Gateway.open(way.host.agent, vni=VNIS[0])
    before = gateway.publish
    near, _ = way.tenants[VNIS[0]]
    listener = near.listener()
    with near.namespace.socket(*TCP) as leaving, way.space.socket(*TCP) as arriving:
        port = listener.getsockname()[1]
        assert gateway.update(publish=[*before, mz.Publish("tcp", 7000, near.ip, port)]) == ("publish",)
        arriving.connect((way.host.address, 7000))
        answering, _ = listener.accept()
        leaving.connect((WORLD[4], HTTP))
        assert gateway.update(publish=[*before, mz.Publish("tcp", 7001, near.ip, HTTP)]) == ("publish",)
        for one, other in ((arriving, answering), (answering, arriving)):
            one.sendall(b"still there")
            assert other.recv(100) == b"still there"
        leaving.sendall(b"GET /page HTTP/1.0\r\n\r\n")
        assert leaving.recv(10).startswith(b"HTTP/1.0 2")
        answering.close()
    listener.close()
    fetch_page(way.space, way.host.address, port=7001)
    with way.space.socket(*TCP) as refused, pytest.raises(ConnectionRefusedError):
        refused.connect((way.host.address, 7000))
    assert gateway.update(publish=before) == ("publish",)
    assert gateway.update(publish=before, nat=True) == ()


def test_without_translation_the_outside_sees_the_tenant(way: Outside, version: int) -> None:
    """And must know the way back; uninvited it reaches the tenant no more than before."""
    gateway = mz.Gateway.open(way.host.agent, vni=VNIS[0])
    near, far = way.tenants[VNIS[0]]
    prefix = SUBNETS[0].prefixes[version == 6]
    back = ("via", host_address(way.host, version), "src", WORLD[version])
    way.space.run("ip", f"-{version}", "route", "add", prefix, *back)
    assert gateway.update(nat=False) == ("nat",)
    assert not gateway.nat
    for each in (near, far):
        assert asker_of(way, each, version) == each.address(version)
        assert_silence(way.space, each.address(version))
        exchange_everything(each.namespace, WORLD[version])
    assert asker_of(way, way.tenants[VNIS[1]][0], version) == host_address(way.host, version)
    assert gateway.update(nat=True) == ("nat",)
    assert asker_of(way, near, version) == host_address(way.host, version)
    way.space.run("ip", f"-{version}", "route", "del", prefix)


def test_what_a_gateway_says_of_itself(way: Outside) -> None:
    agent = way.host.agent
    gateway = mz.Gateway.open(agent, vni=VNIS[0])
    same = way.gateway(VNIS[0], publish=gateway.publish)
    assert not same.created
    assert (same.ip, same.egress, same.publish) == (gateway.ip, gateway.egress, gateway.publish)
    assert [each.vni for each in mz.Gateway.list(agent)] == [*VNIS]
    before = gateway.state()
    fetch_page(way.tenants[VNIS[0]][0].namespace, WORLD[4])
    after = gateway.state()
    assert after.life is mz.Life.LIVE
    assert after.packets > before.packets
    assert after.bytes > before.bytes
    assert after.connections
    with pytest.raises(mz.ExistsError) as differs:
        way.gateway(VNIS[0], publish=gateway.publish, nat=False)
    assert [*differs.value.differences] == ["nat"]
    with mz.Host.open(netns=way.host.namespace.name) as host:
        assert not findings(host)


def test_without_entries_nothing_of_a_vni_leaves(way: Outside) -> None:
    """The way out is a matter of entries, on each host."""
    near, far = way.tenants[VNIS[0]]
    del way.peer.agent.networks[VNIS[0], "0.0.0.0/0"]
    assert_silence(far.namespace, WORLD[4])
    assert echo(near.namespace, WORLD[4])
    with pytest.raises(mz.ForeignEntryError):
        del way.host.agent.networks[VNIS[0], "0.0.0.0/0"]
    way.peer.agent.networks[VNIS[0], "0.0.0.0/0"] = mz.Network(via=SUBNETS[0].address(2, 4))
    assert echo(far.namespace, WORLD[4])
