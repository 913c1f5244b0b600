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
from mizarnet._kernel.netlink import Session, create_macvlan, delete_link, nsid_of
from mizarnet._model import codec
from mizarnet._model.specs import VIRTUAL_MAC
from tests.support import filled
from tests.support.namespace import Namespace
from tests.support.standing import at_the_head
from tests.support.wait import wait_until
from tests.world import Container, quiet

from .scene import IDENTITY, VNI, Scene, ip, udp_frame

pytestmark = pytest.mark.vm

REASONS = (*IDENTITY, mz.Verdict.FOREIGN_SOURCE)
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
IN_EMULATION = Path("/run/vm/started").exists()


@pytest.fixture
def route_identity(scene: Scene) -> None:
    """For what only the route tells."""
    if not scene.route_identity:
        pytest.skip(mz.probe().route_identity.reason)


@contextmanager
def dropped(scene: Scene, reason: mz.Verdict) -> Iterator[None]:
    """One frame is dropped for ``reason``, and none for another."""
    before = scene.counts(REASONS)
    yield
    wait_until(lambda: scene.counts(REASONS) != before, f"nothing was dropped for {reason.name}")
    assert scene.counts(REASONS) == before | {reason: before[reason] + 1}


def send(raw: socket.socket, frame: bytes) -> None:
    """Send a frame, dropped or not."""
    try:
        raw.send(frame)
    except OSError as error:
        assert error.errno == errno.ENOBUFS  # what a drop on egress looks like to the sender


@contextmanager
def judged(scene: Scene, reason: mz.Verdict, far: socket.socket, data: bytes) -> Iterator[None]:
    """The datagram ``data`` to ``far`` is dropped for ``reason``, or arrives where only the route would tell."""
    if scene.route_identity:
        with dropped(scene, reason):
            yield
        assert first_of(scene, far)[0] == b"honest"
    else:
        yield
        assert first_of(scene, far)[0] == data


def first_of(scene: Scene, far: socket.socket) -> tuple[bytes, str]:
    """The first datagram that ``far`` gets, at the latest one sent honestly by a: its data and source."""
    with scene.a.udp() as near:
        near.sendto(b"honest", far.getsockname())
    data, source = far.recvfrom(64)
    return data, source[0]


@pytest.mark.parametrize("bypass", [0, 1], ids=["queued", "queueing bypassed"])
def test_neighbours_mac_and_address(scene: Scene, bypass: int) -> None:
    """A raw socket of a speaks as b, which lives on the same host."""
    with scene.a.packet_socket() as raw, scene.c.udp() as far:
        raw.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, bypass)
        port = far.getsockname()[1]
        frame = udp_frame(scene.a, scene.c, port, b"forged", mac=scene.b.mac, source=scene.b.ip)
        scene.forget()
        with judged(scene, mz.Verdict.FOREIGN_SOCKET, far, b"forged"):
            send(raw, frame)
    scene.expect(scene.b, "UDP", ("other", "none"))


def test_mac_of_another_hosts_endpoint(scene: Scene) -> None:
    """It has no record on this host."""
    with scene.a.packet_socket() as raw, scene.b.udp() as far:
        port, mac = far.getsockname()[1], scene.c.mac
        before = scene.counts([mz.Verdict.UNKNOWN_SENDER])
        send(raw, udp_frame(scene.a, scene.b, port, b"forged", mac=mac, source=scene.c.ip))
        after = scene.counts([mz.Verdict.UNKNOWN_SENDER])
        assert after == {verdict: count + 1 for verdict, count in before.items()}
        assert first_of(scene, far) == (b"honest", scene.a.ip)


def test_weaker_kernel_says_so() -> None:
    identity = mz.probe().route_identity
    assert bool(identity) or "can imitate an endpoint of its host" in identity.instead


@pytest.mark.parametrize(
    "ip", ["10.0.0.2", "10.0.0.3", "203.0.113.1"], ids=["same host", "other host", "nobody"]
)
def test_foreign_address_with_the_own_mac(scene: Scene, ip: str) -> None:
    with scene.a.packet_socket() as raw, scene.c.udp() as far:
        with dropped(scene, mz.Verdict.FOREIGN_SOURCE):
            send(raw, udp_frame(scene.a, scene.c, far.getsockname()[1], b"forged", source=ip))
        assert first_of(scene, far) == (b"honest", scene.a.ip)


def test_foreign_address_from_a_raw_ip_socket(scene: Scene) -> None:
    """Routed by the own stack, with a header made by hand."""
    with (
        scene.a.namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw,
        scene.c.udp() as far,
    ):
        assert first_of(scene, far) == (b"honest", scene.a.ip)  # a's neighbours are known: no ARP follows
        packet = udp_frame(scene.a, scene.c, far.getsockname()[1], b"forged", source=scene.b.ip)[14:]
        with dropped(scene, mz.Verdict.FOREIGN_SOURCE):
            raw.sendto(packet, (scene.c.ip, 0))
        assert first_of(scene, far) == (b"honest", scene.a.ip)


@pytest.mark.usefixtures("route_identity")
def test_routed_packet_with_a_neighbours_mac(scene: Scene, observer: Path) -> None:
    """Root of the container rewrites what its stack routed. The device stays its own."""
    ifindex = scene.a.endpoint.ifindex
    with (
        Session.open(scene.a.namespace.name) as session,
        scene.c.udp() as far,
        scene.a.udp() as near,
        ObjectSpec.open(observer, name="pretend") as spec,
    ):
        assert first_of(scene, far) == (b"honest", scene.a.ip)  # a's neighbours are known: no ARP follows
        scene.forget()
        spec.set_variable("pretended_mac", scene.b.mac)
        with spec.load() as loaded:
            program = loaded.programs["pretend"]
            ahead = at_the_head(session, ifindex, program, Direction.EGRESS)
            with ahead, dropped(scene, mz.Verdict.FOREIGN_DEVICE):
                near.sendto(b"forged", far.getsockname())
        assert first_of(scene, far) == (b"honest", scene.a.ip)
    scene.expect(scene.b, "UDP", ("other", "other"))


@pytest.fixture
def bridged(scene: Scene) -> Iterator[Container]:
    """An endpoint whose container made its device the port of a bridge ``br0``."""
    with scene.extra("bridged", "10.0.0.13/24") as made:
        # Or the bridge speaks for itself: neighbour discovery, and IGMP as one that snoops (224.0.0.106).
        quiet(made.namespace)
        bridge = "link add br0 type bridge mcast_snooping 0"
        ip(made.namespace, bridge, "link set br0 up", "link set eth0 master br0")
        wait_until(lambda: "forwarding" in made.namespace.run("bridge", "link"), "port not forwarding")
        scene.forget()
        yield made


def test_packet_routed_through_another_device_of_the_namespace(scene: Scene, bridged: Container) -> None:
    """Not forged, but not told from what is: an endpoint's device under a bridge cannot send for it."""
    ip(
        bridged.namespace,
        "address flush dev eth0",
        f"address add {bridged.ip}/24 dev br0",
        f"neigh add {scene.c.ip} lladdr {VIRTUAL_MAC} dev br0 nud permanent",
    )
    reason, data = mz.Verdict.FOREIGN_DEVICE, b"bridged"
    with scene.c.udp() as far, bridged.udp() as near, judged(scene, reason, far, data):
        near.sendto(data, far.getsockname())
    scene.expect(bridged, "UDP", ("own", "other"))


def test_frame_forwarded_from_behind_a_bridge(scene: Scene, bridged: Container) -> None:
    """Forwarding takes the socket off a packet, and crossing into the container's namespace its route."""
    with scene.namespace("inner") as inner, scene.c.udp() as far:
        redirects = {f"ipv4/conf/{which}/send_redirects": 0 for which in ("all", "default")}
        inner.set(**{"ipv4/ip_forward": 1}, **redirects)
        ip(
            bridged.namespace,
            f"link add veth0 type veth peer name veth1 address {bridged.endpoint.mac} netns {inner.name}",
            "link set veth0 master br0 up",
        )
        ip(
            inner,
            "link set veth1 up",
            "route add 10.0.0.0/24 dev veth1",
            f"neigh add {scene.c.ip} lladdr {VIRTUAL_MAC} dev veth1 nud permanent",
        )
        frame = udp_frame(bridged, scene.c, far.getsockname()[1], b"bridged", to_mac=bridged.mac)
        with (
            bridged.namespace.packet_socket("veth0") as raw,
            judged(scene, mz.Verdict.NO_ORIGIN, far, b"bridged"),
        ):
            raw.send(frame)
    scene.expect(bridged, "UDP", ("none", "none"))


@pytest.fixture
def tap(scene: Scene) -> Iterator[Container]:
    """A MACVTAP of the first host in a namespace of its own, with the record that lets it send."""
    host = scene.world.hosts[0]
    mac = mz.MacAddress.parse("02:00:00:00:00:0c")
    with (
        scene.namespace("vm") as space,
        Session.open(space.name) as session,
        host.tunnel._host.open_netns() as home,
    ):
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
        host.agent._datapath.maps.senders.update(codec.mac_key(mac), record.pack_sender())
        try:
            yield Container(host, space, mz.Endpoint(host.agent, record, created=True))
        finally:
            host.agent._datapath.maps.senders.delete(codec.mac_key(mac))
            delete_link(session, link.ifindex)  # with its namespace it would go some time later


@contextmanager
def opened(tap: Container, opener: Namespace, directory: Path) -> Iterator[int]:
    """A descriptor of ``tap0``, opened by a thread of the namespace ``opener``."""
    script = "mount -t sysfs sysfs /sys && cat /sys/class/net/tap0/tap*/dev"
    number = tap.namespace.run("unshare", "-m", "sh", "-c", script).split(":")
    node = directory / "tap0"
    os.mknod(node, 0o600 | 0o020000, os.makedev(*map(int, number)))
    descriptor = opener.call(lambda: os.open(node, os.O_RDWR | os.O_CLOEXEC))
    try:
        fcntl.ioctl(
            descriptor, 0x400454CA, struct.pack("=16sH22x", b"", 0x1002)
        )  # TUNSETIFF: frames, no header
        yield descriptor
    finally:
        os.close(descriptor)


def test_tap_opened_in_its_namespace(scene: Scene, tap: Container, tmp_path: Path) -> None:
    scene.forget()
    with scene.c.udp() as far, opened(tap, tap.namespace, tmp_path) as descriptor:
        os.write(descriptor, udp_frame(tap, scene.c, far.getsockname()[1], b"from a VM"))
        assert far.recv(64) == b"from a VM"
    scene.expect(tap, "UDP", ("own", "none"))


def test_tap_opened_by_the_host(scene: Scene, tap: Container, tmp_path: Path) -> None:
    """A tap's socket belongs to the namespace of whoever opened it, wherever its device is."""
    host, reason, data = tap.host.namespace, mz.Verdict.FOREIGN_SOCKET, b"from a VM"
    with scene.c.udp() as far, opened(tap, host, tmp_path) as descriptor, judged(scene, reason, far, data):
        os.write(descriptor, udp_frame(tap, scene.c, far.getsockname()[1], data))
    scene.expect(tap, "UDP", ("other", "none"))


@pytest.mark.skipif(
    not IN_EMULATION, reason="were the rule wrong, the kernel would never be done with the frame"
)
@pytest.mark.usefixtures("route_identity")
def test_reflected_frame(scene: Scene) -> None:
    """Root of b sends back what it receives: the frames carry their first sender's socket, and no route."""
    rule = "filter add dev eth0 ingress matchall action mirred egress redirect dev eth0"
    with scene.a.udp() as near, scene.b.udp() as far:
        assert first_of(scene, far) == (b"honest", scene.a.ip)  # a's neighbours are known: no ARP follows
        scene.b.namespace.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
        scene.b.namespace.run("tc", *rule.split())
        scene.forget()
        before = scene.counts([mz.Verdict.DELIVERED_LOCALLY])
        with dropped(scene, mz.Verdict.REFLECTED):
            near.sendto(b"reflect this", far.getsockname())
        scene.b.namespace.run("tc", "qdisc", "del", "dev", "eth0", "clsact")
    frames = scene.frames(scene.a, "UDP")
    assert {(frame.socket, frame.device) for frame in frames} == {("own", "own"), ("own", "none")}
    delivered = scene.counts([mz.Verdict.DELIVERED_LOCALLY])
    assert delivered == {verdict: count + 1 for verdict, count in before.items()}
