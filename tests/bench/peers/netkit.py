# SPDX-License-Identifier: Apache-2.0
"""Cilium's style with netkit devices (kernel 6.7): the program runs when the guest sends, before anything is queued."""

from __future__ import annotations

import os

from mizarnet._kernel.bpf._lib import check, lib
from mizarnet._kernel.bpf.program import Program
from mizarnet._kernel.netlink import Session
from mizarnet._kernel.netlink.link import IFINFOMSG, IFLA_IFNAME, IFLA_MTU, IFLA_NET_NS_FD
from mizarnet._kernel.netlink.links import link_info
from mizarnet._kernel.rtnetlink import Flag, Rtm, attribute, number, text
from tests.bench.peers.base import GUEST, address_of
from tests.bench.peers.cilium import Cilium
from tests.support.namespace import Namespace

# <linux/if_link.h> and <linux/bpf.h>
_PEER_INFO, _MODE, _LAYER_2 = 1, 5, 0
_SENT_BY_PEER = 55


class Netkit(Cilium):
    """Past the guest's device on the way out, too."""

    name = "netkit"
    says = "Cilium's style with netkit devices in place of veth pairs"
    way_out = "netkit_from"

    def pairs(self, guests: dict[tuple[int, int], Namespace]) -> None:
        """Join each guest to its host by a netkit pair."""
        for (host, index), guest in guests.items():
            near, here = f"q{index}", self.hosts[host]
            with Session.open(here.name) as session:
                _create(session, near, guest, self.inner_mtu)
            here.run("ip", "link", "set", near, "up")
            self.give(guest, address_of(host, index))

    def attach_way_out(self, host: Namespace, near: int, program: Program) -> None:
        """On the pair itself: no queue and no softirq are in between."""
        host.call(
            lambda: check(lib.mzn_tcx_attach(near, _SENT_BY_PEER, program.fileno(), 1), "attach to netkit")
        )


def _create(session: Session, near: str, guest: Namespace, mtu: int) -> None:
    netns = os.open(guest.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head, size = IFINFOMSG.pack(0, 0, 0, 0, 0), number(IFLA_MTU, mtu)
        peer = head + text(IFLA_IFNAME, GUEST) + size + number(IFLA_NET_NS_FD, netns)
        data = number(_MODE, _LAYER_2) + attribute(_PEER_INFO, peer)
        body = head + text(IFLA_IFNAME, near) + size + link_info("netkit", data)
        session.request(f"create netkit {near}", Rtm.NEWLINK, body, Flag.NEW)
    finally:
        os.close(netns)
