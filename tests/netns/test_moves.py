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
from tests.support.fabric import Fabric, Net, address, common_tests
from tests.support.flow import Delivery, Probe, Stream
from tests.support.topology import UNDERLAY, Container, EncapName, Host

NET = Net(3, 1)
SETTLE = 0.3


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def version(request: pytest.FixtureRequest) -> int:
    """The family that the endpoints speak."""
    found: int = request.param
    return found


@pytest.fixture
def fabric(encap: EncapName) -> Iterator[Fabric]:
    """Endpoints on the first two hosts; the next two are switches that know them, the first one in use."""
    with Fabric(encap, hosts=4) as made:
        h1, h2, first, second = made.hosts
        use(made, first)
        made.container(h1, NET, 2), made.container(h2, NET, 3), made.container(h1, NET, 4)
        made.inform(first, second)
        made.switch(first, second)
        yield made


def use(fabric: Fabric, *switches: Host) -> None:
    """Give the network these switches."""
    fabric.network(NET, switches=switches, on=fabric.hosts[:2])


def undisturbed(fabric: Fabric, version: int, change: Callable[[], object], name: str) -> Delivery:
    """Make a change under streams in both directions, which must survive it; what became of a probe's datagrams."""
    one, other = fabric.containers[:2]
    near, far = address(one, version), address(other, version)
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


def test_a_stream_survives_other_switches(fabric: Fabric, version: int) -> None:
    _, _, first, second = fabric.hosts

    def change() -> None:
        for _ in range(3):
            for switches in ((first, second), (second,), (first, second), (first,)):
                use(fabric, *switches)
                time.sleep(0.05)

    assert undisturbed(fabric, version, change, "12 changes of switches").lost <= 50


def test_a_stream_survives_the_way_from_switched_to_direct_and_back(fabric: Fabric, version: int) -> None:
    h1, h2 = fabric.hosts[:2]

    def change() -> None:
        for _ in range(5):
            fabric.inform(h1, h2)
            time.sleep(0.05)
            for host in (h1, h2):
                host.agent.endpoints.sync([])
            time.sleep(0.05)

    assert undisturbed(fabric, version, change, "10 changes between direct and switched").lost <= 50


def test_a_stream_survives_a_switch_that_goes_and_comes(fabric: Fabric, version: int) -> None:
    first = fabric.hosts[2]

    def change() -> None:
        for _ in range(3):
            mz.TransitSwitch.open(first.agent).detach()  # the guard goes on with it
            time.sleep(0.05)
            fabric.switch(first)
            time.sleep(0.05)

    assert (
        undisturbed(fabric, version, change, "program of the switch taken off and put on, 3 times").lost <= 50
    )


# -- moving ------------------------------------------------------------------------------------------------


def move(fabric: Fabric, which: int, to: Host) -> Container:
    """Move an endpoint with its namespace, and tell the switches."""
    moved = fabric.move(fabric.containers[which], to)
    fabric.inform(*fabric.hosts[2:])
    fabric.containers.insert(which, fabric.containers.pop())
    return moved


def test_a_stream_of_an_endpoint_that_moves_with_its_namespace_survives(fabric: Fabric, version: int) -> None:
    h1, h2 = fabric.hosts[:2]

    def change() -> None:
        for home in (h1, h2):  # to the peer's own host, and back
            move(fabric, 1, home)
            time.sleep(0.5)

    undisturbed(fabric, version, change, "2 moves of the endpoint, with its namespace")
    common_tests(fabric.containers[0], fabric.containers[1], version)


def test_a_stream_between_others_does_not_notice_a_move(fabric: Fabric, version: int) -> None:
    h1, h2 = fabric.hosts[:2]

    def change() -> None:
        for home in (h2, h1):
            move(fabric, 2, home)
            common_tests(fabric.containers[0], fabric.containers[2], version)

    assert undisturbed(fabric, version, change, "2 moves of another endpoint").lost <= 50


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
def test_t43_streams_survive_another_mac_of_the_nic(fabric: Fabric, version: int, which: int) -> None:
    host, name = fabric.hosts[which], ("", "host", "switch")[which]
    if name == "switch":  # it has nothing to say of its own
        tell_neighbours(host)
    undisturbed(
        fabric,
        version,
        lambda: replace_mac(host, "02:11:22:33:44:55"),
        f"another MAC of the NIC of the {name}",
    )
    common_tests(fabric.containers[0], fabric.containers[1], version)
