# SPDX-License-Identifier: Apache-2.0
"""What somebody may do to a host behind mizarnet's back, and what a check must say of it."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_interface

import attrs

import mizarnet as mz
from mizarnet import FindingKind as K
from mizarnet._datapath.hooks import PLACES
from mizarnet._kernel.bpf import UpdateMode
from mizarnet._model import codec, layouts
from mizarnet._model.codec import FIRST, Item
from mizarnet._model.enumerations import State
from mizarnet._model.specs import EndpointKey
from tests.netns.check.conftest import Scene
from tests.netns.ownership.test_taken_off import offered, take
from tests.support.wait import wait_until
from tests.world import UNDERLAY

Found = set[tuple[K, str | None]]


@attrs.frozen
class Tampering:
    """One of them.

    Attributes:
        do: Does it.
        found: Kinds and objects of all findings; an object of None: any.
        cure: ``"repair"``, ``"gc"``, or nothing that mizarnet could do by itself.
        words: What one of the messages must have: a remedy.
    """

    do: Callable[[Scene], object]
    found: Found
    cure: str = "repair"
    words: str = ""


def _inside(scene: Scene, *words: str) -> None:
    scene.web.namespace.run("ip", *words)


def _end_container(scene: Scene) -> None:
    scene.web.namespace.delete()
    wait_until(lambda: scene.web.endpoint.state().life is mz.Life.DEAD, "the namespace ends")


def _end_vm(scene: Scene) -> None:
    scene.space.run("ip", "netns", "delete", scene.vm.netns or "")
    wait_until(lambda: scene.vm.state().life is mz.Life.DEAD, "the namespace ends")


def _both(scene: Scene, *words: str) -> None:
    scene.app.namespace.run("ip", *words)


def _in_vm(scene: Scene, *words: str) -> None:
    scene.space.run("ip", "-n", scene.vm.netns or "", *words)


def _cut_off(s: Scene) -> None:
    """As a process leaves it that died right after it began to add an address, and long ago."""
    items = {0: Item(ip_interface("10.0.0.77/24"), since=1)}
    begun = attrs.evolve(s.record("web"), items=items, changed=1)
    s.maps.records.update(codec.record_key("web"), begun.pack())
    s.maps.items.update(codec.item_key(begun.instance, 0), items[0].pack())


def _key(ip: str) -> bytes:
    return codec.pack_endpoint_key(EndpointKey.parse((7, ip)))


WEB, APP, VM = "endpoint web", "endpoint app", "endpoint vm"
TUNNEL, AGENT, UNDER = "tunnel tunnel0", "agent tunnel0", f"underlay {UNDERLAY}"
OTHER = "host 192.0.2.2"

DEVICES: dict[str, Tampering] = {
    "MAC changed": Tampering(
        lambda s: _inside(s, "link", "set", "eth0", "address", "02:00:00:00:00:09"),
        {(K.MAC_DIFFERS, WEB)},
    ),
    "mode bridge": Tampering(
        lambda s: _inside(s, "link", "set", "eth0", "type", "macvlan", "mode", "bridge"),
        {(K.MODE_DIFFERS, WEB)},
    ),
    "mode vepa": Tampering(
        lambda s: _inside(s, "link", "set", "eth0", "type", "macvlan", "mode", "vepa"),
        {(K.MODE_DIFFERS, WEB)},
    ),
    "MTU lowered": Tampering(
        lambda s: _inside(s, "link", "set", "eth0", "mtu", "900"), {(K.MTU_DIFFERS, WEB)}
    ),
    "down": Tampering(
        lambda s: _inside(s, "link", "set", "eth0", "down"), {(K.DEVICE_DOWN, WEB), (K.ROUTE_LOST, WEB)}
    ),
    "renamed": Tampering(
        lambda s: (
            [_inside(s, "link", "set", "eth0", *words) for words in (["down"], ["name", "e9"])]
            and [_inside(s, "link", "set", "e9", "up")]
        ),
        {(K.NAME_DIFFERS, WEB)},
        cure="",
        words="ip link set e9 name eth0",
    ),
    "deleted": Tampering(lambda s: _inside(s, "link", "delete", "eth0"), {(K.DEVICE_GONE, WEB)}),
    "moved to another namespace": Tampering(
        lambda s: _inside(s, "link", "set", "eth0", "netns", s.app.namespace.name, "name", "e9"),
        {(K.DEVICE_GONE, WEB), (K.DEVICE_LEFT, "device e9")},
    ),
    "namespace deleted": Tampering(_end_container, {(K.NAMESPACE_GONE, WEB)}, cure="gc"),
    "addresses flushed": Tampering(
        lambda s: _inside(s, "address", "flush", "dev", "eth0"),
        {(K.ADDRESS_LOST, WEB), (K.ROUTE_LOST, WEB)},
    ),
    "one of two addresses removed": Tampering(
        lambda s: _both(s, "address", "delete", "fd00::3/64", "dev", "eth0"),
        {(K.ADDRESS_LOST, APP), (K.ROUTE_LOST, APP)},
    ),
    "default routes removed": Tampering(
        lambda s: [_both(s, f"-{v}", "route", "delete", "default") for v in (4, 6)], {(K.ROUTE_LOST, APP)}
    ),
    "on-link route removed": Tampering(
        lambda s: _inside(s, "route", "delete", "10.0.0.0/24"), {(K.ROUTE_LOST, WEB)}
    ),
    "IPv6 switched off": Tampering(
        lambda s: s.app.namespace.set(**{"ipv6/conf/eth0/disable_ipv6": 1}),
        {(K.ADDRESS_LOST, APP), (K.ROUTE_LOST, APP)},
    ),
    "VM's MTU lowered": Tampering(
        lambda s: _in_vm(s, "link", "set", "eth0", "mtu", "900"), {(K.MTU_DIFFERS, VM)}
    ),
    "VM's mode bridge": Tampering(
        lambda s: _in_vm(s, "link", "set", "eth0", "type", "macvtap", "mode", "bridge"),
        {(K.MODE_DIFFERS, VM)},
    ),
    "VM's MAC changed": Tampering(
        lambda s: _in_vm(s, "link", "set", "eth0", "address", "02:00:00:00:00:09"), {(K.MAC_DIFFERS, VM)}
    ),
    "VM's device deleted": Tampering(lambda s: _in_vm(s, "link", "delete", "eth0"), {(K.DEVICE_GONE, VM)}),
    "VM's namespace deleted": Tampering(_end_vm, {(K.NAMESPACE_GONE, VM)}, cure="gc"),
    "a device of somebody else on the tunnel": Tampering(
        lambda s: s.ip("link", "add", "x", "link", s.tunnel, "type", "macvlan", "mode", "private"),
        {(K.DEVICE_LEFT, "device x")},
        cure="gc",
    ),
    "a tunnel whose maker died": Tampering(
        lambda s: s.ip("link", "add", "mizarnet-new", "type", "vxlan", "external", "dstport", "7777"),
        {(K.DEVICE_LEFT, "device mizarnet-new")},
        cure="gc",
    ),
    "a bridging device of a container on the tunnel": Tampering(
        lambda s: s.ip(
            "link",
            "add",
            "x",
            "link",
            s.tunnel,
            "netns",
            s.web.namespace.name,
            "type",
            "macvlan",
            "mode",
            "bridge",
        ),
        {(K.DEVICE_LEFT, "device x")},
        cure="gc",
    ),
}


def _lose_record(scene: Scene) -> None:
    scene.maps.records.delete(codec.record_key("web"))


ENTRIES: dict[str, Tampering] = {
    "endpoints": Tampering(lambda s: s.maps.endpoints.delete(_key("10.0.0.1")), {(K.ENTRY_DIFFERS, WEB)}),
    "endpoints, led to another host": Tampering(
        lambda s: s.maps.endpoints.update(_key("10.0.0.1"), codec.pack_endpoint(mz.Remote("192.0.2.2"))),
        {(K.ENTRY_DIFFERS, WEB)},
    ),
    "senders": Tampering(
        lambda s: s.maps.senders.delete(codec.mac_key(s.web.endpoint.mac)), {(K.ENTRY_DIFFERS, WEB)}
    ),
    "senders, of another VNI": Tampering(
        lambda s: s.maps.senders.update(
            codec.mac_key(s.web.endpoint.mac),
            attrs.evolve(s.record("web"), spec=attrs.evolve(s.record("web").spec, vni=8)).pack_sender(),
        ),
        {(K.ENTRY_DIFFERS, WEB)},
    ),
    "slots": Tampering(
        lambda s: s.maps.slots.delete(codec.u32(s.record("web").slot)), {(K.ENTRY_DIFFERS, WEB)}
    ),
    "addresses": Tampering(
        lambda s: s.maps.addresses.delete(_key("10.0.0.1")),
        {(K.ENTRY_DIFFERS, WEB)},
    ),
    "records": Tampering(
        _lose_record,
        {
            (K.DEVICE_LEFT, "device eth0"),
            *((K.ENTRY_LEFT, f"table {name} of tunnel0") for name in ("addresses", "senders", "slots")),
        },
        cure="gc",
    ),
    "a claim to an address that nobody has": Tampering(
        lambda s: s.maps.addresses.update(
            _key("10.0.0.77"), next(iter(attrs.evolve(s.record("web"), instance=1).pack_addresses().values()))
        ),
        {(K.ENTRY_LEFT, "table addresses of tunnel0")},
        cure="gc",
    ),
    "an item that nobody has": Tampering(
        lambda s: s.maps.items.update(codec.item_key(1, 0), Item(ip_interface("10.0.0.77/24")).pack()),
        {(K.ENTRY_LEFT, "table items of tunnel0")},
        cure="gc",
    ),
    "a change that was cut off": Tampering(_cut_off, {(K.ENTRY_DIFFERS, WEB)}),
    "a local entry that nobody has": Tampering(
        lambda s: s.maps.endpoints.update(
            _key("10.0.0.77"), s.record("web").pack_endpoint(24), mode=UpdateMode.NOEXIST
        ),
        {(K.ENTRY_LEFT, "table endpoints of tunnel0")},
        cure="gc",
    ),
    "all peers": Tampering(
        lambda s: [s.agent.peers.discard(each) for each in list(s.agent.peers)],
        {(K.PEER_MISSING, OTHER)},
        cure="",
        words='agent.peers.add("192.0.2.2")',
    ),
    "an entry leads to this host": Tampering(
        lambda s: [
            s.ip("address", "add", "192.0.2.50/24", "dev", UNDERLAY),
            s.agent.endpoints.update({(7, "10.0.0.9"): mz.Remote("192.0.2.50")}),
        ],
        {(K.LEADS_HERE, "host 192.0.2.50")},
        cure="",
        words="address of the host that the endpoint lives on",
    ),
    "an entry leads nowhere": Tampering(
        lambda s: s.agent.endpoints.update({(7, "10.0.0.9"): mz.Remote("203.0.113.5")}),
        {(K.NO_ROUTE, "host 203.0.113.5"), (K.PEER_MISSING, "host 203.0.113.5")},
        cure="",
        words="add a route",
    ),
    "a network's next hop is nowhere": Tampering(
        lambda s: s.agent.networks.update({(7, "172.20.0.0/16"): mz.Network(via="10.0.0.77")}),
        {(K.NEXT_HOP_UNUSABLE, "network 7/172.20.0.0/16")},
        cure="",
        words="where it lives",
    ),
    "a network's next hop may not forward": Tampering(
        lambda s: s.agent.networks.update({(7, "fd50::/64"): mz.Network(via="fd00::3")}),
        {(K.NEXT_HOP_UNUSABLE, "network 7/fd50::/64")},
        cure="",
        words="forwarding=True",
    ),
    "a network's switch leads nowhere": Tampering(
        lambda s: s.agent.networks.update({(7, "10.9.0.0/24"): mz.Network(switches=["203.0.113.5"])}),
        {(K.NO_ROUTE, "host 203.0.113.5"), (K.PEER_MISSING, "host 203.0.113.5")},
        cure="",
        words="add a route",
    ),
    "a change of the tunnel cut off": Tampering(
        lambda s: _shrink_on_paper(s), {(K.CONSTANTS_DIFFER, AGENT), (K.MTU_DIFFERS, TUNNEL)}
    ),
    "lifeline": Tampering(lambda s: s.maps.lifeline.delete(FIRST), {(K.LIFELINE_MISSING, AGENT)}),
}


def _shrink_on_paper(scene: Scene) -> None:
    """What a process leaves that dies behind the first step of ``Tunnel.update(mtu=)``."""
    meta = scene.maps.read_meta()
    scene.maps.meta.update(FIRST, attrs.evolve(meta, mtu=meta.mtu - 10).pack())


def _with_meta(scene: Scene, make: Callable[[], object], **before: object) -> None:
    """Make a program with the constants of another time: a process died before it replaced that one."""
    now = scene.maps.read_meta()
    scene.maps.meta.update(FIRST, attrs.evolve(now, **before).pack())
    make()
    meta = attrs.evolve(scene.maps.read_meta(), **{name: getattr(now, name) for name in before})
    scene.maps.meta.update(FIRST, meta.pack())


def _state(scene: Scene, state: State) -> None:
    meta = attrs.evolve(scene.maps.read_meta(), state=state)
    packed = layouts.Meta.unpack(meta.pack())._replace(changed=1)
    scene.maps.meta.update(FIRST, packed.pack())


AGENTS: dict[str, Tampering] = {
    **{
        f"{place} taken off": Tampering(
            lambda s, place=place: take(s.host, [place]),  # type: ignore[misc]
            {(K.PROGRAM_MISSING, AGENT)},
        )
        for place in PLACES
    },
    "both guards taken off": Tampering(
        lambda s: take(s.host, [place for place in PLACES if "guard" in str(place)]),
        {(K.PROGRAM_MISSING, AGENT)},
    ),
    "clsact deleted": Tampering(
        lambda s: s.space.run("tc", "qdisc", "delete", "dev", s.tunnel, "clsact"),
        {(K.PROGRAM_MISSING, AGENT)},
    ),
    "all programs taken off": Tampering(
        lambda s: take(s.host, offered()),
        {(K.AGENT_GONE, TUNNEL)},
        words="repair() mends it",
    ),
    "its maker died": Tampering(lambda s: _state(s, State.MAKING), {(K.UNFINISHED, AGENT)}),
}
TUNNELS: dict[str, Tampering] = {
    "down": Tampering(lambda s: s.ip("link", "set", s.tunnel, "down"), {(K.TUNNEL_DOWN, TUNNEL)}),
    "MTU lowered": Tampering(
        lambda s: s.ip("link", "set", s.tunnel, "mtu", "1300"),
        {(K.MTU_DIFFERS, TUNNEL)},  # the devices on it follow
    ),
    "a qdisc": Tampering(
        lambda s: s.space.run("tc", "qdisc", "add", "dev", s.tunnel, "root", "pfifo"),
        {(K.QDISC_DIFFERS, TUNNEL)},
    ),
    "ARP on": Tampering(lambda s: s.ip("link", "set", s.tunnel, "arp", "on"), {(K.NOT_SILENT, TUNNEL)}),
    "multicast on": Tampering(
        lambda s: s.ip("link", "set", s.tunnel, "multicast", "on"), {(K.NOT_SILENT, TUNNEL)}
    ),
    "an address": Tampering(
        lambda s: s.ip("address", "add", "10.0.0.50/24", "dev", s.tunnel), {(K.ADDRESS_ADDED, TUNNEL)}
    ),
    "MAC changed": Tampering(
        lambda s: s.ip("link", "set", s.tunnel, "address", "02:00:00:00:00:77"), {(K.MAC_DIFFERS, TUNNEL)}
    ),
    "deleted by hand": Tampering(
        lambda s: s.ip("link", "delete", s.tunnel),
        {(K.NAMESPACE_LEFT, None)},
        cure="gc",
    ),
}
UNDERLAYS: dict[str, Tampering] = {
    "down": Tampering(
        lambda s: s.ip("link", "set", UNDERLAY, "down"),
        {(K.UNDERLAY_DOWN, UNDER)},
        cure="",
        words="ip link set eth0 up",
    ),
    "without carrier": Tampering(
        lambda s: s.world.spaces[1].run("ip", "link", "set", UNDERLAY, "down"),
        {(K.UNDERLAY_DOWN, UNDER)},
        cure="",
        words="look at the cable",
    ),
    "deleted": Tampering(
        lambda s: s.ip("link", "delete", UNDERLAY),
        {(K.UNDERLAY_GONE, UNDER), (K.UNDERLAY_ADDRESS, TUNNEL)},
        cure="",
        words="tunnel.update(underlay=)",
    ),
    "moved away": Tampering(
        lambda s: s.ip("link", "set", UNDERLAY, "netns", s.web.namespace.name, "name", "e9"),
        {(K.UNDERLAY_GONE, UNDER), (K.UNDERLAY_ADDRESS, TUNNEL)},
        cure="",
        words="bring it back",
    ),
    "address removed": Tampering(
        lambda s: s.ip("address", "flush", "dev", UNDERLAY),
        {(K.UNDERLAY_ADDRESS, TUNNEL)},
        cure="",
        words="ip address add 192.0.2.1 dev eth0",
    ),
    "renumbered": Tampering(
        lambda s: [
            s.ip("address", "flush", "dev", UNDERLAY),
            s.ip("address", "add", "192.0.2.9/24", "dev", UNDERLAY),
        ],
        {(K.UNDERLAY_ADDRESS, TUNNEL)},
        cure="",
        words="ip address add 192.0.2.1 dev eth0",
    ),
    "MTU lowered": Tampering(
        lambda s: s.ip("link", "set", UNDERLAY, "mtu", "1400"),
        {(K.UNDERLAY_MTU, UNDER)},
        cure="",
        words="ip link set eth0 mtu 1500",
    ),
    "route with a small MTU": Tampering(
        lambda s: s.ip("route", "add", "192.0.2.2/32", "dev", UNDERLAY, "mtu", "1300"),
        {(K.UNDERLAY_MTU, OTHER)},
        cure="",
        words="raise the MTU on the way",
    ),
    "unreachable route": Tampering(
        lambda s: s.ip("route", "add", "unreachable", "192.0.2.2/32"),
        {(K.NO_ROUTE, OTHER)},
        cure="",
        words="add a route",
    ),
}


def _switch(scene: Scene) -> mz.TransitSwitch:
    return mz.TransitSwitch.attach(scene.agent)


SWITCHES: dict[str, Tampering] = {
    "forwarding off": Tampering(
        lambda s: [_switch(s), s.space.set(**{f"ipv4/conf/{UNDERLAY}/forwarding": 0})],
        {(K.FORWARDING_OFF, f"switch {UNDERLAY}")},
    ),
    "program taken off": Tampering(
        lambda s: [
            _switch(s),
            s.ip("link", "set", UNDERLAY, "xdp", "off"),
            s.ip("link", "set", UNDERLAY, "xdpgeneric", "off"),
        ],
        {(K.SWITCH_GONE, f"switch {UNDERLAY}")},
    ),
    "left behind by a change of the tunnel": Tampering(
        lambda s: _with_meta(s, lambda: _switch(s), mtu=1300), {(K.CONSTANTS_DIFFER, f"switch {UNDERLAY}")}
    ),
    "its tunnel deleted by hand": Tampering(
        lambda s: [_switch(s), s.ip("link", "delete", s.tunnel)],
        {(K.SWITCH_LEFT, f"switch {UNDERLAY}"), (K.NAMESPACE_LEFT, None)},
        cure="gc",
    ),
}


def _kill_reader(scene: Scene) -> None:
    """As a reader of events leaves its place that was killed long ago."""
    nothing = layouts.Reader.unpack(bytes(layouts.READER.size))
    scene.maps.readers.update(FIRST, nothing._replace(until=1, owner=1).pack())


READERS: dict[str, Tampering] = {
    "killed": Tampering(_kill_reader, {(K.READER_LEFT, "reader 0")}, cure="gc"),
}


def _switched_off_halfway(scene: Scene) -> None:
    """As a process leaves it that died right after it wrote that there shall be none."""
    scene.agent.update(shortcut="auto")
    meta = scene.maps.read_meta()
    scene.maps.meta.update(FIRST, attrs.evolve(meta, shortcut=mz.Shortcut.OFF).pack())


SHORTCUTS: dict[str, Tampering] = {
    "switched off halfway": Tampering(_switched_off_halfway, {(K.SHORTCUT_UNWANTED, f"shortcut {UNDERLAY}")}),
    "its tunnel deleted by hand": Tampering(
        lambda s: [s.agent.update(shortcut="auto"), s.ip("link", "delete", s.tunnel)],
        {(K.SHORTCUT_LEFT, f"shortcut {UNDERLAY}"), (K.NAMESPACE_LEFT, None)},
        cure="gc",
    ),
}
TAMPERINGS = {
    f"{group}: {name}": each
    for group, cases in (
        ("device", DEVICES),
        ("entry", ENTRIES),
        ("agent", AGENTS),
        ("tunnel", TUNNELS),
        ("underlay", UNDERLAYS),
        ("switch", SWITCHES),
        ("shortcut", SHORTCUTS),
        ("reader", READERS),
    )
    for name, each in cases.items()
}
