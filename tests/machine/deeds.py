# SPDX-License-Identifier: Apache-2.0
"""What can be done to a host, and how it may end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs

import mizarnet as mz
from mizarnet import EndpointSpec, Kind, Life
from mizarnet._kernel.netlink import Session, delete_address, delete_link, delete_netns, set_link
from tests.machine.model import End, Entries, Known, Model, dead_of, halves_of, names_of
from tests.support.namespace import Namespace
from tests.world import TUNNEL, UNDERLAY, calm

_DEVICES_OF_HOST = ("lo", UNDERLAY, TUNNEL)
CAPACITY = {"max_endpoints": 64, "max_local": 64}
"""Small tables are read quickly; an index is guessed, and in a smaller one it would take now one guess, now several."""
SWITCH_MODE = "generic"


def open_agent(host: str) -> mz.TransitAgent:
    """A new handle of a host's agent."""
    return mz.TransitAgent.open(TUNNEL, netns=host)


def open_tunnel(host: str) -> mz.Tunnel:
    """A new handle of a host's tunnel."""
    return mz.Tunnel.open(TUNNEL, netns=host)


@attrs.frozen(repr=False)
class Deed:
    """Something that can be done.

    Attributes:
        text: What it is, for people.
        call: Does it, with a handle of the host's agent, or another one.
        ends: How it may end, from what was there before; none: everything ends.
        deferred: Whether the kernel does a part of it later.
        open: Opens the handle that the call takes, by the name of the host's namespace.
        disturbed: How else it may end if something happens to a part of it.
    """

    text: str
    call: Callable[[Any], object]
    ends: Callable[[Model], Sequence[End]] = lambda _: ()
    deferred: bool = False
    open: Callable[[str], Any] = open_agent
    disturbed: Callable[[Model], Sequence[End]] = lambda _: ()

    def __repr__(self) -> str:
        return self.text

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What hypothesis prints in a failing example."""
        printer.text(self.text)


# -- endpoints ---------------------------------------------------------------------------------------------


def create(spec: EndpointSpec) -> Deed:
    """Make an endpoint."""
    return Deed(
        f"create {_text(spec)}",
        lambda agent: mz.Endpoint.create(agent, spec),
        lambda model: _ends_of_create(model, spec),
    )


def _ends_of_create(model: Model, spec: EndpointSpec) -> list[End]:
    own = model.endpoints.get(spec.name)
    if own is not None and own.life is Life.LIVE:
        if not own.is_as(spec):
            return [End(model, mz.ExistsError)]
        return [End(model.with_endpoint(own.whole()))]
    wanted = Known.made_from(spec)
    in_the_way = [each for each in model.others(spec.name) if each.clashes(wanted)]
    dead, halves = dead_of(in_the_way), halves_of(in_the_way)
    may_go = dead | halves | ({spec.name} if own else frozenset())
    errors = set(_errors_of_create(model, wanted, in_the_way))
    if errors:
        return [End(model, error, may_go, (wanted,)) for error in errors]
    ends = [End(model.without(dead).with_endpoint(wanted), may_go=halves)]
    if halves_of(_with_its_device_name(model, wanted)):
        # What was made of it may have got its device.
        ends.append(End(model, mz.ExistsError, may_go, (wanted,)))
    return ends


def _errors_of_create(
    model: Model, wanted: Known, in_the_way: Collection[Known]
) -> Iterator[type[mz.MizarnetError]]:
    spec = wanted.spec
    company = [each for each in model.others(spec.name) if wanted.shares_subnet(each)]
    taken = (*in_the_way, *_with_its_device_name(model, wanted), *company)
    if any(each.life is Life.LIVE for each in taken):
        yield mz.ExistsError
    if spec.netns is None and spec.kind is Kind.MACVLAN and spec.ifname in _DEVICES_OF_HOST:
        yield mz.ExistsError
    if spec.netns is not None and spec.netns not in model.spaces:
        yield mz.NetnsNotFoundError


def _with_its_device_name(model: Model, wanted: Known) -> list[Known]:
    others = model.others(wanted.spec.name)
    return [each for each in others if each.is_beside(wanted) and each.spec.ifname == wanted.spec.ifname]


def create_many(specs: Sequence[EndpointSpec]) -> Deed:
    """Make endpoints of different names."""
    return Deed(
        f"create many: {'; '.join(map(_text, specs))}",
        lambda agent: mz.Endpoint.create_many(agent, specs),
        lambda model: _ends_of_create_many(model, specs),
        disturbed=lambda model: _ends_of_create_many(model, specs, some=True),
    )


def _ends_of_create_many(model: Model, specs: Sequence[EndpointSpec], *, some: bool = False) -> list[End]:
    """One after the other; or some of them, as if each of the others had failed."""
    ends = [End(model)]
    for spec in specs:
        failed = [attrs.evolve(end, error=mz.BulkError) for end in ends] if some else []
        ends = failed + [_both(first, then) for first in ends for then in _ends_of_create(first.model, spec)]
    return ends


def _both(first: End, then: End) -> End:
    live = names_of([*then.model.of_life(Life.LIVE)])
    error = mz.BulkError if first.error or then.error else None
    return End(then.model, error, (first.may_go | then.may_go) - live, first.tried + then.tried)


def readdress(name: str, ip: Sequence[str]) -> Deed:
    """Change the addresses of an endpoint by a new handle."""

    def ends(model: Model) -> list[End]:
        own = model.endpoints.get(name)
        if own is None or own.life is not Life.LIVE:
            return [End(model, mz.EndpointNotFoundError)]
        wanted = attrs.evolve(own, spec=attrs.evolve(own.spec, ip=ip)).whole()
        coming = wanted.keys - own.keys
        in_the_way = [each for each in model.others(name) if each.keys & coming]
        dead, halves = dead_of(in_the_way), halves_of(in_the_way)
        new = frozenset(each for each in wanted.spec.ip if each not in own.spec.ip)
        company = (
            [
                each
                for each in model.others(name)
                if attrs.evolve(wanted, spec=attrs.evolve(wanted.spec, ip=[*new])).shares_subnet(each)
            ]
            if new
            else []
        )
        if any(each.life is Life.LIVE for each in (*in_the_way, *company)):
            return [End(model, mz.ExistsError, dead | halves)]
        return [End(model.without(dead).with_endpoint(wanted), may_go=halves)]

    return Deed(
        f"update {name} to {','.join(ip)}",
        lambda agent: mz.Endpoint.open(agent, name).update(ip=ip),
        ends,
    )


def delete_many(names: Sequence[str]) -> Deed:
    """Delete endpoints by their names."""
    return Deed(
        f"delete {' '.join(names)}",
        lambda agent: mz.Endpoint.delete_many(agent, names),
        lambda model: [End(model.without(names))],
    )


def delete(name: str) -> Deed:
    """Delete an endpoint by a new handle."""

    def call(agent: mz.TransitAgent) -> None:
        mz.Endpoint.open(agent, name, dead=True).delete()

    def ends(model: Model) -> list[End]:
        return [End(model.without([name]), None if name in model.endpoints else mz.EndpointNotFoundError)]

    return Deed(f"open {name} and delete it", call, ends)


def delete_by(handle: mz.Endpoint) -> Deed:
    """Delete an endpoint by a handle that may be of an earlier one."""
    name, instance = handle.name, handle._record.instance

    def ends(model: Model) -> list[End]:
        known = model.endpoints.get(name)
        is_that = known is not None and known.instance == instance
        return [End(model.without([name]) if is_that else model)]

    return Deed(f"delete {name} by an old handle", lambda _: handle.delete(), ends)


def _text(spec: EndpointSpec) -> str:
    place = "as a VM" if spec.kind is Kind.MACVTAP else f"in {spec.netns or 'the host'} as {spec.ifname}"
    more = [f"{name}={getattr(spec, name)}" for name in ("mac", "mtu", "forwarding") if getattr(spec, name)]
    return " ".join([spec.name, str(spec.vni), ",".join(map(str, spec.ip)), place, *more])


# -- what others do ----------------------------------------------------------------------------------------


def end_container(space: str) -> Deed:
    """Delete a namespace with everything in it, without a word."""

    def ends(model: Model) -> list[End]:
        after = attrs.evolve(model, spaces=model.spaces - {space})
        for known in model.of_life(Life.LIVE):
            if known.spec.netns == space:
                after = after.with_endpoint(attrs.evolve(known, life=Life.DEAD))
        return [End(after)]

    return Deed(f"end {space}", lambda _: delete_netns(space), ends, deferred=True)


def start_container(space: str) -> Deed:
    """Make a namespace, if there is none of that name."""

    def call(_: object) -> None:
        with suppress(mz.ExistsError):
            calm(Namespace(space))

    return Deed(
        f"start {space}", call, lambda model: [End(attrs.evolve(model, spaces=model.spaces | {space}))]
    )


def delete_device(name: str) -> Deed:
    """Delete the device of an endpoint from inside."""
    return _by_hand(
        f"delete the device of {name}",
        name,
        lambda session, found: delete_link(session, found.ifindex),
        lambda known: attrs.evolve(known, life=Life.DEAD),
    )


def set_down(name: str) -> Deed:
    """Set the device of an endpoint down, which takes its IPv6 addresses away."""
    return _by_hand(
        f"set {name} down",
        name,
        lambda session, found: set_link(session, found.ifindex, up=False),
        lambda known: attrs.evolve(
            known, up=False, addresses=frozenset(each for each in known.addresses if each.version == 4)
        ),
    )


def flush(name: str) -> Deed:
    """Take its addresses from the device of an endpoint."""

    def act(session: Session, found: mz.Endpoint) -> None:
        for each in reversed(found.state().addresses):  # secondary ones go with their primary one
            delete_address(session, found.ifindex, each)

    return _by_hand(f"flush {name}", name, act, lambda known: attrs.evolve(known, addresses=frozenset[Any]()))


def _by_hand(
    text: str,
    name: str,
    act: Callable[[Session, mz.Endpoint], object],
    then: Callable[[Known], Known],
) -> Deed:
    """Something that is done to the device of a live endpoint; nothing, if it is not."""

    def call(agent: mz.TransitAgent) -> None:
        with suppress(mz.EndpointNotFoundError):
            found = mz.Endpoint.open(agent, name)
            with Session.open(found.netns or agent.tunnel.netns) as session:
                act(session, found)

    def ends(model: Model) -> list[End]:
        known = model.endpoints.get(name)
        return [End(model.with_endpoint(then(known)) if known and known.life is Life.LIVE else model)]

    return Deed(text, call, ends)


# -- tables ------------------------------------------------------------------------------------------------


@attrs.frozen
class Writer:
    """A table, and for whom it is written."""

    table: str
    feed: str = ""
    take: bool = False

    def __str__(self) -> str:
        return f"{self.table} for {self.feed!r}{' taking' if self.take else ''}"

    def of(self, agent: mz.TransitAgent) -> Any:
        """The table."""
        return getattr(agent, self.table)

    def given(self, put: Mapping[Any, Any]) -> Any:
        """Entries as the table takes them."""
        return [*put] if self.table == "peers" else put

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of its calls."""
        return {"feed": self.feed, "take": self.take}

    def foreign(self, model: Model, keys: Collection[Any]) -> frozenset[Any]:
        """Keys of entries that it may not touch."""
        there = model.entries[self.table]
        others = (key for key in keys if key in there and there[key][1] != self.feed)
        return frozenset() if self.take else frozenset(others)

    def entries(self, put: Mapping[Any, Any]) -> Entries:
        """As they stand in the model."""
        return {key: (value, self.feed) for key, value in put.items()}

    def holders(self, model: Model, keys: Collection[Any]) -> list[Known]:
        """Endpoints of this host that have some of those keys."""
        return model.holders(keys) if self.table == "endpoints" else []


def set_entry(table: str, key: Any, value: Any) -> Deed:
    """Write one entry by hand."""
    writer = Writer(table)

    def call(agent: mz.TransitAgent) -> None:
        if table == "peers":
            writer.of(agent).add(key)
        else:
            writer.of(agent)[key] = value

    return Deed(
        f"{table}[{_key_text(key)}] = {value}",
        call,
        lambda model: _ends_of_write(model, writer, {key: value}),
    )


def delete_entry(table: str, key: Any) -> Deed:
    """Delete one entry that was written by hand."""
    writer = Writer(table)

    def call(agent: mz.TransitAgent) -> None:
        if table == "peers":
            writer.of(agent).discard(key)
        else:
            del writer.of(agent)[key]

    def ends(model: Model) -> list[End]:
        found = _ends_of_write(model, writer, {}, [key])
        holders = writer.holders(model, [key])
        halves = halves_of(holders)
        if found[0].error or table == "peers" or key in model.entries[table] or (holders and not halves):
            return found
        absent = [attrs.evolve(found[0], error=mz.EntryNotFoundError)]
        return [*found, *absent] if holders else absent

    return Deed(f"del {table}[{_key_text(key)}]", call, ends)


def update(writer: Writer, put: Mapping[Any, Any]) -> Deed:
    """Write entries, all or none."""
    return Deed(
        f"update {writer}: {_put_text(put)}",
        lambda agent: writer.of(agent).update(writer.given(put), **writer.options),
        lambda model: _ends_of_write(model, writer, put),
    )


def sync(writer: Writer, put: Mapping[Any, Any], vni: int | None) -> Deed:
    """Make the entries of a feed exactly these, of one VNI or all."""
    within: dict[str, Any] = {} if vni is None else {"vni": vni}

    def ends(model: Model) -> list[End]:
        there = model.entries[writer.table]
        old = [
            key
            for key, (_, feed) in there.items()
            if feed == writer.feed and key not in put and (vni is None or key.vni == vni)
        ]
        return _ends_of_write(model, writer, put, superfluous=old)

    return Deed(
        f"sync {writer} in {vni}: {_put_text(put)}",
        lambda agent: writer.of(agent).sync(writer.given(put), **writer.options, **within),
        ends,
    )


def apply(writer: Writer, put: Mapping[Any, Any], gone: Collection[Any]) -> Deed:
    """Write some entries and delete others, as far as they are the feed's."""

    def ends(model: Model) -> list[End]:
        holders = writer.holders(model, [*put, *gone])
        held = frozenset(key for each in holders if each.life is Life.LIVE for key in each.keys)
        left = held | writer.foreign(model, [*put, *gone])
        done = writer.entries({key: value for key, value in put.items() if key not in left})
        after = model.without(dead_of(holders))
        after = after.with_entries(writer.table, done, [key for key in gone if key not in left])
        return [End(after, may_go=halves_of(holders))]

    return Deed(
        f"apply {writer}: {_put_text(put)} without {' '.join(map(_key_text, gone)) or 'nothing'}",
        lambda agent: writer.of(agent).apply(writer.given(put), gone, **writer.options),
        ends,
    )


def _ends_of_write(
    model: Model,
    writer: Writer,
    put: Mapping[Any, Any],
    gone: Collection[Any] = (),
    superfluous: Collection[Any] = (),
) -> list[End]:
    """All or none of it: a key of others is an error, a dead endpoint gives its addresses up."""
    named = [*put, *gone]
    if writer.foreign(model, named):
        return [End(model, mz.ForeignEntryError)]
    holders = writer.holders(model, named)
    dead, halves = dead_of(holders), halves_of(holders)
    if any(each.life is Life.LIVE for each in holders):
        return [End(model, mz.LocalEndpointError, dead | halves)]
    after = model.without(dead).with_entries(writer.table, writer.entries(put), [*gone, *superfluous])
    return [End(after, may_go=halves)]


def _key_text(key: Any) -> str:
    return ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _put_text(put: Mapping[Any, Any]) -> str:
    return "; ".join(f"{_key_text(key)}: {value}" for key, value in put.items()) or "nothing"


# -- agent and switch --------------------------------------------------------------------------------------


def attach_again() -> Deed:
    """Attach what is attached."""

    def call(agent: mz.TransitAgent) -> None:
        with mz.TransitAgent.attach(agent.tunnel, **CAPACITY) as again:
            assert not again.created

    return Deed("attach again", call, lambda model: [End(model)])


def attach_switch() -> Deed:
    """Make the host a switch."""
    return Deed(
        "attach the switch",
        lambda agent: mz.TransitSwitch.attach(agent, mode=SWITCH_MODE),
        lambda model: [End(attrs.evolve(model, switch=True))],
    )


def detach_switch() -> Deed:
    """Make it none."""
    return Deed(
        "detach the switch",
        lambda agent: mz.TransitSwitch.detach(UNDERLAY, netns=agent.tunnel.netns),
        lambda model: [End(attrs.evolve(model, switch=False))],
    )


def detach() -> Deed:
    """End the agent with everything on it."""
    return Deed("detach", lambda agent: mz.TransitAgent.detach(agent, force=True))


def delete_tunnel() -> Deed:
    """End the tunnel with everything on it."""
    return Deed("delete the tunnel", lambda agent: agent.tunnel.delete(force=True))


def attach() -> Deed:
    """Attach an agent where there is none."""
    return Deed("attach", lambda tunnel: mz.TransitAgent.attach(tunnel, **CAPACITY), open=open_tunnel)
