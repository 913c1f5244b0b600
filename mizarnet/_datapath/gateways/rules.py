# SPDX-License-Identifier: Apache-2.0
"""The tables of gateways in the kernel: written whole, and compared whole with what they shall be.

What a gateway publishes stands in the comments of its rules in its own namespace, where nobody else is. The host's
table follows from the notes and from these, so it can be made again after others have flushed it. It tells the same in
its own comments: for processes that do not see that namespace, and where the rules there were flushed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from typing import cast

from mizarnet._datapath import forwarding, gateway_notes, private_netns, switches, whole_host
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import configuration, items
from mizarnet._datapath.gateway_notes import Note, Whole
from mizarnet._datapath.gateways import ruleset
from mizarnet._datapath.gateways.ruleset import EVERY, FAMILY, TABLE, Closed, Way
from mizarnet._datapath.host import Host
from mizarnet._datapath.tunnel_hooks import TunnelHooks
from mizarnet._kernel import nftables
from mizarnet._kernel.netlink import Session, anonymous_netns, dump_links, get_link
from mizarnet._kernel.nftables import Item
from mizarnet._model.codec import Record
from mizarnet._model.enumerations import State
from mizarnet._model.gateways import Publish
from mizarnet._model.specs import Encap
from mizarnet.errors import (
    AgentNotFoundError,
    ExistsError,
    LayoutError,
    NetnsNotFoundError,
    StaleHandleError,
)

_BY_INDEX = ({"meta": {"key": "iif"}}, {"meta": {"key": "oif"}})


def find_record(host: Host, note: Note) -> Record | None:
    """Record of a gateway's endpoint, on whatever tunnel of the host; None if it, or its agent, is gone."""
    with suppress(LayoutError):
        return _read_record(host, note)
    return None


def _read_record(host: Host, note: Note) -> Record | None:
    """The same; raises ``LayoutError`` if the agent is of another schema."""
    link = get_link(host, ifindex=note.tunnel)
    if link is None or not link.external:
        return None
    with suppress(ExistsError, StaleHandleError, AgentNotFoundError):
        found = DataPath.find(TunnelHooks(host, link.name, link.ifindex))
        if found is not None:
            with closing(found):
                return items.read(found.maps, note.key)
    return None


def published(inside: Session) -> tuple[Publish, ...] | None:
    """The published ports of a gateway, read in its namespace; None if its table is gone."""
    listed = nftables.read(inside, "table", FAMILY, TABLE)
    if listed is None:
        return None
    return _sorted(map(ruleset.published_of, _comments(listed)))


def known_published(host: Host, note: Note, inside: Session | None) -> tuple[Publish, ...]:
    """The published ports of a live gateway; what the host's table tells, where its own is gone or cannot be read.

    Args:
        host: The host.
        note: Note of the gateway.
        inside: Session of its namespace; None: this process cannot see it.
    """
    found = None if inside is None else published(inside)
    if found is not None or note.state is not State.LIVE:
        return found or ()
    comments = _comments(nftables.read(host, "table", FAMILY, TABLE))
    return _sorted(ruleset.published_of(each, device=note.device) for each in comments)


def _sorted(found: Iterable[Publish | None]) -> tuple[Publish, ...]:
    return tuple(sorted({each for each in found if each is not None}, key=lambda each: each.key))


def ways(host: Host) -> list[Way]:
    """What the host's rules need to know of each gateway that tenants may get to the host by.

    What is left of a gateway counts, too: it publishes nothing, and has its rules until its device is down.
    """
    noted = gateway_notes.read_all(host)
    return [
        Way(each.note, _published_by(host, each.note))
        for each in noted
        if each.note.state is not State.DELETING or each.link.up
    ]


def _published_by(host: Host, note: Note) -> tuple[Publish, ...]:
    if note.state is State.DELETING:
        return ()
    try:
        inside = _inside(host, note)
    except NetnsNotFoundError:
        return known_published(host, note, None)
    if inside is None:
        return ()
    with inside:
        return known_published(host, note, inside)


def _inside(host: Host, note: Note) -> Session | None:
    """A session of a gateway's namespace; None if its endpoint is gone."""
    try:
        record = _read_record(host, note)
    except LayoutError:  # its gateways lead out as before, until somebody upgrades it
        return Session.open(private_netns.name_of(note.instance))
    return configuration.inside(record, host) if record is not None and record.may_have_device else None


def tunnel_ports(host: Host) -> set[int]:
    """The UDP ports of the host's tunnels, also of other software: hosts behind them may trust this one."""
    return _ports(host, external=True) | _ports(host, external=False)


def _ports(host: Host, *, external: bool) -> set[int]:
    """The UDP ports of tunnels that have one VNI for each packet, as ours do, or one for all."""
    links = [link for encap in Encap for link in dump_links(host, kind=encap.value)]
    return {link.port for link in links if link.external is external and link.port is not None}


def closed(host: Host) -> set[Closed]:
    """The devices that were no routers before gateways came, or transit switches."""
    found = _closed_for_gateways(host)
    for each in switches.find(host):
        found |= _closed_by(each.link.ifindex, each.changes())
    return found


def _closed_for_gateways(host: Host) -> set[Closed]:
    """The devices that were no routers before gateways came, also of gateways that have begun to end."""
    found: set[Closed] = set()
    for each in gateway_notes.read_all(host):
        found |= _closed_by(each.note.egress, each.note.forwarding)
        found |= {EVERY} if each.note.whole is not None else set()
    return found


def _closed_by(ifindex: int, changes: int) -> set[Closed]:
    return {Closed(ifindex, version) for change, version in forwarding.VERSIONS.items() if changes & change}


def write_host(host: Host) -> None:
    """Make the host's table what its gateways need, or remove it with the last of them; raises ``KernelError``.

    A device that the table closes and no note tells of, since somebody deleted the device that had the note, gets its
    forwarding back first.
    """
    put_back_unnoted(host)
    nftables.apply(host, _of_host(host), "write the host's rules for gateways")


def put_back_unnoted(host: Host) -> None:
    """Put back the forwarding of what the host's table closes and no note tells of."""
    for each in _closed_in_table(host) - closed(host):
        if each == EVERY:
            whole_host.turn_off(host, Whole())
            continue
        for change, version in forwarding.VERSIONS.items():
            if version == each.version:
                forwarding.restore(host, each.ifindex, change)


def _of_host(host: Host) -> str:
    found = ways(host)
    devices = closed(host) if found else _closed_for_gateways(host)
    return ruleset.of_host(found, devices, _ports(host, external=True), others=_ports(host, external=False))


def follow_tunnels(host: Host) -> None:
    """Write all rules anew behind a tunnel that came or went; raises ``KernelError``."""
    for each in gateway_notes.read_all(host):
        record = find_record(host, each.note)
        if record is None or each.note.state is not State.LIVE:
            continue
        with suppress(NetnsNotFoundError), configuration.inside(record, host) as inside:
            write_inside(host, inside, each.note, known_published(host, each.note, inside))
    write_host(host)


def follow_switch(host: Host) -> None:
    """Write the host's rules anew behind a transit switch that came, moved or went: they close its device, too.

    Raises:
        KernelError: The kernel refused them.
    """
    if gateway_notes.read_all(host):
        write_host(host)


def _closed_in_table(host: Host) -> set[Closed]:
    found = (ruleset.closed_of(each) for each in _comments(nftables.read(host, "table", FAMILY, TABLE)))
    return {each for each in found if each is not None}


def _comments(listed: Sequence[Item] | None) -> list[str]:
    return [each["rule"]["comment"] for each in listed or () if "comment" in each.get("rule", {})]


def write_inside(host: Host, inside: Session, note: Note, publish: Iterable[Publish]) -> None:
    """Make the table in a gateway's namespace; raises ``KernelError``."""
    commands = ruleset.of_gateway(note, publish, tunnel_ports(host))
    nftables.apply(inside, commands, "write the rules of a gateway")


def differ_inside(host: Host, inside: Session, note: Note, publish: Iterable[Publish]) -> bool:
    """Whether the table in a gateway's namespace is not what note, published ports and the host's tunnels say."""
    return differs(inside, ruleset.of_gateway(note, publish, tunnel_ports(host)))


def host_differs(host: Host) -> bool:
    """Whether the host's table is not what its gateways need."""
    return differs(host, _of_host(host))


def refuse_unable(host: Host, way: Way) -> None:
    """Raises ``UnsupportedError`` if this kernel cannot have the rules of a gateway that is to be made."""
    for commands in (
        ruleset.of_host([way], [Closed(way.note.egress, 4)], ()),
        ruleset.of_gateway(way.note, way.publish, ()),
    ):
        nftables.refuse_without(host, commands)


def differs(session: Session, commands: str) -> bool:
    """Whether the table of a namespace is another one than some commands make.

    What they make is seen by making it in a namespace of its own.
    """
    found = _essence(session)
    with anonymous_netns() as handle, Session.open(handle) as scratch:
        nftables.apply(scratch, commands, "write rules for a comparison")
        return found != _essence(scratch)


def _essence(session: Session) -> object:
    """What of the table is the same in each namespace: no handles, no counts, and devices by what rules have."""
    listed = nftables.read(session, "table", FAMILY, TABLE)
    if listed is None:
        return None
    indexes: dict[object, int] = {link.name: link.ifindex for link in dump_links(session)}
    return [_by_index(_without_numbers(each), indexes) for each in listed if "metainfo" not in each]


def _by_index(value: object, indexes: Mapping[object, int]) -> object:
    """A part of a listing, with the indexes of devices where the command gives names for them."""
    if isinstance(value, list):
        return [_by_index(each, indexes) for each in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    parts = cast("Item", value)
    if parts.get("left") in _BY_INDEX:
        right: object = parts["right"]
        devices = cast("dict[str, list[object]]", right)["set"] if isinstance(right, dict) else [right]
        return {**parts, "right": sorted(str(indexes.get(each, each)) for each in devices)}
    return {key: _by_index(each, indexes) for key, each in parts.items()}


def _without_numbers(value: object) -> object:
    if isinstance(value, dict):
        parts = cast("Item", value)
        return {
            key: None if key == "counter" else _without_numbers(each)
            for key, each in parts.items()
            if key != "handle"
        }
    return (
        [_without_numbers(each) for each in cast("list[object]", value)] if isinstance(value, list) else value
    )
