# SPDX-License-Identifier: Apache-2.0
"""Frames in another's name: dropped under their reason; and what kernels before 6.2 let pass."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mizarnet as mz
from mizarnet._kernel.bpf import Direction, ObjectSpec
from mizarnet._kernel.netlink import Session, create_macvlan, delete_link, nsid_of, write_sysctl
from mizarnet._model import codec
from mizarnet._model.specs import VIRTUAL_MAC
from tests.support import filled
from tests.support.standing import at_the_head

from .world import IDENTITY, VNI, Container, World, udp_frame, until

pytestmark = pytest.mark.vm

REASONS = (*IDENTITY, mz.Verdict.FOREIGN_SOURCE)
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
IN_EMULATION = Path("/run/vm/started").exists()


@pytest.fixture
def route_identity(world: World) -> None:
    """For what only the route tells."""
    if not world.route_identity:
        pytest.skip(mz.probe().route_identity.reason)


@contextmanager
def dropped(world: World, reason: mz.Verdict) -> Iterator[None]:
    """One frame is dropped for ``reason``, and none for another."""
    before = world.counts(REASONS)
    yield
    until(lambda: world.counts(REASONS) != before, f"nothing was dropped for {reason.name}")
    assert world.counts(REASONS) == before | {reason: before[reason] + 1}


def send(raw: socket.socket, frame: bytes) -> None:
    """Send a frame, dropped or not."""
    try:
        raw.send(frame)
    except OSError as error:
        assert error.errno == errno.ENOBUFS  # what a drop on egress looks like to the sender


@contextmanager
def judged(world: World, reason: mz.Verdict, far: socket.socket, data: bytes) -> Iterator[None]:
    """The datagram ``data`` to ``far`` is dropped for ``reason``, or arrives where only the route would tell."""
    if world.route_identity:
        with dropped(world, reason):
            yield
        assert first_of(world, far)[0] == b"honest"
    else:
        yield
        assert first_of(world, far)[0] == data


def first_of(world: World, far: socket.socket) -> tuple[bytes, str]:
    """The first datagram that ``far`` gets, at the latest one sent honestly by a: its data and source."""
    with world.a.udp() as near:
        near.sendto(b"honest", far.getsockname())
    data, source = far.recvfrom(64)
    return data, source[0]


@pytest.mark.parametrize("bypass", [0, 1], ids=["queued", "queueing bypassed"])
def test_neighbours_mac_and_address(world: World, bypass: int) -> None:
    """A raw socket of a speaks as b, which lives on the same host."""
    with world.a.packet_socket() as raw, world.c.udp() as far:
        raw.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, bypass)
        port = far.getsockname()[1]
        frame = udp_frame(world.a, world.c, port, b"forged", mac=world.b.endpoint.mac.packed, ip=world.b.ip)
        world.forget()
        with judged(world, mz.Verdict.FOREIGN_SOCKET, far, b"forged"):
            send(raw, frame)
    world.expect(world.b, "UDP", ("other", "none"))


def test_mac_of_another_hosts_endpoint(world: World) -> None:
    """It has no record on this host."""
    with world.a.packet_socket() as raw, world.b.udp() as far:
        port, mac = far.getsockname()[1], world.c.endpoint.mac.packed
        before = world.counts([mz.Verdict.UNKNOWN_SENDER])
        send(raw, udp_frame(world.a, world.b, port, b"forged", mac=mac, ip=world.c.ip))
        after = world.counts([mz.Verdict.UNKNOWN_SENDER])
        assert after == {verdict: count + 1 for verdict, count in before.items()}
        assert first_of(world, far) == (b"honest", world.a.ip)


def test_weaker_kernel_says_so() -> None:
    identity = mz.probe().route_identity
    assert bool(identity) or "can imitate an endpoint of its host" in identity.instead


@pytest.mark.parametrize(
    "ip", ["10.0.0.2", "10.0.0.3", "203.0.113.1"], ids=["same host", "other host", "nobody"]
)
def test_foreign_address_with_the_own_mac(world: World, ip: str) -> None:
    with world.a.packet_socket() as raw, world.c.udp() as far:
        with dropped(world, mz.Verdict.FOREIGN_SOURCE):
            send(raw, udp_frame(world.a, world.c, far.getsockname()[1], b"forged", ip=ip))
        assert first_of(world, far) == (b"honest", world.a.ip)


def test_foreign_address_from_a_raw_ip_socket(world: World) -> None:
    """Routed by the own stack, with a header made by hand."""
    with (
        world.a.open(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw,
        world.c.udp() as far,
    ):
        assert first_of(world, far) == (b"honest", world.a.ip)  # a's neighbours are known: no ARP follows
        packet = udp_frame(world.a, world.c, far.getsockname()[1], b"forged", ip=world.b.ip)[14:]
        with dropped(world, mz.Verdict.FOREIGN_SOURCE):
            raw.sendto(packet, (world.c.ip, 0))
        assert first_of(world, far) == (b"honest", world.a.ip)


@pytest.mark.usefixtures("route_identity")
def test_routed_packet_with_a_neighbours_mac(world: World, observer: Path) -> None:
    """Root of the container rewrites what its stack routed. The device stays its own."""
    session, ifindex = world.a.session, world.a.endpoint.ifindex
    with world.c.udp() as far, world.a.udp() as near, ObjectSpec.open(observer, name="pretend") as spec:
        assert first_of(world, far) == (b"honest", world.a.ip)  # a's neighbours are known: no ARP follows
        world.forget()
        spec.set_variable("pretended_mac", world.b.endpoint.mac.packed)
        with spec.load() as loaded:
            program = loaded.programs["pretend"]
            ahead = at_the_head(session, ifindex, program, Direction.EGRESS)
            with ahead, dropped(world, mz.Verdict.FOREIGN_DEVICE):
                near.sendto(b"forged", far.getsockname())
        assert first_of(world, far) == (b"honest", world.a.ip)
    world.expect(world.b, "UDP", ("other", "other"))


@pytest.fixture
def bridged(world: World) -> Iterator[Container]:
    """An endpoint whose container made its device the port of a bridge ``br0``."""
    with world.extra("bridged", "10.0.0.13/24") as made:
        # Or the bridge speaks for itself: neighbour discovery, and IGMP as one that snoops (224.0.0.106).
        write_sysctl(made.session, "ipv6/conf/default/disable_ipv6", "1")
        bridge = "link add br0 type bridge mcast_snooping 0"
        world.ip("bridged", bridge, "link set br0 up", "link set eth0 master br0")
        until(
            lambda: "forwarding" in world.lab.run("bridged", "bridge", "link").stdout, "port not forwarding"
        )
        world.forget()
        yield made


def test_packet_routed_through_another_device_of_the_namespace(world: World, bridged: Container) -> None:
    """Not forged, but not told from what is: an endpoint's device under a bridge cannot send for it."""
    world.ip(
        "bridged",
        "address flush dev eth0",
        f"address add {bridged.ip}/24 dev br0",
        f"neigh add {world.c.ip} lladdr {VIRTUAL_MAC} dev br0 nud permanent",
    )
    reason, data = mz.Verdict.FOREIGN_DEVICE, b"bridged"
    with world.c.udp() as far, bridged.udp() as near, judged(world, reason, far, data):
        near.sendto(data, far.getsockname())
    world.expect(bridged, "UDP", ("own", "other"))


def test_frame_forwarded_from_behind_a_bridge(world: World, bridged: Container) -> None:
    """Forwarding takes the socket off a packet, and crossing into the container's namespace its route."""
    with world.namespace("inner") as inner, world.c.udp() as far:
        for setting, value in (
            ("ip_forward", "1"),
            ("conf/all/send_redirects", "0"),
            ("conf/default/send_redirects", "0"),
        ):
            write_sysctl(inner, f"ipv4/{setting}", value)
        world.ip(
            "bridged",
            f"link add veth0 type veth peer name veth1 address {bridged.endpoint.mac} netns {world.lab.name}-inner",
            "link set veth0 master br0 up",
        )
        world.ip(
            "inner",
            "link set veth1 up",
            "route add 10.0.0.0/24 dev veth1",
            f"neigh add {world.c.ip} lladdr {VIRTUAL_MAC} dev veth1 nud permanent",
        )
        frame = udp_frame(
            bridged, world.c, far.getsockname()[1], b"bridged", to_mac=bridged.endpoint.mac.packed
        )
        with bridged.open(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            bridged.session.run(raw.bind, ("veth0", 0))
            with judged(world, mz.Verdict.NO_ORIGIN, far, b"bridged"):
                raw.send(frame)
    world.expect(bridged, "UDP", ("none", "none"))


@pytest.fixture
def tap(world: World) -> Iterator[Container]:
    """A MACVTAP of the first host in a namespace of its own, with the record that lets it send."""
    host = world.lab.hosts[0]
    mac = mz.MacAddress.parse("02:00:00:00:00:0c")
    with world.namespace("vm") as session, host.tunnel.host.open_netns() as home:
        link = create_macvlan(
            session,
            "tap0",
            parent_ifindex=host.tunnel.ifindex,
            parent_nsid=nsid_of(session, home),
            mac=str(mac),
            mtu=1400,
            kind="macvtap",
        )
        record = filled.record(
            mz.EndpointSpec(vni=VNI, ip="10.0.0.12/24", mac=mac, kind="macvtap", ifname="tap0", mtu=1400),
            slot=host.agent.capacity.max_local - 1,
            ifindex=link.ifindex,
            netns_cookie=session.cookie,
            netns_id=session.identity,
        )
        host.agent.datapath.maps.senders.update(codec.mac_key(mac), record.pack_sender())
        try:
            yield Container("vm", host, mz.Endpoint(host.agent, record, created=True), session)
        finally:
            host.agent.datapath.maps.senders.delete(codec.mac_key(mac))
            delete_link(session, link.ifindex)  # with its namespace it would go some time later


@contextmanager
def opened(world: World, opener: Session, directory: Path) -> Iterator[int]:
    """A descriptor of ``tap0``, opened by a thread of ``opener``'s namespace."""
    script = "mount -t sysfs sysfs /sys && cat /sys/class/net/tap0/tap*/dev"
    number = world.lab.run("vm", "unshare", "-m", "sh", "-c", script).stdout.split(":")
    node = directory / "tap0"
    os.mknod(node, 0o600 | 0o020000, os.makedev(*map(int, number)))
    descriptor = opener.run(os.open, node, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(
            descriptor, 0x400454CA, struct.pack("=16sH22x", b"", 0x1002)
        )  # TUNSETIFF: frames, no header
        yield descriptor
    finally:
        os.close(descriptor)


def test_tap_opened_in_its_namespace(world: World, tap: Container, tmp_path: Path) -> None:
    world.forget()
    with world.c.udp() as far, opened(world, tap.session, tmp_path) as descriptor:
        os.write(descriptor, udp_frame(tap, world.c, far.getsockname()[1], b"from a VM"))
        assert far.recv(64) == b"from a VM"
    world.expect(tap, "UDP", ("own", "none"))


def test_tap_opened_by_the_host(world: World, tap: Container, tmp_path: Path) -> None:
    """A tap's socket belongs to the namespace of whoever opened it, wherever its device is."""
    host, reason, data = tap.host.tunnel.host, mz.Verdict.FOREIGN_SOCKET, b"from a VM"
    with (
        world.c.udp() as far,
        opened(world, host, tmp_path) as descriptor,
        judged(world, reason, far, data),
    ):
        os.write(descriptor, udp_frame(tap, world.c, far.getsockname()[1], data))
    world.expect(tap, "UDP", ("other", "none"))


@pytest.mark.skipif(
    not IN_EMULATION, reason="were the rule wrong, the kernel would never be done with the frame"
)
@pytest.mark.usefixtures("route_identity")
def test_reflected_frame(world: World) -> None:
    """Root of b sends back what it receives: the frames carry their first sender's socket, and no route."""
    rule = "filter add dev eth0 ingress matchall action mirred egress redirect dev eth0"
    with world.a.udp() as near, world.b.udp() as far:
        assert first_of(world, far) == (b"honest", world.a.ip)  # a's neighbours are known: no ARP follows
        world.lab.run("b", "tc", "qdisc", "add", "dev", "eth0", "clsact")
        world.lab.run("b", "tc", *rule.split())
        world.forget()
        before = world.counts([mz.Verdict.DELIVERED_LOCALLY])
        with dropped(world, mz.Verdict.REFLECTED):
            near.sendto(b"reflect this", far.getsockname())
        world.lab.run("b", "tc", "qdisc", "del", "dev", "eth0", "clsact")
    frames = world.frames(world.a, "UDP")
    assert {(frame.socket, frame.device) for frame in frames} == {("own", "own"), ("own", "none")}
    delivered = world.counts([mz.Verdict.DELIVERED_LOCALLY])
    assert delivered == {verdict: count + 1 for verdict, count in before.items()}
