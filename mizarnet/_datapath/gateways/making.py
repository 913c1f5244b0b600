# SPDX-License-Identifier: Apache-2.0
"""Making one gateway, in an order that a death in between does not hurt."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import attrs

from mizarnet._datapath import forwarding, gateway_notes, private_netns, whole_host
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import LocalEndpoints, configuration
from mizarnet._datapath.gateway_notes import Note, Whole
from mizarnet._datapath.gateways import fitness, networks, routes, rules
from mizarnet._datapath.gateways.ruleset import INSIDE, OUTSIDE
from mizarnet._datapath.host import Host
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.netlink import (
    DEFAULTS,
    Link,
    Session,
    add_address,
    add_route,
    create_veth,
    delete_link,
    get_link,
    list_addresses,
    set_link,
    write_sysctl,
)
from mizarnet._model.arguments import IPNetwork
from mizarnet._model.codec import Record
from mizarnet._model.enumerations import State
from mizarnet._model.gateways import GatewaySpec
from mizarnet._model.specs import DefaultRoute, EndpointSpec, Route
from mizarnet.errors import NetlinkError, NetnsNotFoundError, UnderlayNotFoundError

_PEER = "mzq"
"""What the name of the other end begins with, as long as it is on the host."""
_ROUTER = (
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/all/accept_source_route", "0"),
)


@attrs.define
class Making:
    """One gateway that is being made, completed or changed.

    Attributes:
        datapath: Data path that it is on.
        maps: Maps of the data path.
        spec: What it shall be.
        note: Its note, as it was written last.
    """

    datapath: DataPath
    maps: Maps
    spec: GatewaySpec
    note: Note

    @property
    def host(self) -> Host:
        """Host of the gateway."""
        return self.datapath.host

    def run(self) -> None:
        """Make everything of a gateway of which nothing is there."""
        delete_link(self.host, name=self.note.device)  # a maker that died before it wrote the note
        rules.put_back_unnoted(self.host)  # so that this one turns it on, and has a note of that
        peer = _peer_of(self.note)
        outside = create_veth(self.host, self.note.device, peer=peer, mtu=self._egress().mtu)
        gateway_notes.write(self.host, outside.ifindex, self.note)
        record = LocalEndpoints(self.datapath, self.maps).make(self._endpoint(), private=True)
        self._write(outside, instance=record.instance)
        with configuration.inside(record, self.host) as inside:
            self._prepare(inside)
            self._move(peer, inside)
            self._connect(inside, outside)
        self._open_host(outside)
        networks.change(self.maps, networks.wanted(self.spec.vni, self.spec.ip))
        self._write(outside, state=State.LIVE)

    def complete(self) -> None:
        """Give a gateway that is there back what it has lost."""
        outside, record = self._outside(), self._record()
        with configuration.inside(record, self.host) as inside:
            if rules.differ_inside(self.host, inside, self.note, self.spec.publish):
                rules.write_inside(self.host, inside, self._noted(), self.spec.publish)
            self._forward(inside)
            self._connect(inside, outside)
            routes.complete_inside(inside, self._prefixes())
        self._open_host(outside)
        networks.change(self.maps, networks.wanted(self.spec.vni, self.spec.ip))

    def change(self) -> None:
        """Change rules and note to what the gateway shall be. First what is more open closes, as far as one can."""
        outside, record = self._outside(), self._record()
        with configuration.inside(record, self.host) as inside:
            rules.write_inside(self.host, inside, self._noted(), self.spec.publish)
            routes.complete_inside(inside, self._prefixes())
            self._write(outside, nat=self.spec.nat, host_access=self.spec.host_access)
            rules.write_host(self.host)
        self._route(outside)

    def fit(self, mtu: int) -> None:
        """Give both ends of the pair another MTU, in bytes: that of the egress device."""
        with configuration.inside(self._record(), self.host) as inside:
            link = get_link(inside, OUTSIDE)
            for session, end in ((self.host, self._outside()), (inside, link)):
                if end is not None and end.mtu != mtu:
                    set_link(session, end.ifindex, mtu=mtu)

    def _noted(self) -> Note:
        return attrs.evolve(self.note, nat=self.spec.nat, host_access=self.spec.host_access)

    # -- its steps

    def _endpoint(self) -> EndpointSpec:
        own = {each.network for each in self.spec.ip}
        return EndpointSpec(
            name=self.spec.name,
            vni=self.spec.vni,
            ip=self.spec.ip,
            ifname=INSIDE,
            gateway=(),
            default_route=DefaultRoute.NEVER,
            routes=[Route(prefix) for prefix in self._prefixes() if prefix not in own],
            forwarding=True,
        )

    def _prefixes(self) -> list[IPNetwork]:
        return fitness.prefixes(self.spec.ip, networks.of_vni(self.maps, self.spec.vni))

    def _prepare(self, inside: Session) -> None:
        """Make a router of the gateway's namespace, with its rules: there is no way through it yet, or rules are."""
        rules.write_inside(self.host, inside, self._noted(), self.spec.publish)
        self._forward(inside)

    def _forward(self, inside: Session) -> None:
        """Let the gateway's namespace forward, by each of its two devices that is there."""
        for key, value in _ROUTER:
            write_sysctl(inside, key, value)
        if 6 in self.spec.versions:
            write_sysctl(inside, "ipv6/conf/all/forwarding", "1")
        for device in (INSIDE, OUTSIDE):  # which ip_forward leaves as they are if it is on already
            if get_link(inside, device) is not None:
                forwarding.enable(inside, device, forwarding.needed(inside, device, 4))

    def _move(self, peer: str, inside: Session) -> None:
        link = get_link(self.host, peer)
        if link is None:
            raise NetnsNotFoundError(f"{peer}, which was to lead into the gateway, is gone")
        with inside.open_netns() as there:
            set_link(self.host, link.ifindex, netns=there, name=OUTSIDE)

    def _connect(self, inside: Session, outside: Link) -> None:
        """Give both ends of the pair their addresses, and the gateway its way out."""
        link = get_link(inside, OUTSIDE)
        if link is None:
            raise NetnsNotFoundError(f"{OUTSIDE}, which leads out of the gateway, is gone")
        for session, end, is_inside in ((self.host, outside, False), (inside, link, True)):
            self._address(session, end, is_inside=is_inside)
        for version in self.spec.versions:
            gateway = self.note.address(version, inside=False).ip
            add_route(inside, DEFAULTS[version], gateway, ifindex=link.ifindex, replace=True)

    def _address(self, session: Session, end: Link, *, is_inside: bool) -> None:
        set_link(session, end.ifindex, up=True)
        there = {each.interface for each in list_addresses(session, ifindex=end.ifindex)}
        for version in self.spec.versions:
            address = self.note.address(version, inside=is_inside)
            if address not in there:
                add_address(session, end.ifindex, address, dad=False)

    def _open_host(self, outside: Link) -> None:
        """Write the host's rules, then turn forwarding on: first for the pair, then for the egress device."""
        egress = self._egress()
        needed = self.note.forwarding
        for version in self.spec.versions:
            needed |= forwarding.needed_by_router(self.host, egress.name, version, whole=self._may_open_host)
        whole = self._whole(egress)
        self._write(outside, forwarding=needed, whole=whole)
        rules.write_host(self.host)
        if whole is not None:
            whole_host.turn_on(self.host, whole)
        for version in self.spec.versions:
            own = forwarding.needed_by_router(self.host, outside.name, version)
            forwarding.enable(self.host, outside.name, own)
        forwarding.enable(self.host, egress.name, needed)
        self._route(outside)

    @property
    def _may_open_host(self) -> bool:
        return self.spec.forward_all_ipv6 or self.note.whole is not None

    def _whole(self, egress: Link) -> Whole | None:
        """What is to be noted of the whole host before it forwards IPv6."""
        before = self.note.whole
        if 6 not in self.spec.versions or not forwarding.takes_whole_host(self.host, egress.name):
            return before
        now = whole_host.survey(self.host)
        return now if before is None else attrs.evolve(before, advertised=before.advertised | now.advertised)

    def _route(self, outside: Link) -> None:
        """Routes of the host to the VNI's prefixes, where addresses are not translated."""
        wanted = [] if self.spec.nat else self._prefixes()
        routes.follow_outside(self.host, self.note, outside.ifindex, wanted)

    def _write(self, outside: Link, **changes: Any) -> None:
        self.note = attrs.evolve(self.note, **changes)
        gateway_notes.write(self.host, outside.ifindex, self.note)

    def _egress(self) -> Link:
        link = get_link(self.host, ifindex=self.note.egress)
        if link is None:
            raise UnderlayNotFoundError(
                f"the device that the gateway of VNI {self.note.vni} leads to is gone",
                hint="delete the gateway, and create it with another egress=",
            )
        return link

    def _outside(self) -> Link:
        link = get_link(self.host, self.note.device)
        if link is None:
            raise NetlinkError(f"find {self.note.device}", errno=19)
        return link

    def _record(self) -> Record:
        record = rules.find_record(self.host, self.note)
        if record is None:
            raise NetnsNotFoundError(f"the endpoint of the gateway of VNI {self.note.vni} is gone")
        return record


def take_back(host: Host, note: Note) -> None:
    """Move the inner end of a gateway's pair to the host, if it is not there; a namespace that is gone is no error."""
    with suppress(NetnsNotFoundError), Session.open(private_netns.name_of(note.instance)) as inside:
        link = get_link(inside, OUTSIDE)
        if link is not None:
            set_link(inside, link.ifindex, up=False)
            with host.open_netns() as here:
                set_link(inside, link.ifindex, netns=here, name=_peer_of(note))


def _peer_of(note: Note) -> str:
    return _PEER + note.device.removeprefix(gateway_notes.PREFIX)
