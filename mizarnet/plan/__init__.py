# SPDX-License-Identifier: Apache-2.0
"""What would change if a host became as its specification says, and doing exactly that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, final

import attrs

from mizarnet._datapath import repairs
from mizarnet._datapath.checks import look_at_host
from mizarnet._datapath.checks.confirm import confirmed
from mizarnet._datapath.feeds import Feed
from mizarnet._datapath.host import Host as Session
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._kernel.jobs import whole
from mizarnet._model import arguments
from mizarnet._model.described import Described
from mizarnet._model.finding import Action, Change, Finding, FindingKind, Report, Subject
from mizarnet._model.html import table
from mizarnet._model.public import public
from mizarnet._model.specs import EndpointSpec
from mizarnet._plain import plain
from mizarnet.errors import (
    BulkError,
    CapacityError,
    ClosedError,
    ForkedError,
    InvalidTypeError,
    InvalidValueError,
    MizarnetError,
    StalePlanError,
)
from mizarnet.hostspec import HostSpec
from mizarnet.plan import entries
from mizarnet.plan.comparison import Comparison, compare
from mizarnet.plan.step import AnyStep, EntryStep, HeirStep, Place, Rank, RepairStep, Stale, Step

ACTIONS: tuple[Action, ...] = ("create", "update", "replace", "delete")
Progress = Callable[[int, int, Change], object]
_TOGETHER = 4096
"""Number of entries that are written under one lock."""


@public
@final
class Plan(Described):
    """The differences between a specification and the kernel, as they were when the plan was made.

    Made by :meth:`mizarnet.Host.plan`. It is true when there are changes.

    Attributes:
        changes: Changes, in the order in which they are made.
        conflicts: Entries that are not as specified, and belong to another feed, or to an endpoint of this host that
            stays, gateways of another owner, and a tunnel or agent that cannot be replaced without ending what neither
            the specification has nor the owner: they are left alone.

    Raises:
        ClosedError: In :meth:`apply`, after the host's handle was closed.
        ForkedError: In :meth:`apply`, in a child of the process that made the host's handle.
    """

    _DESCRIBED = ("changes", "conflicts")

    def __init__(
        self, session: Session, found: Comparison, spec: HostSpec, *, netns: str | None, owner: str | None
    ) -> None:
        """Not for users: see :meth:`mizarnet.Host.plan`."""
        self._session, self._spec = session, spec
        self._netns, self._owner = netns, owner
        self._found = found
        self.changes: tuple[Change, ...] = tuple(step.change for step in found.steps)
        self.conflicts: tuple[Change, ...] = tuple(found.conflicts)

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        lines = [f" {each}" for each in self.changes]
        lines += [f" ! {each.message}" for each in self.conflicts]
        counted = Counter(each.action for each in self.changes)
        summary = [f"{counted[action]} to {action}" for action in ACTIONS if counted[action]]
        if self.conflicts:
            summary.append(f"{len(self.conflicts)} left to others")
        return "\n".join([*lines, f" {', '.join(summary) or 'nothing to change'}."])

    def __repr__(self) -> str:
        return f"<Plan of {len(self.changes)} changes>"

    def to_dict(self) -> dict[str, Any]:
        """Changes and conflicts in a form that JSON can hold."""
        return {"changes": plain(self.changes), "conflicts": plain(self.conflicts)}

    def _repr_html_(self) -> str:
        rows: list[tuple[object, ...]] = [
            (each.action, each.object, each.reason, each.interrupts) for each in self.changes
        ]
        rows += [("conflict", each.object, each.reason, False) for each in self.conflicts]
        return table(f"plan: {len(self.changes):,}", ("action", "object", "what", "interrupts"), rows)

    def apply(
        self,
        *,
        allow: Iterable[Action] = ("create", "update", "delete"),
        progress: Progress | None = None,
    ) -> Report:
        """Make these changes, and no others, in an order that is safe under traffic.

        Peers are widened first, then networks and remotes come, then endpoints; what goes, goes the other way round. A
        key that turns from an endpoint of this host to a remote, or back, is never absent; that of a gateway is for as
        long as it is made or deleted. After tunnel or agent were replaced, what follows from that is planned and made
        as well. That takes ``"create"``, too, since all endpoints are made again, and ``"delete"`` if the specification
        does not have some of them; entries, and what else the specification leaves open, stay. The same holds for
        switch and gateways that went to another device with their tunnel and are specified for one.

        Args:
            allow: Actions that may be done: ``"create"``, ``"update"``, ``"replace"``, ``"delete"``.
            progress: Called after each change with the number of those that are done with, of all, and the change.

        Returns:
            What was done, and what is left: what ``allow`` does not have.

        Raises:
            InvalidValueError: ``allow`` has an action that there is not; nothing was done.
            InvalidTypeError: ``progress`` cannot be called; nothing was done.
            StalePlanError: Some objects are not as they were when the plan was made; nothing of these was done.
            BulkError: Some changes failed; ``report`` has what was done and what is left. Planning and applying again
                finishes.
        """
        given = arguments.check_items(allow, argument="allow", what="actions")
        allowed = frozenset[Action](map(_action, given))
        if progress is not None and not callable(progress):
            raise InvalidTypeError(
                f"progress must be a function, not {type(progress).__name__}", argument="progress"
            )
        self._session.open_netns().close()  # of a handle that is closed, or of another process, nothing is done
        with Place(
            self._session, self._netns, self._found.tunnel, self._found.seen, feed_of(self._owner)
        ) as place:
            run = _Run(place, allowed, progress, len(self._found.steps), _ends(self._found.steps))
            run.all(self._found.steps)
            if run.plans_again or place.moved:
                spec = self._spec
                if place.kept is not None:
                    tunnels = TunnelDevice.all(self._session)
                    largest = max((each.mtu for each in tunnels if each.name == place.tunnel), default=0)
                    spec = place.kept.complete(spec, largest)
                again = compare(self._session, spec, place.feed, self._owner).steps
                if not run.plans_again:
                    again = [
                        step for step in again if _is_follower(step) and step.change.object not in run.unmade
                    ]
                run.again([step for step in again if not _is_replaced(step)])
        return run.report()


def _is_follower(step: AnyStep) -> bool:
    """Whether a step is for what went to another device with its tunnel, though it is specified for one."""
    return step.change.object.kind in ("switch", "gateway") and step.change.action in ("update", "replace")


def _is_replaced(step: AnyStep) -> bool:
    """Whether a step would replace tunnel or agent once more."""
    return isinstance(step, Step) and step.plans_again


def _ends(steps: Iterable[AnyStep]) -> bool:
    """Whether some of the steps delete an endpoint or a gateway."""
    return any(isinstance(each, Step) and each.change.action == "delete" for each in steps)


def _action(value: object) -> Action:
    for each in ACTIONS:
        if value == each:
            return each
    raise InvalidValueError(
        f"there is no action {value!r}", argument="allow", value=value, hint=f"there are {', '.join(ACTIONS)}"
    )


def feed_of(owner: str | None) -> Feed:
    """The feed of an owner's entries; raises ``InvalidValueError`` for what can be no owner."""
    if owner is None:
        return Feed.of("")
    if not isinstance(owner, str):
        raise InvalidTypeError(f"owner must be a str, not {type(owner).__name__}", argument="owner")
    if len(owner) < 2 or owner.find("/") != len(owner) - 1:
        raise InvalidValueError(
            f"owner {owner!r} does not end with its only '/'",
            argument="owner",
            value=owner,
            hint='write it like "svc/": so no owner begins another',
        )
    if owner == "gateway/" or (owner[:-1].isascii() and owner[:-1].isdigit()):
        raise InvalidValueError(
            f"owner {owner!r} begins names that endpoints have by default",
            argument="owner",
            value=owner,
            hint="choose one that is no VNI, and not 'gateway/'",
        )
    try:
        return Feed.of(f"plan:{owner}")
    except InvalidValueError as refused:
        raise InvalidValueError(
            refused.message, argument="owner", value=owner, hint="a shorter one"
        ) from None


def make(session: Session, spec: HostSpec, *, netns: str | None, owner: str | None) -> Plan:
    """The plan of a specification for a host; raises as :meth:`mizarnet.Host.plan` does."""
    if not isinstance(spec, HostSpec):
        raise InvalidTypeError(f"spec must be a HostSpec, not {type(spec).__name__}", argument="spec")
    feed = feed_of(owner)
    if owner is not None:
        _refuse_names(spec, owner)
    return Plan(session, compare(session, spec, feed, owner), spec, netns=netns, owner=owner)


def _refuse_names(spec: HostSpec, owner: str) -> None:
    """Raises ``InvalidValueError`` for a name that does not begin with the owner."""
    named = [(f"endpoints[{number}].name", each.name) for number, each in enumerate(spec.endpoints or ())]
    named += [(f"gateways[{number}].name", each.name) for number, each in enumerate(spec.gateways or ())]
    for path, name in named:
        if not name.startswith(owner):
            raise InvalidValueError(
                f"{path}: {name!r} does not begin with the owner {owner!r}",
                argument="spec",
                value=name,
                hint=f"call it {owner + name.replace('/', '-')!r}",
            )


@attrs.define
class _Run:
    """One application of a plan."""

    place: Place
    allowed: frozenset[Action]
    progress: Progress | None
    total: int
    ends: bool
    done: list[Change] = attrs.field(factory=list[Change], init=False)
    left: list[Change] = attrs.field(factory=list[Change], init=False)
    stale: list[Change] = attrs.field(factory=list[Change], init=False)
    failed: dict[Change, MizarnetError] = attrs.field(factory=dict[Change, MizarnetError], init=False)
    stopped: bool = attrs.field(default=False, init=False)
    plans_again: bool = attrs.field(default=False, init=False)
    _ended: int = attrs.field(default=0, init=False)
    _waiting: list[list[AnyStep]] = attrs.field(factory=list["list[AnyStep]"], init=False)

    def all(self, steps: list[AnyStep]) -> None:
        """Take all steps, in their order."""
        at = 0
        while at < len(steps):
            step = steps[at]
            together = [step]
            if isinstance(step, (EntryStep, RepairStep)):
                together = _alike(steps, at)
            at += len(together)
            if self.plans_again:
                continue  # found anew
            if isinstance(step, HeirStep):
                continue  # told with the endpoint that leaves
            for each in together:
                if self.stopped or not self._may(each):
                    self._end(self.left, each.change)
            if self.stopped:
                continue
            if self._lacks_network(step):
                self._end(self.left, step.change)
                continue
            self._take([each for each in together if self._may(each)])
            if isinstance(step, Step) and step.change in (*self.left, *self.stale, *self.failed):
                # Without a tunnel, or an agent, there is nothing for the rest.
                self.stopped |= step.rank <= Rank.AGENT and step.change.action == "create"
        waiting, self._waiting = self._waiting, []
        for together in waiting:
            self._take(together, again=True)
        for each in steps:
            if isinstance(each, HeirStep) and not self.plans_again:
                self._end_heir(each)

    @property
    def unmade(self) -> set[Subject]:
        """Objects of changes that were not made."""
        return {each.object for each in (*self.left, *self.stale, *self.failed)}

    def _may(self, step: AnyStep) -> bool:
        """Whether a step is allowed; one that ends endpoints, only if they may be made again."""
        if step.rank is Rank.GATEWAYS_COME and not self.allowed & {"create", "replace"}:
            return False
        if step.rank is Rank.GATEWAYS_WENT and any(each.kind == "gateway" for each in self.unmade):
            return False
        needed: set[Action] = {step.change.action}
        if _is_replaced(step):
            needed.add("create")
            if self.ends:
                needed.add("delete")
        return needed <= self.allowed

    def again(self, steps: list[AnyStep]) -> None:
        """Take the steps that were found anew."""
        self.plans_again = False
        self.total = self._ended + len(steps)
        self.all(steps)

    def _lacks_network(self, step: AnyStep) -> bool:
        """Whether an endpoint that gets its gateway from its network would be made without, as that was not written."""
        wanted = step.change.wanted
        if (
            not isinstance(wanted, EndpointSpec)
            or wanted.gateway is not None
            or step.change.action != "create"
        ):
            return False
        missing = [
            each.object
            for each in (*self.left, *self.stale, *self.failed)
            if each.object.kind == "network" and each.action != "delete"
        ]
        return any(each.name.startswith(f"{wanted.vni}/") for each in missing)

    def _end_heir(self, step: HeirStep) -> None:
        went = any(
            each.object.kind == "endpoint" and each.object.name == step.endpoint and each.action != "create"
            for each in self.done
        )
        self._end(self.done if went else self.left, step.change)

    def _take(self, steps: list[AnyStep], *, again: bool = False) -> None:
        if not steps:
            return
        ended: list[tuple[list[Change], Change]] = []
        try:
            ended += self._run(steps)
        except Stale:
            ended.append((self.stale, steps[0].change))
        except (ClosedError, ForkedError):
            raise
        except MizarnetError as error:
            if isinstance(error, CapacityError) and isinstance(steps[0], EntryStep) and not again:
                self._waiting.append(steps)  # for what goes: a table that is nearly full has no room for both
                return
            # What was replaced is there again as it was, without the endpoints.
            self.plans_again |= _is_replaced(steps[0]) and self.place.kept is not None
            is_stale = isinstance(error, self.place.seen)
            for each in steps:
                if is_stale:
                    ended.append((self.stale, each.change))
                else:
                    self.failed[each.change] = error
                    self._tell(each.change)
        for where, change in ended:
            self._end(where, change)

    def _run(self, steps: list[AnyStep]) -> list[tuple[list[Change], Change]]:
        """Make changes; where each belongs afterwards."""
        first = steps[0]
        if isinstance(first, EntryStep):
            return self._write([each for each in steps if isinstance(each, EntryStep)])
        if isinstance(first, RepairStep):
            return self._repair([each for each in steps if isinstance(each, RepairStep)])
        if isinstance(first, Step):
            first.run(self.place)
            if first.rank <= Rank.AGENT:
                self.place.forget()
            self.plans_again |= first.plans_again
        return [(self.done, first.change)]

    def _write(self, steps: list[EntryStep]) -> list[tuple[list[Change], Change]]:
        table = entries.TABLES[steps[0].table]
        stale = entries.write(self.place.datapath(), self.place.tunnel, table, steps, self.place.feed)
        return [(self.stale if each.key in stale else self.done, each.change) for each in steps]

    @whole
    def _repair(self, steps: list[RepairStep]) -> list[tuple[list[Change], Change]]:
        report = repairs.repair(self.place.session, [each.finding for each in steps])
        left = {each.key for each in report.left if not isinstance(each, Change)}
        if any(each.finding.object.kind == "tunnel" for each in steps):
            # The kernel lowered the devices on the tunnel with it, which counts as right until that is mended.
            after = confirmed(lambda: look_at_host(self.place.session))
            follow = [each for each in after if each.kind is FindingKind.MTU_DIFFERS]
            repairs.repair(self.place.session, follow)
        return [(self.left if each.finding.key in left else self.done, each.change) for each in steps]

    def _end(self, where: list[Change], change: Change) -> None:
        where.append(change)
        self._tell(change)

    def _tell(self, change: Change) -> None:
        self._ended += 1
        if self.progress is not None:
            self.progress(min(self._ended, self.total), self.total, change)

    def report(self) -> Report:
        """What was done; raises for what failed, or was stale."""
        why: dict[Finding | Change, str] = {change: str(error) for change, error in self.failed.items()}
        why.update(dict.fromkeys(self.stale, "it is not as it was when the plan was made"))
        left = (*self.left, *self.stale, *self.failed)
        report = Report(tuple(self.done), left, why)
        stale = [str(each.object) for each in self.stale]
        if self.failed:
            errors: dict[str, Exception] = {str(each.object): error for each, error in self.failed.items()}
            for name in stale:
                errors[name] = StalePlanError(
                    f"{name} is not as it was when the plan was made", changed=[name]
                )
            count = len(errors)
            raise BulkError(
                f"{count} of {count + len(self.done)} changes were not made",
                failed=errors,
                done=[str(each.object) for each in self.done],
                report=report,
                hint="plan again, and apply that",
            )
        if stale:
            raise StalePlanError(
                f"not as when the plan was made: {', '.join(stale)}",
                changed=stale,
                report=report,
                hint="plan again, and apply that",
            )
        return report


def _alike(steps: list[AnyStep], at: int) -> list[AnyStep]:
    """Steps from a place on that are made together with the one there."""
    first = steps[at]
    found = [first]
    for each in steps[at + 1 : at + _TOGETHER]:
        same = type(each) is type(first) and each.rank == first.rank
        if not same or (
            isinstance(first, EntryStep) and isinstance(each, EntryStep) and each.table != first.table
        ):
            break
        found.append(each)
    return found
