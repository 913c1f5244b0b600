# SPDX-License-Identifier: Apache-2.0
"""What is not as it should be: the answer to "is it whole?", of which none is the good case."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import attrs

from mizarnet._model.described import Described
from mizarnet._model.html import table
from mizarnet._model.public import public
from mizarnet._plain import plain


class Severity(enum.Enum):
    """How bad it is, the worst first."""

    CRITICAL = "critical"
    """Tenants are not kept apart, or may not be."""
    ERROR = "error"
    """Packets are lost."""
    WARNING = "warning"
    """Packets may be lost, or something of ours was left behind."""
    NOTICE = "notice"
    """All works, and somebody should know."""


class FindingKind(enum.Enum):
    """What kind of thing is wrong."""

    UNFINISHED = "unfinished"
    """It was begun, and is not whole."""
    ENDING = "ending"
    """Its end has begun."""
    MOVED = "moved"
    """A tunnel lives in another network namespace than the one that its agent was made for."""
    AGENT_GONE = "agent gone"
    """A tunnel is up, and no program of ours stands on its hooks."""
    OTHER_VERSION = "other version"
    """Another version of this package attached the agent: this one cannot look into its tables."""
    TWO_AGENTS = "two agents"
    """Programs of two agents are on the hooks of one tunnel."""
    PROGRAM_MISSING = "program missing"
    """No program of ours stands on a place of the tunnel's hooks."""
    PROGRAM_AHEAD = "program ahead"
    """A program of other software runs before agent or guard, and can let frames past them."""
    PROGRAM_OUTDATED = "program outdated"
    """A program is of another build than this package."""
    CONSTANTS_DIFFER = "constants differ"
    """A program works for another address or MTU than the tunnel has: a change of the tunnel was not finished."""
    LIFELINE_MISSING = "lifeline missing"
    """The map is empty by which a program on the underlay knows that its tunnel lives, or its device is on the host."""
    TUNNEL_GONE = "tunnel gone"
    """The tunnel's device does not exist any more."""
    TUNNEL_DOWN = "tunnel down"
    """The tunnel's device is down."""
    QDISC_DIFFERS = "qdisc differs"
    """A queueing discipline on the tunnel: frames that wait there get each other's destinations."""
    NOT_SILENT = "not silent"
    """The tunnel's device speaks ARP or multicast of its own."""
    ADDRESS_ADDED = "address added"
    """The tunnel's device has an address of the host."""
    MASTER_SET = "master set"
    """A bridge, bond or switch has the tunnel for itself."""
    UNDERLAY_GONE = "underlay gone"
    """The device that leads to the other hosts does not exist any more."""
    UNDERLAY_DOWN = "underlay down"
    """The device that leads to the other hosts is down, or has no carrier."""
    UNDERLAY_MTU = "underlay MTU"
    """The underlay, or the route to a host, takes smaller packets than the tunnel sends."""
    UNDERLAY_ADDRESS = "underlay address"
    """This host lacks the address that the tunnel's packets come from."""
    NO_ROUTE = "no route"
    """This host has no route to another host."""
    NEIGHBOUR_FAILED = "neighbour failed"
    """The next hop to another host does not answer."""
    NEIGHBOURS_FULL = "neighbours full"
    """The kernel's table of neighbours, one for all namespaces, is nearly full."""
    PEER_MISSING = "peer missing"
    """Packets of a host that entries name are refused here, since no peer prefix contains its address."""
    LEADS_HERE = "leads here"
    """An entry leads to another host by an address that is this host's own."""
    NEXT_HOP_UNUSABLE = "next hop unusable"
    """The next hop of a network has no entry, or is an endpoint of this host that may not forward."""
    TABLE_NEARLY_FULL = "table nearly full"
    """A table has hardly any room left."""
    LOSS = "loss"
    """The tunnel's device lost packets between two looks."""
    DEVICE_GONE = "device gone"
    """The device of an endpoint is not where its record says."""
    NAMESPACE_GONE = "namespace gone"
    """The namespace of an endpoint has ended, as with a container that ended without a word."""
    NAMESPACE_REPLACED = "namespace replaced"
    """Another namespace has the name of an endpoint's by now, and the endpoint lives on in the one that had it."""
    DEVICE_DOWN = "device down"
    """The device of an endpoint is down."""
    MAC_DIFFERS = "MAC differs"
    """A device has another MAC than it was made with."""
    MODE_DIFFERS = "mode differs"
    """An endpoint's device is not private: its frames reach others without the agent."""
    NAME_DIFFERS = "name differs"
    """An endpoint's device was renamed."""
    MTU_DIFFERS = "MTU differs"
    """The MTU of a device is another one than it was made with."""
    ADDRESS_LOST = "address lost"
    """The device of an endpoint lacks one of its addresses."""
    ROUTE_LOST = "route lost"
    """The namespace of an endpoint lacks a route through its device."""
    ENTRY_DIFFERS = "entry differs"
    """A table has no such entry for an endpoint, or another one."""
    ENTRY_LEFT = "entry left"
    """A table has an entry of an endpoint that does not exist."""
    DEVICE_LEFT = "device left"
    """A device on the tunnel is no endpoint's."""
    NAMESPACE_LEFT = "namespace left"
    """A namespace that was made for a VM's endpoint has lost it."""
    SWITCH_LEFT = "switch left"
    """A transit switch's program is on a device, and its tunnel is gone."""
    SWITCH_GONE = "switch gone"
    """The program of a transit switch was taken off its device."""
    SHORTCUT_LEFT = "shortcut left"
    """A shortcut's program is on a device, and its tunnel is gone."""
    SHORTCUT_GONE = "shortcut gone"
    """The program of a shortcut that is wanted is not on the underlay."""
    SHORTCUT_UNWANTED = "shortcut unwanted"
    """The program of a shortcut is on a device where it shall not be, or must not."""
    SHORTCUT_PAST = "shortcut past"
    """A shortcut works, and what the host does with packets on the kernel's way does not happen."""
    READER_LEFT = "reader left"
    """A reader of events is gone without a word, and the memory of its events is still there."""
    FORWARDING_OFF = "forwarding off"
    """A device does not forward: past a transit switch every packet takes the way through the guard, and nothing gets
    through a gateway."""
    GATEWAY_LEFT = "gateway left"
    """The endpoint, the namespace or the tunnel of a gateway is gone."""
    RULES_DIFFER = "rules differ"
    """The nftables rules of gateways are not what they shall be, so tenants may reach tunnels or the host."""
    WAY_OUT_OPEN = "way out open"
    """A router that is no gateway leads a VNI out by a host that translates addresses, and reaches the ports of tunnels
    from there."""
    FORWARD_DROPS = "forward drops"
    """A chain of other software drops what gateways forward."""


@public
@attrs.frozen(order=True)
class Subject(Described):
    """The thing that a finding is about, such as ``Subject("endpoint", "web")``.

    Attributes:
        kind: ``"tunnel"``, ``"agent"``, ``"switch"``, ``"shortcut"``, ``"endpoint"``, ``"underlay"``,
            ``"host"`` (another one, by its address), ``"network"``, ``"table"``, ``"device"``, ``"namespace"``,
            ``"gateway"`` (by its VNI), ``"reader"`` (by its place), ``"rules"`` or ``"kernel"``.
        name: Name of it.
    """

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Cure(enum.Enum):
    """What can be done about a finding."""

    REPAIR = "repair"
    """``Host.repair()`` mends it."""
    COLLECT = "collect"
    """``Host.gc()`` removes what is left."""
    EITHER = "either"
    """``Host.repair()`` makes it whole, or ``Host.gc()`` removes it."""
    NONE = "none"
    """It takes somebody who knows what is wanted."""


_K, _S = FindingKind, Severity
_TRAITS: dict[FindingKind, tuple[Severity, Cure]] = {
    _K.UNFINISHED: (_S.ERROR, Cure.COLLECT),
    _K.ENDING: (_S.ERROR, Cure.COLLECT),
    _K.MOVED: (_S.ERROR, Cure.NONE),
    _K.AGENT_GONE: (_S.CRITICAL, Cure.REPAIR),
    _K.OTHER_VERSION: (_S.NOTICE, Cure.NONE),
    _K.TWO_AGENTS: (_S.CRITICAL, Cure.NONE),
    _K.PROGRAM_MISSING: (_S.CRITICAL, Cure.REPAIR),
    _K.PROGRAM_AHEAD: (_S.CRITICAL, Cure.NONE),
    _K.PROGRAM_OUTDATED: (_S.NOTICE, Cure.NONE),
    _K.CONSTANTS_DIFFER: (_S.ERROR, Cure.REPAIR),
    _K.LIFELINE_MISSING: (_S.WARNING, Cure.REPAIR),
    _K.TUNNEL_GONE: (_S.ERROR, Cure.NONE),
    _K.TUNNEL_DOWN: (_S.ERROR, Cure.REPAIR),
    _K.QDISC_DIFFERS: (_S.CRITICAL, Cure.REPAIR),
    _K.NOT_SILENT: (_S.WARNING, Cure.REPAIR),
    _K.ADDRESS_ADDED: (_S.WARNING, Cure.REPAIR),
    _K.MASTER_SET: (_S.ERROR, Cure.REPAIR),
    _K.UNDERLAY_GONE: (_S.ERROR, Cure.NONE),
    _K.UNDERLAY_DOWN: (_S.ERROR, Cure.NONE),
    _K.UNDERLAY_MTU: (_S.ERROR, Cure.NONE),
    _K.UNDERLAY_ADDRESS: (_S.ERROR, Cure.NONE),
    _K.NO_ROUTE: (_S.ERROR, Cure.NONE),
    _K.NEIGHBOUR_FAILED: (_S.ERROR, Cure.NONE),
    _K.NEIGHBOURS_FULL: (_S.WARNING, Cure.NONE),
    _K.PEER_MISSING: (_S.ERROR, Cure.NONE),
    _K.LEADS_HERE: (_S.ERROR, Cure.NONE),
    _K.NEXT_HOP_UNUSABLE: (_S.WARNING, Cure.NONE),
    _K.TABLE_NEARLY_FULL: (_S.WARNING, Cure.NONE),
    _K.LOSS: (_S.WARNING, Cure.NONE),
    _K.DEVICE_GONE: (_S.ERROR, Cure.EITHER),
    _K.NAMESPACE_GONE: (_S.WARNING, Cure.COLLECT),
    _K.NAMESPACE_REPLACED: (_S.WARNING, Cure.NONE),
    _K.DEVICE_DOWN: (_S.ERROR, Cure.REPAIR),
    _K.MAC_DIFFERS: (_S.ERROR, Cure.REPAIR),
    _K.MODE_DIFFERS: (_S.CRITICAL, Cure.REPAIR),
    _K.NAME_DIFFERS: (_S.NOTICE, Cure.NONE),
    _K.MTU_DIFFERS: (_S.WARNING, Cure.REPAIR),
    _K.ADDRESS_LOST: (_S.ERROR, Cure.REPAIR),
    _K.ROUTE_LOST: (_S.WARNING, Cure.REPAIR),
    _K.ENTRY_DIFFERS: (_S.ERROR, Cure.REPAIR),
    _K.ENTRY_LEFT: (_S.WARNING, Cure.COLLECT),
    _K.DEVICE_LEFT: (_S.ERROR, Cure.COLLECT),
    _K.NAMESPACE_LEFT: (_S.WARNING, Cure.COLLECT),
    _K.SWITCH_LEFT: (_S.WARNING, Cure.COLLECT),
    _K.SWITCH_GONE: (_S.WARNING, Cure.REPAIR),
    _K.SHORTCUT_LEFT: (_S.WARNING, Cure.COLLECT),
    _K.SHORTCUT_GONE: (_S.NOTICE, Cure.REPAIR),
    _K.SHORTCUT_UNWANTED: (_S.WARNING, Cure.REPAIR),
    _K.SHORTCUT_PAST: (_S.NOTICE, Cure.NONE),
    _K.READER_LEFT: (_S.NOTICE, Cure.COLLECT),
    _K.FORWARDING_OFF: (_S.WARNING, Cure.REPAIR),
    _K.GATEWAY_LEFT: (_S.WARNING, Cure.COLLECT),
    _K.RULES_DIFFER: (_S.CRITICAL, Cure.REPAIR),
    _K.WAY_OUT_OPEN: (_S.WARNING, Cure.NONE),
    _K.FORWARD_DROPS: (_S.ERROR, Cure.NONE),
}
_BY_CURE = {
    Cure.REPAIR: "Host.repair() mends it",
    Cure.COLLECT: "Host.gc() removes it",
    Cure.EITHER: "Host.repair() makes it again, Host.gc() removes what is left",
}


@public
@attrs.frozen
class Finding(Described):
    """One thing that is not as it should be.

    Attributes:
        kind: What kind of thing.
        object: What it is about.
        wanted: What there should be.
        found: What there is.
        text: The same as a sentence without its subject, with no full stop.
        remedy: What to do about it, as a sentence with no full stop.
        tunnel: Name of the tunnel that it is about, or belongs to; empty for what belongs to none.
        instance: Random id of the object's life, 0 for an object without one: a later object of its name has another.
        interrupts: Whether mending it may interrupt traffic that goes through now.
        evidence: Counters of the kernel that grew meanwhile, by name, as events per second.
    """

    kind: FindingKind
    object: Subject
    wanted: Any
    found: Any
    text: str
    remedy: str = ""
    tunnel: str = ""
    instance: int = 0
    _cure: Cure | None = attrs.field(default=None, alias="cure", kw_only=True, eq=False)
    interrupts: bool = attrs.field(default=False, kw_only=True)
    evidence: Mapping[str, float] = attrs.field(factory=dict[str, float], kw_only=True, eq=False)

    _DESCRIBED = (
        "kind",
        "object",
        "wanted",
        "found",
        "message",
        "severity",
        "repairable",
        "collectable",
        "interrupts",
        "tunnel",
        "evidence",
    )

    @property
    def cure(self) -> Cure:
        """Who mends or removes it."""
        return self._cure or _TRAITS[self.kind][1]

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return _TRAITS[self.kind][0]

    @property
    def repairable(self) -> bool:
        """Whether ``Host.repair()`` can mend it."""
        return self.cure in (Cure.REPAIR, Cure.EITHER)

    @property
    def collectable(self) -> bool:
        """Whether ``Host.gc()`` removes it."""
        return self.cure in (Cure.COLLECT, Cure.EITHER)

    @property
    def message(self) -> str:
        """A sentence of its own: what it is about, what is wrong, what the kernel counted, and what to do."""
        counted = "".join(f", {name} +{rate:.3g}/s" for name, rate in self.evidence.items())
        remedies = [each for each in (self.remedy, _BY_CURE.get(self.cure, "")) if each]
        return f"{self.object}: {self.text}{counted}" + (f"; {', or '.join(remedies)}" if remedies else "")

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells this finding apart from others: two looks that agree in it saw the same thing."""
        return (self.kind, self.object, self.tunnel, self.instance, str(self.wanted))

    def __str__(self) -> str:
        return f"{self.severity.value}: {self.message}"

    def __repr__(self) -> str:
        return f"<Finding {self}>"


Findings: TypeAlias = list[Finding]
"""For classes with a method of the name ``list``."""


Action: TypeAlias = Literal["create", "update", "replace", "delete"]
"""What a change does: ``update`` is in place, ``replace`` is delete and create."""


@public
@attrs.frozen
class Change(Described):
    """One difference between a specification and the kernel, and what makes it good.

    Attributes:
        action: ``"create"``, ``"update"`` in place, ``"replace"`` (delete and create) or ``"delete"``.
        object: What it is about.
        wanted: What the specification says: of an update or replacement, what differs.
        found: What there is.
        reason: The same as a sentence without its subject, with no full stop.
        interrupts: Whether it interrupts traffic that goes through now.
    """

    action: Action
    object: Subject
    wanted: Any = attrs.field(hash=False)
    found: Any = attrs.field(hash=False)
    reason: str
    interrupts: bool = False

    @property
    def message(self) -> str:
        """A sentence of its own."""
        return f"{self.object}: {self.reason}"

    def __str__(self) -> str:
        return f"{_SIGNS[self.action]} {self.message}" + (" (interrupts traffic)" if self.interrupts else "")


_SIGNS: Mapping[str, str] = {"create": "+", "update": "~", "replace": "-/+", "delete": "-"}


@public
@attrs.frozen
class Report(Described):
    """What a repair, a collection or a plan did. It is true when nothing is left.

    Attributes:
        done: Findings that hold no longer; of a plan, changes that were made.
        left: Findings that still hold; of a plan, changes that were not made.
        errors: Why those that were tried are left.
    """

    done: tuple[Finding | Change, ...] = ()
    left: tuple[Finding | Change, ...] = ()
    errors: Mapping[Finding | Change, str] = attrs.field(factory=dict["Finding | Change", str])

    def to_dict(self) -> dict[str, Any]:
        """The attributes in a form that JSON can hold; errors by the finding's message."""
        errors = {each.message: why for each, why in self.errors.items()}
        return {"done": plain(self.done), "left": plain(self.left), "errors": errors}

    def __bool__(self) -> bool:
        return not self.left

    def __str__(self) -> str:
        lines = [f"done  {each}" for each in self.done]
        for each in self.left:
            why = self.errors.get(each)
            lines.append(f"left  {each}" + (f" ({why})" if why else ""))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [("done", *_row(each)) for each in self.done] + [("left", *_row(each)) for each in self.left]
        return table("Report", ("", *_HEADER), rows)


@public
@attrs.frozen
class Health(Described):
    """Whether a host works, for a probe.

    Attributes:
        reasons: What is not as it should be, the worst first.
        counters: Counters of the kernel that grew between the two looks, by name, as events per second.
        filled: Used share of each table with a limit, 0 to 1, by ``"<tunnel>.<table>"``.
    """

    reasons: tuple[Finding, ...]
    counters: Mapping[str, float] = attrs.field(factory=dict[str, float])
    filled: Mapping[str, float] = attrs.field(factory=dict[str, float])

    _DESCRIBED = ("ok", "reasons", "counters", "filled")

    @property
    def ok(self) -> bool:
        """Whether no reason is an error, or worse."""
        return not any(each.severity in (Severity.CRITICAL, Severity.ERROR) for each in self.reasons)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return "\n".join(["ok" if self.ok else "not ok", *map(str, self.reasons)])

    def _repr_html_(self) -> str:
        return table("ok" if self.ok else "not ok", _HEADER, map(_row, self.reasons))


_HEADER = ("severity", "kind", "object", "message")


def _row(finding: Finding | Change) -> tuple[str, str, str, str]:
    if isinstance(finding, Change):
        return finding.action, "change", str(finding.object), finding.reason
    return finding.severity.value, finding.kind.value, str(finding.object), finding.message


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Findings by severity, then by what they are about."""
    order = [*Severity]
    return sorted(findings, key=lambda each: (order.index(each.severity), each.object, each.kind.value))


def of_kind(findings: Iterable[Finding], kinds: Collection[FindingKind]) -> list[Finding]:
    """Those of some kinds."""
    return [finding for finding in findings if finding.kind in kinds]


def messages(findings: Iterable[Finding]) -> str:
    """What is wrong, all of it in one sentence."""
    return "; ".join(finding.text for finding in findings)
