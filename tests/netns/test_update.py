# SPDX-License-Identifier: Apache-2.0
"""Addresses, gateways and routes of an endpoint are changed while it is in use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_interface
from typing import Any

import attrs
import pytest

import mizarnet as mz
from mizarnet import KEEP, Verdict
from mizarnet._datapath.endpoints import configuration, entries, items
from mizarnet._kernel.netlink import Session, add_address, delete_address
from mizarnet._model.codec import Record
from tests.frames import BROADCAST, arp, datagram, ethernet
from tests.support.agreement import disagreements
from tests.support.depth import some
from tests.support.flow import Probe, Stream
from tests.support.icmp import echo
from tests.support.process import in_child
from tests.support.tables import contents, unchanged
from tests.support.traffic import assert_no_ping, assert_ping
from tests.world import Container, World, total

FIRST, OTHER = ("10.0.0.1/24", "10.0.0.11/24", "fd00::1/64"), ("10.0.0.2/24", "10.0.0.11/24", "10.1.0.1/16")


def _texts(endpoint: mz.Endpoint) -> list[str]:
    return [str(each) for each in endpoint.addresses]


def _assert_whole(container: Container, ip: tuple[str, ...], *others: Container) -> None:
    """Handle, record, tables and device say the same."""
    endpoint, agent = container.endpoint, container.host.agent
    assert sorted(_texts(endpoint)) == sorted(ip)
    assert mz.Endpoint.open(agent, endpoint.name).spec == endpoint.spec
    assert sorted(map(str, endpoint.state().addresses)) == sorted(ip)
    slot = endpoint._record.slot
    entries_of_it = {
        str(key.ip) for key, each in agent.endpoints.items() if getattr(each, "slot", None) == slot
    }
    assert entries_of_it == {each.partition("/")[0] for each in ip}
    assert disagreements(agent, [each.namespace.name for each in (container, *others)]) == []


@contextmanager
def _unchanged(container: Container) -> Iterator[None]:
    """The maps, but for the time of the last change, and the device are afterwards as they were before."""

    def look() -> Any:
        maps = contents(container.host.agent)
        records = {key: Record.unpack(data) for key, data in maps.pop("records").items()}
        return maps, records, container.endpoint.state()

    before = look()
    yield
    assert look() == before


@pytest.fixture
def many(world: World) -> Container:
    """A container on the first of two new hosts, with three addresses."""
    return world.container(world.hosts[0], 7, FIRST, name="web")


def test_what_changed_is_named(many: Container) -> None:
    endpoint = many.endpoint
    assert endpoint.update() == ()
    assert endpoint.update(ip=KEEP, gateway=KEEP, routes=KEEP) == ()
    assert endpoint.update(ip=[FIRST[2], *FIRST[:2]], gateway=(), routes=[]) == ()
    assert endpoint.update(ip=OTHER) == ("ip",)
    assert endpoint.update(ip=OTHER, gateway="10.0.0.254") == ("gateway",)
    routes = [mz.Route("10.9.0.0/16", "10.1.0.2")]
    assert endpoint.update(ip=FIRST, routes=routes) == ("ip", "routes")
    assert endpoint.spec.routes == tuple(routes)
    assert endpoint.update(ip=FIRST, gateway=(), routes=()) == ("gateway", "routes")
    _assert_whole(many, FIRST)


@pytest.mark.vm
def test_addresses_come_and_leave(world: World, many: Container) -> None:
    far = world.container(world.hosts[1], 7, ("10.0.0.3/24", "10.1.0.3/16", "fd00::3/64"))
    steps = [OTHER, FIRST, ("fd00::9/64",), ("10.0.0.1/25", "fd00::9/48"), ("10.0.0.1/24", "fd00::9/64")]
    for ip in steps:
        before = set(_texts(many.endpoint))
        assert many.endpoint.update(ip=ip) == ("ip",)
        world.tell(many)
        _assert_whole(many, ip)
        for each in ip:
            assert echo(far.namespace, each.partition("/")[0]), f"{each} does not answer after {before}"
    many.endpoint.delete()
    assert contents(many.host.agent)["items"] == contents(many.host.agent)["addresses"] == {}


def test_an_address_that_left_is_refused_at_once_and_free(world: World, many: Container) -> None:
    host = many.host
    far = world.container(world.hosts[1], 7, "10.0.0.3/24")
    assert_ping(far.namespace, "10.0.0.11")
    many.endpoint.update(ip=["10.0.0.1/24", "10.0.0.12/24"])
    assert_no_ping(far.namespace, "10.0.0.11")
    with Session.open(many.namespace.name) as session:  # its root may put it there again
        add_address(session, many.endpoint.ifindex, ip_interface("10.0.0.11/32"))
    before = total([host], "agent", Verdict.FOREIGN_SOURCE), total([host], "agent", Verdict.ARP_SPOOFED)
    with many.packet_socket() as raw:
        for frame in (
            datagram(many.mac, "10.0.0.11", far.ip, destination_mac=bytes(6)),
            ethernet(BROADCAST, many.mac, 0x0806, arp(many.mac, "10.0.0.11", "10.0.0.11")),
        ):
            with suppress(OSError):
                raw.send(frame)
    after = total([host], "agent", Verdict.FOREIGN_SOURCE), total([host], "agent", Verdict.ARP_SPOOFED)
    assert after == (before[0] + 1, before[1] + 1)
    heir = world.container(host, 7, "10.0.0.11/24")
    assert_ping(far.namespace, "10.0.0.11")
    assert mz.Endpoint.open(host.agent, vni=7, ip="10.0.0.11").name == heir.endpoint.name


def _swap(kept: list[str], number: int) -> list[str]:
    """Addresses that stay, with another first one and other further ones each time."""
    return [
        f"10.0.0.{150 + number % 3}/24",
        *kept,
        *(f"10.0.0.{160 + (number + n) % 9}/24" for n in range(4)),
    ]


@pytest.mark.parametrize("promote", [0, 1])
def test_nothing_is_lost_on_addresses_that_stay(world: World, promote: int) -> None:
    """Sixty-four addresses, of which the first one, which is the primary one of the device, is another each time."""
    kept = [f"10.0.0.{n}/24" for n in range(1, 60)] + [f"fd00::{n:x}/64" for n in range(1, 5)]
    many = world.container(world.hosts[0], 7, (*_swap(kept, 0),))
    many.namespace.set(**{"ipv4/conf/eth0/promote_secondaries": promote})
    near = world.container(world.hosts[0], 7, ("10.0.0.201/24", "fd00::201/64"))
    far = world.container(world.hosts[1], 7, ("10.0.0.202/24", "fd00::202/64"))
    with ExitStack() as flows:
        probes = [
            flows.enter_context(Probe(near.namespace, many.namespace, "10.0.0.1", near=near.ip)),
            flows.enter_context(Probe(many.namespace, near.namespace, near.ip, near="10.0.0.2")),
            flows.enter_context(Probe(far.namespace, many.namespace, "10.0.0.59", near=far.ip)),
            flows.enter_context(Probe(many.namespace, far.namespace, far.ip, near="10.0.0.1")),
            flows.enter_context(Probe(many.namespace, far.namespace, "fd00::202", near="fd00::2")),
        ]
        with Stream(far.namespace, many.namespace, "10.0.0.30") as stream:
            for number in range(1, 13):
                assert many.endpoint.update(ip=_swap(kept, number)) == ("ip",)
            stream.goes_on()
        found = [probe.result() for probe in probes]
    assert [(each.lost, each.refused) for each in found] == [(0, 0)] * len(found)
    assert min(each.sent for each in found) > 100
    _assert_whole(many, (*_swap(kept, 12),), near)


def test_gateways_and_routes_come_and_leave(world: World, many: Container) -> None:
    host = many.host

    def routes() -> set[tuple[str, str]]:
        found = many.endpoint.state().routes or ()
        return {(str(each.prefix), str(each.gateway)) for each in found if each.gateway}

    assert many.endpoint.update(gateway=["10.0.0.254", "fe80::1"]) == ("gateway",)
    assert routes() == {("0.0.0.0/0", "10.0.0.254"), ("::/0", "fe80::1")}
    assert echo(many.namespace, "10.0.0.254")
    many.endpoint.update(gateway="10.0.0.253", routes=[mz.Route("10.9.0.0/16", "10.0.0.2")])
    assert routes() == {("0.0.0.0/0", "10.0.0.253"), ("10.9.0.0/16", "10.0.0.2")}
    assert echo(many.namespace, "10.0.0.253")
    many.endpoint.update(routes=[mz.Route("10.9.0.0/16", "10.0.0.3"), mz.Route("fd09::/64", "fd00::2")])
    assert routes() == {("0.0.0.0/0", "10.0.0.253"), ("10.9.0.0/16", "10.0.0.3"), ("fd09::/64", "fd00::2")}
    host.agent.networks[7, "10.0.0.0/24"] = mz.Network(gateway="10.0.0.252")
    many.endpoint.update(gateway=None, routes=())
    assert routes() == {("0.0.0.0/0", "10.0.0.252")}
    many.endpoint.update(gateway=())
    assert routes() == set()
    _assert_whole(many, FIRST)


def test_a_default_route_of_the_container_stays(world: World, many: Container) -> None:
    many.namespace.run("ip", "route", "add", "default", "via", "10.0.0.77")
    with _unchanged(many), pytest.raises(mz.ExistsError, match="default route"):
        many.endpoint.update(gateway="10.0.0.254")
    many.host.agent.networks[7, "10.0.0.0/24"] = mz.Network(gateway="10.0.0.252")
    assert many.endpoint.update(gateway=None) == ("gateway",)
    many.endpoint.update(gateway=())
    assert "default via 10.0.0.77" in many.namespace.run("ip", "route")


def test_the_same_call_gives_back_what_was_lost(many: Container) -> None:
    with Session.open(many.namespace.name) as session:
        delete_address(session, many.endpoint.ifindex, ip_interface("10.0.0.11/24"))
    assert many.endpoint.update(ip=FIRST) == ()
    _assert_whole(many, FIRST)


# -- refused


def _taken_here(world: World, _: Container) -> None:
    world.container(world.hosts[0], 7, ("10.0.0.5/24", "10.0.0.2/24"), name="other")


def _route_taken(_: World, many: Container) -> None:
    many.namespace.run("ip", "route", "add", "10.9.0.0/16", "via", "10.0.0.77")


@pytest.mark.parametrize(
    ("arrange", "error", "given"),
    [
        (_taken_here, mz.ExistsError, {"ip": OTHER}),
        (_route_taken, mz.ExistsError, {"ip": OTHER, "routes": [mz.Route("10.9.0.0/16", "10.0.0.3")]}),
        (None, mz.InvalidValueError, {"ip": "10.0.0.1/24", "gateway": "fd00::2"}),
        (None, mz.InvalidValueError, {"gateway": "10.0.0.11"}),
        (None, mz.InvalidValueError, {"routes": [mz.Route("10.0.0.0/24", "10.0.0.2")]}),
        (None, mz.InvalidValueError, {"ip": []}),
        (None, mz.CapacityError, {"ip": [f"10.{n >> 8}.{n & 255}.1/8" for n in range(17000)]}),
    ],
)
def test_an_error_leaves_everything_as_it_was(
    world: World,
    many: Container,
    arrange: Callable[[World, Container], None] | None,
    error: type[mz.MizarnetError],
    given: dict[str, Any],
) -> None:
    if arrange:
        arrange(world, many)
    with _unchanged(many), pytest.raises(error):
        many.endpoint.update(**given)
    assert sorted(_texts(many.endpoint)) == sorted(FIRST)


def test_an_endpoint_that_is_gone_is_not_changed(world: World, many: Container) -> None:
    other = mz.Endpoint.open(many.host.agent, "web")
    many.endpoint.delete()
    with unchanged(many.host.agent), pytest.raises(mz.EndpointNotFoundError):
        other.update(ip=OTHER)


# -- a process that dies in between


_STEPS = [
    *((entries, name) for name in ("rewrite", "claim_address", "write_endpoints", "write_sender")),
    *((items, name) for name in ("write", "remove")),
    *(
        (configuration, name)
        for name in ("give_new_addresses", "give_route", "take_routes", "take_addresses")
    ),
]
_ROUTES = [mz.Route("10.9.0.0/16", "10.0.0.2"), mz.Route("10.7.0.0/16", "10.0.0.2")]
_GIVEN: dict[str, Any] = {
    "ip": OTHER,
    "gateway": "10.0.0.254",
    "routes": [mz.Route("10.9.0.0/16", "10.0.0.3"), mz.Route("10.8.0.0/16", "10.0.0.4")],
}


_CUTS = some([(*step, times) for step in _STEPS for times in range(3)], 3)


@pytest.mark.parametrize(("module", "name", "times"), _CUTS, ids=[f"{each[1]} {each[2]}" for each in _CUTS])
def test_a_change_that_was_cut_off_is_ended_by_the_next_call(
    many: Container, module: Any, name: str, times: int
) -> None:
    """Every step of it is the last one that the process did, or would do next."""
    many.endpoint.update(routes=_ROUTES)
    original = many.endpoint.spec
    changed = attrs.evolve(original, **_GIVEN)
    agent = many.host.agent
    for end in (_same_call, _way_back, _created_again):
        _cut_off(many, module, name, times)
        assert mz.Endpoint.open(agent, "web").spec in (original, changed)
        found = end(many, original)
        assert found.spec in (original, changed)
        ours = Container(many.host, many.namespace, found)
        _assert_whole(ours, (*_texts(found),))
        wanted = {*found.spec.routes, *(mz.Route("0.0.0.0/0", each) for each in found.spec.gateway or ())}
        assert {each for each in found.state().routes or () if each.gateway} == wanted
        _way_back(many, original)
    _cut_off(many, module, name, times)
    mz.Endpoint.delete_many(agent, ["web"])
    left = contents(agent)
    assert [left[table] for table in ("items", "addresses", "senders", "endpoints")] == [{}] * 4


def _cut_off(many: Container, module: Any, name: str, times: int) -> None:
    """A process changes the endpoint, and ends when it comes to a step, or after it was there a few times."""
    whole, left = getattr(module, name), [times]

    def cut(*args: Any, **kwargs: Any) -> Any:
        if not left[0]:
            os._exit(0)
        left[0] -= 1
        return whole(*args, **kwargs)

    def change() -> None:
        setattr(module, name, cut)
        agent = mz.TransitAgent.open(many.host.tunnel.name, netns=many.host.namespace.name)
        mz.Endpoint.open(agent, "web").update(**_GIVEN)

    in_child(change)


def _same_call(many: Container, _: mz.EndpointSpec) -> mz.Endpoint:
    found = mz.Endpoint.open(many.host.agent, "web")
    found.update(**_GIVEN)
    assert found.spec == attrs.evolve(found.spec, **_GIVEN)
    return found


def _way_back(many: Container, original: mz.EndpointSpec) -> mz.Endpoint:
    found = mz.Endpoint.open(many.host.agent, "web")
    found.update(ip=original.ip, gateway=original.gateway, routes=original.routes)
    assert found.spec == original
    return found


def _created_again(many: Container, _: mz.EndpointSpec) -> mz.Endpoint:
    spec = mz.Endpoint.open(many.host.agent, "web").spec
    found = mz.Endpoint.create(many.host.agent, spec)
    assert not found.created
    return found
