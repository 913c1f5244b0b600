# SPDX-License-Identifier: Apache-2.0
"""A tunnel in use gets another address, another underlay or another MTU, and every endpoint stays.

How long nothing is delivered is in ``docs/measurements.md``; run this file with ``-s`` to measure it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import attrs
import pytest

import mizarnet as mz
from mizarnet import FindingKind, Verdict
from mizarnet._datapath import relocation, shortcuts
from mizarnet._kernel.bpf import XdpHook, has_tcx
from mizarnet._kernel.netlink import (
    Session,
    add_address,
    create_bridge,
    delete_address,
    get_link,
    list_neighbours,
    set_link,
)
from mizarnet._model.codec import FIRST, Record
from tests.support.depth import FULL
from tests.support.flow import Probe, Stream
from tests.support.icmp import echo
from tests.support.native_xdp import let_pass
from tests.support.tables import contents, unchanged
from tests.support.traffic import assert_ping
from tests.world import TUNNEL, UNDERLAY, Container, Host, World

SETTLE = 0.2
NEW = {4: "192.0.2.9", 6: "fd00:6d7a::9"}
LENGTH = {4: 24, 6: 64}


@attrs.frozen
class Pair:
    """A container on each of two hosts; the first host is the one that changes."""

    world: World
    one: Container
    other: Container

    @property
    def host(self) -> Host:
        """The host that changes."""
        return self.one.host

    @property
    def version(self) -> int:
        """IP version of the underlay."""
        return self.host.tunnel.local.version

    def tell(self, address: str) -> None:
        """Tell the other host where the first container is by now."""
        self.other.host.agent.endpoints[7, self.one.ip] = mz.Remote(address)

    def look(self) -> Any:
        """What may not change when nothing is done."""
        tunnel = mz.Tunnel.open(TUNNEL, netns=self.host.namespace.name)
        with tunnel:
            facts = tunnel.to_dict()
        agent = self.host.agent
        return facts, contents(agent), agent.state().programs, self.one.endpoint.state()


@pytest.fixture(params=[False, True], ids=["over-ipv4", "over-ipv6"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two hosts over an underlay of either family."""
    with World("vxlan", ipv6=request.param) as world:
        yield _pair(world)


@pytest.fixture
def plain(world: World) -> Pair:
    """Two hosts over IPv4."""
    return _pair(world)


@pytest.fixture(params=[False, True] if FULL else [False], ids=lambda ipv6: f"over-ipv{6 if ipv6 else 4}")
def moving(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two hosts over an underlay of either family, at full depth; else over IPv4."""
    with World("vxlan", ipv6=request.param) as world:
        yield _pair(world)


def _pair(world: World) -> Pair:
    first, second = world.hosts
    return Pair(
        world, world.container(first, 7, "10.0.0.1/24", name="one"), world.container(second, 7, "10.0.0.2/24")
    )


def _readdress(host: Host, old: str, new: str, device: str = UNDERLAY) -> None:
    """What DHCP or an operator does to the NIC."""
    length = LENGTH[6 if ":" in old else 4]
    with Session.open(host.namespace.name) as session:
        link = get_link(session, device)
        assert link is not None
        # This way round: with its primary address the kernel takes the others of a prefix.
        delete_address(session, link.ifindex, ip_interface(f"{old}/{length}"))
        add_address(session, link.ifindex, ip_interface(f"{new}/{length}"), dad=False)


def _set_up(host: Host, device: str, **options: Any) -> None:
    with Session.open(host.namespace.name) as session:
        link = get_link(session, device)
        assert link is not None
        set_link(session, link.ifindex, **options)


def _into_bridge(host: Host, address: str) -> None:
    """Put the NIC into a bridge that has the address from then on."""
    length = LENGTH[6 if ":" in address else 4]
    with Session.open(host.namespace.name) as session:
        nic = get_link(session, UNDERLAY)
        assert nic is not None
        made = create_bridge(session, "br0").ifindex
        # The NIC first: a bridge that has no port when it goes up waits up to a second for the kernel's word that it
        # has one.
        set_link(session, nic.ifindex, master=made)
        set_link(session, made, up=True, mac=nic.mac)
        delete_address(session, nic.ifindex, ip_interface(f"{address}/{length}"))
        add_address(session, made, ip_interface(f"{address}/{length}"), dad=False)


def _undisturbed(pair: Pair, change: Callable[[], object], name: str) -> None:
    """Make a change under TCP streams in both directions, which must survive it, and print what a probe lost."""
    one, other = pair.one, pair.other
    ifindex = one.endpoint.ifindex
    with (
        Stream(one.namespace, other.namespace, other.ip) as there,
        Stream(other.namespace, one.namespace, one.ip) as back,
        Probe(one.namespace, other.namespace, other.ip) as probe,
    ):
        time.sleep(SETTLE)
        change()
        time.sleep(SETTLE)
        there.goes_on()
        back.goes_on()
        print(f"\n{name} (underlay IPv{pair.version}): {probe.result()}")
    assert one.endpoint.state().life is mz.Life.LIVE
    assert mz.Endpoint.open(pair.host.agent, "one").ifindex == ifindex
    with mz.Host.open(netns=pair.host.namespace.name) as host:
        assert [str(each) for each in host.check() if each.kind is not FindingKind.LOSS] == []


@pytest.mark.vm
def test_the_address_changes(pair: Pair) -> None:
    host, old, new = pair.host, pair.host.address, NEW[pair.version]

    def change() -> None:
        _readdress(host, old, new)
        assert host.tunnel.update(local=None) == ("local",)
        pair.tell(new)

    _undisturbed(pair, change, "another address")
    assert str(host.tunnel.local) == new
    assert host.tunnel.update(local=new) == host.tunnel.update() == ()
    # Other handles, and those to come, go by the new address.
    assert host.agent.check() == []
    with pytest.raises(mz.InvalidValueError):
        host.agent.endpoints[7, "10.0.0.9"] = mz.Remote(new)
    with mz.Tunnel.create(
        TUNNEL, encap="vxlan", underlay=UNDERLAY, local=new, netns=host.namespace.name
    ) as again:
        assert not again.created
        mz.TransitAgent.attach(again).close()


@pytest.mark.vm
def test_the_nic_is_renamed(moving: Pair) -> None:
    host = moving.host
    # Else the kernel takes the IPv6 addresses of a device that goes down.
    host.namespace.set(**{f"ipv6/conf/{UNDERLAY}/keep_addr_on_down": 1})

    def change() -> None:
        _set_up(host, UNDERLAY, up=False)
        _set_up(host, UNDERLAY, name="enp3s0")
        _set_up(host, "enp3s0", up=True)
        assert host.tunnel.update(underlay="enp3s0") == ("underlay",)

    _undisturbed(moving, change, "the NIC renamed")
    assert host.tunnel.update(underlay="enp3s0") == ()
    switch = mz.TransitSwitch.attach(host.agent, mode="generic")
    assert switch.underlay == "enp3s0"
    mz.Tunnel.create(TUNNEL, encap="vxlan", underlay="enp3s0", netns=host.namespace.name).close()


def test_the_nic_goes_into_a_bridge_and_the_switch_moves(moving: Pair) -> None:
    host = moving.host
    before = mz.TransitSwitch.attach(host.agent, mode="generic")

    def change() -> None:
        _into_bridge(host, host.address)
        assert host.tunnel.update(underlay="br0") == ("underlay",)

    _undisturbed(moving, change, "the NIC into a bridge")
    after = mz.TransitSwitch.open(host.agent)
    assert (before.underlay, after.underlay) == (UNDERLAY, "br0")
    assert before.state() == after.state() == mz.SwitchState(attached=True, forwarding=True)
    assert "xdp" not in host.namespace.run("ip", "link", "show", UNDERLAY)


def test_a_neighbour_whose_answer_was_lost_is_asked_again_at_once(pair: Pair) -> None:
    """The kernel would repeat its question after a second, here after minutes."""
    host, other, family = pair.host, pair.other.host, f"ipv{pair.version}"
    assert_ping(pair.one.namespace, pair.other.ip)
    with Session.open(other.namespace.name) as there:
        link = get_link(there, UNDERLAY)
        assert link is not None
        silent = ip_interface(f"{other.address}/{LENGTH[pair.version]}")
        delete_address(there, link.ifindex, silent)
        _into_bridge(host, host.address)
        host.namespace.set(**{f"{family}/neigh/br0/retrans_time_ms": 600_000})
        with pair.one.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", (pair.other.ip, 9))
        assert _is_awaited(host, "br0", other.address)
        add_address(there, link.ifindex, silent, dad=False)
    assert host.tunnel.update(underlay="br0") == ("underlay",)
    assert_ping(pair.one.namespace, pair.other.ip)


def _is_awaited(host: Host, device: str, address: str) -> bool:
    with Session.open(host.namespace.name) as session:
        link = get_link(session, device)
        assert link is not None
        (found,) = (each for each in list_neighbours(session, link.ifindex) if str(each.ip) == address)
        return found.awaited


@pytest.mark.skipif(not has_tcx(), reason="this kernel has no tcx, and so no shortcut")
def test_the_shortcut_moves_with_the_tunnel(plain: Pair) -> None:
    host = plain.host
    host.agent.update(shortcut="auto")

    def places() -> list[str]:
        return [each.link.name for each in shortcuts.find(host.tunnel._host)]

    def taken() -> int:
        return host.agent.stats().shortcut[Verdict.ACCEPTED].packets

    assert places() == [UNDERLAY]
    _into_bridge(host, host.address)
    assert host.tunnel.update(underlay="br0") == ("underlay",)
    assert places() == ["br0"]
    add_address(host.tunnel._host, get_link(host.tunnel._host, "br0").ifindex, ip_interface(f"{NEW[4]}/24"))  # type: ignore[union-attr]
    assert host.tunnel.update(local=NEW[4]) == ("local",)
    plain.tell(NEW[4])
    before = taken()
    assert_ping(plain.one.namespace, plain.other.ip)
    assert taken() > before
    assert {each.kind for each in host.agent.check()} == {FindingKind.SHORTCUT_PAST}


def test_a_switch_moves_to_no_device_with_another_program(plain: Pair, tmp_path: Path) -> None:
    host = plain.host
    mz.TransitSwitch.attach(host.agent, mode="generic")
    host.namespace.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth2")
    with let_pass(tmp_path) as program:
        with Session.open(host.namespace.name) as session:
            link = get_link(session, "eth1")
            assert link is not None
            session.run(XdpHook(link.ifindex).attach, program, mode=mz.XdpMode.GENERIC)
        before = plain.look()
        with pytest.raises(mz.ExistsError, match="where the transit switch is to move"):
            host.tunnel.update(underlay="eth1")
        assert plain.look() == before
    assert mz.TransitSwitch.open(host.agent).underlay == UNDERLAY


def test_a_switch_that_was_given_another_device_stays_there(plain: Pair, tmp_path: Path) -> None:
    host = plain.host
    host.namespace.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth2")
    mz.TransitSwitch.attach(host.agent, underlay="eth1", mode="generic")

    def place() -> tuple[str, mz.SwitchState]:
        switch = mz.TransitSwitch.open(host.agent)
        return switch.underlay, switch.state()

    before = place()
    assert before == ("eth1", mz.SwitchState(attached=True, forwarding=True))
    with let_pass(tmp_path) as program, Session.open(host.namespace.name) as session:
        link = get_link(session, UNDERLAY)
        assert link is not None
        session.run(XdpHook(link.ifindex).attach, program, mode=mz.XdpMode.GENERIC)
        assert (host.tunnel.update(mtu=1400), host.tunnel.update()) == (("mtu",), ())
        assert place() == before
        session.run(XdpHook(link.ifindex).detach, program, mode=mz.XdpMode.GENERIC)
    _into_bridge(host, host.address)
    assert host.tunnel.update(underlay="br0") == ("underlay",)
    assert place() == before
    # Where the tunnel comes to its device, both go on together.
    assert host.tunnel.update(underlay="eth1", local=host.address) == ("underlay",)
    assert place() == before
    assert host.tunnel.update(underlay="br0") == ("underlay",)
    assert place() == ("br0", before[1])


@pytest.mark.parametrize("follows", [False, True], ids=["elsewhere", "on the underlay"])
def test_the_switch_is_where_it_was_after_an_error(
    plain: Pair, monkeypatch: pytest.MonkeyPatch, follows: bool
) -> None:
    host = plain.host
    host.namespace.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth2")
    mz.TransitSwitch.attach(host.agent, underlay=UNDERLAY if follows else "eth1", mode="generic")
    before = mz.TransitSwitch.open(host.agent).ifindex

    settle = relocation.shortcuts.settle

    def fail_once(*_: Any) -> None:
        monkeypatch.setattr(relocation.shortcuts, "settle", settle)
        raise mz.KernelError("settle the shortcut", errno=12)

    monkeypatch.setattr(relocation.shortcuts, "settle", fail_once)
    with pytest.raises(mz.KernelError):
        host.tunnel.update(underlay="eth1", local=host.address)
    assert mz.TransitSwitch.open(host.agent).ifindex == before
    assert host.tunnel.update() == ()
    assert host.agent.check() == []


@pytest.mark.parametrize("step", ["noted", "taken off", "there"])
def test_a_move_of_the_switch_that_was_cut_off_is_finished(plain: Pair, step: str) -> None:
    host = plain.host
    mz.TransitSwitch.attach(host.agent, mode="generic")
    _into_bridge(host, host.address)
    # As after a death behind this step.
    with host.agent._datapath.writing() as maps:
        bridge = get_link(host.tunnel._host, "br0")
        assert bridge is not None
        if step == "there":
            relocation.switches.move(host.agent._datapath, maps, bridge)
        else:
            noted = maps.read_switching()
            noted = attrs.evolve(noted, ifindex=bridge.ifindex, generation=noted.generation + 1)
            maps.switching.update(FIRST, noted.pack())
    if step == "taken off":
        host.namespace.run("ip", "link", "set", UNDERLAY, "xdpgeneric", "off")
    assert host.tunnel.update(underlay="br0") == ("underlay",)
    switch = mz.TransitSwitch.open(host.agent)
    assert (switch.underlay, switch.state()) == ("br0", mz.SwitchState(attached=True, forwarding=True))
    assert "xdp" not in host.namespace.run("ip", "link", "show", UNDERLAY)
    assert host.agent.check() == []


@pytest.mark.vm
def test_the_mtu_shrinks_and_grows(pair: Pair) -> None:
    host, full = pair.host, pair.host.tunnel.mtu
    small = pair.world.container(host, 7, "10.0.0.3/24", name="small", mtu=1300)
    least = pair.world.container(host, 7, "10.0.0.4/24", name="least", mtu=1000)

    def mtus() -> list[tuple[int, int | None]]:
        found = [mz.Endpoint.open(host.agent, name) for name in ("one", "small", "least")]
        return [(each.state().mtu, each.spec.mtu) for each in found]

    def shrink() -> None:
        assert host.tunnel.update(mtu=1200) == ("mtu",)
        assert pair.other.host.tunnel.update(mtu=1200) == ("mtu",)

    _undisturbed(pair, shrink, "the MTU lowered")
    assert mtus() == [(1200, 1200), (1200, 1300), (1000, 1000)]  # what was asked for is kept
    assert host.tunnel.state().mtu == host.tunnel.mtu == 1200

    # Whatever completes or mends the device meanwhile gives it no more than the tunnel has.
    again = mz.Endpoint.create(host.agent, small.endpoint.spec)
    assert (again.created, again.update(labels={"a": "b"})) == (False, ("labels",))
    small.namespace.run("ip", "link", "delete", "eth0")
    with mz.Host.open(netns=host.namespace.name) as here:
        assert here.repair()
    assert mtus()[1] == (1200, 1300)
    assert mz.Endpoint.open(host.agent, "small").check() == []

    def grow() -> None:
        assert pair.other.host.tunnel.update(mtu=None) == ("mtu",)
        assert host.tunnel.update(mtu=None) == ("mtu",)

    _undisturbed(pair, grow, "the MTU raised")
    assert mtus() == [(full, full), (1300, 1300), (1000, 1000)]
    assert echo(pair.one.namespace, pair.other.ip, size=full - 28, whole=True)
    assert_ping(small.namespace, least.ip)


@pytest.mark.parametrize("again", [{}, {"mtu": None}, {"mtu": 1400}, {"local": None}], ids=str)
def test_devices_that_the_kernel_lowered_grow_again(plain: Pair, again: dict[str, Any]) -> None:
    host = plain.host
    small = plain.world.container(host, 7, "10.0.0.3/24", name="small", mtu=1300)
    host.namespace.run("ip", "link", "set", TUNNEL, "mtu", "1000")
    assert [each.endpoint.state().mtu for each in (plain.one, small)] == [1000, 1000]
    host.tunnel.update(**again)
    full = again.get("mtu") or 1450
    assert [each.endpoint.state().mtu for each in (plain.one, small)] == [full, 1300]
    assert host.agent.check() == host.tunnel.check() == []
    assert plain.one.endpoint.check() == small.endpoint.check() == []


def test_full_packets_pass_again_over_a_smaller_underlay_of_ipv6() -> None:
    with World("vxlan", ipv6=True) as world:
        pair = _pair(world)
        for host in world.hosts:
            _set_up(host, UNDERLAY, mtu=1400)
        with pytest.raises(mz.MtuError, match=r"tunnel\.update"):
            mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=pair.host.namespace.name)
        for host in world.hosts:
            assert host.tunnel.update(mtu=None) == ("mtu",)
        assert echo(pair.one.namespace, pair.other.ip, size=pair.host.tunnel.mtu - 28, whole=True)


def test_what_cannot_be_is_said_before_anything_is_done(plain: Pair) -> None:
    host = plain.host
    plain.world.container(host, 7, "fd00::5/64", name="six")
    with Session.open(host.namespace.name) as session:
        link = get_link(session, UNDERLAY)
        assert link is not None
        add_address(session, link.ifindex, ip_interface("fd00:6d7a::1/64"), dad=False)
    before = plain.look()
    tunnel, refused = host.tunnel, [
        ({"local": "fd00:6d7a::1"}, mz.InvalidValueError, "other family"),
        ({"local": "192.0.2.77"}, mz.UnderlayNotFoundError, "no address of this host"),
        ({"underlay": "eth9"}, mz.UnderlayNotFoundError, "eth9"),
        ({"underlay": TUNNEL}, mz.InvalidValueError, "its own underlay"),
        ({"mtu": 1451}, mz.MtuError, "does not fit"),
        ({"mtu": 1279}, mz.MtuError, "six"),
        ({"mtu": 1279, "local": "192.0.2.1"}, mz.MtuError, "six"),
    ]  # fmt: skip
    for given, error, words in refused:
        with pytest.raises(error, match=words) as told:
            tunnel.update(**given)  # type: ignore[arg-type]
        assert told.value is not None
        assert plain.look() == before, given
    for given in ({"local": 7}, {"underlay": ""}, {"mtu": "x"}):
        with pytest.raises(mz.MizarnetError):
            tunnel.update(**given)  # type: ignore[arg-type]
    assert plain.look() == before


def test_a_change_that_was_cut_off_is_told_finished_or_mended(plain: Pair) -> None:
    host = plain.host
    _readdress(host, host.address, NEW[4])
    for finish in (lambda: host.tunnel.update(local=NEW[4]), _repair(host)):
        maps = host.agent._datapath.maps
        # As after a death behind the first step.
        meta = attrs.evolve(maps.read_meta(), local=host.tunnel.local.__class__(NEW[4]))
        maps.meta.update(FIRST, meta.pack())
        with mz.Host.open(netns=host.namespace.name) as here:
            found = [each for each in here.check() if each.kind is FindingKind.CONSTANTS_DIFFER]
            assert len(found) == (1 if finish is not None and str(host.tunnel.local) != NEW[4] else 0)
        finish()
        plain.tell(NEW[4])
        assert_ping(plain.one.namespace, plain.other.ip)
        assert host.agent.check() == []


def _repair(host: Host) -> Callable[[], object]:
    def repair() -> None:
        with mz.Host.open(netns=host.namespace.name) as here:
            assert here.repair()

    return repair


def test_an_error_halfway_leaves_all_as_it_was(plain: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    host = plain.host
    _readdress(host, host.address, NEW[4])
    settle = relocation.shortcuts.settle
    failed: list[str] = []

    def fail_once(*args: Any) -> None:
        if failed:
            return settle(*args)
        failed.append("once")
        raise mz.KernelError("settle the shortcut", errno=12)

    monkeypatch.setattr(relocation.shortcuts, "settle", fail_once)
    programs, meta = host.agent.state().programs, host.agent._datapath.maps.read_meta()
    with unchanged(host.agent), pytest.raises(mz.KernelError):
        host.tunnel.update(local=NEW[4], mtu=1300)
    assert failed
    after = host.agent._datapath.maps.read_meta()
    assert attrs.evolve(after, generation=meta.generation) == meta
    assert host.agent.state().programs.keys() == programs.keys()
    kinds = {each.kind for each in [*host.agent.check(), *host.tunnel.check()]}
    assert kinds == {FindingKind.UNDERLAY_ADDRESS}
    assert host.tunnel.update(local=NEW[4], mtu=1300) == ("local", "mtu")


def test_a_host_address_on_lo_takes_peers(bare: Any) -> None:
    bare.run("ip", "link", "set", "lo", "up")
    bare.run("ip", "address", "add", "10.255.0.1/32", "dev", "lo")
    with mz.Tunnel.create(
        TUNNEL, encap="vxlan", underlay=UNDERLAY, local="10.255.0.1", netns=bare.name
    ) as tunnel:
        try:
            with pytest.raises(mz.InvalidValueError, match="peers="):
                mz.TransitAgent.attach(tunnel)
            with mz.TransitAgent.attach(tunnel, peers=["10.255.0.0/24"]) as agent:
                assert agent.check() == []
                bare.run("ip", "address", "add", "10.255.0.2/32", "dev", "lo")
                assert tunnel.update(local="10.255.0.2") == ("local",)
                assert agent.check() == []
        finally:
            tunnel.delete(force=True)


def test_a_tunnel_without_an_agent_is_changed_as_well(bare: Any) -> None:
    with mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=bare.name) as tunnel:
        bare.run("ip", "address", "add", "192.0.2.9/24", "dev", UNDERLAY)
        assert tunnel.update(local="192.0.2.9", mtu=1300) == ("local", "mtu")
        with mz.Tunnel.open(TUNNEL, netns=bare.name) as again:
            assert (str(again.local), again.mtu) == ("192.0.2.9", 1300)
        with mz.TransitAgent.attach(tunnel) as agent:
            assert agent.check() == []
            assert tunnel.update(local="192.0.2.1") == ("local",)
            agent.detach()
        # From its note again, which was kept up to date.
        with mz.Tunnel.open(TUNNEL, netns=bare.name) as again:
            assert str(again.local) == "192.0.2.1"
        tunnel.delete()
        with pytest.raises(mz.TunnelNotFoundError):
            tunnel.update(mtu=None)


def test_an_underlay_whose_name_is_no_text(plain: Pair) -> None:
    host, name = plain.host, b"\xffnic"
    commands: list[list[str | bytes]] = [
        ["set", UNDERLAY, "down"], ["set", UNDERLAY, "name", name], ["set", name, "up"],
    ]  # fmt: skip
    for words in commands:
        subprocess.run(["ip", "-n", host.namespace.name, "link", *words], check=True, timeout=30)
    # The new name is noted, and no answer to what was asked for.
    assert host.tunnel.update(mtu=1300) == ("mtu",)
    assert host.tunnel.underlay == os.fsdecode(name)
    assert host.tunnel.update(mtu=1300) == host.tunnel.update() == ()
    with mz.Tunnel.open(TUNNEL, netns=host.namespace.name) as again:
        assert (again.underlay, again.mtu) == (host.tunnel.underlay, 1300)
    assert host.agent.check() == host.tunnel.check() == []
    assert_ping(plain.one.namespace, plain.other.ip)
    # From the note of the device, once the agent is gone, and back.
    host.agent.detach(force=True)
    with mz.Tunnel.open(TUNNEL, netns=host.namespace.name) as again:
        assert again.underlay == host.tunnel.underlay
        mz.TransitAgent.attach(again).close()


def test_an_error_halfway_puts_back_what_grew(plain: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    host, give = plain.host, relocation._give_mtu
    plain.world.container(host, 7, "10.0.0.8/24", name="last")
    host.tunnel.update(mtu=1300)

    def fail_once(datapath: Any, record: Record, mtu: int) -> None:
        if (record.spec.name, mtu) == ("one", 1400):
            raise mz.KernelError("set the MTU", errno=12)
        give(datapath, record, mtu)

    monkeypatch.setattr(relocation, "_give_mtu", fail_once)
    with unchanged(host.agent), pytest.raises(mz.KernelError):
        host.tunnel.update(mtu=1400)
    for name in ("one", "last"):
        endpoint = mz.Endpoint.open(host.agent, name)
        assert (endpoint.spec.mtu, endpoint.state().mtu) == (1300, 1300)
    assert host.agent.check() == []
    monkeypatch.undo()
    assert host.tunnel.update(mtu=1400) == ("mtu",)
