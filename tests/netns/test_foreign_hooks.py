# SPDX-License-Identifier: Apache-2.0
"""What others put on the tunnel that makes a hole is reported by name: queues, and programs ahead of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import mizarnet as mz
from mizarnet._datapath import loader
from mizarnet._kernel import bpf
from mizarnet._model import layouts
from tests.support.standing import at_the_head
from tests.support.traffic import assert_no_ping, assert_ping
from tests.world import TUNNEL, Host, World

INGRESS, EGRESS = bpf.Direction.INGRESS, bpf.Direction.EGRESS


@contextmanager
def stranger() -> Iterator[bpf.Program]:
    """A program that is not the agent's, and that drops everything on either hook."""
    capacity = mz.Capacity(max_endpoints=1, max_local=1)
    with loader.load(bytes(layouts.CONFIG.size), capacity) as loaded:
        yield loaded.programs["mzn_guard"]


@contextmanager
def ahead(host: Host, program: bpf.Program, direction: bpf.Direction) -> Iterator[None]:
    """A program at the head of a tcx hook of the tunnel."""
    tunnel = host.agent.tunnel
    with at_the_head(tunnel._host, tunnel.ifindex, program, direction):
        yield


@pytest.mark.vm
@pytest.mark.parametrize("kind", ["pfifo", "bfifo", "pfifo_fast"])
def test_a_queue_on_the_tunnel_is_reported_by_its_kind(host: Host, kind: str) -> None:
    host.namespace.run("tc", "qdisc", "add", "dev", TUNNEL, "root", kind)
    assert host.tunnel.state().qdisc == kind
    host.namespace.run("tc", "qdisc", "del", "dev", TUNNEL, "root")
    assert host.tunnel.state().qdisc == "noqueue"


@pytest.mark.vm
def test_strangers_ahead_of_guard_and_agent_are_reported_in_their_order(host: Host) -> None:
    if not mz.probe().tcx:
        return  # the filters that such a kernel has instead are below
    with stranger() as one, stranger() as two, ahead(host, one, INGRESS):
        name = "ingress: mzn_guard"
        assert host.agent.state().ahead == (f"{name} ({one.id})",)
        with ahead(host, two, INGRESS), ahead(host, one, EGRESS):
            assert host.agent.state().ahead == (
                f"{name} ({two.id})",
                f"{name} ({one.id})",
                f"egress: mzn_guard ({one.id})",
            )
    assert host.agent.state().ahead == ()


def test_a_tcx_program_is_ahead_of_every_filter_and_reported() -> None:
    """An agent on a clsact, on a kernel that has tcx: programs there run first."""
    if not mz.probe().tcx:
        return  # nothing can be ahead of filters but filters
    with World("vxlan", hook="clsact") as world, stranger() as program:
        first, second = world.hosts
        one, other = (world.container(each, 7, f"10.0.0.{n}/24") for n, each in enumerate((first, second), 1))
        assert_ping(one.namespace, other.ip)
        with ahead(first, program, EGRESS):
            assert_no_ping(one.namespace, other.ip)
            assert first.agent.state().ahead == (f"egress: mzn_guard ({program.id})",)
        assert first.agent.state().ahead == ()
        assert_ping(one.namespace, other.ip)


@pytest.mark.vm
def test_a_filter_ahead_of_ours_on_a_clsact_is_reported() -> None:
    """Among filters of the same priority the one that came last runs first."""
    with World("vxlan", hook="clsact") as world, stranger() as program:
        first, second = world.hosts
        one, other = (world.container(each, 7, f"10.0.0.{n}/24") for n, each in enumerate((first, second), 1))
        assert_ping(one.namespace, other.ip)
        agent = first.agent
        place = bpf.ClsactPlace(ifindex=agent.tunnel.ifindex, direction=EGRESS, priority=1, handle=77)
        agent._datapath.host.run(place.attach, program)
        assert_no_ping(one.namespace, other.ip)
        assert agent.state().ahead == (f"egress: mzn_guard ({program.id})",)
        agent._datapath.host.run(place.detach, program)
        assert agent.state().ahead == ()
        assert_ping(one.namespace, other.ip)
