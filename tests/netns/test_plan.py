# SPDX-License-Identifier: Apache-2.0
"""A host becomes as its specification says, by exactly the changes that a plan shows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any

import attrs
import pytest

import mizarnet as mz
from mizarnet import hostspec
from mizarnet._datapath import lock
from mizarnet._kernel.bpf import has_tcx
from mizarnet._kernel.jobs import is_whole
from mizarnet._model.gateways import GatewaySpec
from mizarnet._model.specs import EndpointSpec, Network, Remote
from mizarnet.plan.endpoints import IN_PLACE
from tests.support.depth import depth, some
from tests.support.fleet import ADDRESSES, ALL, OWNER, Fleet, become
from tests.support.flow import Probe
from tests.support.outside import need_nftables
from tests.support.traffic import assert_ping
from tests.world import TUNNEL, UNDERLAY


def _told(plan: mz.Plan) -> list[tuple[str, str]]:
    return [(each.action, str(each.object)) for each in plan.changes]


def _both(fleet: Fleet) -> list[dict[str, Any]]:
    """Two hosts with an endpoint each, which know each other's."""
    nets = [{"vni": 7, "prefix": "10.0.0.0/24", "gateway": "10.0.0.254"}]
    return [
        fleet.spec(
            0,
            peers=["192.0.2.0/24"],
            networks=nets,
            endpoints=[fleet.endpoint("svc/web", "10.0.0.1/24")],
            remotes=[{"vni": 7, "ip": "10.0.0.2", "host": ADDRESSES[1]}],
        ),
        fleet.spec(
            1,
            peers=["192.0.2.0/24"],
            networks=nets,
            endpoints=[fleet.endpoint("svc/app", "10.0.0.2/24")],
            remotes=[{"vni": 7, "ip": "10.0.0.1", "host": ADDRESSES[0]}],
        ),
    ]


@pytest.mark.vm
def test_from_nothing_to_two_hosts_that_talk_in_the_order_of_the_plan(fleet: Fleet) -> None:
    told: list[tuple[int, int, str]] = []
    for host, data in zip(fleet.hosts, _both(fleet), strict=True):
        plan = become(host, data, progress=lambda done, total, each: told.append((done, total, str(each))))
        assert [each.object.kind for each in plan.changes] == [
            "tunnel",
            "agent",
            "peer",
            "network",
            "remote",
            "endpoint",
        ]
        assert all(each.action == "create" for each in plan.changes)
        assert told == [(number, 6, str(each)) for number, each in enumerate(plan.changes, 1)]
        told.clear()
        assert str(plan).endswith(" 6 to create.")
        assert len(plan.to_dict()["changes"]) == 6
        assert "svc/" in plan._repr_html_()
    assert_ping(fleet.inside["web"], "10.0.0.2")
    assert fleet.agent().endpoints.feed_of((7, "10.0.0.2")) == "plan:svc/"


# -- each field --------------------------------------------------------------------------------------------

BASE = {"mtu": 1400, "forwarding": False, "gateway": ["10.0.0.254"], "labels": {"a": "b"}}
OTHERS: dict[str, Any] = {
    "vni": 8,
    "ip": ["10.0.0.1/24", "10.0.0.8/24"],
    "ifname": "net1",
    "mac": "02:00:00:00:00:77",
    "kind": "macvtap",
    "gateway": ["10.0.0.253"],
    "default_route": "never",
    "routes": [{"prefix": "10.9.0.0/16", "gateway": "10.0.0.254"}],
    "mtu": 1300,
    "forwarding": True,
    "trust_user_namespace": True,
    "labels": {"a": "c"},
}
"""Another value of each field of an endpoint."""


def test_each_field_of_an_endpoint_that_differs_is_shown_and_undone(fleet: Fleet) -> None:
    assert OTHERS.keys() == {field.name for field in attrs.fields(EndpointSpec)} - {"name", "netns"}
    (host, _), endpoint = fleet.hosts, fleet.endpoint("svc/web", "10.0.0.1/24", **BASE)
    full = {
        **endpoint,
        "kind": "macvlan",
        "default_route": "always",
        "routes": [],
        "ifname": "eth0",
        "mac": "02:00:00:00:00:01",
        "trust_user_namespace": False,
    }
    spec = mz.HostSpec.from_dict(fleet.spec(endpoints=[full]))
    host.plan(spec, owner=OWNER).apply()
    for name, value in OTHERS.items():
        changed = {**full, name: value}
        if name == "kind":
            changed = {**changed, "netns": None, "routes": [], "gateway": []}
            changed.pop("netns")
        if name in IN_PLACE:
            given = {
                name: mz.HostSpec.from_dict({"endpoints": [changed]}).endpoints[0].__getattribute__(name)
            }  # type: ignore[index]
            mz.Endpoint.open(fleet.agent(), "svc/web").update(**given)
        else:
            mz.Endpoint.delete_many(fleet.agent(), ["svc/web"])
            (wish,) = mz.HostSpec.from_dict({"endpoints": [changed]}).endpoints or ()
            mz.Endpoint.create(fleet.agent(), wish)
        plan = host.plan(spec, owner=OWNER)
        action = "update" if name in IN_PLACE else "replace"
        assert _told(plan) == [(action, "endpoint svc/web")], (name, str(plan))
        (change,) = plan.changes
        assert name in change.wanted and name in change.found
        assert change.interrupts == (action == "replace")
        if action == "replace":
            left = plan.apply()
            assert left.left == (change,)
        assert plan.apply(allow=ALL)
        again = host.plan(spec, owner=OWNER)
        assert not again, (name, str(again))
        assert mz.Endpoint.open(fleet.agent(), "svc/web").check() == []


BY_HAND: dict[str, Callable[[Fleet], object]] = {
    "device down": lambda f: f.inside["web"].run("ip", "link", "set", "eth0", "down"),
    "address": lambda f: f.inside["web"].run("ip", "address", "flush", "dev", "eth0"),
    "default route": lambda f: f.inside["web"].run("ip", "route", "del", "default"),
    "MTU": lambda f: f.inside["web"].run("ip", "link", "set", "eth0", "mtu", "1000"),
    "MAC": lambda f: f.inside["web"].run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"),
    "device deleted": lambda f: f.inside["web"].run("ip", "link", "del", "eth0"),
    "tunnel down": lambda f: f.spaces[0].run("ip", "link", "set", TUNNEL, "down"),
    "tunnel's MTU": lambda f: f.spaces[0].run("ip", "link", "set", TUNNEL, "mtu", "1300"),
    "remote": lambda f: f.agent().endpoints.apply(
        {(7, "10.0.0.2"): mz.Remote("192.0.2.77")}, feed="plan:svc/"
    ),
    "remote removed": lambda f: f.agent().endpoints.apply({}, [(7, "10.0.0.2")], feed="plan:svc/"),
    "remote added": lambda f: f.agent().endpoints.apply(
        {(7, "10.0.0.9"): mz.Remote("192.0.2.2")}, feed="plan:svc/"
    ),
    "network": lambda f: f.agent().networks.apply(
        {(7, "10.0.0.0/24"): mz.Network("10.0.0.253")}, feed="plan:svc/"
    ),
    "network added": lambda f: f.agent().networks.apply({(9, "10.0.0.0/24"): mz.Network()}, feed="plan:svc/"),
    "peer": lambda f: f.agent().peers.apply([], ["192.0.2.0/24"], feed="plan:svc/"),
    "peer added": lambda f: f.agent().peers.apply(["203.0.113.0/24"], feed="plan:svc/"),
    "switch off": lambda f: mz.TransitSwitch.open(f.agent()).detach(),
    "forwarding": lambda f: f.spaces[0].set(**{f"ipv4/conf/{UNDERLAY}/forwarding": 0}),
    "tunnel moved": lambda f: f.agent().tunnel.update(mtu=1350),
}
"""What is done to a host by hand, each of which a plan shows and undoes."""


def test_whatever_is_changed_by_hand_is_shown_and_undone(fleet: Fleet) -> None:
    host, data = fleet.hosts[0], _both(fleet)[0]
    data["tunnel"]["mtu"] = 1450
    data["switch"] = {"mode": "generic"}
    become(host, data)
    spec = mz.HostSpec.from_dict(data)
    for name, deed in BY_HAND.items():
        deed(fleet)
        plan = host.plan(spec, owner=OWNER)
        assert plan, name
        assert plan.apply(allow=ALL), name
        again = host.plan(spec, owner=OWNER)
        assert not again, (name, str(again))
    assert_ping(fleet.inside["web"], "10.0.0.254")


def test_no_lock_that_the_exception_of_a_signal_could_leave_is_held_for_a_plan(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []

    def watched(*given: Any, **more: Any) -> Any:
        held.append(is_whole())
        return locked(*given, **more)

    host, data = fleet.hosts[0], _both(fleet)[0]
    become(host, data)
    locked = lock.locked
    monkeypatch.setattr(lock, "locked", watched)
    BY_HAND["device down"](fleet)
    become(host, data)
    assert len(held) > 3 and all(held)


def _make_tunnel(f: Fleet, **other: Any) -> None:
    """The tunnel again, with other arguments."""
    host = f.spaces[0].name
    mz.Tunnel.delete(TUNNEL, force=True, netns=host)
    given = {"encap": "vxlan", "underlay": UNDERLAY, "local": ADDRESSES[0], **other}
    with mz.Tunnel.create(TUNNEL, netns=host, **given) as tunnel:
        mz.TransitAgent.attach(tunnel, **_AGENT).close()


def _attach(f: Fleet, **other: Any) -> None:
    """The agent again, with other arguments."""
    agent = f.agent()
    agent.detach(force=True)
    mz.TransitAgent.attach(agent.tunnel, **{**_AGENT, **other}).close()


def _attach_switch(f: Fleet, **other: Any) -> None:
    mz.TransitSwitch.open(f.agent()).detach()
    mz.TransitSwitch.attach(f.agent(), **other)


def _set_network(f: Fleet, network: mz.Network) -> None:
    f.agent().networks.apply({(7, "10.3.0.0/16"): network}, feed="plan:svc/")


def _make_gateway(f: Fleet, **other: Any) -> None:
    mz.Gateway.delete_many(f.agent(), [7])
    mz.Gateway.create(f.agent(), **{**_GATEWAY, "publish": [mz.Publish(**_PORT)], **other})


def _publish(f: Fleet, **other: Any) -> None:
    mz.Gateway.open(f.agent(), vni=7).update(publish=[mz.Publish(**{**_PORT, **other})])


_AGENT: dict[str, Any] = {"hook": "tcx", "max_endpoints": 200, "max_local": 20, "shortcut": "off"}
_PORT: dict[str, Any] = {"protocol": "tcp", "port": 8080, "ip": "10.0.0.1", "to_port": 80}
_GATEWAY: dict[str, Any] = {"vni": 7, "egress": "wan0", "ip": "10.0.0.254/24", "name": "svc/out"}
_NOT_COMPARED = {"tunnel.name", "tunnel.netns", "gateway.vni", "gateway.forward_all_ipv6"}
"""Fields that an object is known by, of which another one is another object, and a permission."""
FIELDS: dict[str, tuple[str, Callable[[Fleet], object]]] = {
    "tunnel.encap": ("replace", lambda f: _make_tunnel(f, encap="geneve")),
    "tunnel.underlay": ("update", lambda f: f.agent().tunnel.update(underlay="nic2")),
    "tunnel.local": ("update", lambda f: f.agent().tunnel.update(local="192.0.2.7")),
    "tunnel.port": ("replace", lambda f: _make_tunnel(f, port=4799)),
    "tunnel.mtu": ("update", lambda f: f.agent().tunnel.update(mtu=1300)),
    "agent.hook": ("replace", lambda f: _attach(f, hook="clsact")),
    "agent.max_endpoints": ("replace", lambda f: _attach(f, max_endpoints=100)),
    "agent.max_local": ("replace", lambda f: _attach(f, max_local=10)),
    "agent.shortcut": ("update", lambda f: f.agent().update(shortcut="auto")),
    "switch.underlay": ("replace", lambda f: _attach_switch(f, underlay="nic2")),
    "switch.mode": ("replace", lambda f: _attach_switch(f, mode="native")),
    "network.gateway": ("update", lambda f: _set_network(f, mz.Network("10.3.0.2"))),
    "network.switches": ("update", lambda f: _set_network(f, mz.Network(switches=["192.0.2.9"]))),
    "network.via": ("update", lambda f: _set_network(f, mz.Network(via="10.0.0.2"))),
    "remote.host": ("update", BY_HAND["remote"]),
    "gateway.egress": ("replace", lambda f: _make_gateway(f, egress="wan1")),
    "gateway.ip": ("replace", lambda f: _make_gateway(f, ip="10.0.0.253/24")),
    "gateway.publish": ("update", lambda f: mz.Gateway.open(f.agent(), vni=7).update(publish=[])),
    "gateway.nat": ("update", lambda f: _make_gateway(f, nat=False, publish=[])),
    "gateway.host_access": ("update", lambda f: _make_gateway(f, host_access=True)),
    "gateway.name": ("replace", lambda f: _make_gateway(f, name="svc/exit")),
    "publish.protocol": ("update", lambda f: _publish(f, protocol="udp")),
    "publish.port": ("update", lambda f: _publish(f, port=8081)),
    "publish.ip": ("update", lambda f: _publish(f, ip="10.0.0.9")),
    "publish.to_port": ("update", lambda f: _publish(f, to_port=81)),
}
"""Another value of each field of what is no endpoint, by hand, and what a plan does about it."""


@pytest.mark.skipif(
    not has_tcx(), reason="this kernel has no tcx, and so no choice of hooks, and no shortcut"
)
def test_each_field_of_everything_else_that_differs_is_shown_and_undone(fleet: Fleet) -> None:
    need_nftables()
    classes = {
        "tunnel": hostspec.TunnelPart,
        "agent": hostspec.AgentPart,
        "switch": hostspec.SwitchPart,
        "network": Network,
        "remote": Remote,
        "gateway": GatewaySpec,
        "publish": mz.Publish,
    }
    all_fields = {f"{name}.{field}" for name, cls in classes.items() for field in attrs.fields_dict(cls)}
    assert all_fields - _NOT_COMPARED == FIELDS.keys()
    host, data = fleet.hosts[0], _both(fleet)[0]
    fleet.spaces[0].run("ip", "address", "add", "192.0.2.7/24", "dev", UNDERLAY)
    for one, other in (("nic2", "nic3"), ("wan0", "wan1")):
        fleet.spaces[0].run("ip", "link", "add", one, "type", "veth", "peer", "name", other)
    for number, name in enumerate(("nic2", "nic3", "wan0", "wan1")):
        fleet.spaces[0].run("ip", "address", "add", f"203.0.{number}.1/24", "dev", name)
        fleet.spaces[0].run("ip", "link", "set", name, "up")
    data["tunnel"] |= {"port": 4789, "mtu": 1450}
    data["agent"] = _AGENT
    data["switch"] = {"mode": "generic", "underlay": UNDERLAY}
    data["networks"].append({"vni": 7, "prefix": "10.3.0.0/16", "gateway": "10.3.0.1", "switches": []})
    data["gateways"] = [{**_GATEWAY, "publish": [_PORT], "nat": True, "host_access": False}]
    become(host, data)
    spec = mz.HostSpec.from_dict(data)
    for name in some([*FIELDS], 3):
        action, deed = FIELDS[name]
        if name == "tunnel.encap" and not mz.probe().geneve:
            continue
        deed(fleet)
        section, _, field = name.partition(".")
        plan = host.plan(spec, owner=OWNER)
        of_it = {
            each for each in plan.changes if each.object.kind == {"publish": "gateway"}.get(section, section)
        }
        assert action in {each.action for each in of_it}, (name, str(plan))
        assert field in str(plan) or section == "publish", (name, str(plan))
        assert plan.apply(allow=ALL), name
        again = host.plan(spec, owner=OWNER)
        assert not again, (name, str(again))


def test_a_replaced_agent_tunnel_and_switch_bring_all_back(fleet: Fleet) -> None:
    host, data = fleet.hosts[0], _both(fleet)[0]
    become(host, data)
    changes = {
        "agent": {"max_local": 16, "max_endpoints": 1000, "hook": "clsact", "shortcut": "off"},
        "switch": {"mode": "generic", "underlay": UNDERLAY},
        "tunnel": {**data["tunnel"], "port": 4790, "name": TUNNEL},
    }
    assert set(attrs.fields_dict(hostspec.AgentPart)) == changes["agent"].keys()
    for section, value in changes.items():
        data[section] = value
        spec = mz.HostSpec.from_dict(data)
        plan = host.plan(spec, owner=OWNER)
        assert plan
        if section != "switch":
            assert [each.action for each in plan.changes] == ["replace"]
            assert not plan.apply()
        plan.apply(allow=ALL)
        assert not host.plan(spec, owner=OWNER)
        assert_ping(fleet.inside["web"], "10.0.0.254")
    data["switch"] = {"mode": "native"}
    (change,) = host.plan(mz.HostSpec.from_dict(data), owner=OWNER).changes
    assert (change.action, change.object.kind) == ("replace", "switch")


def test_what_is_left_open_and_what_others_wrote_outlives_a_replacement(fleet: Fleet) -> None:
    host, data = fleet.hosts[0], _both(fleet)[0]
    with mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=fleet.spaces[0].name) as tunnel:
        agent = mz.TransitAgent.attach(
            tunnel, peers=["203.0.113.0/24"], max_endpoints=2000, max_local=100, shortcut="auto"
        )
        agent.close()
    agent = fleet.agent()
    mz.TransitSwitch.attach(agent, mode="generic")
    agent.endpoints[9, "10.0.0.9"] = mz.Remote("203.0.113.5")
    agent.endpoints.update({(9, "10.0.0.8"): mz.Remote("203.0.113.6")}, feed="directory")
    agent.networks[9, "10.0.0.0/24"] = mz.Network()
    host.plan(mz.HostSpec.from_dict(data), owner=OWNER).apply()
    others, networks = dict(agent.endpoints.items()), dict(agent.networks.items())
    changes = ({"agent": {"max_local": 200}}, {"tunnel": {**data["tunnel"], "port": 4790}})
    for change in changes:
        data |= change
        by_hand = mz.Endpoint.create(fleet.agent(), vni=9, ip="10.0.0.1/24", netns=fleet.inside["db"].name)
        spec = mz.HostSpec.from_dict(data)
        for owner in (OWNER, None):
            plan = host.plan(spec, owner=owner)
            assert not plan, str(plan)
            assert "endpoint 9/10.0.0.1 would end for good" in str(plan)
        by_hand.delete()
        plan = host.plan(spec, owner=OWNER)
        assert [str(each.object) for each in plan.apply(allow=("replace",)).left] == [
            str(plan.changes[0].object)
        ]
        plan.apply(allow=ALL)
        assert not host.plan(spec, owner=OWNER)
        now = fleet.agent()
        assert dict(now.networks.items()) == networks
        assert {key: str(each) for key, each in now.endpoints.items()} == {
            key: str(each) for key, each in others.items()
        }
        assert now.endpoints.feeds()["directory"] == now.endpoints.feeds()[""] == 1
        assert {str(each) for each in now.peers} == {"203.0.113.0/24", "192.0.2.0/24"}
        assert now.state().shortcut.wanted is mz.Shortcut.AUTO
        assert (now.capacity.max_endpoints, now.capacity.max_local) == (2000, 200)
        assert mz.TransitSwitch.open(now).mode is mz.XdpMode.GENERIC


def test_the_shortcut_changes_in_place_and_an_agent_comes_only_where_asked_for(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    with mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=fleet.spaces[0].name):
        assert not host.plan(mz.HostSpec()) and not host.plan(mz.HostSpec.from_dict({"remotes": []}))
    assert _told(become(host, {"agent": {"shortcut": "off"}})) == [("create", f"agent {TUNNEL}")]
    plan = host.plan(mz.HostSpec.from_dict({"agent": {"shortcut": "auto"}}), owner=OWNER)
    assert _told(plan) == [("update", f"agent {TUNNEL}")] and plan.apply()
    assert fleet.agent().state().shortcut.wanted is mz.Shortcut.AUTO


def test_a_gateway_comes_changes_is_mended_and_goes_with_its_owner(fleet: Fleet) -> None:
    need_nftables()
    host = fleet.hosts[0]
    fleet.spaces[0].run("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "wan1")
    for name, address in (("wan0", "203.0.113.1/24"), ("wan1", "198.51.100.1/24")):
        fleet.spaces[0].run("ip", "address", "add", address, "dev", name)
        fleet.spaces[0].run("ip", "link", "set", name, "up")
    port = {"protocol": "tcp", "port": 8080, "ip": "10.0.0.1", "to_port": 80}
    gateway = {"vni": 7, "egress": "wan0", "ip": "10.0.0.254/24", "name": "svc/out"}
    data = fleet.spec(gateways=[gateway], endpoints=[fleet.endpoint("svc/web", "10.0.0.1/24")])
    assert ("create", "gateway 7") in _told(become(host, data))
    steps: list[tuple[str, dict[str, Any]]] = [
        ("update", {"publish": [port]}),
        ("update", {"publish": [{**port, "port": 8081}]}),
        ("update", {"nat": False, "publish": []}),
        ("update", {"nat": True, "host_access": True}),
        ("replace", {"egress": "wan1"}),
        ("replace", {"ip": "10.0.0.253/24"}),
        ("replace", {"name": "svc/exit"}),
    ]
    for action, change in steps:
        gateway.update(change)
        spec = mz.HostSpec.from_dict(data)
        assert _told(host.plan(spec, owner=OWNER)) == [(action, "gateway 7")], change
        become(host, data, allow=ALL)
    fleet.spaces[0].run("nft", "flush", "ruleset")
    assert host.plan(mz.HostSpec.from_dict(data), owner=OWNER)
    become(host, data)
    other = {"gateways": [{**gateway, "name": "other/out"}], "endpoints": []}
    plan = host.plan(mz.HostSpec.from_dict(other), owner="other/")
    assert not plan and ["svc/exit" in each.reason for each in plan.conflicts] == [True]
    data["gateways"] = []
    assert not host.plan(mz.HostSpec.from_dict(data), owner=None)
    assert _told(become(host, data)) == [("delete", "gateway 7")]
    assert mz.Gateway.list(fleet.agent()) == []
    gateway["name"] = "out"
    data["gateways"] = [gateway]
    with pytest.raises(mz.InvalidValueError, match=r"gateways\[0\]\.name"):
        host.plan(mz.HostSpec.from_dict(data), owner=OWNER)


# -- owners ------------------------------------------------------------------------------------------------


def test_owners_feeds_and_scripts_do_not_remove_each_others(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    become(host, fleet.spec())
    agent = fleet.agent()
    agent.endpoints[7, "10.0.1.1"] = mz.Remote(ADDRESSES[1])
    agent.endpoints.update([((7, "10.0.1.2"), mz.Remote(ADDRESSES[1]))], feed="directory")
    others = {"a/": ("web", "10.0.0.1"), "b/": ("app", "10.0.0.2")}

    def data(owner: str, *, full: bool) -> mz.HostSpec:
        name, ip = others[owner]
        endpoints = [fleet.endpoint(f"{owner}{name}", f"{ip}/24")] if full else []
        remotes = [{"vni": 8, "ip": ip, "host": ADDRESSES[1]}] if full else []
        return mz.HostSpec.from_dict({"endpoints": endpoints, "remotes": remotes})

    for number in range(depth(3, 100)):
        for owner in others:
            full = number % 2 == 0 or owner == "b/"
            host.plan(data(owner, full=full), owner=owner).apply()
            host.plan(mz.HostSpec.from_dict({"endpoints": [], "remotes": []})).apply()  # prunes nothing
        names = {each.name for each in mz.Endpoint.list(agent)}
        assert names == ({"a/web", "b/app"} if number % 2 == 0 else {"b/app"})
        assert agent.endpoints.feeds()[""] == agent.endpoints.feeds()["directory"] == 1
        assert agent.endpoints.feeds().get("plan:a/", 0) == (1 if number % 2 == 0 else 0)
        assert agent.endpoints.feeds()["plan:b/"] == 1


def test_an_entry_of_another_feed_is_a_conflict_and_left_alone(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    become(host, fleet.spec())
    agent = fleet.agent()
    agent.endpoints.update([((7, "10.0.1.2"), mz.Remote("192.0.2.9"))], feed="directory")
    wish = {"vni": 7, "ip": "10.0.1.2", "host": ADDRESSES[1]}
    plan = host.plan(mz.HostSpec.from_dict({"remotes": [wish]}), owner=OWNER)
    assert not plan
    (conflict,) = plan.conflicts
    assert "directory" in conflict.reason and "! remote 7/10.0.1.2" in str(plan)
    assert plan.apply()
    assert str(agent.endpoints[7, "10.0.1.2"].host) == "192.0.2.9"  # type: ignore[union-attr]
    # The same value by another feed is as it shall be.
    wish["host"] = "192.0.2.9"
    assert host.plan(mz.HostSpec.from_dict({"remotes": [wish]}), owner=OWNER).conflicts == ()


@pytest.mark.parametrize("owner", ["", "svc", "/", "a/b/", "/a", "x" * 40 + "/", "7/", "gateway/"])
def test_what_can_be_no_owner_is_refused(fleet: Fleet, owner: str) -> None:
    with pytest.raises(mz.InvalidValueError) as told:
        fleet.hosts[0].plan(mz.HostSpec(), owner=owner)
    assert told.value.argument == "owner"


def test_a_name_without_the_owner_and_a_missing_tunnel_are_refused(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    with pytest.raises(mz.InvalidValueError, match=r"endpoints\[0\]\.name"):
        host.plan(
            mz.HostSpec.from_dict(fleet.spec(endpoints=[fleet.endpoint("web", "10.0.0.1/24")])), owner=OWNER
        )
    with pytest.raises(mz.InvalidValueError, match="0 tunnels"):
        host.plan(mz.HostSpec())
    with pytest.raises(mz.InvalidTypeError):
        host.plan({})  # type: ignore[arg-type]
    plan = host.plan(mz.HostSpec.from_dict(fleet.spec()))
    with pytest.raises(mz.InvalidValueError, match="destroy"):
        plan.apply(allow=["create", "destroy"])  # type: ignore[list-item]
    with pytest.raises(mz.InvalidTypeError, match="progress"):
        plan.apply(progress=5)  # type: ignore[arg-type]
    assert host.tunnels() == []
    with mz.Host.open(netns=fleet.spaces[1].name) as other:
        plan = other.plan(mz.HostSpec.from_dict(fleet.spec(1)))
    with pytest.raises(mz.ClosedError):
        plan.apply()


_WRITER = """
import select, sys, time
import mizarnet as mz

netns, host = sys.argv[1:]
with mz.Host.open(netns=netns) as here:
    (agent,) = here.agents()
    begun, written = time.monotonic(), 0
    while not select.select([sys.stdin], [], [], max(0, begun + written / 1000 - time.monotonic()))[0]:
        entry = (9, f"10.7.{written >> 8 & 255}.{written & 255}")
        agent.endpoints.update({entry: mz.Remote(host)}, feed="directory")
        written += 1
        if written == 1:
            print(flush=True)
    print(written)
"""
"""Writes a thousand remotes a second, as many as the host's lock lets it, and says how many they were."""


def test_a_plan_is_applied_at_the_first_try_while_another_process_writes(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    become(host, fleet.spec())
    agent = fleet.agent()
    command = [sys.executable, "-c", _WRITER, fleet.spaces[0].name, ADDRESSES[1]]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        for number in range(depth(5, 100)):
            remotes = [
                {"vni": 7, "ip": f"10.8.{number}.{each}", "host": ADDRESSES[1]} for each in range(1, 255)
            ]
            become(host, {"remotes": remotes})
            assert agent.endpoints.feeds()["plan:svc/"] == len(remotes)
        told, _ = writer.communicate()
    assert agent.endpoints.feeds()["directory"] == min(int(told), 1 << 16) > 1


# -- stale, and failed -------------------------------------------------------------------------------------


def test_what_changed_since_is_refused_by_name_and_the_rest_is_done(fleet: Fleet) -> None:
    host, data = fleet.hosts[0], _both(fleet)[0]
    become(host, data)
    agent = fleet.agent()
    data["endpoints"][0]["labels"] = {"a": "b"}
    data["endpoints"].append(fleet.endpoint("svc/db", "10.0.0.3/24"))
    data["remotes"] = [{"vni": 7, "ip": f"10.0.0.{n}", "host": ADDRESSES[1]} for n in (2, 4, 5)]
    plan = host.plan(mz.HostSpec.from_dict(data), owner=OWNER)
    mz.Endpoint.open(agent, "svc/web").update(mtu=1300)
    agent.endpoints.apply({(7, "10.0.0.4"): mz.Remote("192.0.2.8")}, feed="plan:svc/")
    with pytest.raises(mz.StalePlanError) as told:
        plan.apply()
    assert set(told.value.changed) == {"endpoint svc/web", "remote 7/10.0.0.4"}
    assert {str(each.object) for each in told.value.report.left} == set(told.value.changed)
    assert {str(each.object) for each in told.value.report.done} == {"endpoint svc/db", "remote 7/10.0.0.5"}
    assert mz.Endpoint.open(agent, "svc/web").labels == {}
    assert str(agent.endpoints[7, "10.0.0.4"].host) == "192.0.2.8"  # type: ignore[union-attr]
    become(host, data)


def test_a_change_of_the_tunnel_makes_no_other_step_stale(fleet: Fleet) -> None:
    host, data = fleet.hosts[0], _both(fleet)[0]
    app, db = (fleet.endpoint(f"svc/{name}", f"10.0.0.{at}/24") for name, at in (("app", 8), ("db", 9)))
    web = data["endpoints"][0]
    data["endpoints"] += [app, db]
    become(host, data)
    data["endpoints"] = [
        {**web, "labels": {"a": "b"}},
        {**app, "netns": db["netns"], "ifname": "eth1", "ip": "10.9.0.1/24"},
    ]
    data["tunnel"]["mtu"] = 1350
    plan = become(host, data, allow=ALL)
    assert {action for action, _ in _told(plan)} == {"update", "replace", "delete"}


def test_what_one_gives_up_another_gets_at_the_first_try(fleet: Fleet) -> None:
    host, data = fleet.hosts[0], _both(fleet)[0]
    web, app = data["endpoints"][0], fleet.endpoint("svc/app", "10.0.0.8/24")
    data["endpoints"] = [web, app]
    become(host, data)
    # Another name, an address passed on, and one that a gateway gets.
    data["endpoints"] = [web | {"name": "svc/other"}, app]
    assert _told(become(host, data)) == [("delete", "endpoint svc/web"), ("create", "endpoint svc/other")]
    web = data["endpoints"][0]
    data["endpoints"] = [web | {"ip": "10.0.0.8/24"}, app | {"ip": "10.0.0.9/24"}]
    assert _told(become(host, data)) == [("update", "endpoint svc/app"), ("update", "endpoint svc/other")]
    # Two that change places: addresses, MACs, and names of devices.
    web, app = data["endpoints"]
    web, app = web | {"ip": app["ip"], "labels": {"a": "b"}}, app | {"ip": web["ip"]}
    data["endpoints"] = [web, app]
    plan = host.plan(mz.HostSpec.from_dict(data), owner=OWNER)
    assert {each.action for each in plan.changes} == {"replace"} and "change places" in str(plan)
    assert len(plan.apply().left) == 2
    become(host, data, allow=ALL)
    macs = ["02:00:00:00:00:01", "02:00:00:00:00:02"]
    for pair in (macs, macs[::-1]):
        data["endpoints"] = [each | {"mac": mac} for each, mac in zip((web, app), pair, strict=True)]
        become(host, data, allow=ALL)
    app |= {"netns": web["netns"], "ip": "10.9.0.1/24"}
    for pair in (("eth1", "eth2"), ("eth2", "eth1")):
        data["endpoints"] = [each | {"ifname": name} for each, name in zip((web, app), pair, strict=True)]
        become(host, data, allow=ALL)


def test_ports_and_addresses_of_gateways_change_hands(fleet: Fleet) -> None:
    need_nftables()
    host = fleet.hosts[0]

    def data(ports: tuple[int, int], *endpoints: Any, **more: Any) -> dict[str, Any]:
        gateways = [
            {
                "vni": vni,
                "egress": UNDERLAY,
                "ip": f"10.{vni}.0.254/24",
                "name": f"svc/{vni}",
                "publish": [{"protocol": "tcp", "port": port, "ip": f"10.{vni}.0.1", "to_port": 80}],
            }
            for vni, port in zip((7, 8), ports, strict=True)
        ]
        return fleet.spec(gateways=gateways, endpoints=[*endpoints], **more)

    become(host, data((8080, 8081)))
    assert {action for action, _ in _told(become(host, data((8081, 8080))))} == {"update"}
    given = data((8081, 8080), fleet.endpoint("svc/web", "10.7.0.254/24"))
    del given["gateways"][0]
    become(host, given)
    become(host, data((8081, 8080)))


def test_a_namespace_made_anew_and_an_address_left_by_a_replaced_endpoint_are_seen(fleet: Fleet) -> None:
    host, data = fleet.hosts[0], _both(fleet)[0]
    web = data["endpoints"][0]
    web["ip"] = ["10.0.0.1/24", "10.0.0.3/24"]
    become(host, data)
    web |= {"netns": fleet.inside["app"].name, "ip": "10.0.0.1/24"}
    data["remotes"].append({"vni": 7, "ip": "10.0.0.3", "host": ADDRESSES[1]})
    plan = become(host, data, allow=ALL)
    assert _told(plan) == [("update", "remote 7/10.0.0.3"), ("replace", "endpoint svc/web")]
    assert not plan.conflicts
    name = Path(f"/run/netns/{fleet.spaces[0].name}-moving")
    web["netns"] = name.name
    try:
        for target in ("db", "web"):
            name.unlink(missing_ok=True)
            name.symlink_to(f"/run/netns/{fleet.inside[target].name}")
            assert _told(become(host, data, allow=ALL)) == [("replace", "endpoint svc/web")]
    finally:
        name.unlink(missing_ok=True)


def test_a_tunnel_that_went_since_makes_the_plan_stale(fleet: Fleet) -> None:
    host, data = fleet.hosts[0], _both(fleet)[0]
    become(host, data)
    data["tunnel"]["mtu"] = 1350
    data["endpoints"][0]["labels"] = {"a": "b"}
    plan = host.plan(mz.HostSpec.from_dict(data), owner=OWNER)
    mz.Tunnel.delete(TUNNEL, force=True, netns=fleet.spaces[0].name)
    with pytest.raises(mz.StalePlanError) as told:
        plan.apply()
    assert len(told.value.changed) == len(plan.changes) == 2
    become(host, data)


def test_a_failure_names_the_object_and_stops_nothing_else(fleet: Fleet) -> None:
    host, data = fleet.hosts[0], _both(fleet)[0]
    data["endpoints"].append(
        {"name": "svc/lost", "vni": 7, "ip": "10.0.0.9/24", "netns": "no-such-namespace"}
    )
    with pytest.raises(mz.BulkError) as told:
        host.plan(mz.HostSpec.from_dict(data), owner=OWNER).apply()
    assert [*told.value.failed] == ["endpoint svc/lost"]
    assert isinstance(told.value.failed["endpoint svc/lost"], mz.NetnsNotFoundError)
    report = told.value.report
    assert len(report.done) == 6 and len(report.left) == 1
    assert "no-such-namespace" in str(report)
    data["endpoints"].pop()
    assert not host.plan(mz.HostSpec.from_dict(data), owner=OWNER)


def test_what_cannot_be_replaced_stays(fleet: Fleet) -> None:
    need_nftables()
    host, data = fleet.hosts[0], _both(fleet)[0]
    gateway = {"vni": 8, "egress": UNDERLAY, "ip": "10.8.0.254/24", "name": "svc/out", "nat": False}
    data |= {"gateways": [gateway], "agent": {"max_local": 8}, "switch": {}}
    data["endpoints"].append(fleet.endpoint("svc/app", "10.0.0.9/24"))
    become(host, data)
    (web, app), tunnel = data["endpoints"], data["tunnel"]
    taken = fleet.inside["db"]
    taken.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far0")
    bad: list[dict[str, Any]] = [
        {"endpoints": [{**web, "netns": "no-such-namespace"}, app]},
        {"endpoints": [{**web, "netns": taken.name}, app]},
        {"endpoints": [{**web, "netns": app["netns"], "ifname": "eth7"}, app]},
        {"gateways": [{**gateway, "egress": "nosuch"}]},
        {"gateways": [{**gateway, "name": "svc/web"}], "endpoints": None},
        {"tunnel": {**tunnel, "encap": "geneve", "local": "192.0.2.99"}},
        {"tunnel": {**tunnel, "port": 4790, "mtu": 9999}},
        {"switch": {"underlay": "nosuch"}},
        {"agent": {"max_local": 2}},
        {"agent": {"max_local": 8, "max_endpoints": 3}},
    ]
    there = [*mz.Endpoint.list(fleet.agent()), *mz.Gateway.list(fleet.agent())]
    for change in bad:
        changed = {name: value for name, value in {**data, **change}.items() if value is not None}
        with pytest.raises(mz.BulkError) as told:
            host.plan(mz.HostSpec.from_dict(changed), owner=OWNER).apply(allow=ALL)
        assert all(isinstance(each, mz.MizarnetError) for each in told.value.failed.values()), change
        assert [each.state().life for each in there] == [mz.Life.LIVE] * len(there), change
        assert not host.plan(mz.HostSpec.from_dict(data), owner=OWNER), change
    # What nobody looked ahead for has it made again.
    taken.run("ip", "route", "add", "blackhole", "default")
    moved = {**web, "netns": taken.name, "ifname": "eth7", "gateway": "10.0.0.254"}
    with pytest.raises(mz.BulkError, match="1 of 1 changes"):
        host.plan(mz.HostSpec.from_dict({**data, "endpoints": [moved, app]}), owner=OWNER).apply(allow=ALL)
    assert not host.plan(mz.HostSpec.from_dict(data), owner=OWNER)
    # One that differs in nothing but what goes with the old one is no obstacle to itself.
    gateway["ip"] = "10.8.0.253/24"
    web["ifname"], web["mac"] = "eth0", "02:00:00:00:00:77"
    become(host, data, allow=ALL)


def test_without_a_tunnel_the_rest_is_left(fleet: Fleet) -> None:
    host, data = fleet.hosts[0], _both(fleet)[0]
    report = host.plan(mz.HostSpec.from_dict(data), owner=OWNER).apply(allow=("update",))
    assert not report
    assert len(report.left) == 6 and report.done == ()
    data["tunnel"]["underlay"] = "eth9"
    with pytest.raises(mz.BulkError) as told:
        host.plan(mz.HostSpec.from_dict(data), owner=OWNER).apply()
    assert [*told.value.failed] == ["tunnel tunnel0"]
    assert len(told.value.report.left) == 6


# -- under traffic -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1], ids=["old-host-first", "new-host-first"])
def test_an_endpoint_moves_by_two_plans_with_no_moment_without_an_entry(fleet: Fleet, first: int) -> None:
    """From the first host, where a prober is, to the second, and its namespace with it."""
    before = _both(fleet)
    before[0]["endpoints"].append(fleet.endpoint("svc/db", "10.0.0.3/24"))
    before[1]["remotes"].append({"vni": 7, "ip": "10.0.0.3", "host": ADDRESSES[0]})
    for host, data in zip(fleet.hosts, before, strict=True):
        become(host, data)
    after = _both(fleet)
    after[0]["remotes"].append({"vni": 7, "ip": "10.0.0.3", "host": ADDRESSES[1]})
    after[1]["endpoints"].append(fleet.endpoint("svc/db", "10.0.0.3/24", ifname="eth1"))
    drops = [agent.stats() for agent in (fleet.agent(0), fleet.agent(1))]
    with Probe(fleet.inside["web"], fleet.inside["db"], "10.0.0.3") as probe:
        order = [0, 1] if first == 0 else [1, 0]
        for number in order:
            fleet.hosts[number].plan(mz.HostSpec.from_dict(after[number]), owner=OWNER).apply()
        assert_ping(fleet.inside["web"], "10.0.0.3")
        print(f"\nan endpoint moved by two plans, {first}: {probe.result()}")
    lost = fleet.agent(0).stats().since(drops[0]).agent
    assert not lost[mz.Verdict.NO_DESTINATION].packets
    for host, data in zip(fleet.hosts, after, strict=True):
        assert not host.plan(mz.HostSpec.from_dict(data), owner=OWNER)
