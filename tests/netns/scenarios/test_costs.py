# SPDX-License-Identifier: Apache-2.0
"""Super-packets, and a stack in user space (T36, T42); T37 and T40 are S9 and S8 in ``test_seed*.py``."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._model.specs import VIRTUAL_MAC
from tests.frames import echo_request
from tests.support.services import exchange_file
from tests.support.vmm import Vmm
from tests.world import EncapName, Subnet, World

VNI = 3
NET = Subnet(VNI, 1)


@pytest.mark.vm
def test_t36_tcp_is_not_segmented_before_the_agent_nor_at_the_switch(encap: EncapName, version: int) -> None:
    with World(encap, hosts=3) as world:
        h1, h2, switch = world.hosts
        world.network(NET, switches=[switch])
        one, other = world.member(h1, NET, 2), world.member(h2, NET, 3)
        world.inform(switch)
        world.switch(switch)
        before = h1.agent.stats(), switch.agent.stats()
        exchange_file(one.namespace, other.address(version), size=1 << 22)
        sent = h1.agent.stats().since(before[0]).agent[Verdict.ENCAPSULATED]
        assert sent.bytes / sent.packets > 2 * h1.tunnel.mtu
        assert switch.agent.stats().since(before[1]).switch[Verdict.BOUNCED].packets >= sent.packets


@pytest.mark.vm
@pytest.mark.parametrize("where", [0, 1], ids=["same host", "other host"])
def test_t42_a_stack_in_user_space_speaks_through_a_tap(encap: EncapName, where: int) -> None:
    with World(encap, hosts=2) as world:
        peer = world.member(world.hosts[where], NET, 2)
        vm = mz.Endpoint.create(world.hosts[0].agent, vni=VNI, ip="10.1.0.3/24", kind="macvtap", name="vm")
        world.publish()
        with vm.open_tap() as tap:
            vmm = Vmm(vm, tap.fds[0])
            assert vmm.resolve(peer.ip) == (peer.mac if where == 0 else VIRTUAL_MAC.packed)
            request = echo_request(1, 1)
            vmm.send(peer.ip, request, protocol=1)
            _, reply = vmm.read(lambda frame: frame[12:14] == b"\x08\x00" and frame[34:35] == b"\0")
            assert reply[:6] == vm.mac.packed
            assert (reply[26:30], reply[38:]) == (ip_address(peer.ip).packed, request[4:])
        vm.delete()
