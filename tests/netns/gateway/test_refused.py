# SPDX-License-Identifier: Apache-2.0
"""What a gateway cannot be is refused before anything of it is made, with the two things that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import mizarnet as mz
from mizarnet._kernel import nftables
from tests.support.outside import need_nftables, private_spaces
from tests.world import TUNNEL, UNDERLAY, World, links


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Two hosts, of which the first has networks of some VNIs, an endpoint, a gateway and a server."""
    need_nftables()
    with World("vxlan") as made:
        agent = made.hosts[0].agent
        agent.networks.update(
            {
                (7, "10.0.0.0/24"): mz.Network(gateway="10.0.0.1"),
                (7, "10.0.1.0/24"): mz.Network(),
                (9, "0.0.0.0/0"): mz.Network(via="10.0.0.9"),
            }
        )
        agent.endpoints[7, "10.0.0.40"] = mz.Remote(made.hosts[1].address)
        made.container(made.hosts[0], 7, "10.0.0.5/24", name="web")
        mz.Gateway.create(
            agent, vni=6, egress=UNDERLAY, ip="10.0.0.1/24", publish=[mz.Publish("tcp", 8006, "10.0.0.5", 80)]
        )
        made.serve(made.hosts[0].namespace)
        yield made


def everything(world: World) -> tuple[object, ...]:
    here = world.hosts[0]
    rules = here.namespace.run("nft", "list", "ruleset")
    tables = (dict(here.agent.networks), dict(here.agent.endpoints))
    return links(here.namespace), rules, private_spaces(here.namespace), tables


def publish(*given: Any) -> dict[str, Any]:
    return {"publish": [mz.Publish(*given)]}


CASES: list[tuple[str, type[Exception], dict[str, Any], tuple[str, ...]]] = [
    ("no such device", mz.UnderlayNotFoundError, {"egress": "eth9"}, ("eth9", "VNI 7")),
    ("the tunnel", mz.InvalidValueError, {"egress": TUNNEL}, (TUNNEL, "VNI 7")),
    ("the loopback device", mz.InvalidValueError, {"egress": "lo"}, ("lo", "VNI 7")),
    ("an endpoint's address", mz.ExistsError, {"ip": "10.0.0.5/24"}, ("10.0.0.5", "'web'")),
    ("a remote address", mz.ExistsError, {"ip": "10.0.0.40/24"}, ("10.0.0.40", "another host")),
    ("an address of no network", mz.InvalidValueError, {"ip": "10.9.0.1"}, ("10.9.0.1", "VNI 7")),
    ("another way out", mz.ExistsError, {"vni": 9, "ip": "10.0.0.1/24"}, ("VNI 9", "0.0.0.0/0")),
    ("a second gateway", mz.ExistsError, {"vni": 6, "ip": "10.0.0.2/24"}, ("VNI 6", "10.0.0.1")),
    ("the name of another endpoint", mz.ExistsError, {"name": "web"}, ("'web'",)),
    ("a socket's port", mz.ExistsError, publish("tcp", 8000, "10.0.0.5", 80), ("tcp port 8000", "socket")),
    (
        "a UDP socket's port",
        mz.ExistsError,
        publish("udp", 5001, "10.0.0.5", 80),
        ("udp port 5001", "socket"),
    ),
    ("another gateway's port", mz.ExistsError, publish("tcp", 8006, "10.0.0.5", 80), ("8006", "VNI 6")),
    ("the tunnel's port", mz.ExistsError, publish("udp", 4789, "10.0.0.5", 80), ("4789", TUNNEL)),
    ("another tunnel's port", mz.InvalidValueError, publish("udp", 6081, "10.0.0.5", 80), ("6081",)),
    ("a target at a tunnel's port", mz.InvalidValueError, publish("udp", 80, "10.0.0.5", 6081), ("6081",)),
    ("a target outside", mz.InvalidValueError, publish("tcp", 80, "10.7.0.5", 80), ("10.7.0.5", "VNI 7")),
    ("the gateway as a target", mz.InvalidValueError, publish("tcp", 80, "10.0.0.1", 80), ("10.0.0.1",)),
    ("a target without a family", mz.InvalidValueError, publish("tcp", 80, "fd00::5", 80), ("fd00::5",)),
    (
        "a route of the host",
        mz.ExistsError,
        {"vni": 5, "ip": "192.0.2.77/24", "nat": False},
        ("192.0.2.0/24",),
    ),
]


@pytest.mark.parametrize(
    ("error", "given", "named"), [each[1:] for each in CASES], ids=[each[0] for each in CASES]
)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    world: World, error: type[Exception], given: dict[str, Any], named: tuple[str, ...]
) -> None:
    before = everything(world)
    with pytest.raises(error) as refused:
        mz.Gateway.create(world.hosts[0].agent, **{"vni": 7, "egress": UNDERLAY, "ip": "10.0.0.1", **given})
    for each in named:
        assert each in str(refused.value)
    assert everything(world) == before


def test_without_the_command_nothing_is_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(world)
    with monkeypatch.context() as there, pytest.raises(mz.UnsupportedError, match="nft is missing"):
        there.setenv("PATH", "/nowhere")
        there.setattr(nftables, "_DIRECTORIES", "/nowhere")
        mz.Gateway.create(world.hosts[0].agent, vni=7, egress=UNDERLAY, ip="10.0.0.1")
    assert everything(world) == before


def test_what_is_not_there_is_not_found(world: World) -> None:
    agent = world.hosts[0].agent
    with pytest.raises(mz.GatewayNotFoundError):
        mz.Gateway.open(agent, vni=7)
    made = mz.Gateway.create(agent, vni=7, egress=UNDERLAY, ip="10.0.0.1")
    assert str(made.ip[0]) == "10.0.0.1/24"
    before = everything(world)
    with pytest.raises(mz.ExistsError):
        made.update(publish=[mz.Publish("tcp", 8006, "10.0.1.5", 80)], host_access=True)
    assert everything(world) == before
    mz.Gateway.open(agent, vni=7).delete()
    made.delete()
    for call in (made.state, made.update):
        with pytest.raises(mz.GatewayNotFoundError):
            call()
    later = mz.Gateway.create(agent, vni=7, egress=UNDERLAY, ip="10.0.0.1")
    made.delete()
    assert later.state().life is mz.Life.LIVE
    later.delete()


def test_an_agent_takes_its_gateways_with_it() -> None:
    need_nftables()
    with World("vxlan", hosts=1) as world:
        here = world.hosts[0]
        before = here.namespace.run("sysctl", "net.ipv4.conf.eth0.forwarding")
        for end in (here.agent.detach, here.tunnel.delete):
            agent = mz.TransitAgent.attach(here.tunnel)
            mz.Gateway.create(agent, vni=7, egress=UNDERLAY, ip="10.0.0.1/24")
            agent.close()
            end(force=True)
            assert links(here.namespace) in (["lo", UNDERLAY, TUNNEL], ["lo", UNDERLAY])
            assert not here.namespace.run("nft", "list", "ruleset")
            assert here.namespace.run("sysctl", "net.ipv4.conf.eth0.forwarding") == before
            assert not private_spaces(here.namespace)
