# SPDX-License-Identifier: Apache-2.0
"""What root of a namespace does not gain by what it may do to its device: no other identity, and no frame of others.

These are tenants with power over their namespace (T2). What they do gain is in ``test_classes.py``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._kernel.bpf import has_tcx
from tests.frames import BROADCAST, VIRTUAL, Outer, datagram, ethernet, mac
from tests.support.counting import counted, refused, wait_for
from tests.support.intruder import Guise, Intruder, tenant
from tests.support.traffic import (
    ETH_P_ALL,
    Capture,
    assert_no_ping,
    assert_ping,
    send_frame,
    send_raw,
    udp_ask,
    udp_echo,
)
from tests.world import BLUE, GREEN, RED, UNDERLAY, EncapName, Tenants, World, new_namespace, quiet

IN_EMULATION = Path("/run/vm/started").exists()
FREE = mac("02:00:00:00:00:99")
MARKER = b"the last frame of this test"


@pytest.fixture(scope="module")
def net(encap: EncapName) -> Iterator[Tenants]:
    """Three tenants on two hosts."""
    with World(encap, max_endpoints=1024, max_local=64) as world:
        yield Tenants.on(world)


@contextmanager
def honest_first(net: Tenants) -> Iterator[None]:
    """The first datagrams that a neighbour on the host and one on the other get afterwards are honest ones."""
    with (
        net.blue2.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
        net.blue3.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
        net.blue1.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        for each, owner in ((near, net.blue2), (far, net.blue3)):
            each.bind((owner.ip, 9))
        yield
        for each in (near, far):
            sender.sendto(b"honest", each.getsockname())
            assert each.recv(100) == b"honest"


# -- as somebody else --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["private", "bridge", "vepa"])
def test_a_device_of_its_own_making_speaks_to_nobody(net: Tenants, mode: str) -> None:
    with tenant(net, Guise.ROOTLESS, vni=BLUE) as (root, _), honest_first(net):
        root.must(
            f"ip link add link eth0 name extra type macvlan mode {mode}",
            "ip link set extra address 02:00:00:00:00:99",
            "ip link set extra up",
        )
        with root.namespace.packet_socket("extra") as raw:
            for address in ("10.0.0.66", net.blue1.ip):
                for to in (net.blue2, net.blue3):
                    before = net.first.agent.stats()
                    send_raw(raw, datagram(FREE, address, to.ip, destination_mac=to.mac))
                    assert refused(net.first.agent.stats().since(before).agent) == {Verdict.UNKNOWN_SENDER: 1}


def test_a_changed_mac_ends_its_traffic_and_nobody_elses(net: Tenants) -> None:
    with tenant(net, Guise.ROOTLESS, vni=BLUE) as (root, own), honest_first(net):
        assert_ping(root.namespace, net.blue2.ip)
        root.must("ip link set eth0 address 02:00:00:00:00:99")
        since = counted(net.first.agent, lambda: assert_no_ping(root.namespace, net.blue2.ip))
        assert set(refused(since.agent)) == {Verdict.UNKNOWN_SENDER}
        root.must(f"ip link set eth0 address {own.mac}")
        assert_ping(root.namespace, net.blue2.ip)


def test_an_address_of_a_neighbour_cannot_be_spoken_from(net: Tenants) -> None:
    with tenant(net, Guise.ROOTLESS, vni=BLUE) as (root, _), honest_first(net):
        assert_ping(
            root.namespace, net.blue3.ip
        )  # the neighbour is known now: no question precedes the packet
        root.must(f"ip address add {net.blue1.ip}/24 dev eth0")
        with root.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
            forger.bind((net.blue1.ip, 0))
            before = net.first.agent.stats()
            forger.sendto(b"forged", (net.blue3.ip, 9))
            wait_for(net.first.agent, Verdict.FOREIGN_SOURCE, before, program="agent")
        assert net.first.agent.stats().since(before).agent[Verdict.ENCAPSULATED].packets == 0
        before = net.first.agent.stats()
        root.attempt(
            f"ping -c 1 -W 1 -I {net.blue1.ip} 10.0.0.77"
        )  # asks for the neighbour in the other's name
        assert net.first.agent.stats().since(before).agent[Verdict.ARP_SPOOFED].packets >= 1


def test_a_device_that_left_its_namespace_speaks_to_nobody(net: Tenants) -> None:
    """Even as itself: the record says where it should be."""
    elsewhere = new_namespace("elsewhere")
    descriptor = os.open(elsewhere.path, os.O_RDONLY)
    try:
        with tenant(net, Guise.ADMIN, vni=BLUE, descriptors=(descriptor,)) as (root, own), honest_first(net):
            root.must(f"ip link set eth0 netns /proc/self/fd/{descriptor}")
            quiet(elsewhere)
            for change in (f"address add {own.ip}/24 dev eth0", "link set eth0 up"):
                elsewhere.run("ip", *change.split())
            elsewhere.run(
                "ip", "neigh", "replace", net.blue2.ip, "lladdr", str(net.blue2.endpoint.mac), "dev", "eth0"
            )
            with elsewhere.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                since = counted(net.first.agent, lambda: sender.sendto(b"out", (net.blue2.ip, 10)))
            if mz.probe().route_identity:
                assert refused(since.agent) == {Verdict.FOREIGN_DEVICE: 1}
            else:  # its own MAC and address are all that is looked at there
                assert since.agent[Verdict.DELIVERED_LOCALLY].packets >= 1
    finally:
        os.close(descriptor)
        elsewhere.delete()


# -- what others say ---------------------------------------------------------------------------------------


def everything(root: Intruder) -> socket.socket:
    """A socket that gets the frames of all devices of the namespace, in both directions."""
    return root.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))


@pytest.mark.vm
def test_on_all_its_devices_it_hears_nothing_of_others(net: Tenants) -> None:
    """Promiscuous, and with every kind of device that does not name the senders it wants to hear."""
    with tenant(net, Guise.ROOTLESS, vni=RED) as (root, own):
        for name, kind in (
            ("m0", "macvlan mode private"),
            ("m1", "macvlan mode bridge"),
            ("m2", "macvlan mode vepa"),
        ):
            root.must(f"ip link add link eth0 name {name} type {kind}")
        root.must("ip link add link eth0 name t0 type macvtap mode bridge")
        for name in ("eth0", "m0", "m1", "m2", "t0"):
            root.must(
                f"ip link set {name} promisc on",
                f"ip link set {name} allmulticast on",
                f"ip link set {name} up",
            )
        with everything(root) as seen, udp_echo(net.blue2.namespace, net.blue2.ip, tag=b""):
            for to in (net.blue2, net.blue3, net.green1):
                source = net.green3 if to is net.green1 else net.blue1
                assert_ping(source.namespace, to.ip)
            assert udp_ask(net.blue1.namespace, net.blue2.ip, b"secret") == b"secret"
            send_frame(net.blue1.namespace, "eth0", ethernet(BROADCAST, net.blue1.mac, 0x88CC, b"to all"))
            send_frame(root.namespace, "eth0", ethernet(VIRTUAL, own.mac.packed, 0x88CC, MARKER))
            frames = [seen.recv(1 << 16)]
            while not frames[-1].endswith(MARKER):
                frames.append(seen.recv(1 << 16))
    macs = {each.mac for each in (net.blue1, net.blue2, net.blue3, net.green1, net.green3)}
    assert [frame.hex() for frame in frames if {frame[:6], frame[6:12]} & macs] == []


# -- another VNI, or another host --------------------------------------------------------------------------

ROUTE = ("ip route add 10.0.0.3/32 encap ip id {vni} dst {host} ttl 9 dev eth0",)
ROUTE_WITH_OPTIONS = ("ip route add 10.0.0.3/32 encap ip id {vni} dst {host} {options} dev eth0",)
ACTION = (
    "tc qdisc add dev eth0 clsact",
    "tc filter add dev eth0 egress matchall action tunnel_key set src_ip {own} dst_ip {host} id {vni}",
)
OPTIONS = {"vxlan": "vxlan_opts 7", "geneve": "geneve_opts 1:1:01020304"}
# bpf_skb_set_tunnel_key() with VNI 8 and the address 192.0.2.2, then return 0.
PROGRAM = " ".join(
    [
        "620af8ff08000000",  # *(u32 *)(r10 - 8) = 8
        "620afcff020200c0",  # *(u32 *)(r10 - 4) = 192.0.2.2
        "bfa2000000000000 07020000f8ffffff",  # r2 = r10 - 8
        "b703000008000000 b704000000000000",  # r3 = 8, r4 = 0
        "8500000015000000 b700000000000000 9500000000000000",  # call 21; return 0
    ]
)


def vnis_on_the_wire(net: Tenants, root: Intruder) -> set[int]:
    """Send to the other host, then let somebody honest send: which VNIs were on the wire up to then."""
    with Capture(net.second.namespace, UNDERLAY) as wire:
        with root.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(3):
                sender.sendto(b"which way?", (net.blue3.ip, 10))
        assert_ping(net.blue1.namespace, net.blue3.ip, size=700)
        frames = wire.until(lambda frame: len(frame) > 700)
    outers = [Outer.parse(frame) for frame in frames]
    return {outer.vni for outer in outers if outer is not None}


@pytest.mark.skipif(
    not IN_EMULATION, reason="not every kernel survives such a route: only in a machine of its own"
)
@pytest.mark.vm
@pytest.mark.parametrize(
    ("how", "guise"),
    [(ROUTE, Guise.ROOTLESS), (ROUTE_WITH_OPTIONS, Guise.ADMIN), (ACTION, Guise.ROOTLESS)],
    ids=["route", "route with options", "action"],
)
def test_tunnel_metadata_of_its_own_leads_nowhere(net: Tenants, how: tuple[str, ...], guise: Guise) -> None:
    words = {
        "vni": GREEN,
        "host": net.second.address,
        "own": net.first.address,
        "options": OPTIONS[net.world.encap],
    }
    with tenant(net, guise, vni=BLUE) as (root, _):
        assert_ping(root.namespace, net.blue3.ip)
        root.must(*(step.format(**words) for step in how))
        assert vnis_on_the_wire(net, root) == {BLUE}


@pytest.mark.skipif(not has_tcx(), reason="this kernel has no tcx (6.6)")
@pytest.mark.vm
def test_a_program_of_its_own_gives_it_no_other_vni(net: Tenants) -> None:
    with tenant(net, Guise.ADMIN, vni=BLUE) as (root, _):
        assert_ping(root.namespace, net.blue3.ip)
        root.must(f'> attach("eth0", "tcx egress", "{PROGRAM}")')
        before = net.first.agent.stats()
        assert vnis_on_the_wire(net, root) == {BLUE}
        assert net.first.agent.stats().since(before).agent[Verdict.REFLECTED].packets == 3
