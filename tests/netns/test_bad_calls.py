# SPDX-License-Identifier: Apache-2.0
"""Every public call, on what really is there, refuses every value that none of its arguments can be."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

import mizarnet as mz
from tests.world import TUNNEL, UNDERLAY, World

Call = tuple[Callable[..., object], tuple[object, ...], dict[str, object]]


class _NoText:
    """A path that has no text."""

    def __fspath__(self) -> object:
        return 5


WRONG = (object(), "a\0b", b"x", 10**30, -1.5, float("nan"), [object()], {object(): 1}, _NoText())

_NOT_HERE = {"Gateway.update"}
"""Takes nftables. It judges its arguments as ``Gateway.create()`` does."""


@pytest.fixture(scope="module")
def calls() -> Iterator[dict[str, Call]]:
    """Calls that would do no harm, by their names."""
    with World("vxlan", hosts=1) as world, ExitStack() as undo:
        host = world.hosts[0]
        agent, tunnel, netns = host.agent, host.tunnel, host.namespace.name
        web = world.container(host, 7, "10.0.0.1/24", name="web").endpoint
        vm = mz.Endpoint.create(agent, vni=7, ip="10.0.0.7/24", kind="macvtap", name="vm")
        mz.TransitSwitch.attach(agent, mode="generic")
        here = undo.enter_context(mz.Host.open(netns=netns))
        lab = undo.enter_context(mz.Lab(hosts=1, name=f"bad-{os.getpid()}", encap="vxlan"))
        events = undo.enter_context(agent.events())
        spec = mz.HostSpec.from_dict({"tunnel": {"encap": "vxlan", "underlay": UNDERLAY}})
        stats, remote = agent.stats(), mz.Remote("192.0.2.2")
        rows: list[Call] = [
            (mz.Tunnel.create, (TUNNEL,), {"encap": "vxlan", "underlay": UNDERLAY, "netns": netns}),
            (mz.Tunnel.open, (TUNNEL,), {"netns": netns}),
            (mz.Tunnel.list, (), {}),
            (tunnel.update, (), {}),
            (mz.Tunnel.delete, ("nothing",), {"netns": netns}),
            (tunnel.delete, (), {}),
            (mz.TransitAgent.attach, (tunnel,), {}),
            (mz.TransitAgent.open, (tunnel,), {}),
            (mz.TransitAgent.open, (TUNNEL,), {"netns": netns}),
            (mz.TransitAgent.detach, ("nothing",), {"netns": netns}),
            (agent.detach, (), {}),
            (agent.update, (), {}),
            (agent.events, (), {}),
            (agent.explain, ("web", "10.0.0.2"), {}),
            (mz.explain_path, ([agent], "web", "10.0.0.2"), {}),
            (mz.TransitSwitch.attach, (agent,), {}),
            (mz.TransitSwitch.open, (agent,), {}),
            (mz.TransitSwitch.detach, ("lo",), {"netns": netns}),
            (mz.Endpoint.create, (agent,), {"vni": 7, "ip": "10.0.0.9/24", "netns": web.spec.netns}),
            (mz.Endpoint.create_many, (agent, []), {}),
            (mz.Endpoint.open, (agent, "web"), {}),
            (mz.Endpoint.open, (agent,), {"vni": 7, "ip": "10.0.0.1"}),
            (mz.Endpoint.list, (agent,), {}),
            (mz.Endpoint.stats_all, (agent,), {}),
            (mz.Endpoint.state_all, (agent,), {}),
            (mz.Endpoint.delete_many, (agent, []), {}),
            (web.update, (), {}),
            (vm.open_tap, (), {}),
            (mz.Gateway.create, (agent,), {"vni": 9, "egress": "lo", "ip": "10.9.0.1/24", "nat": 1}),
            (mz.Gateway.open, (agent,), {"vni": 9}),
            (mz.Gateway.list, (agent,), {}),
            (mz.Gateway.delete_many, (agent, []), {}),
            (agent.endpoints.update, ({},), {}),
            (agent.endpoints.sync, ([],), {"vni": 99}),
            (agent.endpoints.apply, ({}, ()), {}),
            (agent.endpoints.__getitem__, ((7, "10.0.0.1"),), {}),
            (agent.endpoints.__setitem__, ((9, "10.0.0.1"), remote), {}),
            (agent.endpoints.__delitem__, ((9, "10.0.0.1"),), {}),
            (agent.networks.update, ({},), {}),
            (agent.networks.sync, ([],), {"vni": 99}),
            (agent.networks.apply, ({}, ()), {}),
            (agent.networks.find, (7, "10.0.0.1"), {}),
            (agent.peers.add, ("192.0.2.0/24",), {}),
            (agent.peers.discard, ("192.0.9.0/24",), {}),
            (agent.peers.update, ([],), {}),
            (agent.peers.sync, (["192.0.2.0/24"],), {}),
            (agent.peers.apply, ([], ()), {}),
            (agent.peers.covers, ("192.0.2.1",), {}),
            (mz.Host.open, (), {}),
            (here.repair, ([],), {}),
            (here.plan, (spec,), {}),
            (here.plan(spec).apply, (), {}),
            (here.clear, (), {}),
            (mz.HostSpec.load, ("/nonexistent",), {}),
            (mz.HostSpec.fleet, ("/nonexistent",), {}),
            (mz.HostSpec.from_dict, ({},), {}),
            (mz.probe, (), {}),
            (mz.Encap.VXLAN.overhead, (4,), {}),
            (stats.since, (stats,), {}),
            (mz.Explanation.from_dict, ({},), {}),
            (mz.Step.from_dict, ({},), {}),
            (mz.Crossing.from_dict, ({},), {}),
            (web.spec.covers, ("10.0.0.1",), {}),
            (mz.MacAddress.parse, ("02:00:00:00:00:01",), {}),
            (mz.MacAddress.derive, (7, web.addresses[0].ip), {}),
            (mz.EndpointKey.parse, ((7, "10.0.0.1"),), {}),
            (mz.NetworkKey.parse, ((7, "10.0.0.0/24"),), {}),
            (events.read, (0,), {}),
            (events.write_pcapng, ("/nonexistent/file",), {}),
            (lab.run, ("h1", "true"), {}),
            (lab.container, ("web",), {}),
        ]
        found: dict[str, Call] = {}
        for call, given, named in rows:
            name = call.__qualname__
            found[name if name not in found else f"{name} again"] = call, given, named
        yield found
        found.clear()  # what is closed goes with its last reference, and pytest has this one until the module has ended
        assert agent.state().up
        assert [each.name for each in mz.Endpoint.list(agent)] == ["vm", "web"]


def _public() -> Iterator[str]:
    """Names of the public calls that take arguments."""
    for name in mz.__all__:
        thing = getattr(mz, name)
        if not inspect.isclass(thing):
            if inspect.isfunction(thing) and name != "deleting":  # which takes anything that has a delete()
                yield name
            continue
        if issubclass(thing, Exception):
            continue
        for method, member in vars(thing).items():
            function = getattr(member, "__func__", member)
            if method.startswith("_") or not inspect.isfunction(function):
                continue
            if {*inspect.signature(function).parameters} - {"self", "cls"}:
                yield f"{name}.{method}"


def test_all_public_calls_are_here(calls: dict[str, Call]) -> None:
    assert {*_public()} - _NOT_HERE <= calls.keys()


def _variants(call: Call) -> Iterator[tuple[str, object, Callable[[], object]]]:
    """The call with one argument replaced, by name of that and its value."""
    function, given, named = call
    parameters = inspect.signature(function).parameters
    for number, (name, parameter) in enumerate(parameters.items()):
        for wrong in WRONG:
            args, kwargs = given, named
            if number < len(given):
                args = (*given[:number], wrong, *given[number + 1 :])
            elif parameter.kind is parameter.POSITIONAL_ONLY:
                continue
            else:
                kwargs = {**named, name: wrong}
            yield name, wrong, lambda args=args, kwargs=kwargs: function(*args, **kwargs)  # type: ignore[misc]


def test_what_no_argument_can_be_is_refused_by_the_library(calls: dict[str, Call]) -> None:
    failed: list[str] = []
    for title, call in calls.items():
        for name, wrong, attempt in _variants(call):
            try:
                attempt()
            except mz.MizarnetError:
                continue
            except Exception as error:
                failed.append(f"{title}({name}={wrong!r}): {error!r}")
            else:
                failed.append(f"{title}({name}={wrong!r}) is taken")
    assert failed == []


def test_what_is_no_handle_is_refused() -> None:
    for call, handle in (
        (mz.Tunnel.delete, "tunnel"),
        (mz.TransitAgent.detach, "agent"),
        (mz.TransitSwitch.detach, "switch"),
    ):
        for wrong in (None, 5, object()):
            with pytest.raises(mz.InvalidTypeError) as caught:
                call(wrong)  # type: ignore[arg-type]
            assert caught.value.argument == handle
