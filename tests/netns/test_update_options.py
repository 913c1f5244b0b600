# SPDX-License-Identifier: Apache-2.0
"""MTU, device's name, forwarding, trust and labels of an endpoint are changed while it is in use."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._datapath.endpoints import LocalEndpoints
from mizarnet._model.codec import Record
from tests.support.tables import contents
from tests.support.traffic import assert_ping
from tests.support.wait import wait_until
from tests.world import Container, World, total

LABELS = {"app": "web", "tier": ""}
RENAMES = tuple(map(int, platform.release().split(".")[:2])) >= (6, 2)


def test_each_option_changes_is_named_and_stays(world: World, web: Container) -> None:
    endpoint, agent = web.endpoint, web.host.agent
    far = world.container(world.hosts[1], 7, "10.0.0.2/24")
    changes: list[dict[str, Any]] = [
        {"mtu": 1300},
        {"forwarding": True},
        {"trust_user_namespace": True},
        {"labels": LABELS},
        {"forwarding": False, "trust_user_namespace": False},
        {"ip": ["10.0.0.1/24", "10.0.0.9/24"], "mtu": 1400, "labels": None},
    ]
    if RENAMES:
        changes.append({"ifname": "net1"})
    for change in changes:
        assert endpoint.update(**change) == tuple(change), change
        assert endpoint.update(**change) == ()
        assert mz.Endpoint.open(agent, endpoint.name).spec == endpoint.spec
        assert endpoint.check() == []
        assert_ping(far.namespace, web.ip)
    assert (endpoint.state().mtu, endpoint.spec.labels) == (1400, {})
    assert endpoint.update(mtu=None) == ("mtu",)
    assert endpoint.state().mtu == web.host.tunnel.mtu


def test_an_mtu_that_was_asked_for_stays_when_the_tunnels_grows(world: World, web: Container) -> None:
    endpoint, tunnel = web.endpoint, web.host.tunnel
    full = tunnel.mtu
    assert endpoint.update(mtu=full) == ("mtu",)  # the same number, asked for from now on
    assert endpoint.update(mtu=None) == ("mtu",)
    assert endpoint.update(mtu=1300) == ("mtu",)
    tunnel.update(mtu=1350)
    tunnel.update(mtu=full)
    assert endpoint.state().mtu == 1300


def test_forwarding_that_was_taken_away_is_refused_at_once(world: World) -> None:
    router = world.container(world.hosts[0], 7, "10.0.0.1/24", forwarding=True)
    far = world.container(world.hosts[1], 7, "10.0.0.2/24")
    router.namespace.run("ip", "address", "add", "192.168.0.1/32", "dev", "lo")
    send = ("ping", "-c", "1", "-W", "1", "-I", "192.168.0.1", far.ip)

    def refused() -> int:
        before = total(world.hosts, "agent", Verdict.FOREIGN_SOURCE)
        with pytest.raises(Exception):  # noqa: B017  nobody answers to that address
            router.namespace.run(*send)
        return total(world.hosts, "agent", Verdict.FOREIGN_SOURCE) - before

    assert refused() == 0
    router.endpoint.update(forwarding=False)
    assert refused() > 0


def test_what_cannot_change_and_what_does_not_fit_changes_nothing(world: World, web: Container) -> None:
    endpoint = web.endpoint
    before = mz.Endpoint.open(web.host.agent, "web").spec
    for name, value in (
        ("vni", 8), ("kind", "macvtap"), ("mac", "02:00:00:00:00:09"), ("name", "x"), ("netns", "y"),
        ("default_route", "never"),
    ):  # fmt: skip
        with pytest.raises(mz.InvalidValueError, match="delete and create") as told:
            endpoint.update(**{name: value})
        assert told.value.argument == name
    with pytest.raises(mz.MtuError):
        endpoint.update(mtu=web.host.tunnel.mtu + 1, labels=LABELS)
    with pytest.raises(mz.ExistsError, match="has a device lo"):
        endpoint.update(ifname="lo", labels=LABELS)
    with pytest.raises(mz.InvalidValueError, match="128"):
        endpoint.update(labels={"a": "x" * 126})
    assert mz.Endpoint.open(web.host.agent, "web").spec == before
    assert endpoint.update(labels={"a": "x" * 125}) == ("labels",)


def test_addresses_that_do_not_fit_in_leave_all_the_rest_as_it_was() -> None:
    """A larger MTU comes before them."""
    with World("vxlan", hosts=1, max_local=2, max_endpoints=4) as world:
        web = world.container(world.hosts[0], 7, "10.0.0.1/24", name="web")
        ips = [f"10.0.0.{n}/24" for n in range(1, 6)]
        for mtu, larger in ((1300, 1400), (1300, None), (None, None)):
            web.endpoint.update(mtu=mtu)
            if mtu is None:
                web.namespace.run("ip", "link", "set", "eth0", "mtu", "1300")
            before = web.endpoint.state(), web.endpoint.spec
            with unchanged_but_time(web), pytest.raises(mz.CapacityError):
                web.endpoint.update(ip=ips, mtu=larger, labels=LABELS, forwarding=True)
            assert (web.endpoint.state(), mz.Endpoint.open(web.host.agent, "web").spec) == before


@contextmanager
def unchanged_but_time(container: Container) -> Iterator[None]:
    """The maps are as before, but for the time at which the record was written."""

    def look() -> object:
        maps = contents(container.host.agent)
        return {key: Record.unpack(data) for key, data in maps.pop("records").items()}, maps

    before = look()
    yield
    assert look() == before


def test_an_update_makes_room_as_a_create_does() -> None:
    """Of endpoints whose containers ended without a word."""
    with World("vxlan", hosts=1, max_local=4, max_endpoints=4) as world:
        web = world.container(world.hosts[0], 7, "10.0.0.1/24", name="web")
        gone = world.container(world.hosts[0], 7, ("10.0.0.2/24", "10.0.0.3/24"), name="gone")
        gone.namespace.delete()
        wait_until(lambda: [each.name for each in mz.Endpoint.list(world.hosts[0].agent)] == ["web"])
        ips = [f"10.0.0.{n}/24" for n in (1, 4, 5, 6)]
        assert web.endpoint.update(ip=ips, mtu=1300) == ("ip", "mtu")
        assert web.endpoint.check() == []


def test_labels_are_shown(world: World) -> None:
    container = world.container(world.hosts[0], 7, "10.0.0.1/24", name="web", labels=LABELS)
    agent = world.hosts[0].agent
    assert container.endpoint.labels == container.endpoint.state().labels == LABELS
    (listed,) = mz.Endpoint.list(agent)
    assert listed.labels == LABELS
    assert listed.to_dict()["spec"]["labels"] == LABELS
    every = mz.Endpoint.stats_all(world.hosts[0].agent)["web"]
    assert container.endpoint.stats().labels == every.labels == every.to_dict()["labels"] == LABELS
    assert "app web" in mz.Endpoint.list(agent)._repr_html_()  # type: ignore[attr-defined]
    prometheus = pytest.importorskip("prometheus_client")
    from mizarnet.metrics import Collector

    registry = prometheus.CollectorRegistry()
    registry.register(Collector(agent))
    text = prometheus.generate_latest(registry).decode()
    assert 'label_app="web"' in text
    mz.Endpoint.open(world.hosts[0].agent, "web").update(labels={"a": "c"})
    assert container.endpoint.stats().labels == {"a": "c"}, "as they are now"


def test_a_device_that_its_container_renamed_hinders_no_change(web: Container) -> None:
    endpoint, inside = web.endpoint, web.namespace.run
    for argv in (["set", "eth0", "down"], ["set", "eth0", "name", "net0"], ["set", "net0", "up"]):
        inside("ip", "link", *argv)
    inside("ip", "link", "add", "eth0", "type", "bridge")
    assert endpoint.update(forwarding=True, labels=LABELS) == ("forwarding", "labels")
    assert endpoint.update(ip="10.0.0.5/24", mtu=1300) == ("ip", "mtu")
    (found,) = endpoint.check()
    assert "renamed to net0" in str(found)
    assert "10.0.0.5/24" in inside("ip", "address", "show", "dev", "net0")
    with pytest.raises(mz.ExistsError, match="has a device eth0"):
        endpoint.update(ifname="eth0")


def test_addresses_and_mtu_are_judged_together(web: Container) -> None:
    endpoint, full = web.endpoint, web.host.tunnel.mtu
    both = ["10.0.0.1/24", "fd00::1/64"]
    fitting: list[dict[str, Any]] = [
        {"ip": both}, {"ip": "10.0.0.1/24", "mtu": 1200}, {"ip": both, "mtu": None},
    ]  # fmt: skip
    for change in fitting:
        assert endpoint.update(**change) == tuple(change), change
        assert endpoint.check() == []
    assert endpoint.state().mtu == full
    endpoint.update(ip="10.0.0.1/24", mtu=1200)
    unfit: list[dict[str, Any]] = [{"ip": both}, {"ip": both, "mtu": 1279}]
    for change in unfit:
        with pytest.raises(mz.InvalidValueError):
            endpoint.update(**change)
    assert mz.Endpoint.open(web.host.agent, "web").spec == endpoint.spec
    assert endpoint.check() == []


def test_an_mtu_that_cannot_be_given_is_not_noted(web: Container) -> None:
    endpoint, space = web.endpoint, web.namespace
    changes: list[dict[str, Any]] = [{"mtu": 1300}, {"mtu": 1300, "labels": LABELS}]
    with open(f"/run/netns/{space.name}", "rb"):  # which keeps it, without its name
        subprocess.run(["ip", "netns", "delete", space.name], check=True, timeout=30)
        for change in changes:
            with pytest.raises(mz.NetnsNotFoundError):
                endpoint.update(**change)
            assert mz.Endpoint.open(web.host.agent, "web").spec == endpoint.spec
        assert endpoint.update(labels=LABELS) == ("labels",)
        assert endpoint.check() == []


def test_what_another_update_changed_since_does_not_come_back(web: Container) -> None:
    endpoint, agent = web.endpoint, web.host.agent
    endpoint.update(ip=["10.0.0.1/24", "10.0.0.2/24"], mtu=1300)
    record = endpoint._record
    other = mz.Endpoint.open(agent, "web")
    other.update(ip="10.0.0.1/24", mtu=1350)
    # As a call that is on its way between its change and its look at the device.
    LocalEndpoints.of(agent._datapath).complete_device(record)
    state = endpoint.state()
    assert (state.mtu, [*map(str, state.addresses)]) == (1350, ["10.0.0.1/24"])
    web.namespace.run("ip", "address", "flush", "dev", "eth0", "scope", "global")
    LocalEndpoints.of(agent._datapath).complete_device(record)
    assert other.check() == []
