# SPDX-License-Identifier: Apache-2.0
"""Tunnel, agent and switch of a host's specification, compared with the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from mizarnet._model.specs import AgentSpec, TunnelSpec
from mizarnet._plain import text
from mizarnet.agent import TransitAgent
from mizarnet.errors import ExistsError, MizarnetError
from mizarnet.hostspec import AgentPart, HostSpec, SwitchPart, TunnelPart
from mizarnet.plan.step import AnyStep, Fields, Place, Rank, RepairStep, Stale, Step
from mizarnet.switch import TransitSwitch
from mizarnet.tunnel import Tunnel

_CREATED = ("encap", "underlay", "local", "port", "mtu")
_MOVES = ("local", "underlay", "mtu")


def compare(spec: HostSpec, device: TunnelDevice | None, datapath: DataPath | None) -> Iterator[AnyStep]:
    """Steps for the tunnel, the agent and the switch, and for what is wrong with them."""
    if spec.tunnel is not None:
        yield from _tunnel(spec, device)
    usable = datapath is not None and datapath.maps.read_meta().state is State.LIVE
    yield from _agent(spec, device, datapath if usable else None)
    if device is not None and usable and datapath is not None:
        kinds = {"tunnel", "agent", *(["switch"] if spec.switch is not None else [])}
        for each in [*look_at_tunnel(device, datapath), *agent_findings(datapath)]:
            if each.repairable and each.object.kind in kinds:
                yield RepairStep(Change("update", each.object, each.wanted, each.found, each.text), each)
    if spec.switch is not None:
        yield from _switch(spec.switch, datapath if usable else None)


# -- the tunnel --------------------------------------------------------------------------------------------


def _tunnel(spec: HostSpec, device: TunnelDevice | None) -> Iterator[Step]:
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
        yield Step(change, Rank.TUNNEL, _replace_tunnel(device, part, spec), plans_again=True)


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

    return run


def _replace_tunnel(seen: TunnelDevice, part: TunnelPart, spec: HostSpec) -> Callable[[Place], object]:
    @whole
    def run(place: Place) -> None:
        with place.session.locked():
            now = _refuse_stale(place, seen)
            refuse_unfit_spec(now, TunnelSpec(**_arguments(part)))
            install.refuse_unfit(now, _agent_spec(spec))
            now.delete(force=True)
        with place.path() as path, Tunnel.create(part.name, **_arguments(part), netns=path) as made:
            _attach(made, spec)

    return run


# -- the agent ---------------------------------------------------------------------------------------------


def _agent(spec: HostSpec, device: TunnelDevice | None, datapath: DataPath | None) -> Iterator[Step]:
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
    }
    wanted = {field: getattr(part, field) for field in there}
    differing = differences(wanted, there)
    if differing:
        values = {field: wanted[field] for field in differing}
        found = {field: there[field] for field in differing}
        reason = ", ".join(f"{field} {text(found[field])} -> {text(values[field])}" for field in values)
        reason += "; every endpoint is made again"
        change = Change("replace", subject, values, found, reason, True)
        yield Step(change, Rank.AGENT, _replace_agent(spec, datapath.meta_id), plans_again=True)


def _agent_spec(spec: HostSpec) -> AgentSpec:
    part = spec.agent or AgentPart()
    return AgentSpec(hook=part.hook, max_endpoints=part.max_endpoints, max_local=part.max_local)


def _attach(tunnel: Tunnel, spec: HostSpec) -> None:
    part = spec.agent or AgentPart()
    TransitAgent.attach(
        tunnel,
        peers=None if spec.peers is None else (),
        max_endpoints=part.max_endpoints,
        max_local=part.max_local,
        hook="auto" if part.hook is None else part.hook,
    ).close()


def _attach_agent(spec: HostSpec) -> Callable[[Place], object]:
    def run(place: Place) -> None:
        with place.opened() as tunnel:
            _attach(tunnel, spec)

    return run


def _replace_agent(spec: HostSpec, seen: int) -> Callable[[Place], object]:
    @whole
    def run(place: Place) -> None:
        with place.opened() as tunnel:
            with TransitAgent.open(tunnel) as agent:
                if place.datapath().meta_id != seen:
                    raise Stale
                install.refuse_unfit(TunnelDevice.open(place.session, tunnel.name), _agent_spec(spec))
                agent.detach(force=True)
            _attach(tunnel, spec)

    return run


# -- the switch --------------------------------------------------------------------------------------------


def _switch(part: SwitchPart, datapath: DataPath | None) -> Iterator[Step]:
    standing = [] if datapath is None else switches.own(datapath)
    subject = Subject("switch", part.underlay or (standing[0].link.name if standing else "underlay"))
    if not standing:
        reason = "attached, with forwarding on"
        yield Step(Change("create", subject, part, None, reason), Rank.SWITCH, _attach_switch(part))
        return
    there = {"underlay": standing[0].link.name, "mode": standing[0].mode}
    wanted = attrs.asdict(part, recurse=False)
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
            TransitSwitch.attach(
                agent, underlay=part.underlay, mode="auto" if part.mode is None else part.mode
            )

    return run


def _replace_switch(part: SwitchPart, seen: int, before: SwitchPart) -> Callable[[Place], object]:
    @whole
    def run(place: Place) -> None:
        datapath = place.datapath()
        with datapath.writing():
            if [each.standing.program_id for each in switches.own(datapath)] != [seen]:
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
