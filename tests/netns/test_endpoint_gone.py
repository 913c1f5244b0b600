# SPDX-License-Identifier: Apache-2.0
"""Endpoints are found again while they exist, and gone when they do not."""

from __future__ import annotations

import pytest

import mizarnet as mz
from tests.support.process import run_python
from tests.support.tables import contents, unchanged
from tests.support.topology import Container, World, links
from tests.support.traffic import assert_no_ping, assert_ping
from tests.support.wait import wait_until


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
    assert_no_ping(neighbour.namespace, web.ip)
    heir = world.namespace("heir")
    taken = mz.Endpoint.create(agent, name="web", vni=7, ip="10.0.0.1/24", netns=heir.name)
    assert taken.created
    assert_ping(neighbour.namespace, web.ip)


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
