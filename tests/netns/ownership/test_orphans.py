# SPDX-License-Identifier: Apache-2.0
"""A device on our tunnel without a record blocks nobody, and what is written into an alias decides nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import mizarnet as mz
from mizarnet._kernel.netlink import Session, get_link, set_link
from mizarnet._model import codec
from tests.support.agreement import disagreements
from tests.support.traffic import assert_ping
from tests.world import Container, World, links


@pytest.fixture
def db(world: World) -> Container:
    return world.container(world.hosts[0], 7, "10.0.0.2/24")


def lose_the_record(web: Container) -> None:
    assert web.host.agent._datapath.maps.records.delete(codec.record_key("web"))


def alias_of(container: Container) -> str:
    with Session.open(container.namespace.name) as session:
        link = get_link(session, container.endpoint.ifname)
        assert link is not None
        return link.alias


def set_alias(container: Container, alias: str) -> None:
    with Session.open(container.namespace.name) as session:
        link = get_link(session, container.endpoint.ifname)
        assert link is not None
        set_link(session, link.ifindex, alias=alias)


def test_the_device_carries_the_instance(web: Container, db: Container) -> None:
    marks = {alias_of(web), alias_of(db)}
    assert len(marks) == 2
    assert alias_of(web) == f"mizarnet endpoint={web.endpoint._record.instance:016x}"


MARKS: dict[str, Callable[[Container, Container], str]] = {
    "as it was": lambda web, _: alias_of(web),
    "erased": lambda *_: "",
    "of a live endpoint": lambda _, db: alias_of(db),
    "of nobody": lambda *_: "mizarnet endpoint=0000000000000001",
}


@pytest.mark.parametrize("mark", MARKS)
def test_an_orphan_is_replaced_whatever_its_mark_says(web: Container, db: Container, mark: str) -> None:
    agent, spec = web.host.agent, web.endpoint.spec
    set_alias(web, MARKS[mark](web, db))
    lose_the_record(web)
    assert [each.name for each in mz.Endpoint.list(agent, dead=True)] == [db.endpoint.name]
    again = mz.Endpoint.create(agent, spec)
    assert again.created
    assert_ping(web.namespace, db.ip)
    assert disagreements(agent, [web.namespace.name, db.namespace.name]) == []


@pytest.mark.parametrize("mark", MARKS)
def test_a_live_endpoint_stays_whatever_its_mark_says(web: Container, db: Container, mark: str) -> None:
    agent = web.host.agent
    set_alias(web, MARKS[mark](web, db))
    assert not mz.Endpoint.create(agent, web.endpoint.spec).created
    db.endpoint.delete()
    assert [each.name for each in mz.Endpoint.list(agent)] == ["web"]
    with pytest.raises(mz.ExistsError, match="belongs to endpoint 'web'"):
        mz.Endpoint.create(agent, name="other", vni=7, ip="10.0.0.9/24", mac=web.endpoint.mac, ifname="e9")
    with pytest.raises(mz.ExistsError, match="has a device eth0"):
        mz.Endpoint.create(agent, name="other", vni=7, ip="10.9.0.9/24", netns=web.namespace.name)
    assert web.endpoint.state().life is mz.Life.LIVE
    assert disagreements(agent, [web.namespace.name, db.namespace.name]) == []


def test_an_orphan_in_another_namespace_gives_its_mac_back(web: Container, world: World) -> None:
    agent, elsewhere = web.host.agent, world.namespace("elsewhere")
    lose_the_record(web)
    spec = mz.EndpointSpec(
        name="other", vni=7, ip="10.0.0.1/24", mac=web.endpoint.mac, netns=elsewhere.name, ifname="eth0"
    )
    assert mz.Endpoint.create(agent, spec).created
    assert links(web.namespace) == ["lo"]
    assert disagreements(agent, [web.namespace.name, elsewhere.name]) == []


def test_a_device_that_only_has_the_name_is_left_alone(world: World) -> None:
    agent, namespace = world.hosts[0].agent, world.namespace("own")
    namespace.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far")
    with pytest.raises(mz.ExistsError, match="has a device eth0"):
        mz.Endpoint.create(agent, name="web", vni=7, ip="10.0.0.1/24", netns=namespace.name)
    assert sorted(links(namespace)) == ["eth0", "far", "lo"]
    assert mz.Endpoint.list(agent, dead=True) == []


def test_the_index_of_a_lost_record_is_found_when_room_is_needed(web: Container, world: World) -> None:
    agent = web.host.agent
    lose_the_record(web)
    room, namespace = agent.capacity.max_local, world.namespace("crowd")
    slots = agent._datapath.maps.slots
    taken = {key for key, _ in slots.items()}
    held = bytes(slots.value_size)
    for index in range(room):
        if codec.u32(index) not in taken:
            slots.update(codec.u32(index), held)
    assert mz.Endpoint.create(agent, vni=7, ip="10.0.0.9/24", netns=namespace.name).created
