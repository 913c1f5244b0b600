# SPDX-License-Identifier: Apache-2.0
"""Forwarding of a device is turned on by the first that needs it, and put back by the last: gateways and the switch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import attrs
import pytest

import mizarnet as mz
from mizarnet._datapath import forwarding
from mizarnet._kernel.netlink import Session
from tests.support.icmp import assert_silence, echo
from tests.support.namespace import Namespace
from tests.support.outside import findings, need_nftables
from tests.world import UNDERLAY, Host, World

KEYS = ("ipv4/conf/{}/forwarding", "ipv6/conf/{}/force_forwarding", "ipv6/conf/{}/accept_ra")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host that forwards nothing."""
    need_nftables()
    with World("vxlan", hosts=1) as made:
        yield made.hosts[0]


def settings(space: Namespace) -> list[str]:
    """Those that decide what a device forwards."""

    def read() -> list[str]:
        files = [
            Path("/proc/sys/net", key.format(name)) for key in KEYS for name in (UNDERLAY, "all", "default")
        ]
        return [file.read_text() for file in files if file.exists()]

    return space.call(read)


@attrs.frozen
class Needing:
    """Who needs forwarding."""

    come: Callable[[], object]
    go: Callable[[], object]


def those_who_need(host: Host) -> dict[str, Needing]:
    agent = host.agent

    def gateway(vni: int) -> Needing:
        return Needing(
            lambda: mz.Gateway.create(agent, vni=vni, egress=UNDERLAY, ip="10.0.0.1/24"),
            lambda: mz.Gateway.open(agent, vni=vni).delete(),
        )

    switch = Needing(
        lambda: mz.TransitSwitch.attach(agent, mode="generic"), lambda: mz.TransitSwitch.open(agent).detach()
    )
    return {"seven": gateway(7), "eight": gateway(8), "switch": switch}


@pytest.mark.parametrize("coming", [("seven", "eight", "switch"), ("switch", "seven", "eight")])
def test_the_last_one_puts_it_back(host: Host, coming: tuple[str, ...]) -> None:
    before, needing = settings(host.namespace), those_who_need(host)
    for going in list(permutations(coming))[::3]:
        for each in coming:
            needing[each].come()
            assert settings(host.namespace) != before
        for each in going:
            assert settings(host.namespace) != before
            with mz.Host.open(netns=host.namespace.name) as seen:
                assert findings(seen) == []
            needing[each].go()
        assert settings(host.namespace) == before
        assert not host.namespace.run("nft", "list", "ruleset")


def test_the_switch_of_another_device_comes_and_goes(host: Host) -> None:
    """The rules of gateways close its device as well, as long as it is there."""
    run, before = host.namespace.run, settings(host.namespace)
    run("ip", "link", "add", "eth8", "type", "veth", "peer", "name", "eth9")
    run("ip", "link", "set", "eth8", "up")
    seven = those_who_need(host)["seven"]
    seven.come()
    with mz.Host.open(netns=host.namespace.name) as seen:
        for detach in (
            lambda: mz.TransitSwitch.open(host.agent).detach(),
            lambda: mz.TransitSwitch.detach("eth8", netns=host.namespace.name),
        ):
            mz.TransitSwitch.attach(host.agent, underlay="eth8", mode="generic")
            assert findings(seen) == []
            detach()
            assert findings(seen) == []
    seven.go()
    run("ip", "link", "delete", "eth8")
    assert settings(host.namespace) == before


def test_a_switch_makes_no_router_of_its_host() -> None:
    """What comes in by its device for others goes on only where it would have without the switch."""
    need_nftables()
    with World("vxlan", hosts=3) as world:
        first, peer, last = world.hosts
        last.namespace.run("ip", "route", "add", "203.0.113.7", "via", first.address)
        first.namespace.run("ip", "route", "add", "203.0.113.7", "via", peer.address)
        peer.namespace.run("ip", "address", "add", "203.0.113.7/32", "dev", "lo")
        assert_silence(last.namespace, "203.0.113.7")
        switch = mz.TransitSwitch.attach(first.agent, mode="generic")
        assert switch.state().forwarding
        assert_silence(last.namespace, "203.0.113.7")
        switch.detach()
        assert not first.namespace.run("nft", "list", "ruleset")
        first.namespace.run("sysctl", "-q", "-w", f"net.ipv4.conf.{UNDERLAY}.forwarding=1")
        for attached in (False, True):
            if attached:
                mz.TransitSwitch.attach(first.agent, mode="generic")
            assert echo(last.namespace, "203.0.113.7")


def test_what_was_on_stays_on_and_open(host: Host) -> None:
    """A host that was a router goes on as one: nothing is closed, and nothing is put back."""
    host.namespace.run("sysctl", "-q", "-w", f"net.ipv4.conf.{UNDERLAY}.forwarding=1")
    before = settings(host.namespace)
    seven = those_who_need(host)["seven"]
    seven.come()
    assert "closed" not in host.namespace.run("nft", "list", "ruleset")
    seven.go()
    assert settings(host.namespace) == before
    host.namespace.run("sysctl", "-q", "-w", f"net.ipv4.conf.{UNDERLAY}.forwarding=0")


def test_ipv6_is_forwarded_by_one_device_or_by_the_host(host: Host) -> None:
    """Where the kernel cannot forward that of one device, it is for the host's owner to say."""
    forced = Path("/proc/sys/net/ipv6/conf/all/force_forwarding").exists()
    before = settings(host.namespace)
    with Session.open(host.namespace.name) as session:
        if forced:
            assert forwarding.needed_by_router(session, UNDERLAY, 6) == forwarding.FORCED_IPV6
            forwarding.enable(session, UNDERLAY, forwarding.FORCED_IPV6)
            assert forwarding.needed_by_router(session, UNDERLAY, 6) == 0
            underlay = host.tunnel.underlay_ifindex
            forwarding.restore(session, underlay, forwarding.FORCED_IPV6)
        else:
            with pytest.raises(mz.UnsupportedError, match="does not forward IPv6"):
                mz.Gateway.create(host.agent, vni=9, egress=UNDERLAY, ip="fd00::1/64")
        host.namespace.run("sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1")
        assert forwarding.needed_by_router(session, UNDERLAY, 6) == 0
    host.namespace.run("sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=0")
    assert settings(host.namespace) == before
