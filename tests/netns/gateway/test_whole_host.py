# SPDX-License-Identifier: Apache-2.0
"""Where the kernel cannot forward IPv6 of one device alone, that of the whole host is turned on, if the caller says so.

On a kernel that can, it is hidden that it can.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv6Network
from itertools import permutations

import pytest

import mizarnet as mz
from mizarnet._datapath import forwarding, gateway_notes
from mizarnet._datapath.gateway_notes import Whole
from mizarnet._kernel.netlink import Session, advertised_links
from tests.support.depth import some
from tests.support.icmp import assert_silence, echo
from tests.support.namespace import Namespace
from tests.support.outgoing import COUNT, MARK, nothing_arrives
from tests.support.outside import (
    VNIS,
    WORLD,
    Outside,
    findings,
    host_address,
    need_nftables,
    outside,
)
from tests.support.wait import wait_until
from tests.world import UNDERLAY, Host, World

ADVERTISED = IPv6Network("2001:db8:77::/64")
LATER = IPv6Network("2001:db8:78::/64")
BEYOND = "2001:db8:99::1"
Needing = tuple[Callable[[], object], Callable[[], object]]
"""How somebody who needs forwarding comes and goes."""


@pytest.fixture(autouse=True, scope="module")
def old_kernel() -> Iterator[None]:
    """A kernel that does not know ``force_forwarding``, or is taken for one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forwarding, "_FORCED", "ipv6/conf/{}/no_such_setting")
        yield


def settings(space: Namespace) -> list[str]:
    """What decides who forwards IPv6, and who takes advertisements, of every device but those of gateways."""
    pattern = r"^net\.ipv[46]\.conf\.[^.]*\.(forwarding|accept_ra|force_forwarding)$"
    return [each for each in space.run("sysctl", "-a", "--pattern", pattern).splitlines() if "mz" not in each]


def value(space: Namespace, device: str, setting: str) -> str:
    return space.run("sysctl", "-n", f"net.ipv6.conf.{device}.{setting}").strip()


def advertise(router: Namespace, prefix: IPv6Network) -> None:
    """A router says that it is one, and that a prefix is on the link."""
    option = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + prefix.network_address.packed
    index = router.call(lambda: socket.if_nametoindex(UNDERLAY))
    with router.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        raw.bind(("fe80::3", 0, 0, index))
        raw.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + option, ("ff02::1", 0, 0, index))


def await_prefix(space: Namespace, prefix: IPv6Network) -> None:
    wait_until(
        lambda: (
            str(prefix.network_address).rstrip(":")
            in space.run("ip", "-6", "address", "show", "dev", UNDERLAY)
        ),
        f"{space.name} takes no address of {prefix}",
    )


@pytest.fixture(scope="module")
def way() -> Iterator[Outside]:
    """A host that forwards no IPv6, and lives on what the outside advertises."""
    with outside("vxlan", VNIS, forwards=False) as made:
        for host, own in ((made.host.namespace, "fe80::1"), (made.space, "fe80::3")):
            host.run("ip", "address", "add", f"{own}/64", "dev", UNDERLAY, "nodad")
        space = made.host.namespace
        space.run("sysctl", "-q", "-w", f"net.ipv6.conf.{UNDERLAY}.accept_ra=1")
        space.run("ip", "link", "add", "eth8", "type", "veth", "peer", "name", "eth9")
        space.run("sysctl", "-q", "-w", "net.ipv6.conf.eth9.forwarding=1")
        advertise(made.space, ADVERTISED)
        await_prefix(space, ADVERTISED)
        yield made
        space.run("ip", "link", "delete", "eth8")


@pytest.mark.vm
def test_it_is_turned_on_only_if_the_caller_says_so(way: Outside) -> None:
    """Devices that live on advertisements go on, nothing else is forwarded, and all is put back."""
    space, before = way.host.namespace, settings(way.host.namespace)
    with Session.open(space.name) as session:
        assert advertised_links(session) == {way.host.tunnel.underlay_ifindex}
    with pytest.raises(mz.UnsupportedError, match="does not forward IPv6"):
        way.gateway(VNIS[0])
    assert settings(space) == before
    first = way.gateway(VNIS[0], forward_all_ipv6=True)
    assert value(space, "all", "forwarding") == "1"
    assert [value(space, each, "accept_ra") for each in (UNDERLAY, "eth8")] == ["2", "1"]
    for tenant in way.tenants[VNIS[0]]:
        assert echo(tenant.namespace, WORLD[6])
    advertise(way.space, LATER)
    await_prefix(space, LATER)
    nothing_else_is_forwarded(way)
    with mz.Host.open(netns=space.name) as seen:
        assert findings(seen) == []
        space.run("sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=0")
        assert {each.kind for each in findings(seen)} == {mz.FindingKind.FORWARDING_OFF}
        assert seen.repair()
        assert findings(seen) == []
    assert echo(way.tenants[VNIS[0]][0].namespace, WORLD[6])
    assert not way.gateway(VNIS[0]).created
    second = way.gateway(VNIS[1])  # the host forwards by now
    first.delete()
    for tenant in way.tenants[VNIS[1]]:
        assert echo(tenant.namespace, WORLD[6])
    second.delete()
    assert settings(space) == before
    assert not space.run("nft", "list", "ruleset")


def nothing_else_is_forwarded(way: Outside) -> None:
    """What comes in from the wire for others."""
    own, peer = (host_address(each, 6) for each in (way.host, way.peer))
    way.space.run("ip", "-6", "route", "add", f"{BEYOND}/128", "via", own)
    way.host.namespace.run("ip", "-6", "route", "add", f"{BEYOND}/128", "via", peer)
    with nothing_arrives(way.peer.namespace), way.space.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        for _ in range(COUNT):
            sender.sendto(MARK, (BEYOND, 9))
    tenant = way.tenants[VNIS[0]][0].address(6)
    way.space.run("ip", "-6", "route", "add", f"{tenant}/128", "via", own)
    assert_silence(way.space, tenant)
    way.space.run("ip", "-6", "route", "del", f"{tenant}/128")
    way.space.run("ip", "-6", "route", "del", f"{BEYOND}/128")
    way.host.namespace.run("ip", "-6", "route", "del", f"{BEYOND}/128")


def test_it_stays_on_for_a_gateway_whose_note_has_no_room_for_what_was_before(
    way: Outside, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    space, before = way.host.namespace, settings(way.host.namespace)
    first, second = way.gateway(VNIS[0], forward_all_ipv6=True), way.gateway(VNIS[1])
    with monkeypatch.context() as patch:
        patch.setattr(gateway_notes.Note, "fits", property(lambda note: note.whole in (None, Whole())))
        first.delete()
    assert "no gateway's note has room" in caplog.text
    for tenant in way.tenants[VNIS[1]]:
        assert echo(tenant.namespace, WORLD[6])
    second.delete()
    assert value(space, "all", "forwarding") == "0"
    for setting in (f"{UNDERLAY}.accept_ra=1", "eth9.forwarding=1"):  # which nobody knows any more
        space.run("sysctl", "-q", "-w", f"net.ipv6.conf.{setting}")
    assert settings(space) == before


def test_without_the_note_the_next_gateway_turns_it_on_and_off(way: Outside) -> None:
    """Somebody deleted the device that had it; the rules tell of the host."""
    space, before = way.host.namespace, settings(way.host.namespace)
    name = way.gateway(VNIS[0], forward_all_ipv6=True).name
    space.run("ip", "link", "delete", gateway_notes.device_name(way.host.tunnel.ifindex, VNIS[0]))
    second = way.gateway(VNIS[1], forward_all_ipv6=True)
    for tenant in way.tenants[VNIS[1]]:
        for version in (4, 6):
            assert echo(tenant.namespace, WORLD[version])
    second.delete()
    mz.Endpoint.open(way.host.agent, name).delete()
    # Of these that note alone told.
    for setting in (f"{UNDERLAY}.accept_ra=1", "eth9.forwarding=1"):
        space.run("sysctl", "-q", "-w", f"net.ipv6.conf.{setting}")
    assert settings(space) == before


@pytest.fixture
def host() -> Iterator[Host]:
    """A host over IPv6, whose own device lives on advertisements."""
    need_nftables()
    with World("vxlan", hosts=1, ipv6=True) as made:
        made.hosts[0].namespace.run(
            "ip", "-6", "route", "add", str(ADVERTISED), "dev", UNDERLAY, "proto", "ra"
        )
        made.hosts[0].namespace.run("sysctl", "-q", "-w", f"net.ipv6.conf.{UNDERLAY}.accept_ra=1")
        yield made.hosts[0]


def test_the_last_one_puts_it_back(host: Host) -> None:
    """Gateways and the transit switch, which needs its device alone, in every order."""
    space, before = host.namespace, settings(host.namespace)

    def gateway(vni: int) -> Needing:
        more = {"vni": vni, "egress": UNDERLAY, "ip": "fd00::1/64", "forward_all_ipv6": True}
        return (
            lambda: mz.Gateway.create(host.agent, **more),  # type: ignore[arg-type]
            lambda: mz.Gateway.open(host.agent, vni=vni).delete(),
        )

    switch: Needing = (
        lambda: mz.TransitSwitch.attach(host.agent, mode="generic"),
        lambda: mz.TransitSwitch.open(host.agent).detach(),
    )
    needing = {"seven": gateway(7), "eight": gateway(8), "switch": switch}
    for coming in (("seven", "eight", "switch"), ("switch", "seven", "eight")):
        for going in some([*permutations(coming)], 6):
            for each in coming:
                needing[each][0]()
            for number, each in enumerate(going):
                left = {*going[number:]}
                assert (value(space, "all", "forwarding") == "1") == bool(left & {"seven", "eight"}), (
                    going,
                    each,
                )
                assert value(space, UNDERLAY, "forwarding") == "1"
                assert value(space, UNDERLAY, "accept_ra") == "2"
                with mz.Host.open(netns=space.name) as seen:
                    assert findings(seen) == []
                needing[each][1]()
            assert settings(space) == before, (coming, going)
            assert not space.run("nft", "list", "ruleset")
