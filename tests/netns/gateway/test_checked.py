# SPDX-License-Identifier: Apache-2.0
"""Whatever is done to a gateway behind mizarnet's back is told, and mended or collected where it can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

import mizarnet as mz
from mizarnet import FindingKind as K
from mizarnet._datapath import age, gateway_notes
from mizarnet._datapath.gateways import networks
from mizarnet._datapath.gateways.ruleset import INSIDE, OUTSIDE
from mizarnet._kernel.bpf import Direction, TcxHook, uses_tcx, with_program
from mizarnet._kernel.netlink import Session, set_link
from mizarnet._model.enumerations import State
from tests.support.icmp import assert_silence, echo
from tests.support.outside import VNIS, WORLD, Outside, findings, outside, private_spaces
from tests.support.process import run_python
from tests.world import UNDERLAY, new_namespace

VNI = VNIS[0]
GATEWAY, RULES = f"gateway {VNI}", "rules inet mizarnet"
_TABLE = ("inet", "mizarnet")


@pytest.fixture(scope="module")
def way() -> Iterator[Outside]:
    """One gateway, which a tampering may end."""
    with outside("vxlan", [VNI]) as made:
        yield made


@attrs.frozen
class Scene:
    """A gateway, and what is needed to do something to it."""

    way: Outside
    seen: mz.Host
    device: str
    space: str
    publish: tuple[mz.Publish, ...]

    def check(self) -> list[mz.Finding]:
        """What a check says."""
        return findings(self.seen)

    def here(self, *words: str) -> str:
        """A command on the host."""
        return self.way.host.namespace.run(*words)

    def inside(self, *words: str) -> str:
        """A command in the gateway's namespace."""
        return self.here("ip", "netns", "exec", self.space, *words)


@pytest.fixture
def scene(way: Outside) -> Iterator[Scene]:
    """A whole gateway, and a host that a check finds nothing on."""
    made = way.gateway(VNI, publish=[mz.Publish("tcp", 8080, way.tenants[VNI][0].ip, 80)])
    with mz.Host.open(netns=way.host.namespace.name) as seen:
        assert findings(seen) == []
        assert [each.vni for each in seen.gateways()] == [VNI]
        (space,) = private_spaces(way.host.namespace)
        device = gateway_notes.device_name(way.host.tunnel.ifindex, VNI)
        yield Scene(way, seen, device, space, made.publish)
    made.delete()


def lose_a_rule(scene: Scene) -> None:
    """One of those that keep tenants from tunnels."""
    listed = scene.here("nft", "-a", "list", "chain", *_TABLE, "early").splitlines()
    handle = next(line for line in listed if "dport" in line and "drop" in line).rpartition(" ")[2]
    scene.here("nft", "delete", "rule", *_TABLE, "early", "handle", handle)


def take_entry(scene: Scene) -> None:
    gone = [(VNI, "0.0.0.0/0")]
    scene.way.host.agent.networks.apply({}, gone, feed="gateway")


MENDED: dict[str, tuple[Callable[[Scene], object], set[tuple[K, str]]]] = {
    "ruleset flushed": (lambda s: s.here("nft", "flush", "ruleset"), {(K.RULES_DIFFER, RULES)}),
    "a rule taken": (lose_a_rule, {(K.RULES_DIFFER, RULES)}),
    "a rule added": (
        lambda s: s.here("nft", "insert", "rule", *_TABLE, "forwarded", "accept"),
        {(K.RULES_DIFFER, RULES)},
    ),
    "inner rules flushed": (
        lambda s: s.inside("nft", "flush", "chain", *_TABLE, "forwarded"),
        {(K.RULES_DIFFER, GATEWAY)},
    ),
    "inner table deleted": (
        lambda s: s.inside("nft", "delete", "table", *_TABLE),
        {(K.RULES_DIFFER, GATEWAY)},
    ),
    "forwarding off": (
        lambda s: s.here("sysctl", "-q", "-w", f"net.ipv4.conf.{UNDERLAY}.forwarding=0"),
        {(K.FORWARDING_OFF, GATEWAY)},
    ),
    "device down": (lambda s: s.here("ip", "link", "set", s.device, "down"), {(K.DEVICE_DOWN, GATEWAY)}),
    "address taken": (
        lambda s: s.here("ip", "-4", "address", "flush", "dev", s.device),
        {(K.ADDRESS_LOST, GATEWAY)},
    ),
    "entry taken": (take_entry, {(K.ENTRY_DIFFERS, GATEWAY)}),
    "inner end down": (
        lambda s: s.inside("ip", "link", "set", OUTSIDE, "down"),
        {(K.DEVICE_DOWN, GATEWAY)},
    ),
    "inner addresses taken": (
        lambda s: s.inside("ip", "address", "flush", "dev", OUTSIDE),
        {(K.ADDRESS_LOST, GATEWAY), (K.ROUTE_LOST, GATEWAY)},
    ),
    "inner default route taken, IPv4": (
        lambda s: s.inside("ip", "-4", "route", "delete", "default"),
        {(K.ROUTE_LOST, GATEWAY)},
    ),
    "inner default route taken, IPv6": (
        lambda s: s.inside("ip", "-6", "route", "delete", "default"),
        {(K.ROUTE_LOST, GATEWAY)},
    ),
    "inner default route leads back": (
        lambda s: s.inside("ip", "route", "replace", "default", "dev", INSIDE),
        {(K.ROUTE_LOST, GATEWAY)},
    ),
    **{
        f"inner forwarding off: {key}": (
            lambda s, key=key: s.inside("sysctl", "-q", "-w", f"net.{key}=0"),
            {(K.FORWARDING_OFF, GATEWAY)},
        )
        for key in (
            "ipv4.ip_forward",
            f"ipv4.conf.{INSIDE}.forwarding",
            f"ipv4.conf.{OUTSIDE}.forwarding",
            "ipv6.conf.all.forwarding",
        )
    },
}


@pytest.mark.parametrize("name", MENDED)
def test_a_tampering_is_told_and_mended(scene: Scene, name: str) -> None:
    do, wanted = MENDED[name]
    do(scene)
    found = scene.check()
    assert {(each.kind, str(each.object)) for each in found} == wanted, "\n".join(map(str, found))
    gateway = mz.Gateway.open(scene.way.host.agent, vni=VNI)
    assert {each.kind for each in gateway.check()} == {kind for kind, _ in wanted}
    report = scene.seen.repair(found)
    assert report, str(report)
    assert scene.check() == []
    assert mz.Gateway.open(scene.way.host.agent, vni=VNI).publish == scene.publish
    for each in WORLD.values():
        assert echo(scene.way.tenants[VNI][0].namespace, each)


def test_an_inner_end_of_another_name_is_told(scene: Scene) -> None:
    """Rules there go by its name, and nothing is taken for it."""
    for words in (("down",), ("name", "far0"), ("up",)):
        scene.inside("ip", "link", "set", "far0" if words == ("up",) else OUTSIDE, *words)
    (found,) = scene.check()
    assert (found.kind, str(found.object), found.repairable) == (K.DEVICE_GONE, GATEWAY, False)
    assert "create it again" in found.remedy


def test_a_network_that_comes_later_has_a_way_out(scene: Scene) -> None:
    """It is told until the gateway is completed."""
    agent, late = scene.way.host.agent, (VNI, "10.77.0.0/24")
    agent.networks[late] = mz.Network(gateway="10.77.0.1")
    (found,) = scene.check()
    assert (found.kind, str(found.object), str(found.wanted)) == (K.ROUTE_LOST, GATEWAY, late[1])
    assert scene.seen.repair()
    assert scene.check() == []
    space = new_namespace("late")
    endpoint = mz.Endpoint.create(agent, vni=VNI, ip="10.77.0.5/24", gateway="10.77.0.1", netns=space.name)
    assert echo(space, WORLD[4])
    endpoint.delete()
    space.delete()
    del agent.networks[late]


def test_the_host_keeps_its_own_routes_without_translation(scene: Scene) -> None:
    """A network where the host has others is told; those that go, or are translated again, leave no route."""
    agent, gateway = scene.way.host.agent, mz.Gateway.open(scene.way.host.agent, vni=VNI)
    before = scene.here("ip", "route")
    gateway.update(nat=False)
    plain = scene.here("ip", "route")
    agent.networks.update({(VNI, "192.0.2.0/25"): mz.Network(), (VNI, "10.77.0.0/24"): mz.Network()})
    gateway.update(host_access=True)
    assert "10.77.0.0/24" in scene.here("ip", "route")
    assert "192.0.2.0/25" not in scene.here("ip", "route")
    (found,) = scene.check()
    assert (found.kind, found.repairable, str(found.found)) == (K.ROUTE_LOST, False, "192.0.2.0/24")
    del agent.networks[VNI, "192.0.2.0/25"]
    del agent.networks[VNI, "10.77.0.0/24"]
    gateway.update(host_access=False)
    assert scene.here("ip", "route") == plain
    assert scene.check() == []
    gateway.update(nat=True)
    assert scene.here("ip", "route") == before


def test_the_ports_of_all_tunnels_of_the_host_are_closed(scene: Scene) -> None:
    """Also those of tunnels that come later, by whatever process; once they are gone, the ports are open again."""
    netns = scene.way.host.namespace.name

    def are_closed() -> list[bool]:
        listed = [where("nft", "list", "table", *_TABLE) for where in (scene.here, scene.inside)]
        return ["dport { 4789, 5555, 6081 } drop" in each for each in listed]

    with mz.Tunnel.create("tunnel1", encap="vxlan", underlay=UNDERLAY, port=5555, netns=netns):
        assert are_closed() == [True, True]
        assert not [each for each in scene.check() if each.kind is K.RULES_DIFFER]
    mz.Tunnel.delete("tunnel1", netns=netns)
    assert are_closed() == [False, False]
    assert scene.check() == []
    scene.here("ip", "link", "add", "vxlan9", "type", "vxlan", "external", "dstport", "5555")
    assert {str(each.object) for each in scene.check() if each.kind is K.RULES_DIFFER} == {GATEWAY, RULES}
    with pytest.raises(mz.InvalidValueError, match="5555"):
        mz.Gateway.open(scene.way.host.agent, vni=VNI).update(
            publish=[mz.Publish("udp", 5555, scene.way.tenants[VNI][0].ip, 80)]
        )
    scene.here("ip", "link", "delete", "vxlan9")
    assert scene.check() == []


def test_a_device_that_is_renamed_or_goes_leaves_the_host_closed(way: Outside) -> None:
    """Another device may get the name, and the rules of other gateways are written meanwhile."""
    space, here = way.host.namespace, way.host.agent
    space.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "far0")
    space.run("ip", "link", "set", "lan0", "up")
    way.gateway(VNI, egress="lan0", ip=["10.1.0.2/24"])
    with mz.Host.open(netns=space.name) as seen:
        for words in (("lan0", "name", "lan1"), ("far0", "name", "lan0")):
            space.run("ip", "link", "set", *words)
        space.run("sysctl", "-q", "-w", "net.ipv4.conf.lan0.forwarding=1")
        assert not [each for each in findings(seen) if each.kind is not K.UNDERLAY_DOWN]
        assert seen.repair()
        assert space.run("sysctl", "-n", "net.ipv4.conf.lan0.forwarding").strip() == "1"
        assert 'iif "lan1" meta nfproto ipv4 drop' in space.run("nft", "list", "table", *_TABLE)
        space.run("ip", "link", "delete", "lan1")
        device = gateway_notes.device_name(way.host.tunnel.ifindex, VNI)
        other = mz.Gateway.create(here, vni=VNIS[1], egress=UNDERLAY, ip="10.0.0.1/24")
        assert {each.kind for each in findings(seen)} == {K.UNDERLAY_GONE}
        for chain in ("services", "forwarded"):
            assert f'iifname "{device}" drop' in space.run("nft", "list", "chain", *_TABLE, chain)
        assert_silence(way.tenants[VNI][0].namespace, way.host.address)
        other.delete()
        mz.Gateway.delete_many(here, [VNI])
        assert not space.run("nft", "list", "ruleset")


def test_a_chain_of_others_that_drops(scene: Scene) -> None:
    """As that of Docker: what is forwarded there needs a rule of theirs, which the finding spells out."""
    near = scene.way.tenants[VNI][0].namespace
    scene.here("nft", "add", "table", "ip", "filter")
    chain = "{ type filter hook forward priority 0; policy drop; }"
    scene.here("nft", "add", "chain", "ip", "filter", "FORWARD", chain)
    try:
        assert_silence(near, WORLD[4])
        (found,) = scene.check()
        assert (found.kind, str(found.object)) == (K.FORWARD_DROPS, "rules ip filter FORWARD")
        assert not scene.seen.health().ok
        for command in found.remedy.split("; "):
            scene.here("sh", "-c", command)
        assert echo(near, WORLD[4])
        assert scene.check() == []
    finally:
        scene.here("nft", "delete", "table", "ip", "filter")


def test_a_way_out_by_hand_is_told_until_tunnels_are_kept_from_it(scene: Scene) -> None:
    """As whoever has a router of his own, and masquerades on the host."""
    agent = scene.way.host.agent
    mz.Gateway.delete_many(agent, [VNI])
    near, _ = scene.way.tenants[VNI]
    space = new_namespace("router")
    router = mz.Endpoint.create(agent, vni=VNI, ip="10.1.0.9/24", forwarding=True, netns=space.name)
    agent.networks[VNI, "0.0.0.0/0"] = mz.Network(via="10.1.0.9")
    assert scene.check() == []
    scene.here("nft", "add", "table", "ip", "own")
    scene.here("nft", "add", "chain", "ip", "own", "out", "{ type nat hook postrouting priority 100; }")
    scene.here("nft", "add", "rule", "ip", "own", "out", "oifname", UNDERLAY, "masquerade")
    (found,) = scene.check()
    assert (found.kind, str(found.object)) == (K.WAY_OUT_OPEN, f"network {VNI}/0.0.0.0/0")
    assert "UDP port 4789" in found.message
    scene.here("nft", "add", "chain", "ip", "own", "early", "{ type filter hook prerouting priority -300; }")
    scene.here("nft", "add", "rule", "ip", "own", "early", "udp", "dport", "{ 4789, 6081 }", "drop")
    assert scene.check() == []
    scene.here("nft", "delete", "table", "ip", "own")
    del agent.networks[VNI, "0.0.0.0/0"]
    router.delete()
    space.delete()
    assert echo(near.namespace, near.ip)


def begin(scene: Scene, state: State) -> None:
    """As a process leaves it that died long ago."""
    with Session.open(scene.way.host.namespace.name) as session:
        (noted,) = gateway_notes.read_all(session)
        text = attrs.evolve(noted.note, state=state).text()
        words = [word if not word.startswith("changed=") else "changed=1" for word in text.split()]
        set_link(session, noted.link.ifindex, alias=" ".join(words))


@pytest.mark.parametrize(
    ("state", "kind"), [(State.MAKING, K.UNFINISHED), (State.DELETING, K.ENDING)], ids=["begun", "ending"]
)
def test_what_is_left_is_told_and_collected(
    scene: Scene, state: State, kind: K, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(age, "ABANDONED", 0.0)  # on a machine that was just booted all is young
    begin(scene, state)
    found = scene.check()
    assert kind in {each.kind for each in found}
    report = scene.seen.gc()
    assert report, str(report)
    assert scene.check() == []
    assert_nothing_is_left(scene)


UNSEEN = """
with mz.Host.open() as host:
    found = [each for each in host.check() if each.kind is mz.FindingKind.NAMESPACE_GONE]
    print([(str(each.object), each.repairable, each.collectable) for each in found])
    print([str(each.object) for each in host.gc().done])
    print([str(each.object) for each in host.repair().done])
    try:
        mz.Gateway.create(mz.TransitAgent.open("tunnel0"), vni=int(sys.argv[1]), egress=sys.argv[2], ip=sys.argv[3:])
    except mz.MizarnetError as error:
        print(type(error).__name__)
"""


def test_a_process_that_sees_no_namespace_takes_no_gateway(scene: Scene) -> None:
    """Names of namespaces are in /run, and its own is another one: what it cannot enter lives, and keeps its ports."""
    lose_a_rule(scene)
    gateway = mz.Gateway.open(scene.way.host.agent, vni=VNI)
    own_run = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$0" "$@"')
    by = ("nsenter", f"--net={scene.way.host.namespace.path}", *own_run)
    told = run_python(UNSEEN, str(VNI), UNDERLAY, *map(str, gateway.ip), by=by).splitlines()
    assert told == [str([(GATEWAY, False, False)]), "[]", str([RULES]), "NetnsNotFoundError"]
    assert private_spaces(scene.way.host.namespace) == [scene.space]
    assert scene.check() == []
    for each in WORLD.values():
        assert echo(scene.way.tenants[VNI][0].namespace, each)


@pytest.mark.parametrize("finish", ["delete_many", "create", "gc"])
def test_a_deletion_that_died_at_once_leaves_nothing_open(
    scene: Scene, finish: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes the host's rules meanwhile takes away those of a device that is down already."""
    near, host = scene.way.tenants[VNI][0].namespace, scene.way.host
    with monkeypatch.context() as dying:
        dying.setattr(networks, "change", die)
        with pytest.raises(Died):
            mz.Gateway.delete_many(host.agent, [VNI])
    assert "state DOWN" in scene.here("ip", "link", "show", scene.device)
    other = mz.Gateway.create(host.agent, vni=VNIS[1], egress=UNDERLAY, ip="10.1.0.9/24")
    listed = scene.here("nft", "list", "table", *_TABLE)
    assert scene.device not in listed
    assert "dnat ip to" not in listed
    assert_silence(near, host.address)
    assert_silence(near, WORLD[4])
    if finish == "delete_many":
        mz.Gateway.delete_many(host.agent, [VNI])
    elif finish == "create":
        scene.way.gateway(VNI).delete()
    else:
        monkeypatch.setattr(age, "ABANDONED", 0.0)
        assert {each.kind for each in scene.check()} == {K.ENDING}
        assert scene.seen.gc()
    assert scene.check() == []
    other.delete()
    assert_nothing_is_left(scene)


class Died(BaseException):
    """The process ended here."""


def die(*_: object) -> None:
    raise Died


def test_what_is_ending_has_its_rules_until_its_device_is_down(scene: Scene) -> None:
    """As another version leaves it, or whoever turns the device on again: it publishes nothing, and is closed."""
    near, host = scene.way.tenants[VNI][0].namespace, scene.way.host
    begin(scene, State.DELETING)
    other = mz.Gateway.create(host.agent, vni=VNIS[1], egress=UNDERLAY, ip="10.1.0.9/24")
    listed = scene.here("nft", "list", "table", *_TABLE)
    assert "dnat ip to" not in listed
    for chain in ("early", "services", "forwarded"):
        assert f'iifname "{scene.device}"' in scene.here("nft", "list", "chain", *_TABLE, chain)
    assert_silence(near, host.address)
    assert scene.seen.gc()
    assert scene.device not in scene.here("nft", "list", "table", *_TABLE)
    other.delete()
    assert_nothing_is_left(scene)


def test_a_maker_that_died_before_its_note_left_a_device(scene: Scene) -> None:
    mz.Gateway.delete_many(scene.way.host.agent, [VNI, VNI, 9])
    assert_nothing_is_left(scene)
    for end in (scene.seen.gc, lambda: mz.Gateway.delete_many(scene.way.host.agent, [VNI])):
        scene.here("ip", "link", "add", scene.device, "type", "veth", "peer", "name", "mzq")
        (found,) = scene.check()
        assert (found.kind, str(found.object)) == (K.GATEWAY_LEFT, f"gateway {scene.device}")
        end()
        assert_nothing_is_left(scene)


def test_what_was_begun_is_made_by_the_next_call(scene: Scene) -> None:
    begin(scene, State.MAKING)
    assert mz.Gateway.list(scene.way.host.agent) == []
    made = scene.way.gateway(VNI)
    assert made.created
    assert echo(scene.way.tenants[VNI][1].namespace, WORLD[4])
    begin(scene, State.DELETING)
    made.delete()
    assert_nothing_is_left(scene)


def test_the_endpoint_of_a_gateway_goes_with_that(scene: Scene) -> None:
    agent = scene.way.host.agent
    name = mz.Gateway.open(agent, vni=VNI).name
    with pytest.raises(mz.InUseError, match=f"gateway of VNI {VNI}"):
        mz.Endpoint.open(agent, name).delete()
    with pytest.raises(mz.BulkError):
        mz.Endpoint.delete_many(agent, [name])
    assert scene.check() == []
    endpoint = mz.Endpoint.open(agent, name)
    changes: list[dict[str, Any]] = [
        {"forwarding": False}, {"ifname": "eth7"}, {"ip": "10.0.0.77/24"}, {"mtu": 1300, "labels": {"a": "b"}},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(mz.InUseError, match=f"gateway of VNI {VNI}"):
            endpoint.update(**change)
    for change in (*changes, {"mac": "02:00:00:00:00:77"}):
        data = {"name": name, "vni": VNI, "ip": [str(each) for each in endpoint.spec.ip], **change}
        with pytest.raises(mz.BulkError) as told:
            scene.seen.plan(mz.HostSpec.from_dict({"endpoints": [data]})).apply(allow=("update", "replace"))
        (refused,) = told.value.failed.values()
        assert isinstance(refused, mz.InUseError), change
    assert scene.check() == []
    assert endpoint.update(labels={"a": "b"}) == ("labels",)
    # Without the pair and its note it is an endpoint as any other. The next gateway puts back what was changed.
    scene.here("ip", "link", "delete", scene.device)
    mz.Endpoint.open(agent, name).delete()
    scene.way.gateway(VNI).delete()
    assert_nothing_is_left(scene)


def assert_nothing_is_left(scene: Scene) -> None:
    """Of the gateway; the tenants stay."""
    assert scene.seen.gateways() == []
    assert not scene.here("nft", "list", "ruleset")
    assert scene.device not in scene.here("ip", "-o", "link")
    assert scene.here("sysctl", "-n", f"net.ipv4.conf.{UNDERLAY}.forwarding").strip() == "0"
    assert not private_spaces(scene.way.host.namespace)


def test_a_gateway_outlives_its_tunnel_until_it_is_collected() -> None:
    with outside("vxlan", [VNI]) as made:
        made.gateway(VNI)
        with mz.Host.open(netns=made.host.namespace.name) as seen:
            device = gateway_notes.device_name(made.host.tunnel.ifindex, VNI)
            (space,) = private_spaces(made.host.namespace)
            scene = Scene(made, seen, device, space, ())
            scene.here("ip", "link", "delete", "tunnel0")
            assert (K.GATEWAY_LEFT, GATEWAY) in {(each.kind, str(each.object)) for each in findings(seen)}
            report = seen.gc()
            assert report, str(report)
            assert_nothing_is_left(scene)


@pytest.mark.parametrize(
    ("how", "end"), [("deleted", "gc"), ("deleted", "create"), ("deleted", "delete"), ("overwritten", "gc")]
)
def test_a_gateway_that_lost_its_note_is_told_and_ends(scene: Scene, how: str, end: str) -> None:
    """Its note went with the device, and with its rules the host's forwarding would stay on."""
    agent = scene.way.host.agent
    gateway = mz.Gateway.open(agent, vni=VNI)
    words = ("set", scene.device, "alias", "ours") if how == "overwritten" else ("delete", scene.device)
    scene.here("ip", "link", *words)
    left = {str(each.object): each.collectable for each in scene.check() if each.kind is K.GATEWAY_LEFT}
    assert left[GATEWAY] and all(left.values())
    if end == "gc":
        assert scene.seen.gc()
    elif end == "create":
        again = scene.way.gateway(VNI)
        assert again.created
        assert scene.check() == []
        assert echo(scene.way.tenants[VNI][0].namespace, WORLD[4])
        again.delete()
    else:
        gateway.delete()
    assert (VNI, "0.0.0.0/0") not in agent.networks
    assert_nothing_is_left(scene)
    assert scene.check() == []


def take_tunnel(way: Outside) -> None:
    way.host.namespace.run("ip", "link", "delete", "tunnel0")


def take_programs(way: Outside) -> None:
    ifindex = way.host.tunnel.ifindex

    def detach() -> None:
        for direction in Direction:
            hook = TcxHook(ifindex, direction)
            for program_id in hook.query().program_ids:
                with_program(program_id, hook.detach)

    way.host.namespace.call(detach)


@pytest.mark.parametrize("take", [take_tunnel, take_programs])
def test_deleting_a_gateway_that_lost_its_tunnel_or_programs_leaves_nothing(
    take: Callable[[Outside], None],
) -> None:
    if take is take_programs and not uses_tcx():
        pytest.skip("the programs are filters of a clsact here")
    with outside("vxlan", [VNI]) as made:
        gateway = made.gateway(VNI)
        with mz.Host.open(netns=made.host.namespace.name) as seen:
            device = gateway_notes.device_name(made.host.tunnel.ifindex, VNI)
            scene = Scene(made, seen, device, "", ())
            take(made)
            gateway.delete()
            assert_nothing_is_left(scene)
            gateway.delete()
