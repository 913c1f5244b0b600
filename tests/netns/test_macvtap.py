# SPDX-License-Identifier: Apache-2.0
"""A VM's endpoint as a device: where it lives, when it is up, who holds its descriptors, who may send."""

from __future__ import annotations

import gc
import json
import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._kernel.netlink import Session, get_link, set_link
from tests.frames import datagram
from tests.support.counting import counted, refused_but_chatter, wait_for
from tests.support.namespace import Namespace
from tests.support.process import run_python
from tests.support.traffic import assert_no_ping, ping
from tests.support.vm import Guests
from tests.support.vmm import Vmm
from tests.world import World

pytestmark = pytest.mark.vm

WITHOUT_LOOKING = "-sys_ptrace,-dac_override,-dac_read_search"
HOLD = ["sh", "-c", "echo ready; read -r line"]


def stack_counters(netns: str) -> dict[str, int]:
    """How many packets the IP stacks of a namespace have been given."""
    with Session.open(netns) as session:
        old = session.run(Path("/proc/thread-self/net/snmp").read_text)
        new = session.run(Path("/proc/thread-self/net/snmp6").read_text)
    names, values = (line.split()[1:] for line in old.splitlines() if line.startswith("Ip:"))
    found = dict(zip(names, map(int, values), strict=True))
    found |= {name: int(value) for name, value in map(str.split, new.splitlines())}
    return {name: found[name] for name in ("InReceives", "InAddrErrors", "Ip6InReceives", "Ip6InAddrErrors")}


def namespaces() -> set[str]:
    return set(os.listdir("/run/netns"))


# -- where it lives ----------------------------------------------------------------------------------------


def test_a_private_namespace_comes_and_goes_with_it(guests: Guests) -> None:
    before = namespaces()
    with guests.vm() as vm:
        assert namespaces() - before == {vm.netns}
        with Session.open(vm.netns) as session:
            assert session.identity != guests.host.agent._datapath.host.identity
            link = get_link(session, vm.ifname)
        assert link is not None
        assert (link.kind, link.mac) == ("macvtap", str(vm.mac))
    assert namespaces() == before


def test_the_device_itself_is_silent(vm: mz.Endpoint, vmm: Vmm) -> None:
    command = ["nsenter", f"--net=/run/netns/{vm.netns}", "ip", "-j", "address", "show", "dev", vm.ifname]
    shown = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=20).stdout)[0]
    assert "NOARP" in shown["flags"]
    assert shown["addr_info"] == []
    assert vm.stats() == mz.EndpointStats(mz.Counter(), mz.Counter(), mz.Counter())


def test_it_does_not_live_in_the_namespace_of_the_host(guests: Guests) -> None:
    with (
        pytest.raises(mz.InvalidValueError, match="host's namespace"),
        guests.vm(netns=guests.host.namespace.name),
    ):
        pass


def test_a_namespace_that_was_given_stays(guests: Guests) -> None:
    given = guests.near.namespace.name
    with guests.vm(netns=given, ifname="tap0") as vm, vm.open_tap():
        assert vm.netns == given
    assert given in namespaces()
    assert not mz.Endpoint.open(guests.host.agent, vni=7, ip=guests.near.ip).created


def test_creating_it_again_finds_it(guests: Guests, vm: mz.Endpoint) -> None:
    again = mz.Endpoint.create(
        guests.host.agent, name="vm", vni=7, ip=vm.addresses, kind="macvtap", gateway=vm.spec.gateway
    )
    assert (again.created, again.netns, again.ifindex) == (False, vm.netns, vm.ifindex)


def test_only_a_macvtap_has_descriptors(guests: Guests) -> None:
    with pytest.raises(mz.InvalidValueError, match="is a macvlan"):
        guests.near.endpoint.open_tap()


def test_a_deleted_one_has_none(guests: Guests) -> None:
    with guests.vm() as vm:
        pass
    with pytest.raises(mz.EndpointNotFoundError):
        vm.open_tap()


def test_a_name_that_leads_to_another_namespace_by_now_leads_to_no_device(world: World) -> None:
    """Another host's VM may live there, with the same address, MAC and index."""
    here, there = (host.agent for host in world.hosts)
    space = world.namespace("vm")
    spec: dict[str, Any] = {"vni": 7, "ip": "10.0.0.9/24", "kind": "macvtap", "netns": space.name}
    older = mz.Endpoint.create(here, **spec)
    with older.open_tap():
        space.delete()  # which the descriptor keeps, without a name
        Namespace(space.name)
        younger = mz.Endpoint.create(there, **spec)
        assert (younger.mac, younger.ifindex) == (older.mac, older.ifindex)
        with pytest.raises(mz.NetnsNotFoundError, match="another one by now"):
            older.open_tap()
        assert not younger.state().up
        with Session.open(space.name) as session:
            set_link(session, younger.ifindex, up=True)
    assert younger.state().up


def test_deleting_it_ends_the_descriptors(guests: Guests) -> None:
    with guests.vm() as vm, vm.open_tap() as tap:
        frame = datagram(vm.mac.packed, str(vm.ip), guests.near.ip, destination_mac=guests.near.mac)
        vm.delete()
        assert vm.netns not in namespaces()
        since = counted(guests.host.agent, lambda: Vmm(vm, tap.fds[0]).write(frame))
    assert since.agent[Verdict.UNKNOWN_SENDER].packets == 0


def test_the_descriptors_of_an_older_life_hold_nothing_up(guests: Guests) -> None:
    with guests.vm() as older, older.open_tap():
        older.delete()
        with guests.vm() as younger:
            with younger.open_tap():
                assert younger.state().up
            assert not younger.state().up


# -- when it is up -----------------------------------------------------------------------------------------


def test_it_is_up_while_a_descriptor_is_open(vm: mz.Endpoint) -> None:
    assert not vm.state().up
    with vm.open_tap() as tap:
        assert vm.state().up
        with vm.open_tap():
            tap.close()
            assert vm.state().up
    assert not vm.state().up
    with vm.open_tap():
        assert vm.state().up
    tap.close()
    assert not vm.state().up


def test_it_stays_up_while_another_process_has_a_copy(vm: mz.Endpoint) -> None:
    tap = vm.open_tap()
    with subprocess.Popen(HOLD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=tap.fds) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        tap.close()
        assert vm.state().up
        holder.communicate(b"\n", timeout=20)
    vm.open_tap().close()
    assert not vm.state().up


def test_it_stays_up_while_a_process_that_must_not_be_looked_into_has_a_copy(
    guests: Guests, vm: mz.Endpoint
) -> None:
    output = run_python(
        """
        import subprocess

        other_user = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
        with mz.TransitAgent.open("tunnel0", netns=sys.argv[1]) as agent:
            vm = mz.Endpoint.open(agent, "vm")
            tap, pipe = vm.open_tap(), subprocess.PIPE
            vmm = subprocess.Popen([*other_user, *sys.argv[2:]], stdin=pipe, stdout=pipe, pass_fds=tap.fds)
            vmm.stdout.readline()
            tap.close()
            print(vm.state().up)
            vmm.communicate(b"\\n", timeout=20)
        """,
        guests.host.namespace.name,
        *HOLD,
        by=["setpriv", f"--bounding-set={WITHOUT_LOOKING}", f"--inh-caps={WITHOUT_LOOKING}"],
    )
    assert output == "True\n"
    vm.open_tap().close()
    assert not vm.state().up


def test_another_process_opens_it(guests: Guests, vm: mz.Endpoint) -> None:
    output = run_python(
        """
        with mz.TransitAgent.open("tunnel0", netns=sys.argv[1]) as agent:
            vm = mz.Endpoint.open(agent, "vm")
            with vm.open_tap() as tap:
                print(len(tap.fds), vm.state().up)
        """,
        guests.host.namespace.name,
    )
    assert output == "1 True\n"
    assert not vm.state().up


def test_with_no_descriptor_open_frames_reach_no_ip_stack(guests: Guests, vm: mz.Endpoint) -> None:
    vm.open_tap().close()
    before, stats, stack = vm.stats(), guests.host.agent.stats(), stack_counters(vm.netns or "")
    for container in (guests.near, guests.far):
        assert_no_ping(container.namespace, str(vm.ip))
        assert_no_ping6(container.namespace.name, "fd00::1")
    wait_for(guests.host.agent, Verdict.DELIVERED_LOCALLY, stats, program="agent", packets=2)
    wait_for(guests.host.agent, Verdict.ACCEPTED, stats, program="guard", packets=2)
    assert (vm.stats().received - before.received).packets == 4
    assert stack_counters(vm.netns or "") == stack


def test_but_they_would_if_it_were_up(guests: Guests, vm: mz.Endpoint) -> None:
    stack = stack_counters(vm.netns or "")
    with Session.open(vm.netns) as session:
        set_link(session, vm.ifindex, up=True)
    assert_no_ping(guests.near.namespace, str(vm.ip))
    assert stack_counters(vm.netns or "")["InReceives"] > stack["InReceives"]
    vm.open_tap().close()
    assert not vm.state().up


def assert_no_ping6(netns: str, address: str) -> None:
    command = ["nsenter", f"--net=/run/netns/{netns}", "ping", "-6", "-c", "1", "-W", "1", address]
    assert subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 1


# -- who holds its descriptors -----------------------------------------------------------------------------


def test_a_child_has_only_the_descriptors_that_it_is_given(vm: mz.Endpoint) -> None:
    program = "import os, sys; print(os.fstat(int(sys.argv[1])).st_mode)"
    with vm.open_tap() as tap:
        (fd,) = tap.fds
        command = ["python3", "-c", program, str(fd)]
        given = subprocess.run(command, pass_fds=tap.fds, capture_output=True, check=True, timeout=20)
        assert stat.S_ISCHR(int(given.stdout))
        without = subprocess.run(command, close_fds=False, capture_output=True, check=False, timeout=20)
        assert b"Bad file descriptor" in without.stderr


def test_forgetting_to_close_it_is_a_warning(vm: mz.Endpoint) -> None:
    tap = vm.open_tap()
    (fd,) = tap.fds
    assert repr(tap) == f"<Tap of 'vm': fds ({fd},)>"
    with pytest.warns(ResourceWarning, match="unclosed <Tap of 'vm'"):
        del tap
        gc.collect()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_closing_again_is_harmless(vm: mz.Endpoint) -> None:
    tap = vm.open_tap()
    tap.close()
    tap.close()
    assert repr(tap) == "<Tap of 'vm': closed>"


def test_closing_closes_every_descriptor_whatever_becomes_of_one(vm: mz.Endpoint) -> None:
    tap = vm.open_tap(queues=3)
    os.close(tap.fds[1])
    with pytest.raises(mz.KernelError, match=f"close descriptor {tap.fds[1]} of a tap.*close the Tap"):
        tap.close()
    for fd in tap.fds:
        with pytest.raises(OSError):
            os.fstat(fd)
    assert not vm.state().up


def test_several_queues(guests: Guests, vm: mz.Endpoint) -> None:
    with vm.open_tap(queues=2) as tap:
        queues = [Vmm(vm, fd) for fd in tap.fds]
        sent = {port: f"a flow to port {port}".encode() for port in range(5000, 5032)}
        with guests.near.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for port, payload in [*sent.items(), *sent.items()]:
                sender.sendto(payload, (str(vm.ip), port))
        found = [[frame[42:] for frame in queue.pending() if frame[12:14] == b"\x08\x00"] for queue in queues]
        assert sorted(found[0] + found[1]) == sorted([*sent.values(), *sent.values()])
        assert not set(found[0]) & set(found[1])  # a flow keeps to one
        assert found[0]
        assert found[1]
        for queue in queues:
            before = vm.stats().sent
            queue.write(datagram(queue.mac, queue.ip, guests.near.ip, destination_mac=guests.near.mac))
            assert (vm.stats().sent - before).packets == 1


@pytest.mark.parametrize("queues", [0, 257, True])
def test_a_number_of_queues_that_makes_no_sense(vm: mz.Endpoint, queues: int) -> None:
    with pytest.raises((mz.InvalidValueError, mz.InvalidTypeError), match="queues"):
        vm.open_tap(queues=queues)


# -- who may send ------------------------------------------------------------------------------------------


def test_the_agent_accepts_what_is_written(guests: Guests, vmm: Vmm) -> None:
    for container in (guests.near, guests.far):
        vmm.send(container.ip, b"\0\x09\0\x09\0\x0c\0\0data")
    assert ping(guests.near.namespace, guests.far.ip)


def test_a_foreign_source_mac(guests: Guests, vmm: Vmm) -> None:
    foreign = bytes.fromhex("02aabbccddee")
    frame = datagram(foreign, vmm.ip, guests.near.ip, destination_mac=guests.near.mac)
    since = counted(guests.host.agent, lambda: vmm.write(frame))
    assert refused_but_chatter(since) == {Verdict.UNKNOWN_SENDER: 1}


def test_a_foreign_source_address(guests: Guests, vm: mz.Endpoint, vmm: Vmm) -> None:
    before = vm.stats().dropped
    frame = datagram(vmm.mac, "10.0.0.77", guests.near.ip, destination_mac=guests.near.mac)
    since = counted(guests.host.agent, lambda: vmm.write(frame))
    assert refused_but_chatter(since) == {Verdict.FOREIGN_SOURCE: 1}
    assert (vm.stats().dropped - before).packets == 1


def test_the_identity_of_a_container(guests: Guests, vmm: Vmm) -> None:
    if not mz.probe().route_identity:
        pytest.skip("this kernel knows a sender by MAC and address alone")
    frame = datagram(
        guests.near.mac, guests.near.ip, guests.far.ip, destination_mac=vmm.resolve(guests.far.ip)
    )
    since = counted(guests.host.agent, lambda: vmm.write(frame))
    assert refused_but_chatter(since) == {Verdict.FOREIGN_SOCKET: 1}
