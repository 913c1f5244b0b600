# SPDX-License-Identifier: Apache-2.0
"""Endpoints are found again while they exist, and gone when they do not."""

from __future__ import annotations

import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._model import codec
from tests.support.counting import counted, refused
from tests.support.process import run_python
from tests.support.tables import contents, unchanged
from tests.support.traffic import Capture, assert_no_ping, assert_ping, ping
from tests.support.wait import wait_until
from tests.world import Container, World, links, quiet


def test_open_by_name_and_by_address(web: Container) -> None:
    agent = web.host.agent
    for found in (mz.Endpoint.open(agent, "web"), mz.Endpoint.open(agent, vni=7, ip="10.0.0.1")):
        assert found.spec == web.endpoint.spec
        assert not found.created


def test_what_does_not_exist_is_not_found(web: Container) -> None:
    agent = web.host.agent
    agent.endpoints[7, "10.0.0.9"] = mz.Remote("192.0.2.2")
    for call in (
        lambda: mz.Endpoint.open(agent, "bew"),
        lambda: mz.Endpoint.open(agent, vni=8, ip="10.0.0.1"),
        lambda: mz.Endpoint.open(agent, vni=7, ip="10.0.0.9"),
    ):
        with pytest.raises(KeyError):
            call()


# -- gone --------------------------------------------------------------------------------------------------


def test_deleting_leaves_no_trace(world: World) -> None:
    host, namespace = world.hosts[0], world.namespace("brief")
    with unchanged(host.agent):
        made = mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.1/24", netns=namespace.name)
        made.delete()
        made.delete()
    assert links(namespace) == ["lo"]
    with pytest.raises(mz.EndpointNotFoundError):
        made.state()
    with pytest.raises(mz.EndpointNotFoundError):
        made.stats()


def test_a_handle_of_an_older_life_touches_nothing(web: Container) -> None:
    agent = web.host.agent
    older = mz.Endpoint.open(agent, "web")
    older.delete()
    younger = mz.Endpoint.create(agent, web.endpoint.spec)
    older.delete()
    assert younger.state().up
    with pytest.raises(mz.EndpointNotFoundError):
        older.state()


def test_a_device_deleted_by_hand_counts_as_absent(web: Container) -> None:
    web.namespace.run("ip", "link", "delete", "eth0")
    assert mz.Endpoint.list(web.host.agent) == []
    with pytest.raises(
        mz.EndpointNotFoundError, match=r"not whole: its device eth0 is gone from .*create\(\)"
    ):
        mz.Endpoint.open(web.host.agent, web.endpoint.name)
    assert mz.Endpoint.create(web.host.agent, web.endpoint.spec).created


@pytest.mark.vm
def test_a_deleted_namespace_takes_its_endpoint_along(world: World, web: Container) -> None:
    agent = web.host.agent
    neighbour = world.container(web.host, 7, "10.0.0.2/24")
    assert_ping(neighbour.namespace, web.ip)
    web.namespace.delete()
    wait_until(lambda: "web" not in [each.name for each in mz.Endpoint.list(agent)])
    with pytest.raises(mz.EndpointNotFoundError):
        mz.Endpoint.open(agent, "web")
    # The kernel takes a namespace's number first, and its devices some time later.
    wait_until(lambda: not ping(neighbour.namespace, web.ip, timeout=0.5))
    heir = world.namespace("heir")
    taken = mz.Endpoint.create(agent, name="web", vni=7, ip="10.0.0.1/24", netns=heir.name)
    assert taken.created
    assert_ping(neighbour.namespace, web.ip)


def test_a_device_that_was_moved_away_stays_behind_and_reaches_nobody(world: World, web: Container) -> None:
    agent, elsewhere = web.host.agent, world.namespace("elsewhere")
    neighbour = world.container(web.host, 7, "10.0.0.2/24", name="neighbour")
    far = world.container(world.hosts[1], 7, "10.0.0.3/24")
    quiet(elsewhere)
    web.namespace.run("ip", "link", "set", "eth0", "netns", elsewhere.name)
    known = f"neigh replace {neighbour.ip} lladdr {neighbour.endpoint.mac} dev eth0"
    for change in (f"address add {web.ip}/24 dev eth0", "link set eth0 up", known):
        elsewhere.run("ip", *change.split())
    with Capture(elsewhere, "eth0") as moved:  # while there are records, it gets what is for the endpoint
        ping(neighbour.namespace, web.ip, timeout=0.5)
        moved.until(lambda frame: frame[:12] == web.mac + neighbour.mac)
    web.endpoint.delete()
    assert list(contents(agent)["records"]) == [codec.record_key("neighbour")]
    since = counted(agent, lambda: [assert_no_ping(each.namespace, web.ip) for each in (neighbour, far)])
    assert [program[Verdict.NO_DESTINATION].packets for program in (since.agent, since.guard)] == [1, 1]
    since = counted(agent, lambda: assert_no_ping(elsewhere, neighbour.ip))
    assert set(refused(since.agent)) == {Verdict.UNKNOWN_SENDER}
    with pytest.raises(mz.ExistsError, match="give another mac="):
        mz.Endpoint.create(agent, web.endpoint.spec)
    mz.Endpoint.create(agent, vni=7, ip=f"{web.ip}/24", netns=web.namespace.name, mac="02:00:00:00:00:99")
    assert_ping(neighbour.namespace, web.ip)
    web.host.tunnel.delete(force=True)
    assert links(elsewhere) == ["lo"]


def test_a_device_that_was_given_another_mac_stays_behind_and_reaches_nobody(
    world: World, web: Container
) -> None:
    agent, neighbour = web.host.agent, world.container(web.host, 7, "10.0.0.2/24", name="neighbour")
    assert_ping(web.namespace, neighbour.ip)
    web.namespace.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
    web.endpoint.delete()
    assert links(web.namespace) == ["lo", "eth0"]
    assert list(contents(agent)["records"]) == [codec.record_key("neighbour")]
    since = counted(agent, lambda: assert_no_ping(web.namespace, neighbour.ip))
    assert set(refused(since.agent)) == {Verdict.UNKNOWN_SENDER}


def test_another_name_may_take_the_address_of_what_is_gone(world: World, web: Container) -> None:
    agent = web.host.agent
    web.namespace.delete()
    wait_until(lambda: not mz.Endpoint.list(agent))
    heir = world.namespace("heir")
    mz.Endpoint.create(agent, name="heir", vni=7, ip="10.0.0.1/24", netns=heir.name)
    assert [each.name for each in mz.Endpoint.list(agent)] == ["heir"]
    assert len(contents(agent)["records"]) == 1


def test_another_process_deletes_it(web: Container) -> None:
    run_python(
        """
        with mz.TransitAgent.open("tunnel0", netns=sys.argv[1]) as agent:
            mz.Endpoint.open(agent, "web").delete()
        """,
        web.host.namespace.name,
    )
    assert links(web.namespace) == ["lo"]
    web.endpoint.delete()
