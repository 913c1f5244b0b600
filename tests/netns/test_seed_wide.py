# SPDX-License-Identifier: Apache-2.0
"""Demands on the design that need the whole datapath: S2, S7, S8, S10 and S14. S12 is in ``test_jumbo.py``."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._datapath import loader
from mizarnet._kernel.bpf import Program
from mizarnet._kernel.netlink import Session, get_link
from mizarnet._model import specs
from tests.support.calls import helper_calls
from tests.support.process import run_python
from tests.support.standing import program_ids
from tests.support.tables import contents
from tests.world import (
    SHORTCUT,
    SWITCH_VERDICTS,
    TUNNEL,
    UNDERLAY,
    Container,
    EncapName,
    Host,
    Subnet,
    World,
    common_tests,
    device,
    mac_of,
)

pytestmark = [pytest.mark.vm, pytest.mark.demand]
VNI = 3
XDP_PASS = 2
NET = Subnet(VNI, 1)


@pytest.fixture(scope="module")
def world(encap: EncapName) -> Iterator[World]:
    """Two endpoints that reach each other through a switch, and two that do so directly."""
    with World(encap, hosts=3) as made:
        h1, h2, switch = made.hosts
        made.network(NET, switches=[switch])
        made.member(h1, NET, 2), made.member(h2, NET, 3)
        made.inform(switch)
        made.switch(switch)
        near, far = made.member(h1, NET, 4), made.member(h2, NET, 5)
        made.inform(h1, about=[far])
        made.inform(h2, about=[near])
        yield made


@contextmanager
def program(host: Host, name: str) -> Iterator[Program]:
    """A program of a host."""
    found = Program.open_id(program_ids(host.agent)[name])
    assert found is not None
    with found:
        yield found


def calls(host: Host, name: str) -> list[str]:
    """The helpers that a program calls."""
    with program(host, name) as found:
        return helper_calls(found)


# -- devices -----------------------------------------------------------------------------------------------


def test_s2_endpoints_are_private_macvlans_and_macvtaps_in_namespaces(world: World) -> None:
    container = world.containers[0]
    host = container.host
    vm = mz.Endpoint.create(host.agent, vni=VNI, ip="10.1.0.9/24", kind="macvtap", name="vm")
    assert vm.netns is not None
    for netns, endpoint, kind in (
        (container.namespace.name, container.endpoint, "macvlan"),
        (vm.netns, vm, "macvtap"),
    ):
        with Session.open(netns) as session:
            link = get_link(session, endpoint.ifname)
            assert link is not None
            assert session.identity != host.tunnel._host.identity
        assert (link.kind, link.mode, link.parent_ifindex) == (kind, "private", host.tunnel.ifindex)
        assert link.mac == str(endpoint.mac)
    vm.delete()


# -- programs ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(SHORTCUT == "auto", reason="this demand is about the kernel's way")
def test_s7_what_arrives_for_a_local_endpoint_meets_no_redirect(world: World) -> None:
    near, far = world.containers[2:]
    guard = calls(far.host, "mzn_guard")
    redirects = sorted(name for name in guard if "redirect" in name)
    assert redirects == [
        "bpf_clone_redirect",
        "bpf_redirect",
    ]  # a copy of the agent's own frame, and the bounce
    before, received = far.host.agent.stats(), far.endpoint.stats().received
    common_tests(near, far, 4)
    since = far.host.agent.stats().since(before).guard
    arrived = far.endpoint.stats().received - received
    assert since[Verdict.BOUNCED].packets == since[Verdict.COPIED].packets == 0
    assert since[Verdict.ACCEPTED].packets == arrived.packets > 50


def test_s8_the_switch_calls_no_redirect_helper_and_only_passes_or_transmits(world: World) -> None:
    """Whatever comes (T40)."""
    switch = world.hosts[2]
    common_tests(*world.containers[:2], 4)
    common_tests(*world.containers[:2], 6)
    with program(switch, loader.SWITCH) as found:
        assert {found.test_run(os.urandom(size)).verdict for size in range(14, 400)} == {XDP_PASS}
    called = calls(switch, loader.SWITCH)
    assert "bpf_xdp_fib_lookup" in called  # the names are those of functions
    assert not [name for name in called if "redirect" in name or "tail" in name]
    counted = {verdict for verdict, each in switch.agent.stats().switch.items() if each.packets}
    assert {Verdict.BOUNCED, Verdict.PASSED} <= counted <= SWITCH_VERDICTS


# -- MACs of hosts -----------------------------------------------------------------------------------------


def test_s10_no_mac_of_a_host_is_in_a_map(world: World) -> None:
    for one, other in ((0, 1), (2, 3)):
        common_tests(world.containers[one], world.containers[other], 4)
    macs = [mac_of(host.namespace, name) for host in world.hosts for name in (UNDERLAY, TUNNEL)]
    for host in world.hosts:
        tables = {**contents(host.agent), "meta": dict(host.agent._datapath.maps.meta.items())}
        data = b"".join(key + value for table in tables.values() for key, value in table.items())
        assert not [mac for mac in macs if mac in data]


def test_s10_nothing_that_is_said_of_a_host_has_room_for_a_mac() -> None:
    for kind in (mz.Remote, mz.Network, mz.NetworkKey, mz.EndpointKey):
        assert "MacAddress" not in str(inspect.get_annotations(kind))
    assert "mac" not in inspect.signature(mz.Tunnel.create).parameters
    assert {field.name for field in attrs.fields(specs.Remote)} == {"host"}


# -- the inside of a container -----------------------------------------------------------------------------

CAPABILITIES = "-all,+net_raw,+chown,+dac_override,+setuid,+setgid,+net_bind_service,+kill"
"""What container runtimes leave to root: no CAP_NET_ADMIN, no CAP_BPF, no CAP_SYS_ADMIN."""
LOOK = """
import json, subprocess
def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout
print(json.dumps({line: run(*line.split()) for line in sys.argv[1:]}))
"""
CHANGES = (
    "ip link set eth0 address 02:00:00:00:00:99",
    "ip link set eth0 down",
    "ip link set eth0 mtu 1280",
    "ip link add eth1 link eth0 type macvlan mode bridge",
    "ip link add v0 type veth peer name v1",
    "ip link delete eth0",
    "ip link set eth0 netns 1",
    "ip address add 10.1.0.200/24 dev eth0",
    "ip neigh replace 10.1.0.3 lladdr 02:00:00:00:00:99 dev eth0",
    "ip route add 192.0.2.0/24 via 10.1.0.1",
    "tc qdisc add dev eth0 clsact",
    "tc qdisc add dev eth0 root pfifo",
)


def as_in_container(container: Container) -> tuple[str, ...]:
    """Run what follows as a container's root, without the host's BPF file system."""
    return (
        *("timeout", "-s", "KILL", "60", "nsenter", f"--net={container.namespace.path}"),
        *("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/fs/bpf && exec "$@"', "sh"),
        *("setpriv", f"--bounding-set={CAPABILITIES}", "--inh-caps=-all"),
    )


def inside(container: Container, *commands: str) -> dict[str, tuple[int, str]]:
    """Exit status and output of commands of a container's root."""
    found: dict[str, tuple[int, str]] = json.loads(run_python(LOOK, *commands, by=as_in_container(container)))
    return found


def test_s14_root_in_a_container_sees_its_device_and_nothing_of_the_system(world: World) -> None:
    looks = (
        "ip -j link show",
        "tc filter show dev eth0 ingress",
        "tc filter show dev eth0 egress",
        "tc qdisc show dev eth0 clsact",
        "ls /sys/fs/bpf",
    )
    seen = inside(world.containers[0], *looks)
    links = json.loads(seen.pop("ip -j link show")[1])
    assert [link["ifname"] for link in links] == ["lo", "eth0"]
    assert not any("xdp" in link for link in links)
    assert {output for _, output in seen.values()} == {""}


FIND = """
from mizarnet._kernel.bpf import Program
found, refused = [], 0
for number in map(int, sys.argv[1:]):
    try:
        found.append(Program.open_id(number))
    except mz.PrivilegeError:
        refused += 1
assert not found, found
print(refused)
"""


def test_s14_root_in_a_container_reaches_no_program(world: World) -> None:
    container = world.containers[0]
    numbers = [number for host in world.hosts for number in program_ids(host.agent).values()]
    assert int(run_python(FIND, *map(str, numbers), by=as_in_container(container))) == len(numbers)


def test_s14_root_in_a_container_can_change_nothing(world: World) -> None:
    one, other = world.containers[:2]
    before = [contents(host.agent) for host in world.hosts], device(one.namespace, "eth0")
    for command, (status, output) in inside(one, *CHANGES).items():
        assert status != 0, f"{command}: {output}"
    assert ([contents(host.agent) for host in world.hosts], device(one.namespace, "eth0")) == before
    common_tests(one, other, 4)
