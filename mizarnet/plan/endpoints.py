# SPDX-License-Identifier: Apache-2.0
"""The endpoints of a host's specification, compared with records and devices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

import attrs

from mizarnet._datapath.checks import Tables, all_findings
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import LocalEndpoints
from mizarnet._datapath.endpoints.comparison import is_replaced, leads_to
from mizarnet._datapath.endpoints.options import OPTIONS
from mizarnet._datapath.gateways import Gateways
from mizarnet._datapath.lock import SHARED_HOST, TABLES, Section, of_name
from mizarnet._kernel.jobs import whole
from mizarnet._model.codec import Record
from mizarnet._model.differences import differences
from mizarnet._model.enumerations import State
from mizarnet._model.finding import Change, Finding, FindingKind, Subject
from mizarnet._model.layout import varied
from mizarnet._model.specs import EndpointSpec, Kind, MacAddress
from mizarnet._plain import text
from mizarnet.plan import order
from mizarnet.plan.step import AnyStep, Fields, Place, Rank, RepairStep, Stale, Step

IN_PLACE = ("ip", "gateway", "routes", *OPTIONS)
"""Fields of an endpoint that change in place."""
_DEAD = {FindingKind.DEVICE_GONE, FindingKind.NAMESPACE_GONE}
_NOT_LIVE = {*_DEAD, FindingKind.UNFINISHED, FindingKind.ENDING}


@attrs.frozen
class Endpoints:
    """The endpoints of this host, as they were read once.

    Attributes:
        records: Their records, by name.
        findings: What is wrong with each, by name.
    """

    records: Mapping[str, Record]
    findings: Mapping[str, list[Finding]]

    @classmethod
    def read(cls, datapath: DataPath | None) -> Endpoints:
        """Read them; without a data path there are none."""
        if datapath is None:
            return cls({}, {})
        tables = Tables.read(datapath.maps)
        found: defaultdict[str, list[Finding]] = defaultdict(list)
        for each in all_findings(LocalEndpoints.of(datapath), tables):
            if each.object.kind == "endpoint":
                found[each.object.name].append(each)
        return cls({record.spec.name: record for record in tables.records()}, found)

    def keys_of_dead(self) -> frozenset[bytes]:
        """The packed keys of the entries of endpoints whose devices are gone."""
        dead = (name for name, found in self.findings.items() if any(each.kind in _DEAD for each in found))
        records = (self.records[name] for name in dead if name in self.records)
        return frozenset(key for record in records for key in record.pack_endpoints())


def compare(
    found: Endpoints, wanted: Iterable[EndpointSpec], given: Mapping[str, frozenset[str]], owner: str | None
) -> Iterator[AnyStep]:
    """Steps that make the endpoints as they shall be."""
    names: set[str] = set()
    for spec in wanted:
        names.add(spec.name)
        yield from _compare(found, spec, given[spec.name])
    for name, record in found.records.items():
        # A gateway's endpoint goes with the gateway.
        own = (
            owner is not None
            and name.startswith(owner)
            and not (record.private and record.spec.kind is Kind.MACVLAN)
        )
        if own and name not in names:
            change = Change(
                "delete", _subject(name), None, shown(record.spec), "not in the specification", True
            )
            yield Step(
                change, Rank.ENDPOINTS_GO, _delete(name, record, {}), frees=order.of_endpoint(record.spec)
            )


def _compare(found: Endpoints, spec: EndpointSpec, given: frozenset[str]) -> Iterator[AnyStep]:
    name, record = spec.name, found.records.get(spec.name)
    if record is not None:
        spec = completed(record, spec, given)
    findings = found.findings.get(name, [])
    lost = [each for each in findings if each.kind in _NOT_LIVE]
    if record is None or record.state is not State.LIVE or lost:
        reason = "; ".join(each.text for each in lost) if lost else shown(spec)
        change = Change("create", _subject(name), spec, None, reason)
        yield Step(change, Rank.ENDPOINTS, _create(spec, record), takes=order.of_endpoint(spec))
        return
    if "netns" in given and spec.netns == record.spec.netns and is_replaced(record):
        change = Change(
            "replace",
            _subject(name),
            {"netns": spec.netns},
            {},
            f"namespace {spec.netns} was made anew",
            True,
        )
        yield _claiming(Step(change, Rank.ENDPOINTS, _replace(spec, record)), record, spec)
        return
    wanted, there = _fields(spec, record, given)
    fixed = [each for each in wanted if each not in IN_PLACE]
    if wanted:
        reason = ", ".join(f"{each} {text(there[each])} -> {text(wanted[each])}" for each in wanted)
        if fixed:
            change = Change("replace", _subject(name), wanted, there, reason, True)
            yield _claiming(Step(change, Rank.ENDPOINTS, _replace(spec, record)), record, spec)
            return
        change = Change("update", _subject(name), wanted, there, reason)
        step = Step(change, Rank.ENDPOINTS, _update(name, record, wanted, {}))
        yield _claiming(step, record, attrs.evolve(_as_asked(record, given), **wanted))
    for each in findings:
        if each.repairable:
            yield RepairStep(Change("update", each.object, each.wanted, each.found, each.text), each)


def _fields(spec: EndpointSpec, record: Record, given: frozenset[str]) -> tuple[Fields, Fields]:
    """The given fields of an endpoint that differ, as they are wanted, and as they are."""
    wanted = {name: getattr(spec, name) for name in given if name != "name"}
    there = {name: getattr(record.spec, name) for name in wanted}
    if wanted.get("netns") not in (None, there.get("netns")) and leads_to(wanted["netns"], record):
        there["netns"] = wanted["netns"]
    differing = differences(wanted, there)
    order = [field.name for field in attrs.fields(EndpointSpec) if field.name in differing]
    return {name: wanted[name] for name in order}, {name: there[name] for name in order}


def _as_asked(record: Record, given: frozenset[str]) -> EndpointSpec:
    """What an endpoint is, as one would ask for it: without what it has from elsewhere."""
    now = varied(record.spec, mtu=record.mtu if record.own_mtu else None)
    if "gateway" not in given:
        now = varied(now, gateway=None)  # those of the networks, as the change would find them
    return varied(now, netns=None) if record.private else now


def completed(record: Record, spec: EndpointSpec, given: frozenset[str]) -> EndpointSpec:
    """What an endpoint is when it is made again: as given, and what is left open as it was."""
    there = _as_asked(record, given)
    if there.mac == MacAddress.derive(there.vni, there.ip[0].ip):
        there = varied(there, mac=None)
    return attrs.evolve(there, **{name: getattr(spec, name) for name in given})


def _claiming(step: Step, record: Record, after: EndpointSpec) -> Step:
    """The step of an endpoint that is there, with what it takes and frees."""
    before, then = order.of_endpoint(record.spec), order.of_endpoint(after)
    return attrs.evolve(
        step, takes=then - before, frees=before - then, parted=lambda: _part(step.change, record, after)
    )


def _part(
    change: Change, record: Record, after: EndpointSpec, heirs: Mapping[bytes, bytes] = MappingProxyType({})
) -> tuple[Callable[[Place], object], Step]:
    """An endpoint that goes first, and comes again as it shall be when what it needs is free."""
    name, gone = after.name, list[Record]()

    @whole
    def begin(place: Place) -> None:
        datapath = place.datapath()
        with datapath.writing(*_sections(name, heirs)) as maps:
            endpoints = LocalEndpoints(datapath, maps)
            _refuse_stale(endpoints, name, record)
            _hand_over(place, datapath, endpoints, heirs)
            endpoints.delete(name)
            gone.append(record)

    @whole
    def run(place: Place) -> None:
        if not gone:
            _replace(after, record, heirs)(place)
            return
        datapath = place.datapath()
        with datapath.writing(SHARED_HOST, of_name(name)) as maps:
            endpoints = LocalEndpoints(datapath, maps)
            _refuse_stale(endpoints, name, None)
            endpoints.make_instead(record, after)

    return begin, Step(attrs.evolve(change, action="replace"), Rank.ENDPOINTS, run)


def with_heirs(
    step: Step,
    found: Endpoints,
    spec: EndpointSpec | None,
    given: frozenset[str],
    heirs: Mapping[bytes, bytes],
) -> Step:
    """The step of an endpoint that leaves addresses, which lead elsewhere before it does.

    Those of one that is made anew lead elsewhere right after it has gone.

    Args:
        step: Step of the endpoint.
        found: The endpoints of this host.
        spec: What it shall be; None: it is deleted.
        given: The fields of that which were given.
        heirs: Packed entries for these addresses.
    """
    name = step.change.object.name
    record = found.records[name]
    if spec is None:
        run = _delete(name, record, heirs)
        return attrs.evolve(step, run=run, rank=Rank.ENDPOINTS_GO)
    if step.change.action == "update":
        after = attrs.evolve(_as_asked(record, given), **step.change.wanted)
        run = _update(name, record, step.change.wanted, heirs)
    else:
        after = completed(record, spec, given)
        run = _replace(after, record, heirs)
    return attrs.evolve(
        step, run=run, rank=Rank.ENDPOINTS_GO, parted=lambda: _part(step.change, record, after, heirs)
    )


def shown(spec: EndpointSpec) -> str:
    """An endpoint in a line."""
    return f"{', '.join(str(each.ip) for each in spec.ip)} of VNI {spec.vni} in {spec.netns or 'the host'}"


def _subject(name: str) -> Subject:
    return Subject("endpoint", name)


def _refuse_stale(endpoints: LocalEndpoints, name: str, seen: Record | None) -> Record | None:
    """The record that is there; raises ``Stale`` unless it is as it was seen.

    Its MTU does not count, which follows the tunnel's, nor does what an update that was cut off has left: an earlier
    step of the same plan may have changed these.
    """
    record = endpoints.named(name)
    if (None if record is None else _settled(record)) != (None if seen is None else _settled(seen)):
        raise Stale
    return record


def _settled(record: Record) -> Record:
    """A record as it is once it has the tunnel's MTU and nothing is left to be finished."""
    kept = {
        at: attrs.evolve(item, until=0)
        for at, item in record.items.items()
        if item.counts_in(record.generation)
    }
    return attrs.evolve(record, spec=varied(record.spec, mtu=None), items=kept, items_below=0, changed=0)


def _create(spec: EndpointSpec, seen: Record | None) -> Callable[[Place], object]:
    @whole
    def run(place: Place) -> None:
        datapath = place.datapath()
        with datapath.writing(SHARED_HOST, of_name(spec.name)) as maps:
            endpoints = LocalEndpoints(datapath, maps)
            _refuse_stale(endpoints, spec.name, seen)
            endpoints.find_or_make(spec)

    return run


def _replace(
    spec: EndpointSpec, seen: Record, heirs: Mapping[bytes, bytes] = MappingProxyType({})
) -> Callable[[Place], object]:
    @whole
    def run(place: Place) -> None:
        datapath = place.datapath()
        with datapath.writing(*_sections(spec.name, heirs)) as maps:
            endpoints = LocalEndpoints(datapath, maps)
            record = _refuse_stale(endpoints, spec.name, seen)
            Gateways(datapath, maps).refuse_change(seen, IN_PLACE)
            assert record is not None  # as it was seen
            endpoints.replace(record, spec)
            _hand_over(place, datapath, endpoints, heirs)

    return run


def _update(
    name: str, seen: Record, given: Fields, heirs: Mapping[bytes, bytes]
) -> Callable[[Place], object]:
    @whole
    def run(place: Place) -> None:
        datapath = place.datapath()
        with datapath.writing(*_sections(name, heirs)) as maps:
            endpoints = LocalEndpoints(datapath, maps)
            record = _refuse_stale(endpoints, name, seen)
            assert record is not None  # as it was seen
            Gateways(datapath, maps).refuse_change(record, given)
            _hand_over(place, datapath, endpoints, heirs)
            try:
                record, _ = endpoints.update(record, given)
            except BaseException:
                now = endpoints.named(name)
                if heirs and now is not None and _settled(now) == _settled(record):  # nothing of it was done
                    endpoints.hand_over({key: record.pack_endpoints()[key] for key in heirs})
                raise
        LocalEndpoints.of(datapath).complete_device(record)

    return run


def _delete(name: str, seen: Record, heirs: Mapping[bytes, bytes]) -> Callable[[Place], object]:
    @whole
    def run(place: Place) -> None:
        datapath = place.datapath()
        with datapath.writing(*_sections(name, heirs)) as maps:
            endpoints = LocalEndpoints(datapath, maps)
            _refuse_stale(endpoints, name, seen)
            _hand_over(place, datapath, endpoints, heirs)
            endpoints.delete(name)

    return run


def _sections(name: str, heirs: Mapping[bytes, bytes]) -> Iterator[Section]:
    yield SHARED_HOST
    if heirs:
        yield TABLES
    yield of_name(name)


def _hand_over(
    place: Place, datapath: DataPath, endpoints: LocalEndpoints, heirs: Mapping[bytes, bytes]
) -> None:
    if heirs:
        place.sign(datapath)
        endpoints.hand_over(heirs)
