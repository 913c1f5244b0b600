# SPDX-License-Identifier: Apache-2.0
"""One MAC on two hosts, as clones of a VM have it: nobody has to know, not even the two."""

from __future__ import annotations

import pytest

from tests.support.icmp import echo
from tests.support.services import exchange_datagrams
from tests.world import EncapName, Subnet, World

NET = Subnet(3, 1)
MAC = "02:42:0a:00:00:99"


@pytest.mark.vm
def test_clones_speak_with_each_other_and_with_everybody(encap: EncapName) -> None:
    with World(encap, hosts=2) as world:
        world.network(NET)
        clones = [
            world.add(host, world.space(), vni=NET.vni, ip=NET.interfaces(20 + number), mac=MAC)
            for number, host in enumerate(world.hosts)
        ]
        others = [world.member(host, NET, 2 + number) for number, host in enumerate(world.hosts)]
        world.publish()
        for version in (4, 6):
            for clone in clones:
                for to in (*clones, *others):
                    if to is not clone:
                        assert echo(clone.namespace, to.address(version))
                        exchange_datagrams(clone.namespace, to.address(version), size=4000)
