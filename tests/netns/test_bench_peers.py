# SPDX-License-Identifier: Apache-2.0
"""Each peer of the benchmark carries what it says, and in the way that it says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import mizarnet as mz
from tests.bench import bounces, peers
from tests.bench.peers import Peer
from tests.bench.peers.base import GUEST
from tests.bench.peers.evidence import SECONDS, kinds, on_the_wire, sent_by, sent_during
from tests.bench.timing import Timer
from tests.world import links


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tools")
    peers.compile_programs(directory)
    peers.compile_tool("timer", directory)
    return directory


Build = Callable[[type[Peer]], Peer]


@pytest.fixture(scope="module")
def build(tools: Path) -> Iterator[Build]:
    """All are alive at once, as they are when they are measured."""
    with ExitStack() as stack:
        made = {kind: stack.enter_context(kind(tools / "peers.bpf.o")) for kind in peers.PEERS}
        yield made.__getitem__


@pytest.fixture
def timer(tools: Path) -> Timer:
    return Timer(tools / "timer")


OVERLAYS = [each for each in peers.PEERS if each not in (peers.Native, peers.Macvlan)]


@pytest.mark.parametrize("kind", OVERLAYS, ids=lambda kind: kind.name)
def test_an_overlay_puts_remote_traffic_into_vxlan_and_local_on_no_wire(
    build: Build, timer: Timer, kind: type[Peer]
) -> None:
    peer = build(kind)
    if kind is not peers.OldWiring:  # no socket sees what XDP redirects; its receiver takes nothing but VXLAN
        inside, others = on_the_wire(peer, timer, peer.remote)
        assert inside > 10 and others == 0
    assert sent_during(peer, timer, peer.remote) > 10
    assert sent_during(peer, timer, peer.local) == 0


def test_native_goes_as_it_is(build: Build, timer: Timer) -> None:
    peer = build(peers.Native)
    inside, others = on_the_wire(peer, timer, peer.remote)
    assert inside == 0 and others > 10
    assert peer.local is None


def test_macvlan_stays_on_the_host(build: Build, timer: Timer) -> None:
    peer = build(peers.Macvlan)
    assert sent_during(peer, timer, peer.local) == 0
    assert peer.local is not None
    assert kinds(peer.local.source) == {"", "macvlan"}


@pytest.mark.parametrize("kind", [peers.Bridge, peers.BridgeNetfilter], ids=lambda kind: kind.name)
def test_a_bridge_looks_at_iptables_where_it_says_so(build: Build, kind: type[peers.Bridge]) -> None:
    peer = build(kind)
    assert kinds(peer.hosts[0]) == {"", "bridge", "vxlan", "veth"}
    setting = "net.bridge.bridge-nf-call-iptables"
    assert peer.hosts[0].run("sysctl", "-n", setting).strip() == str(kind.netfilter)


@pytest.mark.parametrize("kind", [peers.Cilium, peers.CiliumInPlace], ids=lambda kind: kind.name)
def test_cilium_hands_over_by_redirect_peer(build: Build, timer: Timer, kind: type[Peer]) -> None:
    """A redirect to the peer goes past the transmit side of the host's end."""
    peer = build(kind)
    before = [sent_by(host, "q0") for host in peer.hosts]
    on_the_wire(peer, timer, peer.remote)
    assert [sent_by(host, "q0") for host in peer.hosts] == before
    assert ("vx0" in links(peer.hosts[0])) == (kind is peers.Cilium)


def test_the_old_wiring_has_no_tunnel_device_and_no_offloads(build: Build) -> None:
    peer = build(peers.OldWiring)
    assert kinds(peer.hosts[0]) == {"", "veth"}
    assert peer.remote is not None
    assert "tcp-segmentation-offload: off" in peer.remote.source.run("ethtool", "-k", GUEST)
    (found,) = json.loads(peer.hosts[0].run("ip", "-j", "link", "show", "q0"))
    assert found["xdp"]["mode"] == 2  # generic


@pytest.mark.parametrize("kind", [peers.Mizarnet, peers.WithShortcut], ids=lambda kind: kind.name)
def test_mizarnet_counts_what_it_carries_by_the_way_that_it_says(
    build: Build, timer: Timer, kind: type[peers.Mizarnet]
) -> None:
    peer = build(kind)
    assert isinstance(peer, kind)
    on_the_wire(peer, timer, peer.remote)
    stats = peer.agents[0].stats()
    assert stats.agent[mz.Verdict.ENCAPSULATED].packets > 10
    by_shortcut = stats.shortcut[mz.Verdict.ACCEPTED].packets
    assert (by_shortcut > 10) == (kind is peers.WithShortcut)
    assert not stats.drops


@pytest.mark.parametrize(("mode", "count"), [("rr", 1), ("stream", 4), ("udp", 64)])
def test_the_timer_measures_each_kind(build: Build, timer: Timer, mode: str, count: int) -> None:
    peer = build(peers.Native)
    assert peer.remote is not None
    found = timer.run(mode, peer.remote, seconds=SECONDS, count=count)  # type: ignore[arg-type]
    assert found["rate"] > 0
    if mode == "rr":
        assert 0 < found["p50"] <= found["p99"]


@pytest.fixture(scope="module")
def pump(tools: Path) -> Path:
    return peers.compile_tool("pump", tools)


def test_bounces_are_the_transit_switchs(tools: Path, pump: Path) -> None:
    with bounces.Bouncing(tools / "peers.bpf.o") as hop:
        assert hop.time(pump, count=1000) > 0
        stats = hop.agent.stats()
        assert stats.switch[mz.Verdict.BOUNCED].packets == 1000
        assert not any(count.packets for each in (stats.agent, stats.guard) for count in each.values())
        assert _forwarded(hop) == 0


def test_what_is_compared_with_bounces_is_forwarded_by_the_kernel(tools: Path, pump: Path) -> None:
    for kind, forwarded in ((bounces.Forwarding, 1000), (bounces.Dropping, 0)):
        with kind(tools / "peers.bpf.o") as hop:
            assert hop.time(pump, count=1000) > 0
            assert _forwarded(hop) == forwarded


def _forwarded(hop: bounces.Hop) -> int:
    names, values = (
        line.split() for line in hop.host.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Ip:")
    )
    return int(values[names.index("ForwDatagrams")])
