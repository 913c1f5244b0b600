# SPDX-License-Identifier: Apache-2.0
"""The public verbs: what is there before, the call, the same call again by others, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_interface
from typing import Any, Literal

import attrs

import mizarnet as mz
from mizarnet._datapath import loader
from mizarnet._kernel.netlink import (
    Session,
    add_address,
    delete_address,
    get_link,
    list_addresses,
    set_link,
)
from mizarnet.agent import datapath_of
from tests.crash.ground import NICS, OTHER, PORT, Ground
from tests.support.builds import installed
from tests.support.schemas import older
from tests.world import UNDERLAY

Step = Callable[[Ground], object]
NAME, VM = "web", "vm"
BOTH = ("10.0.0.5/24", "fd00::5/64")
GATEWAYS = ("10.0.0.254", "fd00::fe")
VNI = 8
"""Of the entries that the tables' verbs write; the bystanders' is another."""
FAR = mz.Remote("192.0.2.2")


@attrs.frozen
class Verb:
    """A call that changes something.

    Attributes:
        name: What it is called.
        before: Makes what is there before.
        prepare: Makes the handle that the call needs, in the process that calls.
        call: The call, with that handle.
        again: The same call by another process, by name and by a new handle.
        undo: The way back, from wherever the call ended, to nobody but the bystanders.
        rolls_back: Whether an error leaves everything as it was; else the call can be finished by the same call.
        bulk: Whether it is several calls in one, some of which may be done when it ends early.
        keeps_part: Whether the part that a killed call had done stays: entries by hand, replaced programs.
        sparse: A whole run takes one trial of so many, of a verb that makes very many calls.
    """

    name: str
    before: Step
    prepare: Callable[[Ground], Any]
    call: Callable[[Any], object]
    again: Mapping[str, Step]
    undo: Step
    rolls_back: bool = True
    bulk: bool = False
    keeps_part: bool = False
    sparse: int = 1


def _nothing(ground: Ground) -> None:
    pass


# -- the tunnel and its agent ------------------------------------------------------------------------------


def _attach(ground: Ground) -> None:
    with ground.tunnel() as tunnel:
        mz.TransitAgent.attach(tunnel).close()


def _populate(ground: Ground) -> None:
    """Endpoints of both kinds, and a switch."""
    with ground.tunnel() as tunnel, mz.TransitAgent.attach(tunnel) as agent:
        _create(agent, ground, space="e2")
        _create_vm(agent)
        mz.TransitSwitch.attach(agent, mode="generic")


def _read_events(agent: mz.TransitAgent) -> None:
    agent.events().close()


def _end_leases(ground: Ground) -> None:
    """As time does it."""
    readers = datapath_of(ground.agent).maps.readers
    for place, _ in readers.items():
        readers.update(place, bytes(readers.value_size))


def _open_tunnel(ground: Ground) -> mz.Tunnel:
    return mz.Tunnel.open(OTHER, netns=ground.host)


def _delete_made(force: bool) -> Step:
    def delete(ground: Ground) -> None:
        with ground.tunnel() as tunnel:
            tunnel.delete(force=force)

    return delete


def _delete_named(force: bool) -> Step:
    return lambda ground: mz.Tunnel.delete(OTHER, netns=ground.host, force=force)


def _shrink(ground: Ground) -> None:
    with _open_tunnel(ground) as tunnel:
        tunnel.update(mtu=1300)


def _attach_opened(ground: Ground) -> None:
    with _open_tunnel(ground) as tunnel:
        mz.TransitAgent.attach(tunnel).close()


def _detach_named(force: bool) -> Step:
    return lambda ground: mz.TransitAgent.detach(OTHER, netns=ground.host, force=force)


def _detach_attached(force: bool) -> Step:
    def detach(ground: Ground) -> None:
        with ground.tunnel() as tunnel, mz.TransitAgent.attach(tunnel) as agent:
            agent.detach(force=force)

    return detach


def _tunnel_verbs() -> Iterator[Verb]:
    undo = Ground.delete_other
    yield Verb(
        "Tunnel.create",
        before=_nothing,
        prepare=lambda ground: ground,
        call=Ground.tunnel,
        again={"by name": lambda ground: ground.tunnel().close()},
        undo=undo,
    )
    for force, before in ((False, _attach), (True, _populate)):
        suffix = "(force)" if force else ""
        yield Verb(
            f"Tunnel.delete{suffix}",
            before=before,
            prepare=_open_tunnel,
            call=lambda tunnel, force=force: tunnel.delete(force=force),
            again={"by handle": _delete_made(force), "by name": _delete_named(force)},
            undo=undo,
            rolls_back=False,
        )
    yield Verb(
        "Tunnel.update",
        before=_populate,
        prepare=_open_tunnel,
        call=lambda tunnel: tunnel.update(mtu=1300),
        again={"by handle": _shrink},
        undo=undo,
        rolls_back=False,
        keeps_part=True,
    )
    yield Verb(
        "TransitAgent.attach",
        before=lambda ground: ground.tunnel().close(),
        prepare=_open_tunnel,
        call=mz.TransitAgent.attach,
        again={"by handle": _attach_opened, "by name": _attach},
        undo=undo,
    )
    for force, before in ((False, _attach), (True, _populate)):
        suffix = "(force)" if force else ""
        yield Verb(
            f"TransitAgent.detach{suffix}",
            before=before,
            prepare=Ground.open_other,
            call=lambda agent, force=force: agent.detach(force=force),
            again={"by handle": _detach_attached(force), "by name": _detach_named(force)},
            undo=undo,
            rolls_back=False,
        )


# -- an upgrade, and the switch ----------------------------------------------------------------------------


def _upgrade(ground: Ground) -> None:
    with ground.open() as agent:
        agent.upgrade()


def _upgrade_to_second(ground: Ground) -> None:
    with installed(ground.second):
        _upgrade(ground)


def _prepare_second(ground: Ground) -> mz.TransitAgent:
    second = ground.second
    loader.object_path = lambda: second  # for the rest of this process
    return ground.open()


def _populate_by_older(ground: Ground) -> None:
    """All programs and both kinds of endpoints, made by a package of an older schema."""
    with older(ground.older):
        _populate(ground)
        with ground.open_other() as agent:
            agent.update(shortcut="auto")
            agent.networks.update(NETWORKS)


def _move_tables(ground: Ground) -> None:
    with ground.open_other() as agent:
        agent.upgrade()


def _attach_switch(ground: Ground) -> None:
    with ground.open() as agent:
        mz.TransitSwitch.attach(agent)


def _detach_switch(ground: Ground) -> None:
    mz.TransitSwitch.detach(UNDERLAY, netns=ground.host)


def _detach_opened_switch(ground: Ground) -> None:
    with ground.open() as agent:
        mz.TransitSwitch.open(agent).detach()


def _shortcut(value: Literal["off", "auto"]) -> Step:
    def update(ground: Ground) -> None:
        with ground.open() as agent:
            agent.update(shortcut=value)

    return update


def _all_programs(ground: Ground) -> None:
    _attach_switch(ground)
    _shortcut("auto")(ground)


def _back_to_first(ground: Ground) -> None:
    _upgrade(ground)
    _detach_switch(ground)
    _shortcut("off")(ground)


def _switch_verbs() -> Iterator[Verb]:
    yield Verb(
        "TransitAgent.upgrade",
        keeps_part=True,
        before=_all_programs,
        prepare=_prepare_second,
        call=mz.TransitAgent.upgrade,
        again={"by handle": _upgrade_to_second},
        undo=_back_to_first,
        sparse=3,
    )
    yield Verb(
        "TransitAgent.upgrade of tables",
        keeps_part=True,
        before=_populate_by_older,
        prepare=Ground.open_other,
        call=mz.TransitAgent.upgrade,
        again={"by handle": _move_tables},
        undo=Ground.delete_other,
        rolls_back=False,
        sparse=10,
    )
    yield Verb(
        "TransitAgent.events",
        before=_nothing,
        prepare=Ground.open,
        call=_read_events,
        again={"by handle": lambda ground: _read_events(ground.agent)},
        undo=_end_leases,
    )
    for value, other in (("auto", "off"), ("off", "auto")):
        yield Verb(
            f"TransitAgent.update({value})",
            before=_shortcut(other),
            prepare=Ground.open,
            call=lambda agent, value=value: agent.update(shortcut=value),
            again={"by handle": _shortcut(value)},
            undo=_shortcut("off"),
        )
    yield Verb(
        "TransitSwitch.attach",
        before=_nothing,
        prepare=Ground.open,
        call=mz.TransitSwitch.attach,
        again={
            "by handle": _attach_switch,
            "by name": lambda ground: mz.TransitSwitch.attach(ground.agent),
        },
        undo=_detach_switch,
    )
    yield Verb(
        "TransitSwitch.detach",
        before=_attach_switch,
        prepare=lambda ground: mz.TransitSwitch.open(ground.open()),
        call=mz.TransitSwitch.detach,
        again={"by handle": _detach_opened_switch, "by name": _detach_switch},
        undo=_detach_switch,
        rolls_back=False,
    )


# -- endpoints ---------------------------------------------------------------------------------------------


def _create(agent: mz.TransitAgent, ground: Ground, *, space: str = "e1", **more: Any) -> mz.Endpoint:
    fields = {"name": NAME, "vni": 7, "ip": "10.0.0.5/24", "netns": ground.spaces[space], **more}
    return mz.Endpoint.create(agent, **fields)


def _create_vm(agent: mz.TransitAgent) -> mz.Endpoint:
    return mz.Endpoint.create(agent, name=VM, vni=7, ip="10.0.0.6/24", kind="macvtap")


def _lose_address(ground: Ground) -> None:
    _create(ground.agent, ground)
    with Session.open(ground.spaces["e1"]) as session:
        link = get_link(session, "eth0")
        assert link is not None
        delete_address(session, link.ifindex, ip_interface("10.0.0.5/24"))


def _specs(ground: Ground) -> list[mz.EndpointSpec]:
    return [
        mz.EndpointSpec(name=f"many{n}", vni=7, ip=f"10.0.0.{20 + n}/24", netns=name)
        for n, name in enumerate(ground.spaces.values())
    ]


def _names(ground: Ground) -> list[str]:
    return [spec.name for spec in _specs(ground)]


def _create_to_change(ground: Ground) -> None:
    routes = [mz.Route("10.9.0.0/16", "10.0.0.7")]
    _create(ground.agent, ground, ip=(*BOTH, "10.0.0.6/24"), gateway="10.0.0.254", routes=routes)


def _change(endpoint: mz.Endpoint) -> object:
    return endpoint.update(
        ip=["10.0.0.6/24", "10.0.0.7/24", "10.1.0.5/24"],
        gateway="10.0.0.253",
        routes=[mz.Route("10.9.0.0/16", "10.0.0.8")],
    )


def _update_endpoint() -> Verb:
    def by_handle(ground: Ground) -> None:
        with ground.open() as agent:
            _change(mz.Endpoint.open(agent, NAME))

    return Verb(
        "Endpoint.update",
        before=_create_to_change,
        prepare=_open_endpoint(NAME),
        call=_change,
        again={
            "by name": lambda ground: _change(mz.Endpoint.open(ground.agent, NAME)),
            "by handle": by_handle,
        },
        undo=_delete(NAME),
        rolls_back=False,
    )


def _change_options(endpoint: mz.Endpoint) -> object:
    return endpoint.update(mtu=1300, forwarding=True, labels={"a": "b"})


def _update_options() -> Verb:
    def by_handle(ground: Ground) -> None:
        with ground.open() as agent:
            _change_options(mz.Endpoint.open(agent, NAME))

    return Verb(
        "Endpoint.update of options",
        before=_create_to_change,
        prepare=_open_endpoint(NAME),
        call=_change_options,
        again={
            "by name": lambda ground: _change_options(mz.Endpoint.open(ground.agent, NAME)),
            "by handle": by_handle,
        },
        undo=_delete(NAME),
        rolls_back=False,
        keeps_part=True,
    )


def _delete(name: str) -> Step:
    return lambda ground: mz.Endpoint.delete_many(ground.agent, [name])


def _create_many(ground: Ground) -> None:
    mz.Endpoint.create_many(ground.agent, _specs(ground))


def _delete_many(ground: Ground) -> None:
    mz.Endpoint.delete_many(ground.agent, _names(ground))


def _by_both(call: Callable[[mz.TransitAgent, Ground], object]) -> dict[str, Step]:
    """The same call by a handle that was open all the time, and by a new one."""

    def by_handle(ground: Ground) -> None:
        with ground.open() as agent:
            call(agent, ground)

    return {"by name": lambda ground: call(ground.agent, ground), "by handle": by_handle}


def _of_agent(
    name: str,
    call: Callable[[mz.TransitAgent, Ground], object],
    *,
    undo: Step,
    before: Step = _nothing,
    **more: Any,
) -> Verb:
    """A verb that is a call with the bystanders' agent."""
    return Verb(
        name,
        before=before,
        prepare=lambda ground: (ground.open(), ground),
        call=lambda handle: call(*handle),
        again=_by_both(call),
        undo=undo,
        **more,
    )


def _open_endpoint(name: str) -> Callable[[Ground], mz.Endpoint]:
    return lambda ground: mz.Endpoint.open(ground.open(), name)


def _delete_endpoint(name: str, before: Step, kind: str) -> Verb:
    def by_handle(ground: Ground) -> None:
        with ground.open() as agent:
            mz.Endpoint.open(agent, name, dead=True).delete()

    return Verb(
        f"Endpoint.delete {kind}",
        before=before,
        prepare=_open_endpoint(name),
        call=mz.Endpoint.delete,
        again={"by name": _delete(name), "by handle": by_handle},
        undo=_delete(name),
        rolls_back=False,
    )


def _endpoint_verbs() -> Iterator[Verb]:
    yield _of_agent("Endpoint.create MACVLAN", _create, undo=_delete(NAME))
    yield _of_agent(
        "Endpoint.create IPv6",
        lambda agent, ground: _create(agent, ground, ip=BOTH, gateway=GATEWAYS),
        undo=_delete(NAME),
    )
    yield _of_agent("Endpoint.create MACVTAP", lambda agent, _: _create_vm(agent), undo=_delete(VM))
    yield _of_agent(
        "Endpoint.create again", _create, before=_lose_address, undo=_delete(NAME), rolls_back=False
    )
    yield _update_endpoint()
    yield _update_options()
    yield _delete_endpoint(NAME, lambda ground: _create(ground.agent, ground), "MACVLAN")
    yield _delete_endpoint(VM, lambda ground: _create_vm(ground.agent), "MACVTAP")
    yield _of_agent(
        "Endpoint.create_many",
        lambda agent, ground: mz.Endpoint.create_many(agent, _specs(ground)),
        undo=_delete_many,
        rolls_back=False,
        bulk=True,
    )
    yield _of_agent(
        "Endpoint.delete_many",
        lambda agent, ground: mz.Endpoint.delete_many(agent, _names(ground)),
        before=_create_many,
        undo=_delete_many,
        rolls_back=False,
        bulk=True,
    )
    yield Verb(
        "Endpoint.open_tap",
        before=lambda ground: _create_vm(ground.agent),
        prepare=_open_endpoint(VM),
        call=mz.Endpoint.open_tap,
        again={
            "by handle": lambda ground: mz.Endpoint.open(ground.agent, VM).open_tap(),
        },
        undo=_delete(VM),
    )


# -- gateways ----------------------------------------------------------------------------------------------

_PORTS = [mz.Publish("tcp", 8080, "10.7.0.5", 80)], [mz.Publish("udp", 8080, "10.7.0.6", 53)]


def _create_gateway(agent: mz.TransitAgent, _: object) -> mz.Gateway:
    return mz.Gateway.create(agent, vni=VNI, egress=UNDERLAY, ip="10.7.0.1/24", publish=_PORTS[0])


def _update_gateway(agent: mz.TransitAgent, _: object) -> None:
    mz.Gateway.open(agent, vni=VNI).update(publish=_PORTS[1], host_access=True)


def _delete_gateway(agent: mz.TransitAgent, _: object) -> None:
    mz.Gateway.delete_many(agent, [VNI])


def _some_gateway(ground: Ground) -> None:
    _create_gateway(ground.agent, ground)


def _no_gateway(ground: Ground) -> None:
    _delete_gateway(ground.agent, ground)


def _gateway_verbs() -> Iterator[Verb]:
    yield _of_agent("Gateway.create", _create_gateway, undo=_no_gateway, sparse=4)
    for name, call in (("update", _update_gateway), ("delete", _delete_gateway)):
        more: dict[str, Any] = {
            "before": _some_gateway,
            "undo": _no_gateway,
            "rolls_back": False,
            "keeps_part": name == "update",  # its ports are open, and the host's services are not yet
            "sparse": 4,
        }
        yield _of_agent(f"Gateway.{name}", call, **more)
    yield Verb(
        "Gateway.follow",
        before=_gateway_on_nic,
        prepare=_open_tunnel,
        call=_to_other_nic,
        again={"by handle": _follow},
        undo=_no_nics,
        rolls_back=False,
        keeps_part=True,
        sparse=4,
    )


def _gateway_on_nic(ground: Ground) -> None:
    """A gateway that leads out by its tunnel's NIC, whose address has gone to another one."""
    _give_address(ground, NICS[0])
    tunnel = mz.Tunnel.create(OTHER, encap="vxlan", underlay=NICS[0], port=PORT, netns=ground.host)
    with tunnel, mz.TransitAgent.attach(tunnel) as agent:
        mz.Gateway.create(agent, vni=VNI, egress=NICS[0], ip="10.7.0.1/24", publish=_PORTS[0])
    _give_address(ground, NICS[1])


def _give_address(ground: Ground, name: str) -> None:
    """Give the address to one end of the cable, and take it from the other."""
    with Session.open(ground.host) as session:
        for each in NICS:
            link = get_link(session, each)
            assert link is not None
            set_link(session, link.ifindex, up=True)
            there = list_addresses(session, ifindex=link.ifindex)
            if each != name and any(address.interface == _ON_NIC for address in there):
                delete_address(session, link.ifindex, _ON_NIC)
        link = get_link(session, name)
        assert link is not None
        add_address(session, link.ifindex, _ON_NIC)


_ON_NIC = ip_interface("198.51.100.1/24")


def _to_other_nic(tunnel: mz.Tunnel) -> object:
    return tunnel.update(underlay=NICS[1])


def _follow(ground: Ground) -> None:
    with _open_tunnel(ground) as tunnel:
        _to_other_nic(tunnel)


def _no_nics(ground: Ground) -> None:
    mz.Tunnel.delete(OTHER, netns=ground.host, force=True)
    with Session.open(ground.host) as session:
        for each in NICS:
            link = get_link(session, each)
            assert link is not None
            for address in list_addresses(session, ifindex=link.ifindex):
                delete_address(session, link.ifindex, address.interface)
            set_link(session, link.ifindex, up=False)


# -- tables ------------------------------------------------------------------------------------------------

KEY, PEER = (VNI, "10.8.0.9"), "198.51.100.0/24"
ENTRIES = {(VNI, f"10.8.1.{n}"): FAR for n in range(1, 4)}
OTHERS = {(VNI, f"10.8.1.{n}"): FAR for n in range(2, 6)}
NETWORKS = {
    (VNI, f"10.{n}.0.0/16"): mz.Network(gateway=f"10.{n}.0.1", switches=["192.0.2.2"]) for n in (8, 9)
}
PEERS = [PEER, "203.0.113.0/24"]


# Behind next hops that are on another host, on a third one, and on none.
HOPS = {(VNI, "10.8.2.1"): FAR, (VNI, "10.8.2.2"): mz.Remote("192.0.2.3")}
BEHIND = {
    (VNI, "172.20.0.0/16"): mz.Network(via="10.8.2.1"),
    (VNI, "0.0.0.0/0"): mz.Network(via="10.8.2.2"),
    (VNI, "172.21.0.0/16"): mz.Network(via="10.8.2.3"),
}


def _no_entries(ground: Ground) -> None:
    ground.agent.endpoints.sync({}, vni=VNI)


def _next_hops(ground: Ground) -> None:
    ground.agent.endpoints.update(HOPS)
    ground.agent.networks.update(BEHIND)


def _no_next_hops(ground: Ground) -> None:
    ground.agent.networks.apply({}, BEHIND)
    _no_entries(ground)


def _no_networks(ground: Ground) -> None:
    for key in NETWORKS:
        with suppress(mz.EntryNotFoundError):
            del ground.agent.networks[key]


def _no_peers(ground: Ground) -> None:
    for each in PEERS:
        ground.agent.peers.discard(each)


def _delete_entry(table: str, key: object) -> Callable[[mz.TransitAgent, Ground], None]:
    """Delete an entry that may be gone already, as a second call finds it."""

    def delete(agent: mz.TransitAgent, _: Ground) -> None:
        with suppress(mz.EntryNotFoundError):
            del getattr(agent, table)[key]

    return delete


def _set_entry(agent: mz.TransitAgent, _: object) -> None:
    agent.endpoints[KEY] = FAR


def _table_verbs() -> Iterator[Verb]:
    yield _of_agent("endpoints[...]=", _set_entry, undo=_no_entries)
    yield _of_agent(
        "del endpoints[...]",
        _delete_entry("endpoints", KEY),
        before=lambda ground: _set_entry(ground.agent, ground),
        undo=_no_entries,
        rolls_back=False,
    )
    yield _of_agent("endpoints.update", lambda agent, _: agent.endpoints.update(ENTRIES), undo=_no_entries)
    yield _of_agent(
        "endpoints.sync",
        lambda agent, _: agent.endpoints.sync(OTHERS, vni=VNI),
        before=lambda ground: ground.agent.endpoints.update(ENTRIES),
        undo=_no_entries,
        rolls_back=False,
    )
    yield _of_agent("networks.update", lambda agent, _: agent.networks.update(NETWORKS), undo=_no_networks)
    yield _of_agent(
        "del networks[...]",
        _delete_entry("networks", (VNI, "10.8.0.0/16")),
        before=lambda ground: ground.agent.networks.update(NETWORKS),
        undo=_no_networks,
        rolls_back=False,
    )
    yield _of_agent(
        "networks.update with next hops",
        lambda agent, _: agent.networks.update(BEHIND),
        before=lambda ground: ground.agent.endpoints.update(HOPS),
        undo=_no_next_hops,
    )
    yield _of_agent(
        "networks.apply without next hops",
        lambda agent, _: agent.networks.apply(NETWORKS, [*BEHIND][:2]),
        before=_next_hops,
        undo=lambda ground: (_no_next_hops(ground), _no_networks(ground)),
        rolls_back=False,
    )
    yield _of_agent(
        "endpoints.apply moves next hops",
        lambda agent, _: agent.endpoints.apply(
            {(VNI, "10.8.2.1"): mz.Remote("192.0.2.3")}, [(VNI, "10.8.2.2")]
        ),
        before=_next_hops,
        undo=_no_next_hops,
        rolls_back=False,
    )
    yield _of_agent("peers.update", lambda agent, _: agent.peers.update(PEERS), undo=_no_peers)
    yield _of_agent(
        "peers.discard",
        lambda agent, _: agent.peers.discard(PEER),
        before=lambda ground: ground.agent.peers.update(PEERS),
        undo=_no_peers,
        rolls_back=False,
    )


# -- a plan ------------------------------------------------------------------------------------------------


def _wish(ground: Ground) -> mz.HostSpec:
    endpoints = [
        {"name": f"svc/{label}", "vni": VNI, "ip": f"10.0.0.{number}/24", "netns": ground.spaces[label]}
        for number, label in enumerate(("e1", "e2"), 5)
    ]
    return mz.HostSpec.from_dict(
        {
            "tunnel": {"name": OTHER, "encap": "vxlan", "underlay": UNDERLAY, "port": PORT},
            "networks": [{"vni": VNI, "prefix": "10.0.0.0/24", "gateway": "10.0.0.254"}],
            "endpoints": endpoints,
            "remotes": [{"vni": VNI, "ip": "10.0.0.9", "host": "192.0.2.2"}],
        }
    )


def _other_wish(ground: Ground) -> mz.HostSpec:
    """Something of each kind changes in place, comes and goes; an address turns from local to remote."""
    data = _wish(ground).to_dict()
    first, _ = data["endpoints"]
    first |= {"labels": {"a": "b"}, "mtu": 1300, "ip": ["10.0.0.5/24", "10.0.0.9/24"]}
    third = {"name": "svc/e3", "vni": VNI, "ip": "10.0.0.7/24", "netns": ground.spaces["e3"]}
    data["tunnel"]["mtu"] = 1350
    data["switch"] = {"mode": "generic"}
    data["networks"][0]["gateway"] = "10.0.0.253"
    data["peers"] = ["192.0.2.0/24", PEER]
    data["endpoints"] = [first, third]
    data["remotes"] = [{"vni": VNI, "ip": "10.0.0.6", "host": "192.0.2.2"}]
    return mz.HostSpec.from_dict(data)


def _converge(wish: Callable[[Ground], mz.HostSpec]) -> Step:
    def converge(ground: Ground) -> None:
        with mz.Host.open(netns=ground.host) as host:
            _plan_and_apply(wish)((host, ground))

    return converge


def _plan_and_apply(wish: Callable[[Ground], mz.HostSpec]) -> Callable[[tuple[mz.Host, Ground]], object]:
    def call(handle: tuple[mz.Host, Ground]) -> object:
        host, ground = handle
        return host.plan(wish(ground), owner="svc/").apply(allow=_EVERYTHING)

    return call


_EVERYTHING = ("create", "update", "replace", "delete")


def _plan_verbs() -> Iterator[Verb]:
    for name, before, wish, sparse in (
        ("Plan.apply", _nothing, _wish, 1),
        ("Plan.apply of changes", _converge(_wish), _other_wish, 4),
    ):
        yield Verb(
            name,
            before=before,
            prepare=lambda ground: (mz.Host.open(netns=ground.host), ground),
            call=_plan_and_apply(wish),
            again={"by name": _converge(wish)},
            undo=Ground.delete_other,
            rolls_back=False,
            bulk=True,
            keeps_part=True,
            sparse=sparse,
        )


VERBS = {
    verb.name: verb
    for verb in (
        *_tunnel_verbs(),
        *_plan_verbs(),
        *_switch_verbs(),
        *_endpoint_verbs(),
        *_gateway_verbs(),
        *(attrs.evolve(verb, keeps_part=True) for verb in _table_verbs()),
    )
}
