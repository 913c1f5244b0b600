# SPDX-License-Identifier: Apache-2.0
"""The gateways of a host's specification, compared with those of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

import attrs

from mizarnet._datapath.checks import gateway_findings, rules_findings
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.gateway_notes import Noted
from mizarnet._datapath.gateways import Gateways
from mizarnet._kernel.jobs import whole
from mizarnet._kernel.netlink import DEFAULTS, get_link
from mizarnet._model import codec
from mizarnet._model.arguments import IPAddress
from mizarnet._model.differences import differences
from mizarnet._model.finding import Change, Finding, Subject
from mizarnet._model.gateways import GatewaySpec
from mizarnet._model.specs import EndpointKey, Life, NetworkKey
from mizarnet._plain import text
from mizarnet.plan import order
from mizarnet.plan.entries import NETWORKS
from mizarnet.plan.step import AnyStep, Claims, EntryStep, Fields, Place, Rank, RepairStep, Stale, Step

_IN_PLACE = ("publish", "nat", "host_access")


def compare(
    datapath: DataPath | None,
    wanted: tuple[GatewaySpec, ...],
    given: Mapping[int, frozenset[str]],
    owner: str | None,
    conflicts: list[Change],
) -> Iterator[AnyStep]:
    """Steps that make the gateways as they shall be; a VNI has one, so that of another owner is a conflict."""
    gateways = None if datapath is None else Gateways.of(datapath)
    there = {} if gateways is None else {noted.note.vni: noted for noted in gateways.all()}
    for spec in wanted:
        noted = there.get(spec.vni)
        others = None if gateways is None or noted is None else gateways.spec(noted)
        if owner is not None and others is not None and not others.name.startswith(owner):
            conflicts.append(_conflict(spec, others))
            continue
        yield from _compare(gateways, there.get(spec.vni), spec, given[spec.vni])
    if gateways is not None and any(spec.vni in there for spec in wanted):
        yield from _repairs(rules_findings(gateways.host))  # which all gateways of the host share
    for vni, noted in there.items():
        found = None if gateways is None else gateways.spec(noted)
        if owner is None or found is None or not found.name.startswith(owner):
            continue
        if vni not in {spec.vni for spec in wanted}:
            change = Change("delete", _subject(vni), None, _shown(found), "not in the specification", True)
            yield Step(change, Rank.GATEWAYS_GO, _delete(vni, found), frees=order.of_gateway(found))


@attrs.frozen
class Turnover:
    """The keys of entries that gateways of this host come to have by a plan, or have no longer.

    Attributes:
        remotes: Those of their addresses, packed.
        networks: Those of 0.0.0.0/0 and ::/0, packed.
    """

    remotes: frozenset[bytes]
    networks: frozenset[bytes]

    @classmethod
    def of(cls, claims: Iterable[Claims]) -> Turnover:
        """From what gateways take or free."""
        found = [each for claim in claims for each in claim]
        addresses = [cast("tuple[int, IPAddress]", each[1:]) for each in found if each[0] == "address"]
        return cls(
            frozenset(codec.pack_endpoint_key(EndpointKey(vni, ip)) for vni, ip in addresses),
            frozenset(codec.pack_network_key(NetworkKey(vni, DEFAULTS[ip.version])) for vni, ip in addresses),
        )

    @classmethod
    def coming(cls, steps: Iterable[AnyStep]) -> Turnover:
        """What gateways come to have by some steps."""
        return cls.of(each.takes for each in steps if isinstance(each, Step))

    @classmethod
    def going(cls, steps: Iterable[AnyStep]) -> Turnover:
        """What gateways no longer have after some steps."""
        return cls.of(each.frees for each in steps if isinstance(each, Step))

    def __contains__(self, step: EntryStep) -> bool:
        return step.key in (self.networks if step.table == NETWORKS.name else self.remotes)


def _compare(
    gateways: Gateways | None, noted: Noted | None, spec: GatewaySpec, given: frozenset[str]
) -> Iterator[AnyStep]:
    found = None if gateways is None or noted is None else gateways.spec(noted)
    if gateways is None or noted is None or found is None or gateways.life(noted) is not Life.LIVE:
        change = Change("create", _subject(spec.vni), spec, None, _shown(spec))
        yield Step(change, Rank.GATEWAYS, _create(spec, found), takes=order.of_gateway(spec))
        return
    wanted, there = _fields(spec, _as_named(gateways, noted, spec, found), given)
    spec = completed(found, spec, given)
    if wanted:
        reason = ", ".join(f"{name} {text(there[name])} -> {text(wanted[name])}" for name in wanted)
        if all(name in _IN_PLACE for name in wanted):
            change = Change("update", _subject(spec.vni), wanted, there, reason)
            step = Step(change, Rank.GATEWAYS, _update(spec.vni, found, wanted))
            yield _claiming(step, found, attrs.evolve(found, **wanted))
        else:
            change = Change("replace", _subject(spec.vni), wanted, there, reason, True)
            yield _claiming(Step(change, Rank.GATEWAYS, _replace(spec, found, given)), found, spec)
            return
    yield from _repairs(gateway_findings(gateways, noted))


def completed(found: GatewaySpec, spec: GatewaySpec, given: frozenset[str]) -> GatewaySpec:
    """What a gateway is when it is made again: as given, and what is left open as it was."""
    return attrs.evolve(found, **{name: getattr(spec, name) for name in given})


def _claiming(step: Step, found: GatewaySpec, after: GatewaySpec) -> Step:
    """The step of a gateway that is there, with what it takes and frees.

    Ports that it gives up can go first; one that is made anew can go first as a whole.
    """
    before, then = order.of_gateway(found), order.of_gateway(after)
    kept = tuple(each for each in found.publish if each.key in {other.key for other in after.publish})
    between = attrs.evolve(found, publish=kept)

    def part() -> tuple[Callable[[Place], object], Step]:
        begin = _update(found.vni, found, {"publish": kept})
        run = _update(found.vni, between, step.change.wanted)
        return begin, attrs.evolve(step, run=run, parted=None)

    def part_whole() -> tuple[Callable[[Place], object], Step]:
        return _delete(found.vni, found), attrs.evolve(step, run=_create(after, None), parted=None)

    parted = part if step.change.action == "update" else part_whole
    return attrs.evolve(step, takes=then - before, frees=before - then, parted=parted)


def _repairs(findings: Iterable[Finding]) -> Iterator[RepairStep]:
    for each in findings:
        if each.repairable:
            yield RepairStep(Change("update", each.object, each.wanted, each.found, each.text), each)


def _as_named(gateways: Gateways, noted: Noted, spec: GatewaySpec, found: GatewaySpec) -> GatewaySpec:
    """The gateway, with its egress device by the name that the specification has, one of several perhaps."""
    link = get_link(gateways.host, spec.egress)
    same = link is not None and link.ifindex == noted.note.egress
    return attrs.evolve(found, egress=spec.egress) if same else found


def _fields(spec: GatewaySpec, found: GatewaySpec, given: frozenset[str]) -> tuple[Fields, Fields]:
    """The given fields that differ; an address without its prefix is in whatever network there is."""
    wanted = {name: value for name, value in spec.compared().items() if name in given}
    there = {name: getattr(found, name) for name in wanted}
    bare = [each.network.prefixlen == each.max_prefixlen for each in spec.ip]
    if all(bare) and [each.ip for each in spec.ip] == [each.ip for each in found.ip]:
        wanted.pop("ip", None)
    differing = differences(wanted, there)
    return {name: wanted[name] for name in differing}, {name: there[name] for name in differing}


def _conflict(spec: GatewaySpec, there: GatewaySpec) -> Change:
    reason = f"is {there.name!r} of another owner ({_shown(there)}), and not {spec.name!r}; it is left alone"
    return Change("update", _subject(spec.vni), spec, there, reason)


def _subject(vni: int) -> Subject:
    return Subject("gateway", str(vni))


def _shown(spec: GatewaySpec) -> str:
    return f"{text(spec.ip)} by {spec.egress}"


def _seen(place: Place, gateways: Gateways, vni: int, seen: GatewaySpec | None) -> Noted | None:
    noted = gateways.find(vni)
    there = None if noted is None else gateways.spec(noted)
    if place.moved and there is not None and seen is not None:
        there = attrs.evolve(there, egress=seen.egress)  # it may have gone with its tunnel, a step before
    if there != seen:
        raise Stale
    return noted


def _create(spec: GatewaySpec, seen: GatewaySpec | None) -> Callable[[Place], object]:
    @whole
    def run(place: Place) -> None:
        datapath = place.datapath()
        with datapath.writing() as maps:
            gateways = Gateways(datapath, maps)
            _seen(place, gateways, spec.vni, seen)
            gateways.find_or_make(spec)

    return run


def _update(vni: int, seen: GatewaySpec, given: Fields) -> Callable[[Place], object]:
    @whole
    def run(place: Place) -> None:
        datapath = place.datapath()
        with datapath.writing() as maps:
            gateways = Gateways(datapath, maps)
            noted = _seen(place, gateways, vni, seen)
            assert noted is not None  # as it was seen
            gateways.update(noted, seen, given)

    return run


def _replace(spec: GatewaySpec, seen: GatewaySpec, given: frozenset[str]) -> Callable[[Place], object]:
    @whole
    def run(place: Place) -> None:
        datapath = place.datapath()
        with datapath.writing() as maps:
            gateways = Gateways(datapath, maps)
            noted = gateways.find(spec.vni)
            there = None if noted is None else gateways.spec(noted)
            if (
                noted is not None
                and there is not None
                and not _fields(spec, _as_named(gateways, noted, spec, there), given)[0]
            ):
                return  # it went there with its tunnel, a step before
            noted = _seen(place, gateways, spec.vni, seen)
            assert noted is not None and there is not None  # as it was seen
            gateways.replace(noted, there, spec)

    return run


def _delete(vni: int, seen: GatewaySpec) -> Callable[[Place], object]:
    @whole
    def run(place: Place) -> None:
        datapath = place.datapath()
        with datapath.writing() as maps:
            gateways = Gateways(datapath, maps)
            noted = _seen(place, gateways, vni, seen)
            if noted is not None:
                gateways.remove(noted)

    return run
