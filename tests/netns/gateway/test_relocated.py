# SPDX-License-Identifier: Apache-2.0
"""A tunnel gets another address or another NIC: its gateways lead out as before, and to no tunnel's port."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest

import mizarnet as mz
from mizarnet._datapath import gateway_notes, relocation
from mizarnet._kernel.netlink import Session, get_link
from mizarnet._model.codec import FIRST
from mizarnet._model.enumerations import Limit
from tests.support.icmp import assert_silence, echo
from tests.support.namespace import Namespace
from tests.support.outgoing import PORTS, nothing_arrives, send_many
from tests.support.outside import VNIS, WORLD, Outside, findings, outside, private_spaces
from tests.support.services import HTTP, fetch_page
from tests.world import TUNNEL, UNDERLAY
from tests.world.spaces import mac_of

VNI = VNIS[0]
PORT = 8080
NEW = "192.0.2.9"


@attrs.frozen
class Moving:
    """A gateway on a host whose underlay changes.

    Attributes:
        way: The way out.
        gateway: The gateway, by a handle from before all changes.
        settings: What decides what the host's own device forwards, as it was without gateways.
    """

    way: Outside
    gateway: mz.Gateway
    settings: dict[str, str]

    @property
    def space(self) -> Namespace:
        """The host."""
        return self.way.host.namespace

    def read(self, device: str) -> dict[str, str]:
        """The settings of a device of the host."""
        return forwarding_of(self.space, device)

    def tell(self, address: str) -> None:
        """Tell the other host where the first host's endpoints are by now."""
        agent, near = self.way.peer.agent, self.way.tenants[VNI][0]
        own = [near.ip, near.ipv6, *(str(each.ip) for each in self.gateway.ip)]
        agent.peers.add(address)
        agent.endpoints.update({(VNI, each): mz.Remote(address) for each in own})

    def works(self, address: str) -> None:
        """Tenants of both hosts get out, the published port is open, and a check finds nothing."""
        for tenant in self.way.tenants[VNI]:
            for version in (4, 6):
                assert echo(tenant.namespace, WORLD[version])
        fetch_page(self.way.space, address, port=PORT)
        with mz.Host.open(netns=self.space.name) as seen:
            assert findings(seen) == []

    def stays_closed(self, address: str) -> None:
        """No frame gets to a tunnel's port, and nobody to the host's own services."""
        tenants = [each.namespace for each in self.way.tenants[VNI]]
        others = [host.namespace for host in self.way.world.hosts[1:]]
        targets = [address, self.way.peer.address, WORLD[4], "fd00:ee::2"]
        with nothing_arrives(*others):
            for target in targets:
                send_many(tenants[0], target, PORTS)
        for tenant in tenants:
            assert_silence(tenant, address)


def forwarding_of(space: Namespace, device: str) -> dict[str, str]:
    """What decides what a device forwards."""
    pattern = rf"^net\.ipv[46]\.conf\.{device}\.(forwarding|force_forwarding|accept_ra)$"
    lines = space.run("sysctl", "-a", "--pattern", pattern).splitlines()
    return dict(line.replace(device, "it").split(" = ") for line in lines)


@pytest.fixture(scope="module")
def moving() -> Iterator[Moving]:
    """A gateway that publishes a port."""
    with outside("vxlan", [VNI]) as way:
        before = forwarding_of(way.host.namespace, UNDERLAY)
        near, _ = way.tenants[VNI]
        gateway = way.gateway(VNI, publish=[mz.Publish("tcp", PORT, near.ip, HTTP)])
        yield Moving(way, gateway, before)
        gateway.delete()
        assert not way.host.namespace.run("nft", "list", "ruleset")
        assert not private_spaces(way.host.namespace)


def test_another_address(moving: Moving) -> None:
    moving.works(moving.way.host.address)
    host = moving.way.host
    host.namespace.run("ip", "address", "del", f"{host.address}/24", "dev", UNDERLAY)
    host.namespace.run("ip", "address", "add", f"{NEW}/24", "dev", UNDERLAY)
    give_default_routes(moving, UNDERLAY)
    assert host.tunnel.update(local=NEW) == ("local",)
    moving.tell(NEW)
    moving.works(NEW)
    moving.stays_closed(NEW)


def give_default_routes(moving: Moving, device: str) -> None:
    last = moving.way.world.hosts[2]
    for version, via in ((4, last.address), (6, f"fd00:ee::{last.address.rpartition('.')[2]}")):
        moving.space.run("ip", f"-{version}", "route", "replace", "default", "via", via, "dev", device)


def into_bridge(moving: Moving) -> dict[str, str]:
    """The NIC becomes a port of a bridge, which has its addresses from then on; the settings of that."""
    run, own = moving.space.run, str(moving.way.host.tunnel.local)
    v6 = f"fd00:ee::{moving.way.host.address.rpartition('.')[2]}"
    mac = mac_of(moving.space, UNDERLAY).hex(":")
    run("ip", "link", "add", "br0", "address", mac, "type", "bridge")
    run("ip", "link", "set", UNDERLAY, "master", "br0")
    run("ip", "link", "set", "br0", "up", "mtu", "1400")
    for address in (f"{own}/24", f"{v6}/64"):
        run("ip", "address", "del", address, "dev", UNDERLAY)
        run("ip", "address", "add", address, "dev", "br0", *(["nodad"] if ":" in address else []))
    give_default_routes(moving, "br0")
    run("ip", "-6", "route", "flush", "dev", UNDERLAY)
    return moving.read("br0")


def test_where_the_host_still_leads_out_the_gateway_stays(moving: Moving) -> None:
    """A tunnel that gets a network of its own leaves the way out where it is."""
    run, tunnel = moving.space.run, moving.way.host.tunnel
    local = str(tunnel.local)
    run("ip", "link", "add", "eth8", "type", "veth", "peer", "name", "eth9")
    for each in ("eth8", "eth9"):
        run("ip", "link", "set", each, "up")
    run("ip", "address", "add", "198.51.100.1/24", "dev", "eth8")
    assert tunnel.update(underlay="eth8", local="198.51.100.1") == ("local", "underlay")
    assert mz.Gateway.open(moving.way.host.agent, vni=VNI).egress == UNDERLAY
    assert echo(moving.way.tenants[VNI][0].namespace, WORLD[4])
    assert tunnel.update(underlay=UNDERLAY, local=local) == ("local", "underlay")
    run("ip", "link", "delete", "eth8")
    moving.works(local)


def test_an_error_halfway_leads_back(moving: Moving, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway had gone to the other device already; one that led out by that before stays there."""
    run, host = moving.space.run, moving.way.host
    local, before = host.tunnel.local, run("nft", "list", "table", "inet", "mizarnet")
    run("ip", "link", "add", "br1", "type", "bridge")
    run("ip", "link", "set", "br1", "up")
    run("ip", "address", "add", "198.51.100.1/24", "dev", "br1")
    for version, via in ((4, "198.51.100.2"), (6, "")):
        run("ip", f"-{version}", "route", "replace", "default", *(["via", via] if via else []), "dev", "br1")
    other = mz.Gateway.create(host.agent, vni=VNIS[1], egress="br1", ip="10.9.0.254/24")
    seen: list[str] = []

    def fail(*_: object) -> None:
        if not seen:
            seen.append(mz.Gateway.open(host.agent, vni=VNI).egress)
            raise mz.KernelError("replace the programs", errno=12)

    with monkeypatch.context() as there, pytest.raises(mz.KernelError):
        there.setattr(relocation, "upgrade", fail)
        host.tunnel.update(underlay="br1", local="198.51.100.1")
    assert seen == ["br1"]
    assert mz.Gateway.open(host.agent, vni=VNIS[1]).egress == "br1"
    other.delete()
    give_default_routes(moving, UNDERLAY)
    run("ip", "link", "delete", "br1")
    assert (mz.Gateway.open(host.agent, vni=VNI).egress, host.tunnel.local) == (UNDERLAY, local)
    assert uncounted(run("nft", "list", "table", "inet", "mizarnet")) == uncounted(before)
    moving.works(str(local))


def uncounted(listed: str) -> list[str]:
    return [line.partition(" packets ")[0] for line in listed.splitlines()]


def test_ports_stay_published_while_the_agent_is_of_an_older_schema(
    moving: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another tunnel comes, so that all rules are written anew."""
    host = moving.way.host
    with monkeypatch.context() as newer:
        newer.setattr(Limit, "SCHEMA", Limit.SCHEMA + 1)
        with mz.Tunnel.create(
            "tunnel9", encap="vxlan", underlay=UNDERLAY, port=4790, netns=moving.space.name
        ) as tunnel:
            fetch_page(moving.way.space, str(host.tunnel.local), port=PORT)
            tunnel.delete()
    moving.works(str(host.tunnel.local))


@pytest.mark.parametrize("action", ["update", "replace", "delete"])
def test_a_plan_that_moves_the_tunnel_changes_its_gateways_as_well(moving: Moving, action: str) -> None:
    """They went along, a step before, and nobody else changed them; they end where they are specified."""
    run, host = moving.space.run, moving.way.host
    local = str(host.tunnel.local)
    ours: dict[str, Any] = {"vni": VNIS[1], "egress": UNDERLAY, "ip": ["10.9.0.254/24"], "name": "svc/exit"}
    mz.Gateway.create(host.agent, **ours)
    run("ip", "link", "add", "br1", "type", "bridge")
    run("ip", "link", "set", "br1", "up")
    run("ip", "address", "add", "198.51.100.1/24", "dev", "br1")
    for version, via in ((4, "198.51.100.2"), (6, "")):
        run("ip", f"-{version}", "route", "replace", "default", *(["via", via] if via else []), "dev", "br1")
    wanted = {
        "update": [{**ours, "nat": False}],
        "replace": [{**ours, "egress": "br1", "nat": False}],
        "delete": [],
    }
    tunnel = {"name": TUNNEL, "encap": "vxlan", "underlay": "br1", "local": "198.51.100.1"}
    spec = mz.HostSpec.from_dict({"tunnel": tunnel, "gateways": wanted[action]})
    with mz.Host.open(netns=moving.space.name) as seen:
        plan = seen.plan(spec, owner="svc/")
        assert [each.action for each in plan.changes] == ["update", action]
        plan.apply(allow=("update", "replace", "delete"))
    found = {each.vni: (each.egress, each.nat) for each in mz.Gateway.list(host.agent)}
    ends = {each["vni"]: (each["egress"], each["nat"]) for each in wanted[action]}
    assert found == {VNI: ("br1", True), **ends}
    give_default_routes(moving, UNDERLAY)
    host.tunnel.update(underlay=UNDERLAY, local=local)
    for each in mz.Gateway.list(host.agent):
        if each.vni != VNI:
            each.delete()
    run("ip", "link", "delete", "br1")
    moving.works(local)


@pytest.mark.vm
def test_another_nic(moving: Moving) -> None:
    """A plan moves tunnel and gateway, and the transit switch, which needs forwarding of the same device."""
    host = moving.way.host
    own = str(host.tunnel.local)
    mz.TransitSwitch.attach(host.agent, mode="generic")
    settings = into_bridge(moving)
    tunnel = {"name": TUNNEL, "encap": "vxlan", "underlay": "br0", "mtu": 1350}
    gateway = {"vni": VNI, "egress": "br0", "ip": [str(each) for each in moving.gateway.ip]}
    spec = mz.HostSpec.from_dict({"tunnel": tunnel, "gateways": [gateway]})
    with mz.Host.open(netns=moving.space.name) as seen:
        assert {each.action for each in seen.plan(spec).changes} == {"update", "replace"}
        assert seen.plan(spec).apply(allow=("update", "replace"))
        assert not seen.plan(spec)
    moving.works(own)
    moving.stays_closed(own)
    assert mz.Gateway.open(host.agent, vni=VNI).egress == "br0"
    assert moving.gateway.state().life is mz.Life.LIVE
    assert "mtu 1400 " in moving.space.run("ip", "link", "show", "type", "veth")
    assert moving.read(UNDERLAY) == moving.settings
    before = moving.read("br0")
    mz.TransitSwitch.open(host.agent).detach()
    assert moving.read("br0") == before
    cut_off(moving, settings)
    with mz.Host.open(netns=moving.space.name) as seen:
        assert {mz.FindingKind.RULES_DIFFER, mz.FindingKind.FORWARDING_OFF} <= {
            each.kind for each in findings(seen)
        }
    assert host.tunnel.update(underlay="br0") == ("underlay",)
    moving.works(own)
    moving.gateway.delete()
    assert moving.read("br0") == settings


def cut_off(moving: Moving, without: dict[str, str]) -> None:
    """As after a death behind the first step, when only the gateway's note tells of the new device."""
    agent, run = moving.way.host.agent, moving.space.run
    for key, value in without.items():
        run("sysctl", "-q", "-w", f"{key.replace('.it.', '.br0.')}={value}")
    with Session.open(moving.space.name) as session:
        (noted,) = gateway_notes.read_all(session)
        gateway_notes.write(session, noted.link.ifindex, attrs.evolve(noted.note, forwarding=0))
        former = get_link(session, UNDERLAY)
    assert former is not None
    run("nft", "flush", "chain", "inet", "mizarnet", "forwarded")
    maps = agent._datapath.maps
    meta = attrs.evolve(maps.read_meta(), underlay=UNDERLAY, underlay_ifindex=former.ifindex)
    maps.meta.update(FIRST, meta.pack())
