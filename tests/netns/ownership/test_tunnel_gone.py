# SPDX-License-Identifier: Apache-2.0
"""A tunnel that somebody deletes by hand takes programs and maps along; what stays on the NIC harms nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

import mizarnet as mz
from mizarnet._kernel.bpf import Map, XdpHook
from mizarnet._kernel.netlink import read_sysctl
from tests.netns.ownership.conftest import Scene
from tests.support.depth import FULL
from tests.support.process import heard, start_python, tell
from tests.support.standing import data_paths
from tests.support.traffic import assert_ping, transfer, udp_ask, udp_echo
from tests.support.wait import wait_until
from tests.world import TUNNEL, UNDERLAY, Host, World, alive, device

SOON = 1.0
"""Seconds after which nothing may be left; the kernel frees after a grace period."""


def map_ids(agent: mz.TransitAgent) -> set[int]:
    return {each.id for each in agent._datapath.maps.all()}


def living_maps(numbers: set[int]) -> set[int]:
    found: set[int] = set()
    for number in numbers:
        each = Map.open_id(number)
        if each is not None:
            each.close()
            found.add(number)
    return found


def delete_by_hand(host: Host) -> None:
    host.namespace.run("ip", "link", "del", TUNNEL)


@pytest.mark.vm
def test_programs_and_maps_go_with_the_tunnel(scene: Scene) -> None:
    programs, maps = set(scene.agent.state().programs.values()), map_ids(scene.agent)
    scene.agent.close()
    assert (alive(programs), living_maps(maps)) == (programs, maps)
    delete_by_hand(scene.host)
    wait_until(lambda: not alive(programs) and not living_maps(maps), "they live on", timeout=SOON)


def test_a_namespace_that_ends_takes_all_of_it_along(world: World) -> None:
    namespace = world.namespace("short")
    namespace.run("ip", "address", "add", "192.0.2.9/32", "dev", "lo")
    with (
        mz.Tunnel.create(TUNNEL, encap="vxlan", underlay="lo", netns=namespace.name) as tunnel,
        mz.TransitAgent.attach(tunnel, peers=[]) as agent,
    ):
        programs, maps = set(agent.state().programs.values()), map_ids(agent)
    namespace.delete()
    wait_until(lambda: not alive(programs) and not living_maps(maps), "they live on", timeout=SOON)


HANDLE = """
agent = mz.TransitAgent.open("tunnel0", netns=sys.argv[1])
print("open", flush=True)
for line in sys.stdin:
    try:
        {call}
        print("nothing", flush=True)
    except mz.StaleHandleError as error:
        print("stale", flush=True)
"""
CALLS = {
    "stats": "agent.stats()",
    "state": "agent.state()",
    "read": "agent.endpoints.snapshot()",
    "write": 'agent.endpoints[7, "10.0.0.9"] = mz.Remote("192.0.2.2")',
    "create": 'mz.Endpoint.create(agent, vni=7, ip="10.0.0.9/24")',
    "list": "mz.Endpoint.list(agent)",
}


def test_other_processes_handles_let_go_at_their_next_call(scene: Scene) -> None:
    """Until then they keep the maps; one call, whichever, and the last of the memory is free."""
    maps = map_ids(scene.agent)
    others = [
        start_python(HANDLE.format(call=call), scene.host.namespace.name, talk=True)
        for call in CALLS.values()
    ]
    try:
        assert [heard(other) for other in others] == ["open"] * len(CALLS)
        scene.agent.close()
        delete_by_hand(scene.host)
        for name, other in zip(CALLS, others, strict=True):
            assert living_maps(maps) == maps
            assert tell(other) == "stale", name
        wait_until(lambda: not living_maps(maps), "they live on", timeout=SOON)
        assert [other.poll() for other in others] == [None] * len(CALLS)
    finally:
        for other in others:
            other.kill()
            other.communicate()


# -- with a switch on the NIC ------------------------------------------------------------------------------

WAYS: dict[str, Callable[[Scene], object]] = {
    "attach": lambda scene: scene_again(scene, attach=True),
    "create": lambda scene: scene_again(scene, attach=False),
    "detach by name": lambda scene: mz.TransitSwitch.detach(UNDERLAY, netns=scene.host.namespace.name),
    "detach of another process": lambda scene: detach_elsewhere(scene),
}


MODES = ("native", "generic")


def scene_again(scene: Scene, *, attach: bool) -> None:
    netns = scene.host.namespace.name
    with mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=netns) as tunnel:
        if attach:
            mz.TransitAgent.attach(tunnel).close()


def detach_elsewhere(scene: Scene) -> None:
    process = start_python('mz.TransitSwitch.detach("eth0", netns=sys.argv[1])', scene.host.namespace.name)
    assert process.communicate(timeout=60)[0] == ""


def xdp(host: Host) -> list[int]:
    return host.tunnel._host.run(XdpHook(device(host.namespace, UNDERLAY).ifindex).query).program_ids


def forwarding(host: Host) -> str:
    return read_sysctl(host.tunnel._host, f"ipv4/conf/{UNDERLAY}/forwarding")


def assert_nic_unharmed(scene: Scene) -> None:
    near, far = scene.host, scene.db.host
    assert_ping(near.namespace, far.address)
    assert_ping(far.namespace, near.address)
    transfer(far.namespace, near.namespace, near.address, size=1 << 18)
    with udp_echo(near.namespace, near.address, port=4789, tag=b"port "):
        assert udp_ask(far.namespace, near.address, b"vxlan", port=4789) == b"port vxlan"


@pytest.mark.parametrize(
    ("way", "mode"),
    list(product(WAYS, MODES)) if FULL else [(way, MODES[place % 2]) for place, way in enumerate(WAYS)],
)
def test_a_switch_passes_everything_and_is_taken_off(scene: Scene, way: str, mode: str) -> None:
    host = scene.host
    mz.TransitSwitch.attach(scene.agent, mode="native" if mode == "native" else "generic")
    (switch,) = xdp(host)
    programs, meta = set(scene.agent.state().programs.values()), scene.agent._datapath.meta_id
    assert forwarding(host) == "1"
    scene.agent.close()
    delete_by_hand(host)
    wait_until(lambda: not alive(programs), "agent and guard live on", timeout=SOON)
    assert (xdp(host), {*data_paths()[meta]}) == ([switch], {switch})
    assert_nic_unharmed(scene)
    WAYS[way](scene)
    assert (xdp(host), forwarding(host)) == ([], "0")
    wait_until(lambda: not alive({switch}), "the switch lives on", timeout=SOON)
    mz.TransitSwitch.detach(UNDERLAY, netns=host.namespace.name)


@pytest.mark.vm
def test_a_tunnel_that_is_gone_is_nothing_to_a_switch(scene: Scene) -> None:
    """The kernel empties the entry that stood for the tunnel: nothing has to notice its end."""
    mz.TransitSwitch.attach(scene.agent, mode="generic")
    lifeline = scene.agent._datapath.maps.lifeline
    kept = Map.open_id(lifeline.id)
    assert kept is not None
    with kept:
        assert kept.lookup(bytes(4)) is not None
        delete_by_hand(scene.host)
        assert kept.lookup(bytes(4)) is None
    assert_nic_unharmed(scene)
