# SPDX-License-Identifier: Apache-2.0
"""A host's specification compared with the kernel: the steps between the two. Nothing is changed, no lock is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

import attrs

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.feeds import Feed
from mizarnet._datapath.gateways import networks
from mizarnet._datapath.host import Host
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._model import codec
from mizarnet._model.codec import feed_text
from mizarnet._model.finding import Change, FindingKind
from mizarnet._model.specs import EndpointKey
from mizarnet.errors import (
    AgentNotFoundError,
    InvalidValueError,
    MizarnetError,
    StaleHandleError,
    TunnelNotFoundError,
)
from mizarnet.hostspec import HostSpec
from mizarnet.plan import devices, endpoints, entries, gateways, order
from mizarnet.plan.endpoints import Endpoints
from mizarnet.plan.entries import NETWORKS, PEERS, REMOTES, Difference, Table
from mizarnet.plan.gateways import Turnover
from mizarnet.plan.step import AnyStep, HeirStep, Rank, RepairStep, Step


@attrs.frozen
class Comparison:
    """What is between a specification and the kernel.

    Attributes:
        tunnel: Name of the tunnel.
        seen: Errors that tell, while the plan is applied, that tunnel or agent were there and are gone.
        steps: Steps, in the order in which they are safe.
        conflicts: Entries and gateways of others that are in the way, and are left alone.
    """

    tunnel: str
    seen: tuple[type[MizarnetError], ...]
    steps: list[AnyStep]
    conflicts: list[Change]


def compare(session: Host, spec: HostSpec, feed: Feed, owner: str | None) -> Comparison:
    """Compare a specification with a host.

    Raises:
        InvalidValueError: The specification names no tunnel, and the host does not have exactly one.
        LayoutError: Another version of this package attached the agent.
        ExistsError: Programs of two agents are on the tunnel.
    """
    devices_there = TunnelDevice.all(session)
    name = spec.tunnel.name if spec.tunnel is not None else _only(devices_there)
    device = next((each for each in devices_there if each.name == name), None)
    with ExitStack() as stack:
        datapath = None if device is None else DataPath.find(device.hooks)
        if datapath is not None:
            stack.enter_context(closing(datapath))
        conflicts: list[Change] = []
        _refuse_hosts(spec, device)
        ways: list[AnyStep] = []
        if spec.gateways is not None:
            ways += gateways.compare(datapath, spec.gateways, spec.given_gateways, owner, conflicts)
        steps = [*devices.compare(spec, device, datapath, owner, conflicts), *ways]
        steps += _tables(spec, datapath, feed, owner, ways, conflicts)
    seen: list[type[MizarnetError]] = [] if device is None else [TunnelNotFoundError]
    if datapath is not None:
        seen += [AgentNotFoundError, StaleHandleError]
    return Comparison(name, tuple(seen), order.in_order(sorted(steps, key=lambda step: step.rank)), conflicts)


def _only(there: list[TunnelDevice]) -> str:
    if len(there) != 1:
        raise InvalidValueError(
            f"the host has {len(there)} tunnels, and the specification names none",
            argument="spec",
            value=None,
            hint="give it a section tunnel",
        )
    return there[0].name


def _refuse_hosts(spec: HostSpec, device: TunnelDevice | None) -> None:
    """Raises ``InvalidValueError`` for a host that entries cannot lead to from the tunnel."""
    local = spec.tunnel.local if spec.tunnel is not None else None
    local = local or (None if device is None else device.local)
    if local is None:
        return  # it is seen when they are written
    remotes = (("remotes", each.host) for each in (spec.remotes or {}).values())
    switches = (("networks", host) for each in (spec.networks or {}).values() for host in each.switches)
    for section, host in dict.fromkeys([*remotes, *switches]):
        entries.refuse_host(host, local, what=section)


def _tables(
    spec: HostSpec,
    datapath: DataPath | None,
    feed: Feed,
    owner: str | None,
    ways: list[AnyStep],
    conflicts: list[Change],
) -> Iterator[AnyStep]:
    names = dict(entries.names_of(datapath))
    coming, going = Turnover.coming(ways), Turnover.going(ways)

    def differ(
        table: Table, wanted: dict[bytes, bytes], without: frozenset[bytes] = frozenset()
    ) -> Difference:
        there = {key: value for key, value in table.entries(datapath).items() if key not in without}
        found = entries.compare(
            table,
            there,
            wanted,
            feed,
            lambda number: names.get(number) or feed_text(number, names.values()) if number else "",
            prune=owner is not None,
        )
        conflicts.extend(found.conflicts)
        for at, step in enumerate(found.steps):
            if step in going and step.value is not None and step.seen is None:
                found.steps[at] = attrs.evolve(step, rank=Rank.GATEWAYS_WENT)
            elif step in coming and step.value is None:
                found.steps[at] = attrs.evolve(step, rank=Rank.GATEWAYS_COME)
        return found

    if spec.peers is not None:
        packed = {codec.pack_peer_key(each): codec.pack_peer(each, feed=feed.number) for each in spec.peers}
        yield from differ(PEERS, packed).steps
    if spec.networks is not None:
        yield from differ(NETWORKS, *_networks(spec, datapath, feed, going)).steps
    found = Endpoints.read(datapath) if spec.endpoints is not None else None
    of_endpoints: list[AnyStep] = []
    if found is not None and spec.endpoints is not None:
        of_endpoints = [*endpoints.compare(found, spec.endpoints, spec.given, owner)]
    if spec.remotes is not None:
        # What becomes an endpoint of this host is taken over by it, and never absent.
        own = frozenset(
            codec.pack_endpoint_key(EndpointKey(each.vni, address.ip))
            for each in spec.endpoints or ()
            for address in each.ip
        )
        wanted = entries.packed_remotes(spec.remotes, feed)
        remotes = differ(REMOTES, wanted, own | going.remotes)
        yield from remotes.steps
        if found is not None:
            remotes.local.update(_handed_over(wanted, found, datapath))
        if remotes.local:
            of_endpoints = [*_inherited(of_endpoints, found, spec, remotes.local, datapath, conflicts)]
    yield from of_endpoints


def _networks(
    spec: HostSpec, datapath: DataPath | None, feed: Feed, going: Turnover
) -> tuple[dict[bytes, bytes], frozenset[bytes]]:
    """The wanted networks, and the keys of those that are there now and go with a gateway.

    What a gateway that is specified writes itself is not wanted once more.
    """
    wanted, there = entries.packed_networks(spec.networks or {}, feed), NETWORKS.entries(datapath)
    written = [key for key, value in there.items() if codec.network_feed(value) == networks.FEED.number]
    own = {key: way for each in spec.gateways or () for key, way in networks.leading(each.vni, each.ip)}
    for key in written:
        way = own.get(codec.unpack_network_key(key))
        if way is not None and key in wanted and codec.unpack_network(wanted[key]) == way:
            del wanted[key]
    stay = Turnover.of(order.of_gateway(each) for each in spec.gateways or ()).networks
    return wanted, frozenset(written) & going.networks - stay


def _handed_over(
    wanted: dict[bytes, bytes], found: Endpoints, datapath: DataPath | None
) -> Iterator[tuple[bytes, bytes]]:
    """Entries as they shall be that endpoints of this host still claim: a change was cut off behind the first half."""
    there = REMOTES.entries(datapath)
    for record in found.records.values():
        for key in record.pack_endpoints():
            if key in wanted and there.get(key) == wanted[key]:
                yield key, wanted[key]


def _inherited(
    steps: list[AnyStep],
    found: Endpoints | None,
    spec: HostSpec,
    local: dict[bytes, bytes],
    datapath: DataPath | None,
    conflicts: list[Change],
) -> Iterator[AnyStep]:
    """The steps of endpoints, with the entries that go over from one that leaves to another host."""
    left = dict(local)
    wanted = {each.name: each for each in spec.endpoints or ()}
    leaving = {step.change.object.name for step in steps if _heirs(step, found, left)}
    for step in steps:
        if _is_entry_repair(step) and step.change.object.name in leaving:
            continue  # it would get back what it is about to leave
        heirs = _heirs(step, found, left)
        if not heirs or found is None or not isinstance(step, Step):
            yield step
            continue
        name = step.change.object.name
        for key, value in heirs.items():
            del left[key]
            have = found.records[name].pack_endpoints()[key]
            yield HeirStep(entries.heir_change(key, value, have, name), key, value, name)
        yield endpoints.with_heirs(step, found, wanted.get(name), spec.given.get(name, frozenset()), heirs)
    if not left:
        return
    dead = (Endpoints.read(datapath) if found is None else found).keys_of_dead()
    for key, value in left.items():
        there = None if datapath is None else datapath.maps.endpoints.lookup(key)
        if there is None or not codec.is_local(there):
            continue
        if key in dead:
            yield entries.step_of(REMOTES, "update", key, value, there)
        else:
            conflicts.append(entries.local_conflict(key, value, there))


def _is_entry_repair(step: AnyStep) -> bool:
    return isinstance(step, RepairStep) and step.finding.kind is FindingKind.ENTRY_DIFFERS


def _heirs(step: AnyStep, found: Endpoints | None, left: dict[bytes, bytes]) -> dict[bytes, bytes]:
    if (
        found is None
        or not isinstance(step, Step)
        or step.change.action
        not in (
            "delete",
            "update",
            "replace",
        )
    ):
        return {}
    record = found.records.get(step.change.object.name)
    if record is None or step.change.object.kind != "endpoint":
        return {}
    keys = set(record.pack_endpoints())
    if step.change.action != "delete":
        vni = step.change.wanted.get("vni", record.spec.vni)
        coming = step.change.wanted.get("ip", record.spec.ip)
        keys -= {codec.pack_endpoint_key(EndpointKey(vni, address.ip)) for address in coming}
    return {key: value for key, value in left.items() if key in keys}
