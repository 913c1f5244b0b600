# SPDX-License-Identifier: Apache-2.0
"""The tunnel device: how it is made, found again, compared and deleted."""

from __future__ import annotations

import json
from typing import Any

import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._kernel.netlink import Session
from mizarnet.hostspec import TunnelPart
from tests.support.namespace import Namespace
from tests.support.traffic import Capture, assert_ping
from tests.support.wait import wait_until
from tests.world import ADDRESSES, TUNNEL, UNDERLAY, World, device, links


def create(bare: Namespace, name: str = "tunnel0", **changes: Any) -> mz.Tunnel:
    arguments: dict[str, Any] = {"encap": "vxlan", "underlay": UNDERLAY, "netns": bare.name, **changes}
    return mz.Tunnel.create(name, **arguments)


def test_a_new_tunnel_is_down_and_silent(bare: Namespace) -> None:
    with create(bare) as tunnel:
        assert tunnel.created
        state = tunnel.state()
        assert (state.up, state.mtu, state.silent) == (False, 1450, True)
        shown = json.loads(bare.run("ip", "-j", "addr", "show", "dev", "tunnel0"))
        assert shown[0]["addr_info"] == []


def test_its_attributes_say_what_was_chosen(bare: Namespace) -> None:
    with create(bare) as tunnel:
        assert (tunnel.name, tunnel.encap, tunnel.port, tunnel.mtu) == ("tunnel0", mz.Encap.VXLAN, 4789, 1450)
        assert (str(tunnel.local), tunnel.underlay, tunnel.netns) == (ADDRESSES[0], UNDERLAY, bare.name)
        assert tunnel.ifindex == device(bare, "tunnel0").ifindex


def test_creating_it_again_finds_it(bare: Namespace) -> None:
    with create(bare) as first, create(bare, port=4789, mtu=1450, local=ADDRESSES[0]) as second:
        assert not second.created
        assert second.ifindex == first.ifindex


@pytest.mark.parametrize(
    ("argument", "value"),
    [("encap", "geneve"), ("underlay", "eth1"), ("local", "192.0.2.99"), ("port", 4790), ("mtu", 1400)],
)
def test_a_given_argument_that_differs_is_named(bare: Namespace, argument: str, value: object) -> None:
    with create(bare), pytest.raises(mz.ExistsError) as caught:
        create(bare, **{argument: value})
    assert list(caught.value.differences) == [argument]
    assert caught.value.holder == "tunnel0"


def test_open_finds_what_was_created(bare: Namespace) -> None:
    with create(bare, mtu=1400, port=4790) as made, mz.Tunnel.open("tunnel0", netns=bare.name) as found:
        for name in ("encap", "port", "mtu", "local", "underlay", "ifindex"):
            assert getattr(found, name) == getattr(made, name)
        assert not found.created


def test_a_device_of_somebody_else_is_left_alone(bare: Namespace) -> None:
    with pytest.raises(mz.TunnelNotFoundError):
        mz.Tunnel.open(UNDERLAY, netns=bare.name)
    with pytest.raises(mz.ExistsError, match="no mizarnet tunnel"):
        create(bare, UNDERLAY)
    assert device(bare, UNDERLAY).up


def test_a_plain_vxlan_device_is_no_tunnel(bare: Namespace) -> None:
    bare.run("ip", "link", "add", "tunnel0", "type", "vxlan", "id", "7", "dstport", "4789")
    with pytest.raises(mz.ExistsError):
        create(bare)


def test_the_name_of_unfinished_tunnels_is_no_tunnels(bare: Namespace) -> None:
    for make in (
        lambda: create(bare, "mizarnet-new"),
        lambda: TunnelPart(encap="vxlan", underlay=UNDERLAY, name="mizarnet-new"),
    ):
        with pytest.raises(mz.InvalidValueError, match="being made"):
            make()


def test_a_tunnel_that_got_the_name_of_unfinished_ones_lives_on(bare: Namespace) -> None:
    with create(bare) as tunnel:
        bare.run("ip", "link", "set", "tunnel0", "name", "mizarnet-new")
        with pytest.raises(mz.ExistsError, match="until they are finished"):
            create(bare, "tunnel1", port=4790)
        with mz.TransitAgent.attach(tunnel) as agent, mz.Host.open(netns=bare.name) as host:
            # Its programs tell, whatever else is taken from it.
            bare.run("ip", "link", "set", "mizarnet-new", "down", "alias", "")
            assert not host.gc().done
            with pytest.raises(mz.ExistsError, match="until they are finished"):
                create(bare, "tunnel1", port=4790)
            assert all(agent.state().attached.values())
            agent.detach()
    create(bare, "tunnel1", port=4790).close()
    assert set(links(bare)) == {"lo", UNDERLAY, "tunnel1"}


def test_what_a_dead_maker_left_is_in_nobodys_way(bare: Namespace) -> None:
    bare.run("ip", "link", "add", "mizarnet-new", "type", "vxlan", "external", "dstport", "4789")
    with create(bare) as tunnel:
        assert tunnel.created
        assert set(links(bare)) == {"lo", UNDERLAY, "tunnel0"}


def test_the_port_of_another_tunnel_is_named_with_its_holder(bare: Namespace) -> None:
    with create(bare, "one"), pytest.raises(mz.ExistsError) as caught:
        create(bare, "other")
    assert caught.value.holder == "one"


def test_two_tunnels_with_different_ports(bare: Namespace) -> None:
    with create(bare, "one") as one, create(bare, "other", port=4790) as other:
        assert (one.port, other.port) == (4789, 4790)


def test_all_tunnels_of_a_host_are_listed_by_name(bare: Namespace) -> None:
    assert mz.Tunnel.list(netns=bare.name) == []
    create(bare, "second", port=4790).close()
    create(bare, "first").close()
    for alien in ("alien type vxlan external dstport 4791", "plain type vxlan id 7 dstport 4792"):
        bare.run("ip", "link", "add", *alien.split())
    found = mz.Tunnel.list(netns=bare.name)
    assert [(each.name, each.port, each.created) for each in found] == [
        ("first", 4789, False),
        ("second", 4790, False),
    ]
    found[0].delete()  # each has a session of its own
    found[0].close()
    assert not found[1].state().up
    found[1].close()
    assert [each.name for each in listed(bare)] == ["second"]


def listed(bare: Namespace) -> list[mz.Tunnel]:
    """As a process inside the host's namespace sees it."""
    with Session.open(bare.name) as session:
        found = session.run(mz.Tunnel.list)
    for each in found:
        each.close()
    return found


def test_an_address_that_is_still_tentative_is_waited_for(bare: Namespace) -> None:
    bare.run("ip", "address", "flush", "dev", UNDERLAY)
    bare.run("ip", "address", "add", "2001:db8::1/64", "dev", UNDERLAY)
    assert "tentative" in bare.run("ip", "address", "show", "dev", UNDERLAY)
    with create(bare) as tunnel:
        assert str(tunnel.local) == "2001:db8::1"


@pytest.mark.parametrize("mtu", [1451, 1500, 65535])
def test_an_mtu_that_does_not_fit_says_what_would(bare: Namespace, mtu: int) -> None:
    with pytest.raises(mz.MtuError, match="1450") as caught:
        create(bare, mtu=mtu)
    assert caught.value.value == mtu


UNDERLAY_CHANGES = [
    (("addr", "flush"), mz.UnderlayNotFoundError, f"{ADDRESSES[0]} .*ip address add {ADDRESSES[0]}"),
    (("link", "set", "mtu", "1400"), mz.MtuError, "mtu 1450 does not fit .*ip link set eth0 mtu 1500"),
]


@pytest.mark.parametrize(("change", "error", "words"), UNDERLAY_CHANGES, ids=("address", "mtu"))
def test_the_same_lines_refuse_a_tunnel_that_its_underlay_no_longer_carries(
    bare: Namespace, change: tuple[str, ...], error: type[mz.MizarnetError], words: str
) -> None:
    with create(bare) as tunnel, mz.TransitAgent.attach(tunnel):
        bare.run("ip", *change, "dev", UNDERLAY)
        with pytest.raises(error, match=words):
            create(bare)
        with pytest.raises(error, match=words):
            mz.TransitAgent.attach(tunnel)
        mz.TransitAgent.open(tunnel).close()
        assert tunnel.state().up
        tunnel.delete()


def test_peers_that_cannot_be_known_are_asked_for(bare: Namespace) -> None:
    """In a routed fabric the host's address is on lo, and no on-link prefix has the other hosts."""
    bare.run("ip", "addr", "add", "203.0.113.1/32", "dev", "lo")
    with create(bare, local="203.0.113.1") as tunnel:
        with pytest.raises(mz.InvalidValueError, match="peers=") as caught:
            mz.TransitAgent.attach(tunnel)
        assert caught.value.argument == "peers"
        mz.TransitAgent.attach(tunnel, peers=["203.0.113.0/24"]).close()
        tunnel.delete()


@pytest.mark.parametrize("mtu", [68, 1279, 1280])
def test_a_small_mtu_is_as_good_as_any(bare: Namespace, mtu: int) -> None:
    with create(bare, mtu=mtu) as tunnel:
        state = tunnel.state()
        assert (state.up, state.mtu, state.silent) == (False, mtu, True)
    assert links(bare) == [
        "lo",
        UNDERLAY,
        "tunnel0",
    ]


@pytest.mark.vm
def test_a_tunnel_below_1280_bytes_carries_ipv4_and_refuses_ipv6() -> None:
    with World("vxlan", mtu=1000 + 50) as world:
        near, far = world.hosts
        assert near.tunnel.mtu == 1000
        one, local = (world.container(near, 7, f"10.0.0.{number}/24") for number in (1, 2))
        other = world.container(far, 7, "10.0.0.3/24")
        assert device(one.namespace, "eth0").mtu == 1000
        for there in (local, other):
            assert_ping(one.namespace, there.ip, size=1000 - 28)
        vm = mz.Endpoint.create(near.agent, vni=7, ip="10.0.0.4/24", kind="macvtap")
        with vm.open_tap():
            assert (vm.state().up, vm.state().mtu) == (True, 1000)
        for kind in mz.Kind:
            with pytest.raises(mz.MtuError, match="IPv6 needs an MTU of 1280, the tunnel's is 1000"):
                mz.Endpoint.create(near.agent, vni=7, ip=["10.0.0.5/24", "fd00::5/64"], kind=kind)
        assert len(mz.Endpoint.list(near.agent)) == 3


def test_what_an_mtu_raised_by_hand_makes_the_tunnel_say_is_dropped() -> None:
    """The kernel turns IPv6 on again with it."""
    with World("vxlan", mtu=1000 + 50) as world, Capture(world.spaces[1], UNDERLAY) as wire:
        host = world.hosts[0]
        host.namespace.run("ip", "link", "set", TUNNEL, "mtu", "1400")
        wait_until(lambda: host.agent.stats().agent[Verdict.TUNNEL_OWN].packets)
        assert_ping(host.namespace, world.hosts[1].address)
        seen = wire.until(lambda frame: frame[12:14] == b"\x08\x00" and frame[23] == 1)
        assert not [frame for frame in seen if frame[23] == 17]


def test_a_failed_call_leaves_no_device(bare: Namespace) -> None:
    with pytest.raises(mz.MtuError):
        create(bare, mtu=1451)
    assert links(bare) == ["lo", UNDERLAY]


def test_deleting_twice_is_no_error(bare: Namespace) -> None:
    with create(bare) as tunnel:
        tunnel.delete()
        tunnel.delete()
        with pytest.raises(mz.TunnelNotFoundError):
            tunnel.state()


def test_closing_it_leaves_the_device(bare: Namespace) -> None:
    create(bare).close()
    assert device(bare, "tunnel0").kind == "vxlan"


def test_a_closed_handle_says_so(bare: Namespace) -> None:
    tunnel = create(bare)
    tunnel.close()
    tunnel.close()
    for call in (tunnel.state, tunnel.delete):
        with pytest.raises(mz.ClosedError):
            call()


def test_a_handle_of_an_older_life_touches_nothing(bare: Namespace) -> None:
    with create(bare) as older:
        older.delete()
        with mz.deleting(create(bare)) as younger, mz.deleting(mz.TransitAgent.attach(younger)) as agent:
            older.delete()
            assert younger.state().up
            assert agent.state().programs


def test_it_stays_while_endpoints_use_it() -> None:
    with World("vxlan", hosts=1) as world:
        host = world.hosts[0]
        world.container(host, 7, "10.0.0.1/24", name="web")
        with pytest.raises(mz.InUseError) as caught:
            host.tunnel.delete()
        assert caught.value.users == ("web",)
        host.tunnel.delete(force=True)
        with pytest.raises(mz.StaleHandleError):
            host.agent.stats()


def test_its_text_is_one_line(bare: Namespace) -> None:
    with create(bare) as tunnel:
        assert repr(tunnel) == f"<Tunnel tunnel0 in {bare.name}: vxlan {ADDRESSES[0]}:4789 mtu=1450>"
        assert "<table" in tunnel._repr_html_()
