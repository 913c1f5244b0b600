# SPDX-License-Identifier: Apache-2.0
"""What each class of tenants is promised, and what is not: each limit that docs/isolation.md tells of is shown here.

T0 has ordinary sockets, T1 raw sockets or a VM, T2 power over its namespace. What T1 may send is judged frame by frame
in ``test_isolation.py``, ``identity/`` and the other files of this directory.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._kernel.netlink import Session, create_veth
from tests.frames import BROADCAST, ICMPV6, VIRTUAL, datagram, ethernet, frame, ipv6, link_local, mac
from tests.support.counting import counted, refused, wait_for
from tests.support.intruder import Guise, Intruder, tenant
from tests.support.tables import unchanged
from tests.support.traffic import Capture, assert_ping, ping, send_frame
from tests.world import BLUE, GREEN, RED, Tenants, World, device, links, new_namespace


@pytest.fixture(scope="module")
def net() -> Iterator[Tenants]:
    """Three tenants on two hosts."""
    with World("vxlan", max_endpoints=1024, max_local=64) as world:
        yield Tenants.on(world)


# -- T0: ordinary sockets ----------------------------------------------------------------------------------

ORDINARY_SOCKETS = """
    > socket.socket(socket.AF_PACKET, socket.SOCK_RAW)                    | EPERM
    > socket.socket(socket.AF_INET, socket.SOCK_RAW, 17)                  | EPERM
    > socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)                 | EPERM
    > socket.socket(44, socket.SOCK_RAW)                                  | EPERM
    > option(socket.SOL_IP, socket.IP_TRANSPARENT)                        | EPERM
    > option(socket.SOL_SOCKET, socket.SO_MARK)                           | EPERM
    > option(socket.SOL_SOCKET, socket.SO_PRIORITY)                       | EPERM
    > socket.create_server(("10.0.0.2", 5000))                            | EADDRNOTAVAIL
    > send("10.0.0.2", "10.0.0.3")                                        | ENETUNREACH/EINVAL
    ip link set eth0 down                                                 | EPERM
    ip address add 10.0.0.2/24 dev eth0                                   | EPERM
    unshare --user --map-root-user ip link set eth0 down                  | EPERM
    unshare --user --map-root-user --net ip link show eth0                | ENODEV
    > enter({host})                                                       | EPERM
"""


@pytest.mark.vm
def test_t0_cannot_even_try(net: Tenants) -> None:
    """Nor as root of a user namespace that it makes: that one does not own the endpoint's namespace."""
    host = os.open(net.first.namespace.path, os.O_RDONLY)
    with tenant(net, Guise.PLAIN, vni=BLUE, descriptors=(host,)) as (process, _):
        for line in ORDINARY_SOCKETS.format(host=host).strip().splitlines():
            attempt, outcomes = (part.strip() for part in line.split("|"))
            assert process.attempt(attempt) in outcomes.split("/"), attempt
    os.close(host)


@pytest.mark.vm
def test_t0_may_name_an_ipv6_address_that_is_not_its_own_and_the_agent_drops_it(net: Tenants) -> None:
    """IPv6 lets every user bind to any address; IPv4 looks whether it is there."""
    agent, far = net.first.agent, "fd00::3"
    agent.endpoints[BLUE, far] = mz.Remote(net.second.address)
    with Intruder(Guise.PLAIN) as process:
        own = mz.Endpoint.create(agent, vni=BLUE, ip="fd00::66/64", netns=process.namespace.path)
        before = agent.stats()
        process.must(f'> send("fd00::66", "{far}")')
        wait_for(agent, Verdict.ENCAPSULATED, before, program="agent")
        before = agent.stats()
        process.must(f'> send("fd00::2", "{far}")')
        wait_for(agent, Verdict.FOREIGN_SOURCE, before, program="agent")
        assert agent.stats().since(before).agent[Verdict.ENCAPSULATED].packets == 0
        own.delete()
    del agent.endpoints[BLUE, far]


# -- T1: raw sockets, and what old kernels cannot promise ----------------------------------------------------


@pytest.mark.vm
def test_probe_says_where_a_sender_is_known_by_its_mac_alone() -> None:
    found = mz.probe()
    major, minor = (int(part) for part in found.kernel.split(".")[:2])
    assert bool(found.route_identity) is ((major, minor) >= (6, 2))
    (line,) = (each for each in str(found).splitlines() if each.startswith("route_identity"))
    if found.route_identity:
        assert line.split() == ["route_identity", "yes"]
        return
    assert "no " in line
    assert found.route_identity.reason == "the kernel has no bpf_cast_to_kern_ctx, bpf_rdonly_cast"
    assert "a container with raw sockets can imitate an endpoint of its host" in line


@pytest.mark.vm
def test_t1_opens_a_neighbours_vni_only_where_senders_are_known_by_mac_alone(net: Tenants) -> None:
    """By a packet socket, with MAC and address of an endpoint of another tenant on its host."""
    victim, to = net.blue2, net.blue3
    forged, honest = (
        datagram(victim.mac, victim.ip, to.ip, destination_mac=VIRTUAL, payload=payload)
        for payload in (b"forged", b"honest")
    )
    with (
        tenant(net, Guise.RAW, vni=RED) as (process, _),
        to.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener,
    ):
        listener.bind((to.ip, 9))
        before = net.first.agent.stats()
        outcome = process.attempt(f'> send_frame("eth0", "{forged.hex()}")')
        since = net.first.agent.stats().since(before)
        send_frame(victim.namespace, "eth0", honest)
        arrived = listener.recv(100)
    if mz.probe().route_identity:
        assert (outcome, arrived) == ("ENOBUFS", b"honest")
        assert refused(since.agent) == {Verdict.FOREIGN_SOCKET: 1}
        assert since.agent[Verdict.ENCAPSULATED].packets == 0
    else:  # what probe() says is not promised there
        assert (outcome, arrived) == ("done", b"forged")
        assert since.agent[Verdict.ENCAPSULATED].packets == 1


def ipv6_frame(sender: bytes, message: bytes, *, upper: int = ICMPV6, hops: int = 255) -> bytes:
    """From the sender's link-local address to all nodes."""
    packet = ipv6(link_local(sender), "ff02::1", message, protocol=upper, hops=hops)
    return frame(mac("33:33:00:00:00:01"), sender, packet)


@pytest.mark.parametrize(
    ("reason", "message", "facts"),
    [
        (Verdict.BAD_ND, bytes([135]) + bytes(23), {"hops": 64}),
        (Verdict.ND_SPOOFED, bytes([134]) + bytes(23), {}),  # a router's
        (
            Verdict.EXTENSION_HEADERS,
            6 * bytes([60, 0, 1, 4, 0, 0, 0, 0]) + bytes([60]) + bytes(7),
            {"upper": 60},
        ),
    ],
)
def test_ipv6_that_may_not_leave(
    net: Tenants, reason: Verdict, message: bytes, facts: dict[str, int]
) -> None:
    frame = ipv6_frame(net.blue1.mac, message, **facts)
    since = counted(net.first.agent, lambda: send_frame(net.blue1.namespace, "eth0", frame))
    assert refused(since.agent) == {reason: 1}


# -- T2: power over the namespace --------------------------------------------------------------------------


@pytest.mark.vm
@pytest.mark.parametrize("kind", list(mz.Kind))
def test_t2_of_another_user_namespace_is_refused_with_the_reason(net: Tenants, kind: mz.Kind) -> None:
    with Intruder(Guise.ROOTLESS) as root, unchanged(net.first.agent):
        space = root.namespace.path
        with pytest.raises(mz.UntrustedNamespaceError) as caught:
            mz.Endpoint.create(net.first.agent, vni=RED, ip="10.0.0.66/24", netns=space, kind=kind)
        assert caught.value.netns == root.namespace.name
        assert "belongs to another user namespace" in caught.value.message
        assert "copy the frames of other tenants" in caught.value.message
        assert "trust_user_namespace=True" in caught.value.hint
        assert isinstance(caught.value, PermissionError)
        assert links(root.namespace) == ["lo"]


@pytest.mark.vm
def test_t2_is_an_endpoint_like_others_where_it_is_trusted(net: Tenants) -> None:
    with tenant(net, Guise.ROOTLESS, vni=BLUE) as (root, own):
        assert own.spec.trust_user_namespace
        for other in (net.blue2, net.blue3):
            assert_ping(root.namespace, other.ip)


def test_t2_of_the_hosts_own_user_namespace_is_not_told_apart(net: Tenants) -> None:
    """Capabilities belong to processes, not to namespaces: whom to give them is the caller's to know."""
    with Intruder(Guise.ADMIN) as root:
        made = mz.Endpoint.create(net.first.agent, vni=RED, ip="10.0.0.66/24", netns=root.namespace.path)
        root.must("ip link set eth0 mtu 1400")
        made.delete()


# -- what T2 can do all the same ----------------------------------------------------------------------------


@pytest.mark.vm
def test_limit_a_source_mode_device_gets_copies_of_what_others_receive(net: Tenants) -> None:
    """Behind all programs, and across VNIs: the kernel copies by the source MAC alone. From afar it is the virtual."""
    with tenant(net, Guise.ROOTLESS, vni=RED) as (root, _):
        root.must(
            "ip link add link eth0 name spy type macvlan mode source",
            f"ip link set link dev spy type macvlan macaddr add {net.blue1.endpoint.mac}",
            f"ip link set link dev spy type macvlan macaddr add {VIRTUAL.hex(':')}",
            "ip link set spy up",
        )
        near = datagram(net.blue1.mac, net.blue1.ip, net.blue2.ip, destination_mac=net.blue2.mac)
        far = datagram(net.blue3.mac, net.blue3.ip, net.blue2.ip, destination_mac=VIRTUAL)
        with Capture(root.namespace, "spy") as spy:
            for sender, source, frame in ((net.blue1, net.blue1.mac, near), (net.blue3, VIRTUAL, far)):
                send_frame(sender.namespace, "eth0", frame)
                copy = spy.until(lambda each, frame=frame: each[12:] == frame[12:])[-1]  # type: ignore[misc]
                assert copy[:12] == net.blue2.mac + source


def test_limit_two_tenants_that_both_want_to_can_talk_past_the_agent(net: Tenants) -> None:
    """By broadcast between devices in bridge mode; unicast is stopped, and nobody else gets any of it."""
    with (
        tenant(net, Guise.ROOTLESS, vni=RED) as (one, first),
        tenant(net, Guise.ROOTLESS, vni=GREEN) as (other, second),
    ):
        for each in (one, other):
            each.must("ip link set eth0 type macvlan mode bridge")
        to_all = ethernet(BROADCAST, first.mac.packed, 0x88B5, b"past the agent")
        to_one = ethernet(second.mac.packed, first.mac.packed, 0x88B5, b"to the other one")
        with Capture(other.namespace, "eth0") as accomplice, Capture(net.red1.namespace, "eth0") as neighbour:
            since = counted(net.first.agent, lambda: send_frame(one.namespace, "eth0", to_one))
            assert since.guard[Verdict.NO_TUNNEL_KEY].packets == 1
            send_frame(one.namespace, "eth0", to_all)
            assert accomplice.until(lambda frame: frame[6:12] == first.mac.packed)[-1] == to_all
            send_frame(net.red1.namespace, "eth0", ethernet(VIRTUAL, net.red1.mac, 0x88B5, b"the last frame"))
            frames = neighbour.until(lambda frame: frame.endswith(b"the last frame"))
        assert [frame for frame in frames if frame[6:12] == first.mac.packed] == []


@pytest.mark.vm
def test_limit_the_place_of_a_vm_that_is_off_can_be_taken(net: Tenants) -> None:
    """A device that is down does not hold its MAC: who takes it gets what is sent there, and keeps the VM down."""
    agent = net.first.agent
    vm = mz.Endpoint.create(agent, vni=BLUE, ip="10.0.0.50/24", kind="macvtap", name="vm")
    with tenant(net, Guise.ROOTLESS, vni=RED) as (root, _):
        root.must("ip link add link eth0 name thief type macvlan mode private")
        root.must(f"ip link set thief address {vm.mac}", "ip link set thief up")
        with Capture(root.namespace, "thief") as stolen:
            assert not ping(net.blue1.namespace, str(vm.ip), timeout=0.3)
            stolen.until(lambda frame: frame[:12] == vm.mac.packed + net.blue1.mac)
        with pytest.raises(mz.ExistsError, match="took MAC"):
            vm.open_tap()
        forged = datagram(vm.mac.packed, str(vm.ip), net.blue2.ip, destination_mac=net.blue2.mac)
        since = counted(agent, lambda: send_frame(root.namespace, "thief", forged))
        if mz.probe().route_identity:  # at least it cannot answer
            assert refused(since.agent) == {Verdict.FOREIGN_SOCKET: 1}
        else:
            assert since.agent[Verdict.DELIVERED_LOCALLY].packets >= 1
        root.must("ip link del thief")
        with vm.open_tap():
            assert root.attempt(f"ip link set eth0 address {vm.mac}") == "EADDRINUSE"
    vm.delete()


def test_the_mac_of_an_endpoint_to_come_cannot_be_kept(net: Tenants) -> None:
    """MACs follow from VNI and address, so they can be guessed; who has one on our tunnel without a record loses it."""
    agent = net.first.agent
    mac, late = mz.MacAddress.derive(BLUE, ip_address("10.0.0.60")), new_namespace("late")
    with tenant(net, Guise.ROOTLESS, vni=RED) as (root, _):
        root.must("ip link add link eth0 name thief type macvlan mode private")
        root.must(f"ip link set thief address {mac}", "ip link set thief up")
        made = mz.Endpoint.create(agent, vni=BLUE, ip="10.0.0.60/24", netns=late.name)
        assert made.mac == mac
        assert links(root.namespace) == ["lo", "eth0"]
        made.delete()
    late.delete()


BY_NUMBER = {
    Guise.RAW: ("EACCES", "EPERM"),
    Guise.ROOTLESS: ("EACCES", "EACCES"),
    Guise.ADMIN: ("done", "done"),
}


def test_limit_net_admin_of_the_hosts_user_namespace_is_power_over_the_hosts_devices(net: Tenants) -> None:
    """An endpoint's namespace has a number for the host's, because its device's lower device is there."""
    with Session.open(net.first.namespace.name) as host:
        spare = create_veth(host, "spare0", peer="spare1")
    for guise, outcomes in BY_NUMBER.items():
        with tenant(net, guise, vni=RED) as (root, _):
            nsid = device(root.namespace, "eth0").parent_nsid
            assert "spare0" in links(net.first.namespace)
            assert root.attempt(f"> show_by_number({nsid}, {net.first.tunnel.ifindex})") == outcomes[0]
            assert root.attempt(f"> delete_by_number({nsid}, {spare.ifindex})") == outcomes[1]
    assert "spare0" not in links(net.first.namespace)
