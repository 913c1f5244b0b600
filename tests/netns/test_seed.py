# SPDX-License-Identifier: Apache-2.0
"""The demands on the design, each under its number, with real traffic and once for each encapsulation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

import mizarnet as mz
from mizarnet import EndpointKey, Verdict
from mizarnet._kernel import bpf
from mizarnet._kernel.netlink import Session, dump_links
from tests.frames import Outer
from tests.support.calls import MAPS, PROGRAMS, numbers, users
from tests.support.counting import counted
from tests.support.namespace import Namespace
from tests.support.traffic import Capture, assert_ping, ping, transfer, udp_ask, udp_echo
from tests.world import BLUE, GREEN, RED, SHORTCUT, TUNNEL, UNDERLAY, EncapName, Host, Tenants, World, device

pytestmark = [pytest.mark.vm, pytest.mark.demand]
IN_EMULATION = Path("/run/vm").exists()


@pytest.fixture
def wire(net: Tenants) -> Iterator[Capture]:
    """Everything on the cable between the hosts."""
    with Capture(net.first.namespace, UNDERLAY) as capture:
        yield capture


def outers(net: Tenants, wire: Capture) -> list[Outer]:
    """The tunnel packets on the wire until now: a last frame of the hosts' own says when that is."""
    last = b"the last frame of this test"
    with udp_echo(net.second.namespace, net.second.address, tag=b""):
        assert udp_ask(net.first.namespace, net.second.address, last) == last
    found = (Outer.parse(frame) for frame in wire.until(lambda frame: frame.endswith(last)))
    return [outer for outer in found if outer is not None]


def programs_on(host: Host) -> dict[str, list[int]]:
    """Ids of the programs on the hooks of the tunnel, of tcx where the kernel has it, and of the filters."""
    agent = host.agent
    found = {}
    if bpf.has_tcx():
        for direction in bpf.Direction:
            hook = bpf.TcxHook(agent.tunnel.ifindex, direction)
            found[f"tcx {direction.value}"] = list(agent._datapath.host.run(hook.query).program_ids)
    for direction in bpf.Direction:
        text = host.namespace.run("tc", "-j", "filter", "show", "dev", TUNNEL, direction.value)
        options = [each.get("options", {}) for each in json.loads(text)]
        found[f"clsact {direction.value}"] = [each["prog"]["id"] for each in options if "prog" in each]
    return found


def features_of(namespace: Namespace, name: str) -> dict[str, str]:
    """What ``ethtool -k`` says."""
    lines = namespace.run("ethtool", "-k", name).splitlines()[1:]
    return {key.strip(): value.split()[0] for key, _, value in (line.partition(":") for line in lines)}


def test_s1_one_tunnel_carries_all_endpoints_of_all_vnis(net: Tenants, wire: Capture) -> None:
    assert_ping(net.blue1.namespace, net.blue3.ip)
    assert_ping(net.green1.namespace, net.green3.ip)
    assert {outer.vni for outer in outers(net, wire)} == {BLUE, GREEN}
    with Session.open(net.first.namespace.name) as session:
        tunnels = [link.name for link in dump_links(session) if link.kind in ("vxlan", "geneve")]
    assert tunnels == [TUNNEL]


def test_s3_one_program_on_each_hook_serves_every_endpoint(net: Tenants) -> None:
    before, used = programs_on(net.first), users(net.first.agent._datapath.maps.endpoints.id)
    container = net.world.container(net.first, BLUE, "10.0.0.77/24")
    assert_ping(container.namespace, net.blue3.ip)
    assert programs_on(net.first) == before
    assert users(net.first.agent._datapath.maps.endpoints.id) == used
    assert set(used) >= set(net.first.agent.state().programs.values())
    assert sorted(number for numbers in before.values() for number in numbers) == sorted(
        net.first.agent.state().programs.values()
    )
    assert {len(numbers) for numbers in before.values()} == {1}
    assert {*before} >= {"clsact ingress", "clsact egress"}
    assert len({number for numbers in before.values() for number in numbers}) == 2, "one agent, one guard"
    container.delete()


def test_s4_one_global_map_says_where_every_endpoint_is(net: Tenants) -> None:
    found = net.first.agent.endpoints.snapshot()
    assert found[EndpointKey(BLUE, ip_address("10.0.0.3"))] == mz.Remote(net.second.address)
    assert found[EndpointKey(GREEN, ip_address("10.0.0.3"))] == mz.Remote(net.second.address)
    assert found[EndpointKey(BLUE, ip_address("10.0.0.1"))] == mz.Local(net.blue1.endpoint.mac, 0)
    assert {key.vni for key in found} == {BLUE, GREEN, RED}


def test_s4_a_change_of_the_map_holds_for_the_next_packet(net: Tenants) -> None:
    key = (BLUE, net.blue3.ip)
    entry = mz.Remote(net.second.address)
    assert net.first.agent.endpoints[key] == entry
    assert_ping(net.blue1.namespace, net.blue3.ip)
    del net.first.agent.endpoints[key]
    since = counted(net.first.agent, lambda: ping(net.blue1.namespace, net.blue3.ip, timeout=0.3))
    net.first.agent.endpoints[key] = entry
    assert since.agent[Verdict.NO_DESTINATION].packets == 1
    assert_ping(net.blue1.namespace, net.blue3.ip)


def test_s5_every_packet_out_is_given_its_outer_header_by_the_agent(net: Tenants, wire: Capture) -> None:
    before = net.first.agent.stats()
    for _ in range(3):
        assert_ping(net.blue1.namespace, net.blue3.ip)
    sent = [outer for outer in outers(net, wire) if outer.source == net.first.address]
    assert net.first.agent.stats().since(before).agent[Verdict.ENCAPSULATED].packets == len(sent) == 3
    for outer in sent:
        assert (outer.destination, outer.vni, outer.port) == (net.second.address, BLUE, net.first.tunnel.port)
        assert (outer.ttl, outer.tos, outer.udp_checksum, outer.dont_fragment) == (64, 0, 0, False)
        assert outer.inner[6:12] == net.blue1.mac


def test_s6_local_delivery_puts_no_frame_on_the_wire(net: Tenants, wire: Capture) -> None:
    before = net.first.agent.stats()
    assert_ping(net.blue1.namespace, net.blue2.ip)
    transfer(net.blue1.namespace, net.blue2.namespace, net.blue2.ip, size=1 << 16)
    assert outers(net, wire) == []
    since = net.first.agent.stats().since(before)
    assert since.agent[Verdict.DELIVERED_LOCALLY].packets > 2
    assert since.guard[Verdict.ACCEPTED_LOCALLY] == (
        since.agent[Verdict.DELIVERED_LOCALLY] + since.agent[Verdict.NEIGHBOUR_ANSWERED]
    )


def test_s6_the_capture_would_have_seen_a_frame(net: Tenants, wire: Capture) -> None:
    assert_ping(net.blue1.namespace, net.blue3.ip)
    assert len(outers(net, wire)) == 2


@pytest.mark.skipif(SHORTCUT == "auto", reason="this demand is about the kernel's way")
def test_s7_what_arrives_needs_no_redirect(net: Tenants) -> None:
    with Session.open(net.second.namespace.name) as session:
        state = session.run(bpf.XdpHook(device(net.second.namespace, UNDERLAY).ifindex).query)
    assert not state.program_ids
    since = counted(net.second.agent, lambda: assert_ping(net.blue1.namespace, net.blue3.ip))
    assert since.guard[Verdict.ACCEPTED].packets == 1
    assert since.agent[Verdict.DELIVERED_LOCALLY].packets == 0


def test_s9_kernel_memory_does_not_depend_on_the_number_of_endpoints(encap: EncapName) -> None:
    """Nor do its programs (T37)."""
    many = 200 if IN_EMULATION else 1000
    with World(encap, hosts=1) as world:
        host, namespace = world.hosts[0], world.namespace("many")
        table, seen, made = host.agent._datapath.maps.endpoints.id, [], []
        for first, last in ((0, 0), (0, 1), (1, 10), (10, many)):
            mz.Endpoint.create_many(
                host.agent,
                [
                    mz.EndpointSpec(
                        vni=7, ip=f"10.0.{n >> 8}.{n & 255}/32", netns=namespace.name, ifname=f"e{n}"
                    )
                    for n in range(first + 1, last + 1)
                ],
            )
            state = host.agent.state()
            seen.append((state.memory, dict(state.programs), users(table)))
            made.append((numbers(PROGRAMS), numbers(MAPS)))
        assert len(host.agent.endpoints) == many
        assert seen[0] == seen[1] == seen[2] == seen[3]
        # Others use this kernel too, and load what they need meanwhile; but not one for each of our endpoints.
        assert set(host.agent.state().programs.values()) <= made[0][0]
        for before, after in zip(made[2], made[3], strict=True):
            assert len(after - before) < many - 10


def test_s11_an_endpoint_is_five_steps_and_map_entries(net: Tenants) -> None:
    shown = json.loads(net.blue1.namespace.run("ip", "-d", "-j", "addr", "show"))
    assert [link["ifname"] for link in shown] == ["lo", "eth0"]
    link = shown[1]
    assert link["linkinfo"]["info_kind"] == "macvlan"
    assert link["linkinfo"]["info_data"]["mode"] == "private"
    assert link["link_index"] == net.first.tunnel.ifindex
    assert link["address"] == str(net.blue1.endpoint.mac)
    assert link["mtu"] == net.first.tunnel.mtu == 1450
    assert "UP" in link["flags"]
    inet = [(each["local"], each["prefixlen"]) for each in link["addr_info"] if each["family"] == "inet"]
    assert inet == [("10.0.0.1", 24)]
    assert net.first.agent.endpoints[BLUE, "10.0.0.1"] == mz.Local(net.blue1.endpoint.mac, 0)


def test_s12_jumbo_frames(encap: EncapName) -> None:
    with World(encap, mtu=9000) as world:
        one = world.container(world.hosts[0], BLUE, "10.0.0.1/24")
        other = world.container(world.hosts[1], BLUE, "10.0.0.2/24")
        assert device(one.namespace, "eth0").mtu == 9000 - 50
        assert_ping(one.namespace, other.ip, size=9000 - 50 - 28)


def test_s13_the_agent_sees_frames_before_they_are_segmented(net: Tenants) -> None:
    since = counted(
        net.first.agent,
        lambda: transfer(net.blue1.namespace, net.blue3.namespace, net.blue3.ip, size=1 << 22),
    )
    out = since.agent[Verdict.ENCAPSULATED]
    assert out.bytes / out.packets > 4 * net.first.tunnel.mtu
    assert since.dropped.packets == 0


def test_s13_offloads_stay_on_in_the_container(net: Tenants) -> None:
    features = features_of(net.blue1.namespace, "eth0")
    assert features["tcp-segmentation-offload"] == "on"
    assert features["tx-checksumming"] == "on"
    assert features["generic-segmentation-offload"] == "on"


def test_s14_nothing_is_attached_inside_the_namespace(net: Tenants) -> None:
    index = device(net.blue1.namespace, "eth0").ifindex
    with Session.open(net.blue1.namespace.name) as session:
        assert not session.run(bpf.XdpHook(index).query).program_ids
        if net.first.agent.hook is mz.Hook.TCX:
            for direction in bpf.Direction:
                assert session.run(bpf.TcxHook(index, direction).query).program_ids == ()
    assert "clsact" not in net.blue1.namespace.run("tc", "qdisc", "show", "dev", "eth0")


def test_s15_the_encapsulation_is_one_argument(net: Tenants, encap: EncapName) -> None:
    assert device(net.first.namespace, TUNNEL).kind == encap
    assert net.first.tunnel.port == {"vxlan": 4789, "geneve": 6081}[encap]
    assert_ping(net.blue1.namespace, net.blue3.ip)
    transfer(net.blue3.namespace, net.blue1.namespace, net.blue1.ip, size=1 << 16)
