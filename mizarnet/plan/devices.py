# SPDX-License-Identifier: Apache-2.0
"""Tunnel, agent and switch of a host's specification, compared with the kernel."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any

import attrs

from mizarnet._datapath import install, switches
from mizarnet._datapath.checks import look_at_tunnel
from mizarnet._datapath.checks.agent import agent_findings
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.hooks import deciding_hook
from mizarnet._datapath.loader import capacity_of
from mizarnet._datapath.relocation import relocate
from mizarnet._datapath.tunnel_device import TunnelDevice, refuse_unfit_spec
from mizarnet._kernel.jobs import whole
from mizarnet._kernel.netlink import get_link
from mizarnet._model.differences import differences
from mizarnet._model.enumerations import State
from mizarnet._model.finding import Change, Subject
from mizarnet._model.specs import Encap, Shortcut, TunnelSpec
from mizarnet._plain import text
from mizarnet.agent import TransitAgent, datapath_of
from mizarnet.errors import ExistsError, MizarnetError, UnsupportedError
from mizarnet.features import probe_encapsulation
from mizarnet.hostspec import AgentPart, HostSpec, SwitchPart, TunnelPart
from mizarnet.plan import kept
from mizarnet.plan.kept import Kept
from mizarnet.plan.step import AnyStep, Fields, Place, Rank, RepairStep, Stale, Step
from mizarnet.switch import TransitSwitch
from mizarnet.tunnel import Tunnel, device_of, place_of

_CREATED = ("encap", "underlay", "local", "port", "mtu")
_MOVES = ("local", "underlay", "mtu")
_SHOWN = 4


def compare(
    spec: HostSpec,
    device: TunnelDevice | None,
    datapath: DataPath | None,
    owner: str | None,
    conflicts: list[Change],
) -> Iterator[AnyStep]:
    """Steps for the tunnel, the agent and the switch, and for what is wrong with them.

    A tunnel or agent that would have to be replaced is a conflict as long as it has other users.
    """
    usable = datapath is not None and datapath.maps.read_meta().state is State.LIVE
    found = [] if spec.tunnel is None else [*_tunnel(spec, device, owner)]
    if spec.tunnel is not None or spec.agent is not None:
        found += _agent(spec, device, datapath if usable else None, owner)
    for step in found:
        others = [*kept.users(datapath if usable else None, spec, owner)] if step.plans_again else []
        if others:
            reason = f"{step.change.reason}, but {_listed(others)} would end for good; it is left alone"
            conflicts.append(attrs.evolve(step.change, reason=reason, interrupts=False))
        else:
            yield step
    if device is not None and usable and datapath is not None:
        kinds = {"tunnel", "agent", *(["switch"] if spec.switch is not None else [])}
        for each in [*look_at_tunnel(device, datapath), *agent_findings(datapath)]:
            if each.repairable and each.object.kind in kinds:
                yield RepairStep(Change("update", each.object, each.wanted, each.found, each.text), each)
    if spec.switch is not None:
        yield from _switch(spec.switch, datapath if usable else None)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


# -- the tunnel --------------------------------------------------------------------------------------------


def _tunnel(spec: HostSpec, device: TunnelDevice | None, owner: str | None) -> Iterator[Step]:
    part = spec.tunnel
    assert part is not None
    subject = Subject("tunnel", part.name)
    if device is None:
        reason = f"{part.encap.value} over {part.underlay}"
        yield Step(Change("create", subject, part, None, reason), Rank.TUNNEL, _create_tunnel(part))
        return
    there = _facts(device)
    given = get_link(device.host, part.underlay)
    if given is not None and given.ifindex == device.underlay_ifindex:
        there["underlay"] = part.underlay
    wanted = {name: getattr(part, name) for name in _CREATED}
    differing = differences(wanted, there)
    if not differing:
        return
    values = {name: wanted[name] for name in differing}
    found = {name: there[name] for name in differing}
    reason = ", ".join(f"{name} {text(found[name])} -> {text(values[name])}" for name in values)
    if all(name in _MOVES for name in differing):
        change = Change("update", subject, values, found, reason)
        yield Step(change, Rank.TUNNEL, _move_tunnel(device, values))
    else:
        reason += "; every endpoint is made again"
        change = Change("replace", subject, values, found, reason, True)
        yield Step(change, Rank.TUNNEL, _replace_tunnel(device, spec, owner), plans_again=True)


def _facts(device: TunnelDevice) -> dict[str, Any]:
    return {
        "encap": device.encap,
        "underlay": device.underlay,
        "local": device.local,
        "port": device.port,
        "mtu": device.mtu,
    }


def _arguments(part: TunnelPart) -> dict[str, Any]:
    return {name: getattr(part, name) for name in _CREATED}


def _create_tunnel(part: TunnelPart) -> Callable[[Place], object]:
    def run(place: Place) -> None:
        try:
            with place.path() as path:  # one that is there by now, and is as asked for, will do
                Tunnel.create(part.name, **_arguments(part), netns=path).close()
        except ExistsError:
            if get_link(place.session, part.name) is None:
                raise  # the port is taken
            raise Stale from None

    return run


def _refuse_stale(place: Place, seen: TunnelDevice) -> TunnelDevice:
    now = TunnelDevice.open(place.session, seen.name)
    if (now.ifindex, now.underlay_ifindex, _facts(now)) != (
        seen.ifindex,
        seen.underlay_ifindex,
        _facts(seen),
    ):
        raise Stale
    return now


def _move_tunnel(seen: TunnelDevice, given: Fields) -> Callable[[Place], object]:
    @whole
    def run(place: Place) -> None:
        with place.session.locked():
            relocate(_refuse_stale(place, seen), given)
            place.moved |= "underlay" in given

    return run


def _replace_tunnel(seen: TunnelDevice, spec: HostSpec, owner: str | None) -> Callable[[Place], object]:
    part = spec.tunnel
    assert part is not None  # it is what differs

    @whole
    def run(place: Place) -> None:
        with place.session.locked():
            now = _refuse_stale(place, seen)
            with _found(now) as datapath:
                kept.refuse_users(datapath, spec, owner)
                before = Kept.of(datapath, spec)
            wanted = _completed(part, now)
            refuse_unfit_spec(now, TunnelSpec(**wanted))
            _refuse_unknown(part.encap, now)
            before.refuse_too_many(spec)
            install.refuse_unfit(now, before.agent)
            now.delete(force=True)
        place.kept = before
        try:
            _make(
                place,
                part.name,
                wanted,
                spec,
                attrs.evolve(before, switch=_following(before.switch, seen, part)),
            )
        except MizarnetError as error:
            try:
                with place.path() as path:
                    Tunnel.delete(part.name, force=True, netns=path)
                _make(place, part.name, _facts(now), spec, before)
            except MizarnetError as left:
                error.add_note(f"The tunnel is gone, and could not be made again as it was: {left}")
            raise

    return run


def _following(switch: SwitchPart | None, seen: TunnelDevice, part: TunnelPart) -> SwitchPart | None:
    """A switch that stood, for the new tunnel: on its underlay, unless it had been given a device of its own."""
    if switch is None or switch.underlay != seen.underlay or part.underlay == seen.underlay:
        return switch
    return SwitchPart()


def _make(place: Place, name: str, wanted: Fields, spec: HostSpec, before: Kept) -> None:
    with place.path() as path, Tunnel.create(name, **wanted, netns=path) as made:
        _attach(made, spec, before)


def _refuse_unknown(encap: Encap, now: TunnelDevice) -> None:
    """Raises ``UnsupportedError`` for an encapsulation that this kernel lacks."""
    if encap is not now.encap and (found := probe_encapsulation(encap)).available is False:
        raise UnsupportedError(found.reason, feature=encap.value, hint="leave encap= as it is")


def _completed(part: TunnelPart, now: TunnelDevice) -> dict[str, Any]:
    """What a tunnel is made again with: an MTU below what its underlay takes stays, if the new one takes it, too."""
    wanted, version = _arguments(part), (part.local or now.local).version
    below = [now.find_underlay(), get_link(now.host, part.underlay)]
    takes = [0 if link is None else link.mtu - part.encap.overhead(version) for link in below]
    if part.mtu is None and now.mtu < takes[0] and now.mtu <= takes[1]:
        wanted["mtu"] = now.mtu
    return wanted


# -- the agent ---------------------------------------------------------------------------------------------


def _agent(
    spec: HostSpec, device: TunnelDevice | None, datapath: DataPath | None, owner: str | None
) -> Iterator[Step]:
    name = device.name if device is not None else spec.tunnel.name if spec.tunnel is not None else ""
    subject, part = Subject("agent", name), spec.agent or AgentPart()
    if datapath is None:
        yield Step(
            Change("create", subject, part, None, "attached, with guard and tables"),
            Rank.AGENT,
            _attach_agent(spec),
        )
        return
    capacity = capacity_of(datapath.maps)
    there = {
        "hook": deciding_hook(datapath.maps.read_meta().layers),
        "max_endpoints": capacity.max_endpoints,
        "max_local": capacity.max_local,
        "shortcut": datapath.maps.read_meta().shortcut,
    }
    wanted = {field: getattr(part, field) for field in there}
    differing = differences(wanted, there)
    if differing:
        values = {field: wanted[field] for field in differing}
        found = {field: there[field] for field in differing}
        reason = ", ".join(f"{field} {text(found[field])} -> {text(values[field])}" for field in values)
        if [*values] == ["shortcut"]:
            change = Change("update", subject, values, found, reason)
            yield Step(change, Rank.AGENT, _update_agent(part.shortcut or Shortcut.OFF))
            return
        reason += "; every endpoint is made again"
        change = Change("replace", subject, values, found, reason, True)
        yield Step(change, Rank.AGENT, _replace_agent(spec, owner, datapath.meta_id), plans_again=True)


@contextmanager
def _found(device: TunnelDevice) -> Generator[DataPath | None, None, None]:
    """The data path of a tunnel; None if there is none, or it is unfinished."""
    found = DataPath.find(device.hooks)
    if found is None:
        yield None
        return
    with closing(found):
        yield found if found.maps.read_meta().state is State.LIVE else None


def _attach(tunnel: Tunnel, spec: HostSpec, before: Kept) -> None:
    """Attach an agent, with what an earlier one had."""
    wanted = before.agent
    with TransitAgent.attach(
        tunnel,
        peers=None if spec.peers is None and before.is_first else (),
        max_endpoints=wanted.max_endpoints,
        max_local=wanted.max_local,
        hook="auto" if wanted.hook is None else wanted.hook,
        shortcut=wanted.shortcut,
    ) as agent:
        before.put(datapath_of(agent), str(place_of(tunnel)))
        if before.switch is not None:
            _attach_switch_to(agent, before.switch)


def _attach_agent(spec: HostSpec) -> Callable[[Place], object]:
    def run(place: Place) -> None:
        with place.opened() as tunnel:
            _attach(tunnel, spec, Kept.of(None, spec))

    return run


def _update_agent(shortcut: Shortcut) -> Callable[[Place], object]:
    def run(place: Place) -> None:
        with place.opened() as tunnel, TransitAgent.open(tunnel) as agent:
            agent.update(shortcut=shortcut)

    return run


def _replace_agent(spec: HostSpec, owner: str | None, seen: int) -> Callable[[Place], object]:
    @whole
    def run(place: Place) -> None:
        with place.opened() as tunnel:
            device = device_of(tunnel)
            with place.session.locked():
                datapath = place.datapath()
                if datapath.meta_id != seen:
                    raise Stale
                kept.refuse_users(datapath, spec, owner)
                before = Kept.of(datapath, spec)
                before.refuse_too_many(spec)
                install.refuse_unfit(device, before.agent)
                install.remove(device, datapath, force=True)
            place.kept = before
            _attach(tunnel, spec, before)

    return run


# -- the switch --------------------------------------------------------------------------------------------


def _switch(part: SwitchPart, datapath: DataPath | None) -> Iterator[Step]:
    standing = [] if datapath is None else switches.own(datapath)
    subject = Subject("switch", part.underlay or (standing[0].link.name if standing else "underlay"))
    if not standing:
        reason = "attached, with forwarding on"
        yield Step(Change("create", subject, part, None, reason), Rank.SWITCH, _attach_switch(part))
        return
    there: dict[str, object] = {"underlay": standing[0].link.name, "mode": standing[0].mode}
    wanted = attrs.asdict(part, recurse=False)
    given = None if part.underlay is None else get_link(standing[0].host, part.underlay)
    if given is not None and given.ifindex == standing[0].link.ifindex:
        there["underlay"] = part.underlay  # by its alternative name, perhaps
    differing = differences(wanted, there)
    if differing:
        values = {name: wanted[name] for name in differing}
        found = {name: there[name] for name in differing}
        reason = ", ".join(f"{name} {text(found[name])} -> {text(values[name])}" for name in values)
        change = Change("replace", subject, values, found, f"{reason}; the guard bounces meanwhile")
        before = SwitchPart(underlay=standing[0].link.name, mode=standing[0].mode)
        yield Step(change, Rank.SWITCH, _replace_switch(part, standing[0].standing.program_id, before))


def _attach_switch(part: SwitchPart) -> Callable[[Place], object]:
    def run(place: Place) -> None:
        with place.opened() as tunnel, TransitAgent.open(tunnel) as agent:
            _attach_switch_to(agent, part)

    return run


def _attach_switch_to(agent: TransitAgent, part: SwitchPart) -> None:
    TransitSwitch.attach(agent, underlay=part.underlay, mode="auto" if part.mode is None else part.mode)


def _replace_switch(part: SwitchPart, seen: int, before: SwitchPart) -> Callable[[Place], object]:
    @whole
    def run(place: Place) -> None:
        datapath = place.datapath()
        with datapath.writing():
            standing = [each.standing.program_id for each in switches.own(datapath)]
            if standing != [seen] and not place.moved:
                raise Stale
            switches.clear(datapath)
        try:
            _attach_switch(part)(place)
        except BaseException as error:
            try:
                _attach_switch(before)(place)
            except MizarnetError as left:
                error.add_note(f"The switch is off, and could not be attached again: {left}")
            raise

    return run
