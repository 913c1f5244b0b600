# SPDX-License-Identifier: Apache-2.0
"""What an agent has that a specification leaves open, or others wrote: it comes back with the one that replaces it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import attrs

from mizarnet._datapath import switches
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import LocalEndpoints
from mizarnet._datapath.feeds import Feed
from mizarnet._datapath.gateways import Gateways
from mizarnet._datapath.gateways.networks import FEED as GATEWAYS
from mizarnet._datapath.hooks import deciding_hook
from mizarnet._datapath.loader import capacity_of
from mizarnet._model.codec import Record
from mizarnet._model.enumerations import Layer
from mizarnet._model.gateways import GatewaySpec
from mizarnet._model.specs import AgentSpec, EndpointSpec, Kind
from mizarnet.errors import CapacityError
from mizarnet.hostspec import AgentPart, HostSpec, SwitchPart
from mizarnet.plan import entries, gateways
from mizarnet.plan.endpoints import completed
from mizarnet.plan.entries import TABLES
from mizarnet.plan.step import Stale


@attrs.frozen
class Kept:
    """What is put back.

    Attributes:
        agent: What the new agent shall be.
        switch: The switch that stood, if the specification leaves it open.
        entries: Entries of tables, by table and feed.
        endpoints: Records of the endpoints, by name.
        gateways: The gateways, by VNI.
        is_first: Whether there was no agent.
    """

    agent: AgentSpec
    switch: SwitchPart | None
    entries: Mapping[tuple[str, str], Mapping[bytes, bytes]]
    endpoints: Mapping[str, Record]
    gateways: Mapping[int, GatewaySpec]
    is_first: bool

    @classmethod
    def of(cls, datapath: DataPath | None, spec: HostSpec) -> Kept:
        """Read it; without a data path there is only what the specification says."""
        part = spec.agent or AgentPart()
        wanted = AgentSpec(**attrs.asdict(part, recurse=False))
        if datapath is None:
            return cls(wanted, None, {}, {}, {}, is_first=True)
        meta, capacity = datapath.maps.read_meta(), capacity_of(datapath.maps)
        hook = None if meta.layers == Layer.TCX | Layer.CLSACT else deciding_hook(meta.layers)
        agent = AgentSpec(
            hook=wanted.hook or hook,
            max_endpoints=wanted.max_endpoints or capacity.max_endpoints,
            max_local=wanted.max_local or capacity.max_local,
            shortcut=wanted.shortcut or meta.shortcut,
        )
        standing = [] if spec.switch is not None else switches.own(datapath)
        switch = SwitchPart(underlay=standing[0].link.name, mode=standing[0].mode) if standing else None
        records = {record.spec.name: record for record in LocalEndpoints.of(datapath).recorded()}
        own = Gateways.of(datapath)
        specs = {noted.note.vni: own.spec(noted) for noted in own.all()}
        there = {vni: each for vni, each in specs.items() if each is not None}
        return cls(agent, switch, _entries(datapath), records, there, is_first=False)

    def complete(self, spec: HostSpec, mtu: int) -> HostSpec:
        """The specification, with what it leaves open of endpoints and gateways as that was.

        Args:
            spec: The specification.
            mtu: MTU of the tunnel that there is now, in bytes: an endpoint's that was larger follows it.
        """
        made = [self._complete(each, spec.given[each.name], mtu) for each in spec.endpoints or ()]
        ways = [
            gateways.completed(self.gateways[each.vni], each, spec.given_gateways[each.vni])
            if each.vni in self.gateways
            else each
            for each in spec.gateways or ()
        ]
        return attrs.evolve(
            spec,
            endpoints=None if spec.endpoints is None else made,
            gateways=None if spec.gateways is None else ways,
        )

    def _complete(self, spec: EndpointSpec, given: frozenset[str], mtu: int) -> EndpointSpec:
        record = self.endpoints.get(spec.name)
        if record is None:
            return spec
        found = completed(record, spec, given)
        return attrs.evolve(found, mtu=None) if "mtu" not in given and (found.mtu or 0) > mtu else found

    def refuse_too_many(self, spec: HostSpec) -> None:
        """Raises ``CapacityError`` if entries and the specified endpoints do not fit into the new agent's tables."""
        homes: list[EndpointSpec | GatewaySpec] = [*(spec.endpoints or ()), *(spec.gateways or ())]
        remote = sum(len(each) for (table, _), each in self.entries.items() if table == entries.REMOTES.name)
        needs = [
            (
                "endpoints",
                "max_endpoints",
                self.agent.max_endpoints,
                remote + sum(len(each.ip) for each in homes),
            ),
            ("records", "max_local", self.agent.max_local, len(homes)),
        ]
        for table, argument, room, count in needs:
            if room is not None and count > room:
                raise CapacityError(
                    f"the agent would have room for {room} in {table}, and needs {count}",
                    table=table,
                    capacity=room,
                    used=count,
                    hint=f"give it a larger {argument}",
                )

    def put(self, datapath: DataPath, place: str) -> None:
        """Write the entries into the tables of a new agent."""
        for (table, feed), found in self.entries.items():
            TABLES[table].cls(datapath, place).apply_seen(found, set(), Feed.of(feed), {})


def _entries(datapath: DataPath) -> dict[tuple[str, str], dict[bytes, bytes]]:
    found: defaultdict[tuple[str, str], dict[bytes, bytes]] = defaultdict(dict)
    names = dict(entries.names_of(datapath))
    for table in TABLES.values():
        for key, value in table.entries(datapath).items():
            number = table.owner(value)
            if number is not None and number in names and number != GATEWAYS.number:
                found[table.name, names[number]][key] = value
    return dict(found)


def refuse_users(datapath: DataPath | None, spec: HostSpec, owner: str | None) -> None:
    """Raises ``Stale`` if somebody else has come to use the agent since the plan was made."""
    if [*users(datapath, spec, owner)]:
        raise Stale


def users(datapath: DataPath | None, spec: HostSpec, owner: str | None) -> Iterator[str]:
    """Endpoints and gateways that would end with the agent, and that neither the specification has nor it deletes."""
    if datapath is None:
        return
    names = {each.name for each in spec.endpoints or ()}
    vnis = {each.vni for each in spec.gateways or ()}
    ways = Gateways.of(datapath)
    for noted in ways.all():
        there = ways.spec(noted)
        own = owner is not None and there is not None and there.name.startswith(owner)
        known = noted.note.vni in vnis and (owner is None or own)
        if there is not None and not known and not (own and spec.gateways is not None):
            yield f"gateway {noted.note.vni}"
    for record in LocalEndpoints.of(datapath).recorded():
        name = record.spec.name
        own = owner is not None and name.startswith(owner) and spec.endpoints is not None
        of_gateway = record.private and record.spec.kind is Kind.MACVLAN
        if name not in names and not own and not of_gateway:
            yield f"endpoint {name}"
