# SPDX-License-Identifier: Apache-2.0
"""Many endpoints at once, by one process or two."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import Popen
from typing import Any

import attrs
import pytest

import mizarnet as mz
from mizarnet._datapath.gateway_notes import Note
from mizarnet._kernel.rtnetlink import Rtnl
from mizarnet._model import codec
from mizarnet._model.enumerations import State
from mizarnet.agent import datapath_of
from tests.support.depth import depth
from tests.support.namespace import Namespace
from tests.support.process import finish, heard, start_python
from tests.support.wait import wait_until
from tests.world import Host, World, links


def many(namespace: Namespace, numbers: range) -> list[mz.EndpointSpec]:
    return [
        mz.EndpointSpec(name=f"n{n}", vni=7, ip=f"10.0.{n}.1/24", netns=namespace.name, ifname=f"e{n}")
        for n in numbers
    ]


def test_create_many_goes_on_after_a_failure(world: World) -> None:
    agent, namespace = world.hosts[0].agent, world.namespace("many")
    specs = many(namespace, range(1, 5))
    specs[2] = mz.EndpointSpec(name="bad", vni=7, ip="10.0.0.9/24", netns="mzt-no-such")
    with pytest.raises(mz.BulkError, match="1 of 4") as caught:
        mz.Endpoint.create_many(agent, specs)
    assert "'bad': there is no network namespace /run/netns/mzt-no-such" in str(caught.value)
    assert caught.value.done == ("n1", "n2", "n4")
    assert isinstance(caught.value.failed["bad"], mz.NetnsNotFoundError)
    assert [each.name for each in mz.Endpoint.list(agent)] == ["n1", "n2", "n4"]


def test_create_many_refuses_two_of_one_name(world: World) -> None:
    agent, namespace = world.hosts[0].agent, world.namespace("many")
    specs = many(namespace, range(1, 3))
    for twice in (specs[0], attrs.evolve(specs[1], name="n1")):
        with pytest.raises(mz.InvalidValueError, match="2 of the endpoints are called 'n1'"):
            mz.Endpoint.create_many(agent, [*specs, twice])
    assert mz.Endpoint.list(agent, dead=True) == []


def test_delete_many_ignores_what_is_not_there(world: World) -> None:
    agent, namespace = world.hosts[0].agent, world.namespace("many")
    made = mz.Endpoint.create_many(agent, many(namespace, range(1, 4)))
    assert [each.created for each in made] == [True] * 3
    mz.Endpoint.delete_many(agent, ["n1", "n7", "n3"])
    assert [each.name for each in mz.Endpoint.list(agent)] == ["n2"]
    assert links(namespace) == ["lo", "e2"]


def test_delete_many_goes_on_after_the_endpoint_of_a_gateway(world: World) -> None:
    host, namespace = world.hosts[0], world.namespace("many")
    mz.Endpoint.create_many(host.agent, many(namespace, range(1, 4)))
    noted_as_gateway(host, "n2")
    with pytest.raises(mz.BulkError, match="1 of 3") as caught:
        mz.Endpoint.delete_many(host.agent, ["n1", "n2", "n3"])
    assert isinstance(caught.value.failed["n2"], mz.InUseError)
    assert caught.value.done == ("n1", "n3")
    assert [each.name for each in mz.Endpoint.list(host.agent)] == ["n2"]


def noted_as_gateway(host: Host, name: str) -> None:
    """Note an endpoint as that of a gateway: gateways themselves take a kernel with nftables."""
    datapath = datapath_of(host.agent)
    record = attrs.evolve(mz.Endpoint.open(host.agent, name)._record, private=True)
    datapath.maps.records.update(codec.record_key(name), record.pack())
    note = Note(
        tunnel=datapath.hooks.ifindex,
        vni=record.spec.vni,
        state=State.LIVE,
        egress=1,
        port=4789,
        nat=True,
        host_access=False,
        forwarding=0,
        number=0,
        key=codec.record_key(name),
        instance=record.instance,
    )
    host.namespace.run("ip", "link", "add", note.device, "type", "veth", "peer", "name", "far")
    host.namespace.run("ip", "link", "set", note.device, "alias", note.text())


def test_list_by_prefix_and_vni(world: World) -> None:
    agent, namespace = world.hosts[0].agent, world.namespace("many")
    mz.Endpoint.create_many(agent, many(namespace, range(1, 3)))
    mz.Endpoint.create(agent, name="other", vni=8, ip="10.0.0.1/24", netns=namespace.name, ifname="x")
    assert [each.name for each in mz.Endpoint.list(agent)] == ["n1", "n2", "other"]
    assert [each.name for each in mz.Endpoint.list(agent, prefix="n")] == ["n1", "n2"]
    assert [each.name for each in mz.Endpoint.list(agent, vni=8)] == ["other"]
    assert mz.Endpoint.list(agent, prefix="n", vni=8) == []


def test_two_processes_create_fifty_endpoints_each_at_once(world: World) -> None:
    host, namespace = world.hosts[0], world.namespace("crowd")
    program = """
        with mz.TransitAgent.open("tunnel0", netns=sys.argv[1]) as agent:
            for n in range(50):
                mz.Endpoint.create(agent, vni=int(sys.argv[3]), ip=f"10.0.{sys.argv[3]}.{n + 1}",
                                   netns=sys.argv[2], ifname=f"v{sys.argv[3]}-{n}")
    """
    processes = [start_python(program, host.namespace.name, namespace.name, str(vni)) for vni in (7, 8)]
    for status, output in map(finish, processes):
        assert status == 0, output
    found = mz.Endpoint.list(host.agent)
    assert len(found) == 100
    assert len({host.agent.endpoints[each.vni, each.ip] for each in found}) == 100
    assert len(links(namespace)) == 101


def test_two_processes_never_make_two_of_one_subnet_in_one_namespace(world: World) -> None:
    """One is refused, or both are."""
    host, namespace = world.hosts[0], world.namespace("one")
    program = """
        with mz.TransitAgent.open("tunnel0", netns=sys.argv[1]) as agent:
            spec = mz.EndpointSpec(vni=7, ip=sys.argv[3], netns=sys.argv[2], ifname=sys.argv[4])
            other = mz.Endpoint.create(agent, vni=7, name=sys.argv[4], ip=sys.argv[5], netns=sys.argv[2],
                                       ifname=sys.argv[6])
            for line in sys.stdin:
                try:
                    if line == "update\\n":
                        other.update(ip=[sys.argv[5], sys.argv[3]])
                    else:
                        mz.Endpoint.create(agent, spec)
                    print("made", flush=True)
                except mz.ExistsError:
                    print("refused", flush=True)
    """
    pairs = (("10.0.0.1/24", "a", "10.1.0.1/24", "c"), ("10.0.0.2/24", "b", "10.2.0.1/24", "d"))
    both = [start_python(program, host.namespace.name, namespace.name, *each, talk=True) for each in pairs]
    told: list[list[str]] = []
    for what in ("create", "update", "create") * depth(5, 50):
        told.append(tell_each(both, what))
        mz.Endpoint.delete_many(host.agent, ["7/10.0.0.1", "7/10.0.0.2"])
        for endpoint in mz.Endpoint.list(host.agent):
            endpoint.update(ip=[each for each in endpoint.addresses if str(each.network) != "10.0.0.0/24"])
    assert [finish(each)[0] for each in both] == [0, 0]
    assert ["made", "made"] not in told


def tell_each(processes: list[Popen[str]], line: str) -> list[str]:
    """What processes answer to a line, which all are told before one is listened to."""
    for each in processes:
        assert each.stdin is not None
        each.stdin.write(f"{line}\n")
        each.stdin.flush()
    return [heard(each) for each in processes]


def test_what_is_read_of_all_is_what_each_says(world: World) -> None:
    host, namespace, other = world.hosts[0], world.namespace("many"), world.namespace("other")
    agent = host.agent
    mz.Endpoint.create_many(agent, many(namespace, range(1, 6)))
    mz.Endpoint.create(agent, vni=8, ip=["10.1.0.1/24", "fd00::1/64"], netns=other.name, gateway="10.1.0.254")
    mz.Endpoint.create(agent, vni=8, ip="10.1.0.2/24", ifname="own")
    mz.Endpoint.create(agent, vni=8, ip="10.1.0.3/24", kind="macvtap")
    namespace.run("ip", "link", "delete", "e2")
    namespace.run("ip", "link", "set", "e3", "down")
    namespace.run("ip", "address", "flush", "dev", "e4")
    hops = ("nexthop", "via", "10.0.1.77", "dev", "e1", "nexthop", "via", "10.0.5.78", "dev", "e5")
    namespace.run("ip", "route", "add", "192.0.2.0/24", *hops)
    everyone = mz.Endpoint.list(agent, dead=True)
    states = mz.Endpoint.state_all(agent)
    assert states == {each.name: each.state() for each in everyone}
    assert {name for name, state in states.items() if state.life is mz.Life.DEAD} == {"n2"}
    assert (states["n3"].up, states["n4"].addresses) == (False, ())
    # What the stacks say unasked may be counted between the two.
    wait_until(lambda: mz.Endpoint.stats_all(agent) == {each.name: each.stats() for each in everyone})


def test_the_cost_of_reading_all_depends_on_namespaces_and_not_on_endpoints(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, namespace = world.hosts[0].agent, world.namespace("many")
    mz.Endpoint.create(agent, vni=8, ip="10.1.0.1/24", netns=namespace.name, ifname="first")
    mz.Endpoint.state_all(agent)
    exchanges: list[str] = []
    for name in ("_exchange", "_exchange_each"):
        monkeypatch.setattr(Rtnl, name, noted(getattr(Rtnl, name), exchanges))
    costs: list[int] = []
    for numbers in (range(1, 2), range(2, 31)):
        mz.Endpoint.create_many(agent, many(namespace, numbers))
        exchanges.clear()
        mz.Endpoint.state_all(agent)
        mz.Endpoint.list(agent)
        costs.append(len(exchanges))
    assert costs[0] == costs[1] > 0


def noted(method: Callable[..., Any], exchanges: list[str]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        exchanges.append(method.__name__)
        return method(*arguments)

    return call
