# SPDX-License-Identifier: Apache-2.0
"""Plans under which something goes that others use, or that comes again elsewhere: nothing of it is lost."""

from __future__ import annotations

import sys
from subprocess import PIPE, Popen
from typing import Any

import pytest

import mizarnet as mz
from tests.support.fleet import ADDRESSES, ALL, OWNER, Fleet, become
from tests.support.outside import need_nftables
from tests.world import TUNNEL, UNDERLAY, device

LARGER = {"max_local": 32}
WRITER = """
import sys
import mizarnet as mz

written, number = [], 0
with mz.Host.open(netns=sys.argv[1]) as host:
    (agent,) = host.agents()
    print("ready", flush=True)
    while number < 600:
        number += 1
        try:
            agent.endpoints.update({(9, f"10.7.{number >> 8}.{number & 255}"): mz.Remote("192.0.2.2")}, feed="others")
            written.append(number)
        except mz.MizarnetError:
            while not host.agents():
                pass
            (agent,) = host.agents()
print(*written)
"""


def _plan(fleet: Fleet, data: dict[str, Any]) -> mz.Plan:
    return fleet.hosts[0].plan(mz.HostSpec.from_dict(data), owner=OWNER)


def _gateway(**fields: Any) -> dict[str, Any]:
    need_nftables()
    return {"vni": 7, "egress": UNDERLAY, "ip": "10.7.0.254/24", "name": "svc/out", **fields}


def _records(fleet: Fleet) -> dict[str, mz.EndpointSpec]:
    return {each.name: each.spec for each in mz.Endpoint.list(fleet.agent())}


# -- what replaces tunnel or agent


@pytest.mark.parametrize("what", ["agent", "tunnel"])
@pytest.mark.parametrize("kind", ["endpoint", "gateway"])
def test_what_others_made_since_the_plan_stays(fleet: Fleet, what: str, kind: str) -> None:
    data = fleet.spec(agent={"max_local": 16}, endpoints=[fleet.endpoint("svc/web", "10.0.0.1/24")])
    become(fleet.hosts[0], data)
    data[what] = LARGER if what == "agent" else {**data[what], "port": 4790}
    plan, agent = _plan(fleet, data), fleet.agent()
    if kind == "endpoint":
        mz.Endpoint.create(agent, vni=7, ip="10.0.0.9/24", name="other/db", netns=fleet.inside["db"].name)
    else:
        need_nftables()
        mz.Gateway.create(agent, vni=8, egress=UNDERLAY, ip="10.8.0.254/24", name="other/out")
    with pytest.raises(mz.StalePlanError):
        plan.apply(allow=ALL)
    assert ("other/db" in _records(fleet)) == (kind == "endpoint")
    assert [each.name for each in mz.Gateway.list(agent)] == ["other/out"] * (kind == "gateway")


def test_no_entry_is_lost_that_another_process_writes_meanwhile(fleet: Fleet) -> None:
    data = fleet.spec(agent={"max_local": 16}, endpoints=[fleet.endpoint("svc/web", "10.0.0.1/24")])
    become(fleet.hosts[0], data)
    command = (sys.executable, "-c", WRITER, fleet.spaces[0].name)
    with Popen(command, stdout=PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        for size in (32, 16, 32):
            data["agent"] = {"max_local": size}
            assert _plan(fleet, data).apply(allow=ALL)
        written = writer.stdout.read().split()
    assert len(written) > 100
    there = {str(key.ip) for key in fleet.agent().endpoints if key.vni == 9}
    assert {f"10.7.{int(each) >> 8}.{int(each) & 255}" for each in written} <= there


def test_a_tunnel_that_the_kernel_cannot_make_replaces_none(fleet: Fleet) -> None:
    if mz.probe().geneve:
        pytest.skip("this kernel has both encapsulations")
    data = fleet.spec(endpoints=[fleet.endpoint("svc/web", "10.0.0.1/24")])
    become(fleet.hosts[0], data)
    fleet.agent().endpoints.update({(9, "10.0.0.8"): mz.Remote(ADDRESSES[1])}, feed="others")
    data["tunnel"] = {**data["tunnel"], "encap": "geneve"}
    with pytest.raises(mz.BulkError) as caught:
        _plan(fleet, data).apply(allow=ALL)
    assert isinstance(caught.value.failed[f"tunnel {TUNNEL}"], mz.UnsupportedError)
    assert (9, "10.0.0.8") in fleet.agent().endpoints
    assert {*_records(fleet)} == {"svc/web"}


def test_an_agent_that_accepts_nobody_is_replaced_by_one_that_accepts_nobody(fleet: Fleet) -> None:
    become(fleet.hosts[0], fleet.spec(agent={"max_local": 16}, peers=[]))
    become(fleet.hosts[0], fleet.spec(agent=LARGER), allow=ALL)
    assert [*fleet.agent().peers] == []


def test_what_is_left_open_stays_when_an_object_is_made_again(fleet: Fleet) -> None:
    data = fleet.spec(agent={"max_local": 16}, endpoints=[fleet.endpoint("svc/web", "10.0.0.1/24")])
    data["tunnel"]["mtu"] = 1380
    data["endpoints"][0] |= {"mtu": 1300, "labels": {"a": "b"}, "ifname": "ovl0"}
    data["gateways"] = [
        _gateway(publish=[{"protocol": "tcp", "port": 8080, "ip": "10.7.0.5", "to_port": 80}])
    ]
    become(fleet.hosts[0], data)
    space = _records(fleet)["svc/web"].netns
    del data["tunnel"]["mtu"], data["gateways"][0]["publish"]
    data["endpoints"] = [{"name": "svc/web", "vni": 7, "ip": "10.0.0.1/24"}]

    def check() -> None:
        now = _records(fleet)["svc/web"]
        assert (now.mtu, dict(now.labels), now.ifname, now.netns) == (1300, {"a": "b"}, "ovl0", space)
        (gateway,) = mz.Gateway.list(fleet.agent())
        assert [(each.port, each.to_port) for each in gateway.publish] == [(8080, 80)]
        assert fleet.hosts[0].tunnels()[0].mtu == 1380

    for change in ("agent", "tunnel", "endpoint", "gateway"):
        if change == "agent":
            data["agent"] = LARGER
        elif change == "tunnel":
            data["tunnel"]["port"] = 4790
        elif change == "endpoint":
            data["endpoints"][0]["mac"] = "02:00:00:00:00:77"
        else:
            data["gateways"][0]["ip"] = "10.7.0.253/24"
        become(fleet.hosts[0], data, allow=ALL)
        check()


def test_an_endpoint_follows_a_tunnel_that_is_made_again_with_a_smaller_mtu(fleet: Fleet) -> None:
    end = fleet.endpoint("svc/web", "10.0.0.1/24")
    become(fleet.hosts[0], fleet.spec(endpoints=[{**end, "mtu": 1400}]))
    data = fleet.spec(endpoints=[end])
    data["tunnel"] |= {"port": 4790, "mtu": 1380}
    become(fleet.hosts[0], data, allow=ALL)
    assert device(fleet.inside["web"], "eth0").mtu == 1380


def test_a_tunnel_whose_agent_cannot_be_attached_is_made_again_as_it_was(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fleet.spec(endpoints=[fleet.endpoint("svc/web", "10.0.0.1/24")])
    become(fleet.hosts[0], data)
    fleet.agent().endpoints.update({(9, "10.0.0.8"): mz.Remote(ADDRESSES[1])}, feed="others")
    refused, attach = [mz.KernelError("attach", errno=12)], mz.TransitAgent.attach

    def once(*args: Any, **kwargs: Any) -> mz.TransitAgent:
        if refused:
            raise refused.pop()
        return attach(*args, **kwargs)

    data["tunnel"] = {**data["tunnel"], "port": 4790}
    with monkeypatch.context() as patched:
        patched.setattr(mz.TransitAgent, "attach", once)
        with pytest.raises(mz.BulkError):
            _plan(fleet, data).apply(allow=ALL)
    assert fleet.hosts[0].tunnels()[0].port == 4789
    assert {*_records(fleet)} == {"svc/web"}
    assert (9, "10.0.0.8") in fleet.agent().endpoints
    become(fleet.hosts[0], data, allow=ALL)


def test_it_takes_the_permission_to_delete_if_endpoints_would_end_with_it(fleet: Fleet) -> None:
    ends = [fleet.endpoint("svc/web", "10.0.0.1/24"), fleet.endpoint("svc/app", "10.0.0.2/24")]
    become(fleet.hosts[0], fleet.spec(agent={"max_local": 16}, endpoints=ends))
    report = _plan(fleet, fleet.spec(agent=LARGER, endpoints=ends[:1])).apply(
        allow=("create", "update", "replace")
    )
    assert not report
    assert {*_records(fleet)} == {"svc/web", "svc/app"}


def test_a_device_is_the_same_by_any_of_its_names(fleet: Fleet) -> None:
    fleet.spaces[0].run("ip", "link", "property", "add", "dev", UNDERLAY, "altname", "fabric0")
    data = fleet.spec(switch={"underlay": "fabric0"}, gateways=[_gateway(egress="fabric0")])
    data["tunnel"]["underlay"] = "fabric0"
    become(fleet.hosts[0], data)


def test_switch_and_gateway_stay_on_their_device_when_the_tunnel_moves(fleet: Fleet) -> None:
    space = fleet.spaces[0]
    space.run("ip", "link", "add", "nic2", "type", "veth", "peer", "name", "nic3")
    for name in ("nic2", "nic3"):
        space.run("ip", "link", "set", name, "up")
    data = fleet.spec(switch={"underlay": UNDERLAY}, gateways=[_gateway()])
    become(fleet.hosts[0], data)
    space.run("ip", "address", "del", f"{ADDRESSES[0]}/24", "dev", UNDERLAY)
    space.run("ip", "address", "add", f"{ADDRESSES[0]}/24", "dev", "nic2")
    data["tunnel"]["underlay"] = "nic2"
    become(fleet.hosts[0], data, allow=ALL)


@pytest.mark.parametrize(
    "change", [{"mtu": 1400}, {"port": 4790}, {"underlay": "nic2", "port": 4790}], ids=str
)
@pytest.mark.parametrize("section", [{"switch": {"underlay": "nic4"}}, {}], ids=["specified", "left open"])
def test_a_switch_on_a_device_of_its_own_stays_there(
    fleet: Fleet, section: dict[str, Any], change: dict[str, Any]
) -> None:
    for one, other in (("nic2", "nic3"), ("nic4", "nic5")):
        fleet.spaces[0].run("ip", "link", "add", one, "type", "veth", "peer", "name", other)
        fleet.spaces[0].run("ip", "link", "set", one, "up")
    become(fleet.hosts[0], fleet.spec(switch={"underlay": "nic4"}))
    data = fleet.spec(**section)
    data["tunnel"] |= change
    become(fleet.hosts[0], data, allow=ALL)
    assert mz.TransitSwitch.open(fleet.agent()).underlay == "nic4"


# -- gateways that come and go


@pytest.mark.parametrize("first", ["gateway", "network"])
def test_a_gateway_and_the_network_that_leads_to_it_are_on_its_own_host(fleet: Fleet, first: str) -> None:
    nets = [{"vni": 7, "prefix": "0.0.0.0/0", "via": "10.7.0.254"}]
    if first == "gateway":
        become(fleet.hosts[0], fleet.spec(gateways=[_gateway()]))
    become(fleet.hosts[0], fleet.spec(gateways=[_gateway()], networks=nets))
    nets[0]["via"] = "10.7.0.253"
    become(fleet.hosts[0], fleet.spec(gateways=[_gateway(ip="10.7.0.253/24")], networks=nets), allow=ALL)


def test_a_gateway_moves_between_hosts(fleet: Fleet) -> None:
    here = fleet.spec(gateways=[_gateway()], networks=[], remotes=[])
    nets = [{"vni": 7, "prefix": "0.0.0.0/0", "via": "10.7.0.254"}]
    there = fleet.spec(
        gateways=[], networks=nets, remotes=[{"vni": 7, "ip": "10.7.0.254", "host": ADDRESSES[1]}]
    )
    for data in (here, there, here, there):
        become(fleet.hosts[0], data)
    assert fleet.agent().endpoints[7, "10.7.0.254"] == mz.Remote(ADDRESSES[1])


def test_no_entry_goes_for_a_gateway_that_may_not_come(fleet: Fleet) -> None:
    nets = [{"vni": 7, "prefix": "0.0.0.0/0", "via": "10.7.0.254"}]
    remotes = [{"vni": 7, "ip": "10.7.0.254", "host": ADDRESSES[1]}]
    become(fleet.hosts[0], fleet.spec(gateways=[], networks=nets, remotes=remotes))
    plan = _plan(fleet, fleet.spec(gateways=[_gateway()], networks=[], remotes=[]))
    assert not plan.apply(allow=("update", "delete"))
    assert (7, "10.7.0.254") in fleet.agent().endpoints
    become(fleet.hosts[0], fleet.spec(gateways=[_gateway()], networks=[], remotes=[]))
    plan = _plan(fleet, fleet.spec(gateways=[], networks=nets, remotes=remotes))
    assert not plan.apply(allow=("create", "update"))
    assert [each.vni for each in mz.Gateway.list(fleet.agent())] == [7]


def test_gateways_change_names(fleet: Fleet) -> None:
    def named(one: str, other: str) -> dict[str, Any]:
        return fleet.spec(gateways=[_gateway(name=one), _gateway(vni=8, ip="10.8.0.254/24", name=other)])

    become(fleet.hosts[0], named("svc/a", "svc/b"))
    become(fleet.hosts[0], named("svc/b", "svc/a"), allow=ALL)


# -- addresses that lead elsewhere


def _leaving(fleet: Fleet, **fields: Any) -> dict[str, Any]:
    return fleet.spec(
        endpoints=[fleet.endpoint("svc/web", "10.0.0.1/24", **fields)],
        remotes=[{"vni": 7, "ip": "10.0.0.3", "host": ADDRESSES[1]}],
    )


def test_an_address_stays_with_an_endpoint_whose_change_is_refused(fleet: Fleet) -> None:
    ends = [fleet.endpoint("svc/web", "10.0.0.1/24") | {"ip": ["10.0.0.1/24", "10.0.0.3/24"]}]
    become(fleet.hosts[0], fleet.spec(endpoints=ends, remotes=[]))
    with pytest.raises(mz.BulkError):
        _plan(fleet, _leaving(fleet, mtu=1490)).apply(allow=ALL)
    assert isinstance(fleet.agent().endpoints[7, "10.0.0.3"], mz.Local)
    assert not fleet.hosts[0].check()
    become(fleet.hosts[0], _leaving(fleet, mtu=1400))


def test_a_change_that_was_cut_off_behind_its_first_half_is_finished(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mizarnet._datapath.endpoints import LocalEndpoints

    ends = [fleet.endpoint("svc/web", "10.0.0.1/24") | {"ip": ["10.0.0.1/24", "10.0.0.3/24"]}]
    become(fleet.hosts[0], fleet.spec(endpoints=ends, remotes=[]))

    class Killed(BaseException):
        """What stands for the end of the process: nothing of the package runs behind it."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(LocalEndpoints, "update", die)
        patched.setattr(LocalEndpoints, "named", die)
        patched.setattr("mizarnet.plan.endpoints._refuse_stale", lambda _e, _n, seen: seen)
        with pytest.raises(Killed):
            _plan(fleet, _leaving(fleet)).apply()
    assert fleet.agent().endpoints[7, "10.0.0.3"] == mz.Remote(ADDRESSES[1])
    become(fleet.hosts[0], _leaving(fleet))


def test_two_endpoints_change_addresses_and_leave_others(fleet: Fleet) -> None:
    def pair(one: list[str], other: list[str], remotes: list[str]) -> dict[str, Any]:
        ends = [fleet.endpoint("svc/web", "") | {"ip": one}, fleet.endpoint("svc/app", "") | {"ip": other}]
        return fleet.spec(
            endpoints=ends, remotes=[{"vni": 7, "ip": each, "host": ADDRESSES[1]} for each in remotes]
        )

    become(fleet.hosts[0], pair(["10.0.0.1/24", "10.0.0.3/24"], ["10.0.0.2/24", "10.0.0.4/24"], []))
    become(fleet.hosts[0], pair(["10.0.0.2/24"], ["10.0.0.1/24"], ["10.0.0.3", "10.0.0.4"]), allow=ALL)


def test_an_address_may_turn_remote_while_the_agent_is_replaced(fleet: Fleet) -> None:
    ends = [fleet.endpoint("svc/web", "10.0.0.1/24") | {"ip": ["10.0.0.1/24", "10.0.0.3/24"]}]
    become(fleet.hosts[0], fleet.spec(agent={"max_local": 16}, endpoints=ends, remotes=[]))
    become(fleet.hosts[0], {**_leaving(fleet), "agent": LARGER}, allow=ALL)


def test_an_endpoint_whose_namespace_ended_is_not_in_the_way(fleet: Fleet) -> None:
    become(fleet.hosts[0], fleet.spec(remotes=[]))
    mz.Endpoint.create(fleet.agent(), vni=7, ip="10.0.0.3/24", name="db", netns=fleet.inside["db"].name)
    fleet.inside["db"].run("ip", "link", "del", "eth0")
    data = fleet.spec(remotes=[{"vni": 7, "ip": "10.0.0.3", "host": ADDRESSES[1]}])
    spec = mz.HostSpec.from_dict(data)
    assert fleet.hosts[0].plan(spec, owner=OWNER).apply()
    assert not fleet.hosts[0].plan(spec, owner=OWNER)
    assert fleet.agent().endpoints[7, "10.0.0.3"] == mz.Remote(ADDRESSES[1])


# -- room and order


@pytest.mark.parametrize("ip", ["10.0.0.5/24", "10.0.1.5/24"])
def test_a_namespace_gets_another_endpoint_for_one(fleet: Fleet, ip: str) -> None:
    space = fleet.inside["web"].name
    one = {"name": "svc/web", "vni": 7, "ip": "10.0.0.1/24", "gateway": "10.0.0.254", "netns": space}
    become(fleet.hosts[0], fleet.spec(endpoints=[one]))
    other = {**one, "name": "svc/web2", "ip": ip, "gateway": ip.replace(".5/24", ".254"), "ifname": "eth1"}
    become(fleet.hosts[0], fleet.spec(endpoints=[other]))
    assert device(fleet.inside["web"], "eth1")


def test_a_table_that_is_nearly_full_is_renewed(fleet: Fleet) -> None:
    def remotes(first: int) -> list[dict[str, Any]]:
        return [{"vni": 7, "ip": f"10.0.1.{first + each}", "host": ADDRESSES[1]} for each in range(8)]

    become(fleet.hosts[0], fleet.spec(agent={"max_endpoints": 10}, remotes=remotes(0)))
    become(fleet.hosts[0], fleet.spec(agent={"max_endpoints": 10}, remotes=remotes(100)))
    assert len(fleet.agent().endpoints) == 8


def test_an_endpoint_waits_for_a_network_that_may_not_be_changed(fleet: Fleet) -> None:
    def with_gateway(gateway: str, ends: list[dict[str, Any]]) -> dict[str, Any]:
        nets = [{"vni": 7, "prefix": "10.0.0.0/24", **({"gateway": gateway} if gateway else {})}]
        return fleet.spec(networks=nets, endpoints=ends)

    become(fleet.hosts[0], with_gateway("", []))
    data = with_gateway("10.0.0.254", [fleet.endpoint("svc/web", "10.0.0.1/24")])
    assert not _plan(fleet, data).apply(allow=("create",))
    assert _records(fleet) == {}
    become(fleet.hosts[0], data)
    assert "default via 10.0.0.254" in fleet.inside["web"].run("ip", "route")


# -- bad input


@pytest.mark.parametrize("host", ["2001:db8::9", ADDRESSES[0]])
def test_an_entry_that_leads_nowhere_is_refused_before_anything_is_done(fleet: Fleet, host: str) -> None:
    data = fleet.spec(remotes=[{"vni": 7, "ip": "10.0.0.2", "host": host}])
    with pytest.raises(mz.InvalidValueError, match="remotes"):
        _plan(fleet, data)
    del data["tunnel"]["local"]  # which is found when the tunnel is made
    with pytest.raises(mz.BulkError) as caught:
        _plan(fleet, data).apply()
    assert isinstance(caught.value.failed["remote 7/10.0.0.2"], mz.InvalidValueError)
    assert [*fleet.agent().endpoints] == []


def test_an_error_of_the_progress_is_the_callers(fleet: Fleet) -> None:
    told: list[str] = []

    def progress(_done: int, _total: int, change: mz.Change) -> None:
        told.append(str(change.object))
        raise mz.InvalidValueError("enough", argument="x", value=1)

    with pytest.raises(mz.InvalidValueError, match="enough"):
        _plan(fleet, fleet.spec()).apply(progress=progress)
    assert told == [f"tunnel {TUNNEL}"]
