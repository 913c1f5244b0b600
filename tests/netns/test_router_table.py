# SPDX-License-Identifier: Apache-2.0
"""Which hosts have next hops, as the guard is told: after every change of a network or of a next hop's entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

import mizarnet as mz
from mizarnet import Network, Remote
from mizarnet._datapath import next_hops
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.bpf import Map
from mizarnet._model import codec, layouts
from mizarnet._model.codec import NEXT_HOPS_CHANGING
from mizarnet._model.enumerations import Limit
from mizarnet.errors import KernelError
from tests.world import Host, World

A, B, C = (Remote(f"192.0.2.{number}") for number in (20, 21, 22))


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with World("vxlan", hosts=1) as world:
        yield world.hosts[0]


@pytest.fixture
def agent(host: Host) -> Iterator[mz.TransitAgent]:
    """With empty tables."""
    yield host.agent
    host.agent.networks.sync({})
    host.agent.endpoints.sync({})
    assert told(host.agent) == {}
    assert list(maps_of(host.agent).vias.keys()) == []


def maps_of(agent: mz.TransitAgent) -> Maps:
    return agent.endpoints._datapath.maps


def told(agent: mz.TransitAgent) -> dict[tuple[int, str], list[str]]:
    """What the guard is told: next hops by VNI and host."""
    found: dict[tuple[int, str], list[str]] = {}
    for key, value in maps_of(agent).routers.items():
        vni, host = layouts.RouterKey.unpack(key)
        known = codec.unpack_router(key, value)
        assert {codec.endpoint_vni(each) for each in known} <= {vni}
        hops = [str(codec.unpack_endpoint_key(each).ip) for each in known]
        found[vni, str(ip_address(host[12:]))] = hops
    return found


def test_next_hops_are_told_whatever_comes_first(agent: mz.TransitAgent) -> None:
    agent.networks[7, "172.20.0.0/16"] = Network(via="10.0.0.1")
    assert told(agent) == {}
    agent.endpoints[7, "10.0.0.1"] = A
    assert told(agent) == {(7, "192.0.2.20"): ["10.0.0.1"]}
    agent.endpoints[7, "10.0.0.2"] = B
    agent.networks[7, "172.21.0.0/16"] = Network(via="10.0.0.2")
    agent.networks[7, "fd50::/64"] = Network(via="fd00::1")
    agent.networks[8, "172.20.0.0/16"] = Network(via="10.0.0.1")  # which is nowhere in that VNI
    assert told(agent) == {(7, "192.0.2.20"): ["10.0.0.1"], (7, "192.0.2.21"): ["10.0.0.2"]}
    agent.endpoints.update({(7, "fd00::1"): A, (8, "10.0.0.1"): B})
    assert told(agent) == {
        (7, "192.0.2.20"): ["10.0.0.1", "fd00::1"],
        (7, "192.0.2.21"): ["10.0.0.2"],
        (8, "192.0.2.21"): ["10.0.0.1"],
    }


CHANGES: dict[str, tuple[Callable[[mz.TransitAgent], object], dict[tuple[int, str], list[str]]]] = {
    "it moves": (
        lambda agent: agent.endpoints.update({(7, "10.0.0.1"): C}),
        {(7, "192.0.2.22"): ["10.0.0.1"], (7, "192.0.2.21"): ["10.0.0.2"]},
    ),
    "it goes": (
        lambda agent: agent.endpoints.__delitem__((7, "10.0.0.1")),
        {(7, "192.0.2.21"): ["10.0.0.2"]},
    ),
    "both go": (lambda agent: agent.endpoints.sync({}), {}),
    "all are elsewhere": (
        lambda agent: agent.endpoints.sync({(7, "10.0.0.1"): B, (7, "10.0.0.2"): B}),
        {(7, "192.0.2.21"): ["10.0.0.1", "10.0.0.2"]},
    ),
    "one network goes": (
        lambda agent: agent.networks.__delitem__((7, "172.20.0.0/16")),
        {(7, "192.0.2.20"): ["10.0.0.1"], (7, "192.0.2.21"): ["10.0.0.2"]},  # another one has it as well
    ),
    "no network has it": (
        lambda agent: agent.networks.apply({}, [(7, "172.20.0.0/16"), (7, "172.22.0.0/16")]),
        {(7, "192.0.2.21"): ["10.0.0.2"]},
    ),
    "the networks have another": (
        lambda agent: agent.networks.update(
            {(7, f"172.2{number}.0.0/16"): Network(via="10.0.0.2") for number in (0, 2)}
        ),
        {(7, "192.0.2.21"): ["10.0.0.2"]},
    ),
    "the networks have switches": (
        lambda agent: agent.networks.sync({(7, "172.20.0.0/16"): Network(switches=["192.0.2.30"])}),
        {},
    ),
    "the networks have none": (lambda agent: agent.networks.sync({}, vni=7), {}),
    "nothing that matters": (
        lambda agent: agent.endpoints.update({(7, "10.0.0.3"): A, (8, "10.0.0.1"): A}),
        {(7, "192.0.2.20"): ["10.0.0.1"], (7, "192.0.2.21"): ["10.0.0.2"]},
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_told_at_once(agent: mz.TransitAgent, what: str) -> None:
    change, expected = CHANGES[what]
    prepare(agent)
    change(agent)
    assert told(agent) == expected


def prepare(agent: mz.TransitAgent) -> None:
    """Two next hops on two hosts, of three networks."""
    agent.endpoints.update({(7, "10.0.0.1"): A, (7, "10.0.0.2"): B})
    vias = {"172.20.0.0/16": "10.0.0.1", "172.21.0.0/16": "10.0.0.2", "172.22.0.0/16": "10.0.0.1"}
    agent.networks.update({(7, prefix): Network(via=via) for prefix, via in vias.items()})
    assert told(agent) == {(7, "192.0.2.20"): ["10.0.0.1"], (7, "192.0.2.21"): ["10.0.0.2"]}


def test_of_many_next_hops_on_one_host_some_are_named(agent: mz.TransitAgent) -> None:
    hops = [f"10.0.0.{number}" for number in range(1, 8)]
    agent.endpoints.update({(7, hop): A for hop in hops})
    agent.networks.update({(7, f"172.20.{n}.0/24"): Network(via=hop) for n, hop in enumerate(hops)})
    assert told(agent) == {(7, "192.0.2.20"): hops[: Limit.WITNESSES]}
    agent.endpoints.apply({}, [(7, hop) for hop in hops[:5]])
    assert told(agent) == {(7, "192.0.2.20"): hops[5:]}


def test_a_next_hop_that_comes_here_needs_no_writer(host: Host, agent: mz.TransitAgent) -> None:
    """The entry says that it is here, and the guard looks."""
    prepare(agent)
    with mz.deleting(mz.Endpoint.create(agent, vni=7, ip="10.0.0.1/24", ifname="router0", forwarding=True)):
        agent.endpoints[7, "10.0.0.9"] = A
        assert agent.endpoints[7, "10.0.0.1"].to_dict()["forwarding"] is True
        agent.networks[7, "172.23.0.0/16"] = Network(via="10.0.0.9")
        assert told(agent) == {(7, "192.0.2.20"): ["10.0.0.9"], (7, "192.0.2.21"): ["10.0.0.2"]}
    assert (7, "10.0.0.1") not in agent.endpoints


# -- a writer that dies ------------------------------------------------------------------------------------


class Killed(BaseException):
    """In place of a signal that ends the process: nobody undoes anything."""


@pytest.mark.parametrize("what", CHANGES)
def test_the_next_writer_mends_what_a_dead_one_left(
    agent: mz.TransitAgent, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Before the renewal, so that both maps are as the beginning of the call left them: nothing false is believed."""
    change, expected = CHANGES[what]
    prepare(agent)

    def die(_: Maps) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(next_hops, "renew", die)
        try:
            change(agent)
        except Killed:
            assert NEXT_HOPS_CHANGING in set(maps_of(agent).vias.keys())
            assert_nothing_false(agent)
    agent.endpoints.sync({key: value for key, value in remotes(agent).items()})  # changes nothing
    assert told(agent) == expected


def remotes(agent: mz.TransitAgent) -> dict[tuple[int, str], Remote]:
    return {
        (vni, str(ip)): value for (vni, ip), value in agent.endpoints.items() if isinstance(value, Remote)
    }


def assert_nothing_false(agent: mz.TransitAgent) -> None:
    """What the guard believes, a network says: the entry of the next hop it looks up itself."""
    vias = {(vni, str(network.via)) for (vni, _), network in agent.networks.items() if network.via}
    for (vni, _), hops in told(agent).items():
        assert {(vni, hop) for hop in hops} <= vias


@pytest.mark.parametrize("what", ["it moves", "no network has it", "the networks have another"])
def test_a_call_that_fails_leaves_both_as_they_were(
    agent: mz.TransitAgent, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    change, _ = CHANGES[what]
    prepare(agent)
    before, entries = told(agent), dict(agent.networks)

    def refused(*_: object) -> None:
        raise KernelError("update", errno=12)

    with monkeypatch.context() as patched:
        patched.setattr(Map, "update_many", _once(Map.update_many, refused))
        with pytest.raises(KernelError):
            change(agent)
    assert told(agent) == before
    assert dict(agent.networks) == entries


def _once(real: Callable[..., object], failing: Callable[..., object]) -> Callable[..., object]:
    """The first call for one of the tables fails."""
    failed: list[bool] = []

    def call(table: Map, *given: object) -> object:
        if table.name in ("endpoints", "networks") and not failed:
            failed.append(True)
            return failing()
        return real(table, *given)

    return call
