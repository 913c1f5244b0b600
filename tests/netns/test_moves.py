# SPDX-License-Identifier: Apache-2.0
"""Changes under traffic: established TCP streams survive, and what is lost ends with the change.

How long it takes is in ``docs/measurements.md``; run this file with ``-s`` to measure it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

import mizarnet as mz
from mizarnet._kernel.netlink import Session, get_link, set_link
from tests.support.flow import Delivery, Probe, Stream
from tests.world import UNDERLAY, Container, EncapName, Host, Subnet, World, common_tests

NET = Subnet(3, 1)
SETTLE = 0.3


@pytest.fixture
def world(encap: EncapName) -> Iterator[World]:
    """Endpoints on the first two hosts; the next two are switches that know them, the first one in use."""
    with World(encap, hosts=4) as made:
        h1, h2, first, second = made.hosts
        use(made, first)
        made.member(h1, NET, 2), made.member(h2, NET, 3), made.member(h1, NET, 4)
        made.inform(first, second)
        made.switch(first, second)
        yield made


def use(world: World, *switches: Host) -> None:
    """Give the network these switches."""
    world.network(NET, switches=switches, on=world.hosts[:2])


def undisturbed(world: World, version: int, change: Callable[[], object], name: str) -> Delivery:
    """Make a change under streams in both directions, which must survive it; what became of a probe's datagrams."""
    one, other = world.containers[:2]
    near, far = one.address(version), other.address(version)
    with (
        Stream(one.namespace, other.namespace, far) as there,
        Stream(other.namespace, one.namespace, near) as back,
        Probe(one.namespace, other.namespace, far) as probe,
    ):
        time.sleep(SETTLE)
        change()
        time.sleep(SETTLE)
        there.goes_on()
        back.goes_on()
        result = probe.result()
    print(f"\n{name} (IPv{version}): {result}")
    return result


def test_a_stream_survives_other_switches(world: World, version: int) -> None:
    _, _, first, second = world.hosts

    def change() -> None:
        for _ in range(3):
            for switches in ((first, second), (second,), (first, second), (first,)):
                use(world, *switches)
                time.sleep(0.05)

    assert undisturbed(world, version, change, "12 changes of switches").lost <= 50


def test_a_stream_survives_the_way_from_switched_to_direct_and_back(world: World, version: int) -> None:
    h1, h2 = world.hosts[:2]

    def change() -> None:
        for _ in range(5):
            world.inform(h1, h2)
            time.sleep(0.05)
            for host in (h1, h2):
                host.agent.endpoints.sync([])
            time.sleep(0.05)

    assert undisturbed(world, version, change, "10 changes between direct and switched").lost <= 50


def test_a_stream_survives_a_switch_that_goes_and_comes(world: World, version: int) -> None:
    first = world.hosts[2]

    def change() -> None:
        for _ in range(3):
            mz.TransitSwitch.open(first.agent).detach()  # the guard goes on with it
            time.sleep(0.05)
            world.switch(first)
            time.sleep(0.05)

    assert (
        undisturbed(world, version, change, "program of the switch taken off and put on, 3 times").lost <= 50
    )


# -- moving ------------------------------------------------------------------------------------------------


def move(world: World, which: int, to: Host) -> Container:
    """Move an endpoint with its namespace, and tell the switches."""
    moved = world.move(world.containers[which], to)
    world.inform(*world.hosts[2:])
    world.containers.insert(which, world.containers.pop())
    return moved


def test_a_stream_of_an_endpoint_that_moves_with_its_namespace_survives(world: World, version: int) -> None:
    h1, h2 = world.hosts[:2]

    def change() -> None:
        for home in (h1, h2):  # to the peer's own host, and back
            move(world, 1, home)
            time.sleep(0.5)

    undisturbed(world, version, change, "2 moves of the endpoint, with its namespace")
    common_tests(world.containers[0], world.containers[1], version)


def test_a_stream_between_others_does_not_notice_a_move(world: World, version: int) -> None:
    h1, h2 = world.hosts[:2]

    def change() -> None:
        for home in (h2, h1):
            move(world, 2, home)
            common_tests(world.containers[0], world.containers[2], version)

    assert undisturbed(world, version, change, "2 moves of another endpoint").lost <= 50


# -- the NIC -----------------------------------------------------------------------------------------------


def replace_mac(host: Host, mac: str) -> None:
    """Give the underlay NIC another MAC."""
    with Session.open(host.namespace.name) as session:
        link = get_link(session, UNDERLAY)
        assert link is not None
        set_link(session, link.ifindex, mac=mac)


def tell_neighbours(host: Host) -> None:
    """Let the kernel announce a new MAC by itself; by default it waits to be asked, or to have something to say."""
    for setting in (f"ipv4.conf.{UNDERLAY}.arp_notify", f"ipv6.conf.{UNDERLAY}.ndisc_notify"):
        host.namespace.run("sysctl", "-q", "-w", f"net.{setting}=1")


@pytest.mark.parametrize(
    ("version", "which"),
    [
        pytest.param(4, 1, id="ipv4-host", marks=pytest.mark.vm),
        pytest.param(4, 2, id="ipv4-switch"),
        pytest.param(6, 1, id="ipv6-host"),
        pytest.param(6, 2, id="ipv6-switch"),
    ],
)
def test_t43_streams_survive_another_mac_of_the_nic(world: World, version: int, which: int) -> None:
    host, name = world.hosts[which], ("", "host", "switch")[which]
    if name == "switch":  # it has nothing to say of its own
        tell_neighbours(host)
    undisturbed(
        world,
        version,
        lambda: replace_mac(host, "02:11:22:33:44:55"),
        f"another MAC of the NIC of the {name}",
    )
    common_tests(world.containers[0], world.containers[1], version)
