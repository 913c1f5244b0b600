# SPDX-License-Identifier: Apache-2.0
"""``deleting``: what a call made goes with the block, what was there before stays."""

from __future__ import annotations

import pytest

import mizarnet as mz
from tests.support.namespace import Namespace
from tests.world import UNDERLAY, Host, links


def create(host: Namespace) -> mz.Tunnel:
    return mz.Tunnel.create("tunnel0", encap="vxlan", underlay=UNDERLAY, netns=host.name)


def test_all_three_go_in_reverse(bare: Namespace) -> None:
    with mz.deleting(create(bare)) as tunnel, mz.deleting(mz.TransitAgent.attach(tunnel)) as agent:
        with mz.deleting(mz.Endpoint.create(agent, vni=7, ip="10.0.0.1/24", ifname="mz0")):
            assert links(bare) == ["lo", UNDERLAY, "tunnel0", "mz0"]
        assert links(bare) == ["lo", UNDERLAY, "tunnel0"]
    assert links(bare) == ["lo", UNDERLAY]


def test_they_go_when_the_block_fails(bare: Namespace) -> None:
    with pytest.raises(ZeroDivisionError), mz.deleting(create(bare)):
        raise ZeroDivisionError
    assert links(bare) == ["lo", UNDERLAY]


def test_what_existed_before_stays(host: Host) -> None:
    spec = mz.EndpointSpec(vni=7, ip="10.0.0.1/24", ifname="mz0")
    mz.Endpoint.create(host.agent, spec)
    with (
        mz.deleting(create(host.namespace)) as tunnel,
        mz.deleting(mz.TransitAgent.attach(tunnel)) as agent,
        mz.deleting(mz.Endpoint.create(agent, spec)) as endpoint,
    ):
        assert not (tunnel.created or agent.created or endpoint.created)
    assert mz.Endpoint.open(host.agent, spec.name).state().up


def test_the_handles_are_closed(host: Host) -> None:
    with mz.deleting(mz.TransitAgent.attach(host.tunnel)) as agent:
        pass
    with pytest.raises(mz.ClosedError):
        agent.stats()


def test_it_refuses_to_take_the_ground_from_under_others(bare: Namespace) -> None:
    with create(bare) as again:
        with pytest.raises(mz.InUseError), mz.deleting(mz.TransitAgent.attach(again)) as agent:
            mz.Endpoint.create(agent, vni=7, ip="10.0.0.1/24", ifname="mz0")
        again.delete(force=True)
