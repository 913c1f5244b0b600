# SPDX-License-Identifier: Apache-2.0
"""What exists is found from the hooks: whoever looks, from wherever, under whatever name, acts on the same objects."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mizarnet as mz
from mizarnet._kernel.netlink import create_netns, delete_netns, read_sysctl
from tests.netns.ownership.conftest import Scene
from tests.support.namespace import Namespace
from tests.support.own_run import OWN_RUN, SHARED_RUN
from tests.support.process import run_python
from tests.support.standing import attached_on
from tests.support.traffic import assert_ping
from tests.support.wait import wait_until
from tests.world import TUNNEL, UNDERLAY, Host, World, device, links

# -- file systems and namespaces of mounts -----------------------------------------------------------------

# Everything from the first line to the last, by name alone, in the namespace that the process finds itself in or is
# told; and what it made stays.
LIFE = """
netns = sys.argv[1] or None
tunnel = mz.Tunnel.create("tunnel0", encap="vxlan", underlay="eth0", netns=netns)
agent = mz.TransitAgent.attach(tunnel)
assert not tunnel.created and not agent.created
assert agent._datapath.meta_id == int(sys.argv[2]), agent._datapath.meta_id
assert [each.name for each in mz.Endpoint.list(agent)] == ["web"]
try:
    tunnel.delete()
except mz.InUseError as error:
    assert error.users == ("web",)
else:
    raise AssertionError("deleted")
spare = mz.Endpoint.create(agent, vni=7, ip="10.0.0.66/24", ifname="spare0", name="spare")
vm = mz.Endpoint.create(agent, vni=7, ip="10.0.0.67/24", kind="macvtap", name="vm")
assert mz.Endpoint.open(agent, "spare").state().up
spare.delete()
vm.delete()
agent.endpoints[7, "10.0.0.77"] = mz.Remote("192.0.2.2")
switch = mz.TransitSwitch.attach(agent, mode="generic")
assert mz.TransitSwitch.open(agent).state().attached
switch.detach()
"""
BPFFS = ("sh", "-c", 'mount -t bpf bpf /sys/fs/bpf && exec "$0" "$@"')
SECOND_BPFFS = ("sh", "-c", 'mount -t bpf bpf /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf && exec "$0" "$@"')
WHERE: dict[str, tuple[str, ...]] = {
    "no BPF file system": (),
    "another mount namespace": SHARED_RUN,
    "one with a BPF file system": (*SHARED_RUN, *BPFFS),
    "one with two on top of each other": (*SHARED_RUN, *SECOND_BPFFS),
    "one with a lock of its own": OWN_RUN,
}


@pytest.mark.parametrize("where", WHERE)
def test_the_same_objects_wherever_one_looks_from(scene: Scene, where: str) -> None:
    _assert_same(scene, WHERE[where], scene.host.namespace.name)


@pytest.mark.vm
def test_the_same_objects_inside_ip_netns_exec(scene: Scene) -> None:
    """It hides all that is mounted below /sys."""
    _assert_same(scene, ("ip", "netns", "exec", scene.host.namespace.name), "")


def _assert_same(scene: Scene, by: tuple[str, ...], netns: str) -> None:
    assert not os.path.ismount("/sys/fs/bpf")
    assert run_python(LIFE, netns, str(scene.agent._datapath.meta_id), by=by) == ""
    assert scene.agent.endpoints[7, "10.0.0.77"] == mz.Remote("192.0.2.2")
    assert_ping(scene.web.namespace, scene.db.ip)


@pytest.mark.parametrize("by", [SHARED_RUN, OWN_RUN], ids=["the lock of all", "a lock of its own"])
def test_what_another_mount_namespace_made_outlives_it(world: World, by: tuple[str, ...]) -> None:
    """The maker's mounts end with it; nothing that guards hangs on a mount."""
    host, inside = world.hosts[0], world.namespace("inside")
    other = world.container(world.hosts[1], 7, "10.0.0.2/24")
    host.tunnel.delete(force=True)
    program = """
        tunnel = mz.Tunnel.create("tunnel0", encap="vxlan", underlay="eth0", netns=sys.argv[1])
        agent = mz.TransitAgent.attach(tunnel)
        mz.Endpoint.create(agent, name="web", vni=7, ip="10.0.0.1/24", netns=sys.argv[2])
    """
    run_python(program, host.namespace.name, inside.name, by=(*by, *BPFFS))
    with mz.TransitAgent.open(TUNNEL, netns=host.namespace.name) as agent:
        assert all(agent.state().attached.values())
        agent.endpoints[7, other.ip] = mz.Remote(other.host.address)
        other.host.agent.endpoints[7, "10.0.0.1"] = mz.Remote(host.address)
        assert_ping(inside, other.ip)
        agent.tunnel.delete(force=True)


def test_a_tunnel_in_use_is_deleted_from_nowhere(scene: Scene) -> None:
    """Without force, wherever the call comes from, and with force everything goes."""
    program = """
        netns = sys.argv[1]
        try:
            mz.Tunnel.open("tunnel0", netns=netns).delete()
        except mz.InUseError:
            mz.Tunnel.open("tunnel0", netns=netns).delete(force=True)
            print("in use")
    """
    assert run_python(program, scene.host.namespace.name, by=(*OWN_RUN, *BPFFS)) == "in use\n"
    assert links(scene.host.namespace) == ["lo", UNDERLAY]
    assert links(scene.web.namespace) == ["lo"]


# -- names of devices --------------------------------------------------------------------------------------


def _alias(host: Host, text: str) -> None:
    host.namespace.run("ip", "link", "set", TUNNEL, "alias", text)


@pytest.mark.parametrize(
    "text", ["", "tenant overlay, ask the network team", "mizarnet underlay=eth9 index=9 local=::1"]
)
def test_the_tunnels_text_is_anybodys(scene: Scene, text: str) -> None:
    """Erased, overwritten, or like ours and wrong: the data path knows better."""
    _alias(scene.host, text)
    netns = scene.host.namespace.name
    with (
        mz.Tunnel.open(TUNNEL, netns=netns) as opened,
        mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=netns) as again,
        mz.TransitAgent.open(TUNNEL, netns=netns) as agent,
    ):
        assert not again.created
        assert {(each.underlay, str(each.local)) for each in (opened, again, agent.tunnel)} == {
            ("eth0", "192.0.2.1")
        }
        with pytest.raises(mz.ExistsError, match="local is"):
            mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, local="192.0.2.77", netns=netns)
    assert_ping(scene.web.namespace, scene.db.ip)
    scene.web.delete()
    with mz.Tunnel.open(TUNNEL, netns=netns) as opened:
        opened.delete()
    assert links(scene.host.namespace) == ["lo", UNDERLAY]


@pytest.mark.parametrize("text", ["", "ask the network team"])
def test_a_tunnel_without_an_agent_is_known_by_the_same_lines_again(host: Host, text: str) -> None:
    """Nothing but the text said what it is; the arguments do."""
    host.agent.detach()
    _alias(host, text)
    netns = host.namespace.name
    with pytest.raises(mz.TunnelNotFoundError, match="no mizarnet tunnel") as caught:
        mz.Tunnel.open(TUNNEL, netns=netns)
    assert "same arguments" in caught.value.hint
    with pytest.raises(mz.ExistsError, match="port is 4789, not 4790"):
        mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, port=4790, netns=netns)
    with mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=netns) as again:
        assert (again.created, again.ifindex) == (False, host.tunnel.ifindex)
        mz.TransitAgent.attach(again).close()
    with mz.Tunnel.open(TUNNEL, netns=netns) as opened:
        assert opened.underlay == UNDERLAY


@pytest.mark.parametrize(
    "text",
    [
        "underlay=eth0 index=0 local=192.0.2.1",
        "underlay=eth0 index=4294967295 local=192.0.2.1",
        "underlay=eth0 index=9999999999 local=192.0.2.1",
        "underlay=a-name-of-more-than-15-bytes index=77 local=192.0.2.1",
        "underlay=a/b index=77 local=192.0.2.1",
        "underlay=eth0 index=77 local=fe80::1%eth0",
        "underlay=eth0 index=77 local=::ffff:192.0.2.1",
        "underlay=eth0 index=77 local=nobody",
    ],
)
def test_a_text_of_what_cannot_be_makes_no_tunnel_and_is_in_nobodys_way(host: Host, text: str) -> None:
    host.agent.detach()
    host.namespace.run("ip", "link", "add", "other0", "type", "vxlan", "external", "dstport", "999")
    for name in (TUNNEL, "other0"):
        host.namespace.run("ip", "link", "set", name, "alias", f"mizarnet {text}")
    netns = host.namespace.name
    assert [*mz.Tunnel.list(netns=netns)] == []
    with mz.Host.open(netns=netns) as here:
        assert here.check() == []
        assert [*here.repair().done, *here.gc().done] == []
    with pytest.raises(mz.TunnelNotFoundError):
        mz.Tunnel.delete("other0", netns=netns, force=True)
    with mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=netns) as again:
        assert (again.created, again.ifindex) == (False, host.tunnel.ifindex)
    host.namespace.run("ip", "link", "delete", "other0")


def test_a_tunnel_is_known_again_only_where_it_can_work(host: Host) -> None:
    host.agent.detach()
    _alias(host, text := "ask the network team")
    host.namespace.run("ip", "address", "add", "203.0.113.1/24", "dev", TUNNEL)

    def create(underlay: str) -> None:
        mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=underlay, netns=host.namespace.name).close()

    with pytest.raises(mz.InvalidValueError, match="its own underlay"):
        create(TUNNEL)
    host.namespace.run("ip", "link", "set", UNDERLAY, "mtu", "1400")
    with pytest.raises(mz.MtuError):
        create(UNDERLAY)
    assert text in host.namespace.run("ip", "link", "show", TUNNEL)
    host.namespace.run("ip", "link", "set", UNDERLAY, "mtu", "1500")
    create(UNDERLAY)


def test_a_tunnel_of_somebody_else_is_not_taken_for_ours(host: Host) -> None:
    """In metadata mode like ours, but neither silent nor with our text."""
    host.tunnel.delete(force=True)
    host.namespace.run("ip", "link", "add", TUNNEL, "type", "vxlan", "external", "dstport", "4789")
    with pytest.raises(mz.ExistsError, match="is no mizarnet tunnel"):
        mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=host.namespace.name)
    host.namespace.run("ip", "link", "del", TUNNEL)


def rename(namespace: Namespace, name: str, new: str) -> None:
    """Rename a device, while it is up where the kernel allows that (6.2)."""
    try:
        namespace.run("ip", "link", "set", name, "name", new)
    except AssertionError:
        for change in ((name, "down"), (name, "name", new), (new, "up")):
            namespace.run("ip", "link", "set", *change)


def test_a_tunnel_that_was_renamed_is_the_same(scene: Scene) -> None:
    host = scene.host
    rename(host.namespace, TUNNEL, "overlay")
    with mz.TransitAgent.open("overlay", netns=host.namespace.name) as agent:
        assert agent._datapath.meta_id == scene.agent._datapath.meta_id
        assert [each.name for each in mz.Endpoint.list(agent)] == ["web"]
        more = mz.Endpoint.create(agent, vni=7, ip="10.0.0.66/24", ifname="more0", name="more")
        assert_ping(scene.web.namespace, scene.db.ip)
        more.delete()
    assert all(scene.agent.state().attached.values())
    with pytest.raises(mz.TunnelNotFoundError):
        mz.Tunnel.open(TUNNEL, netns=host.namespace.name)
    with pytest.raises(mz.ExistsError, match="overlay uses UDP port 4789"):
        mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=host.namespace.name)
    with mz.Tunnel.create("overlay", encap="vxlan", underlay=UNDERLAY, netns=host.namespace.name) as again:
        assert not again.created
        again.delete(force=True)
    assert links(scene.web.namespace) == ["lo"]


def test_an_underlay_that_was_renamed_is_the_same(scene: Scene) -> None:
    host, netns = scene.host, scene.host.namespace.name
    for change in (("down",), ("name", "enp3s0"), ("up",)):
        host.namespace.run("ip", "link", "set", "enp3s0" if change == ("up",) else UNDERLAY, *change)
    with mz.Tunnel.create(TUNNEL, encap="vxlan", underlay="enp3s0", netns=netns) as again:
        assert (again.created, again.underlay) == (False, "enp3s0")
    with pytest.raises(mz.ExistsError, match="underlay is enp3s0, not eth0"):
        mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=netns)
    with mz.TransitAgent.open(TUNNEL, netns=netns) as agent:
        assert mz.TransitSwitch.attach(agent).underlay == "enp3s0"
        agent.detach(force=True)
        mz.TransitAgent.attach(agent.tunnel).close()
    mz.TransitSwitch.detach("enp3s0", netns=netns)


# -- names of namespaces -----------------------------------------------------------------------------------


@contextmanager
def _process_in(name: str) -> Iterator[str]:
    """The path of a namespace by a process in it."""
    process = subprocess.Popen(["nsenter", f"--net=/run/netns/{name}", "sleep", "60"])
    try:
        path, wanted = f"/proc/{process.pid}/ns/net", os.stat(f"/run/netns/{name}").st_ino
        wait_until(lambda: os.stat(path).st_ino == wanted)
        yield path
    finally:
        process.kill()
        process.wait()


@contextmanager
def _bind_mount(name: str, directory: Path) -> Iterator[str]:
    path = directory / "net"
    path.touch()
    subprocess.run(["mount", "--bind", f"/run/netns/{name}", str(path)], check=True)
    try:
        yield str(path)
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_namespace_is_the_same_by_whatever_path(scene: Scene, tmp_path: Path) -> None:
    name, agent = scene.web.namespace.name, scene.agent
    spec = {"name": "web", "vni": 7, "ip": "10.0.0.1/24"}
    linked = tmp_path / "link"
    linked.symlink_to(f"/run/netns/{name}")
    with _process_in(name) as by_process, _bind_mount(name, tmp_path) as bound:
        for path in (by_process, bound, f"/run/netns/{name}", str(linked), name):
            assert not mz.Endpoint.create(agent, netns=path, **spec).created, path
        other = scene.world.namespace("other").name
        with pytest.raises(mz.ExistsError, match="netns"):
            mz.Endpoint.create(agent, netns=other, **spec)
        for path in (by_process, bound):
            made = mz.Endpoint.create(
                agent, name="x", vni=7, ip="10.5.0.5/24", netns=path, ifname="x0", gateway=()
            )
            assert made.created
            assert not mz.Endpoint.create(
                agent, name="x", vni=7, ip="10.5.0.5/24", netns=name, ifname="x0", gateway=()
            ).created
            made.delete()


def test_a_namespace_without_a_name_lives_on_by_its_process(scene: Scene) -> None:
    """`ip netns del` takes the name only; a process in it keeps it, and its endpoint."""
    name, agent = scene.web.namespace.name, scene.agent
    spec = {"name": "web", "vni": 7, "ip": "10.0.0.1/24"}
    with _process_in(name) as path, scene.web.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM):
        delete_netns(name)
        assert [each.name for each in mz.Endpoint.list(agent)] == ["web"]
        assert not mz.Endpoint.create(agent, netns=path, **spec).created
        assert_ping(scene.db.namespace, "10.0.0.1")
        create_netns(name)
        again = mz.Endpoint.create(agent, netns=name, **spec)
        assert again.created, "the name means another namespace"
        assert_ping(scene.db.namespace, "10.0.0.1")
        again.delete()


def test_a_hosts_namespace_is_the_same_by_whatever_path(scene: Scene) -> None:
    """Its lock goes by the namespace's cookie, and so does what is found in it."""
    with _process_in(scene.host.namespace.name) as path:
        program = "print(mz.TransitAgent.open('tunnel0', netns=sys.argv[1])._datapath.meta_id)"
        told = {
            run_python(program, each) for each in (path, scene.host.namespace.path, scene.host.namespace.name)
        }
        inside = run_python(
            "print(mz.TransitAgent.open('tunnel0')._datapath.meta_id)",
            by=("nsenter", f"--net={scene.host.namespace.path}"),
        )
    assert {*told, inside} == {f"{scene.agent._datapath.meta_id}\n"}


def test_a_tunnel_that_was_moved_to_another_namespace_says_so(scene: Scene) -> None:
    """Programs on tcx go along, and filters do not; the tables are of the host that it came from."""
    if not mz.probe().tcx:
        return  # there is nothing left on it then
    host, other = scene.host, scene.world.namespace("moved")
    host.namespace.run("ip", "link", "set", TUNNEL, "netns", other.name)
    with pytest.raises(mz.AgentNotFoundError, match="moved here from another"):
        mz.TransitAgent.open(TUNNEL, netns=other.name)
    with pytest.raises(mz.StaleHandleError, match="tunnel0 is gone"):
        scene.agent.state()
    with mz.Tunnel.open(TUNNEL, netns=other.name) as tunnel:
        with pytest.raises(mz.InUseError):
            tunnel.delete()
        tunnel.delete(force=True)
    assert "tunnel0" not in links(other)


def test_what_a_switch_changed_is_put_back_where_it_was_changed(scene: Scene) -> None:
    """Where the tunnel was moved to, another device may have the index of the underlay."""
    if not mz.probe().tcx:
        return  # then nothing tells of the switch
    host, other = scene.host, scene.world.namespace("moved")
    mz.TransitSwitch.attach(scene.agent)
    underlay = str(device(host.namespace, UNDERLAY).ifindex)
    other.run("ip", "link", "add", "nic", "index", underlay, "type", "vxlan", "id", "5", "dstport", "9")
    other.run("sysctl", "-qw", "net.ipv4.conf.nic.forwarding=1")
    host.namespace.run("ip", "link", "set", TUNNEL, "netns", other.name)
    with mz.Tunnel.open(TUNNEL, netns=other.name) as tunnel:
        tunnel.delete(force=True)
        assert read_sysctl(tunnel._host, "ipv4/conf/nic/forwarding") == "1"
    assert read_sysctl(host.tunnel._host, f"ipv4/conf/{UNDERLAY}/forwarding") == "1"
    mz.TransitSwitch.detach(UNDERLAY, netns=host.namespace.name)
    assert read_sysctl(host.tunnel._host, f"ipv4/conf/{UNDERLAY}/forwarding") == "0"


def test_a_tunnel_that_was_moved_back_is_bounced_for_again(scene: Scene) -> None:
    """The kernel empties the switch's entry for the tunnel when the tunnel leaves."""
    if not mz.probe().tcx:
        return
    host, other = scene.host, scene.world.namespace("moved")
    index = str(host.tunnel.ifindex)
    host.namespace.run("ip", "link", "set", TUNNEL, "netns", other.name)
    other.run("ip", "-n", other.name, "link", "set", TUNNEL, "netns", host.namespace.name, "index", index)
    with mz.Tunnel.open(TUNNEL, netns=host.namespace.name) as tunnel, mz.TransitAgent.attach(tunnel) as agent:
        assert tunnel.ifindex == host.tunnel.ifindex
        assert agent._datapath.maps.lifeline.lookup(bytes(4)) == tunnel.ifindex.to_bytes(4, sys.byteorder)
        assert all(agent.state().attached.values())


@pytest.mark.vm
def test_a_device_that_got_the_old_index_is_left_alone(scene: Scene) -> None:
    host = scene.host
    host.namespace.run("ip", "link", "del", TUNNEL)
    index = str(host.tunnel.ifindex)
    host.namespace.run(
        "ip", "link", "add", "nic", "up", "index", index, "type", "veth", "peer", "name", "far"
    )
    for call in (host.tunnel.state, host.tunnel.copy):
        with pytest.raises(mz.TunnelNotFoundError):
            call()
    host.tunnel.delete()
    host.tunnel.delete(force=True)
    scene.agent.detach(force=True)
    assert "UP" in host.namespace.run("ip", "link", "show", "nic")


CALLS: list[Callable[[mz.TransitAgent], object]] = [mz.TransitAgent.state, mz.TransitAgent.stats]


def test_a_new_tunnel_of_the_old_name_is_another(scene: Scene) -> None:
    """A handle goes by the device, never by its name."""
    host = scene.host
    host.namespace.run("ip", "link", "del", TUNNEL)
    with (
        mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=host.namespace.name) as tunnel,
        mz.TransitAgent.attach(tunnel) as heir,
    ):
        for call in CALLS:
            with pytest.raises(mz.StaleHandleError):
                call(scene.agent)
        scene.agent.detach(force=True)
        host.tunnel.delete(force=True)
        assert all(heir.state().attached.values())
        assert attached_on(Host(host.namespace, host.address, tunnel, heir)) == [*heir.state().attached]
        tunnel.delete()
