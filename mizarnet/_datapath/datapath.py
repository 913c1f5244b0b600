# SPDX-License-Identifier: Apache-2.0
"""The data path of one tunnel: its maps, found from the programs on the tunnel's hooks.

A handle keeps descriptors of the maps. The hooks tell whether these are still the tunnel's, and before each write the
programs that are missing there are attached again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Self

import attrs

from mizarnet._datapath.dry_run import Context, Outcome
from mizarnet._datapath.dry_run.facts import Facts
from mizarnet._datapath.dry_run.standby import Standby
from mizarnet._datapath.hooks import PLACES
from mizarnet._datapath.host import Host
from mizarnet._datapath.loader import Capacity, build_text, capacity_of, constants, installed_build
from mizarnet._datapath.lock import SHARED_TABLES, Section
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.older import Older
from mizarnet._datapath.survey import Standing, Survey, other_schema, refuse_newer, refuse_older, survey
from mizarnet._datapath.tunnel_hooks import TunnelHooks, warn_outdated
from mizarnet._kernel.bpf import TcxHook
from mizarnet._kernel.closing import refuse_forked
from mizarnet._kernel.threads import Pending
from mizarnet._model import codec
from mizarnet._model.arguments import IPAddress
from mizarnet._model.codec import FIRST, Meta
from mizarnet._model.enumerations import Limit, Program, State
from mizarnet._model.finding import Cure, Finding, FindingKind, Subject, messages, of_kind
from mizarnet._model.log import log
from mizarnet.errors import (
    AgentNotFoundError,
    ClosedError,
    KernelError,
    MizarnetError,
    NotFoundError,
    StaleHandleError,
    UnsupportedError,
)

_ATTACH = "attach one with TransitAgent.attach(tunnel)"
_MAKE_AGAIN = "delete the tunnel with force=True, and create it again: its tables ended with the programs"
CREATE_AGAIN = "create it again: Tunnel.create(), then TransitAgent.attach()"
"""What to do about a tunnel that was deleted."""
_REOPEN = "agent.reopen() goes on with the new one"
# Findings with which a data path cannot be used, and the remedy of each.
_UNUSABLE = {
    FindingKind.UNFINISHED: "TransitAgent.attach(tunnel) completes it",
    FindingKind.ENDING: "TransitAgent.detach(name) removes what is left, attach() as well, to attach another",
    FindingKind.MOVED: "move it back, or delete it and create a tunnel here",
}
_UNUSABLE_OF_OLDER = "let that version of mizarnet complete it, or delete the tunnel with force=True"
# Attempts, each of which fails if the data path is replaced between the survey and the opening of its maps.
_ATTEMPTS = 16


@attrs.define(eq=False)
class _Opened:
    """What is open of a data path: all that another one has another of.

    Attributes:
        hooks: Hooks of the tunnel.
        meta_id: Id of the map ``meta``.
        maps: Maps of the data path; of an older schema they can only be upgraded.
        local: Underlay address of the tunnel, as its programs know it.
        known: Programs that were recognised, by id.
        lost: Why the data path cannot be used any more; None: it can.
        standby: Dry runs on the maps.
    """

    hooks: TunnelHooks
    meta_id: int
    maps: Maps | Older
    local: IPAddress
    known: dict[int, Standing]
    lost: type[MizarnetError] | None = None
    standby: Standby = attrs.field(factory=Standby)

    def learn(self, found: Survey) -> None:
        """Recognise the programs of a survey from now on; with other ones the tunnel may have another address."""
        new = {each.program_id: each for each in found.standing.values() if each.program_id not in self.known}
        if new:
            self.local = self.maps.read_meta().local
            self.known.update(new)


class DataPath:
    """An open data path. Several threads may use it.

    Attributes:
        host: Host of the tunnel; the caller closes it.
        name: Name of the tunnel, for messages.
        subject: Subject of the data path's findings.

    Raises:
        ClosedError: In each method that reads or writes the hooks or maps, after :meth:`close`.
        ForkedError: In the same methods, in a child of the process that opened the data path.
        StaleHandleError: In the same methods: the agent was detached or replaced, or the tunnel is gone.
        AgentNotFoundError: In the same methods: another program took agent and guard off every hook.
    """

    def __init__(self, hooks: TunnelHooks, found: Survey, standing: Standing, maps: Maps | Older) -> None:
        """Not for users: see :meth:`find` and :meth:`open`."""
        self.host: Host = hooks.host
        self.name: str = hooks.name
        self.subject: Subject = Subject("agent", hooks.name)
        self._opened = _Opened(hooks, standing.meta_id, maps, maps.read_meta().local, {})
        self._opened.learn(found)
        self._pid = os.getpid()
        self._closed = False

    @classmethod
    def find(cls, hooks: TunnelHooks) -> Self | None:
        """The data path on a tunnel, finished or not; None if no program of ours is on the hooks.

        Raises:
            LayoutError: Another version of this package attached it, or did not finish an upgrade.
            ExistsError: Programs of two data paths are on the hooks.
            PrivilegeError: ``CAP_SYS_ADMIN`` is missing, without which the kernel opens no program by id.
        """
        return cls._find(hooks, older=False)

    @classmethod
    def _find(cls, hooks: TunnelHooks, *, older: bool) -> Self | None:
        for _ in range(_ATTEMPTS):
            try:
                found = hooks.survey()
            except NotFoundError:
                return None
            standing = found.any
            if standing is None:
                return None
            refuse_newer(found)
            if not older:
                refuse_older(found)
            old = standing.head.schema != Limit.SCHEMA
            maps = Older.open(standing) if old else Maps.open(standing.map_ids)
            if maps is not None:
                return cls(hooks, found, standing, maps)
        return None

    @classmethod
    def open(cls, hooks: TunnelHooks) -> Self:
        """The data path on a tunnel, if it is finished and of this host.

        One of an older schema refuses everything but to be upgraded.

        Raises:
            AgentNotFoundError: There is none, it is unfinished, or the tunnel was moved from another namespace.
            LayoutError: A newer version of this package attached it, or one whose tables cannot be converted.
            ExistsError: As for :meth:`find`.
            PrivilegeError: As for :meth:`find`.
        """
        opened = cls._find(hooks, older=True)
        if opened is None:
            raise AgentNotFoundError(f"no transit agent is attached to {hooks.name}", hint=_ATTACH)
        try:
            meta = opened._opened.maps.read_meta()
            opened.refuse([*opened._of_meta(meta)] if opened.is_older else opened.findings())
        except BaseException:
            opened.close()
            raise
        return opened

    @property
    def is_older(self) -> bool:
        """Whether an older version of this package attached it, so that it can only be upgraded."""
        self._refuse_closed()
        return isinstance(self._opened.maps, Older)

    def become(self, other: DataPath) -> None:
        """Go on as another data path of the same host, which is not to be used or closed any more.

        Calls of other threads see the one or the other. The caller holds the host's lock, so that no writer is in its
        middle, and no descriptor is closed under a reader.
        """
        before, self._opened = self._opened, other._opened
        before.standby.close()
        if self._closed:  # by another thread meanwhile
            self._opened.standby.close()
            self._opened.maps.close()
        else:
            before.maps.retire()

    def close(self) -> None:
        """Close the descriptors of the maps; the programs on the hooks keep the maps."""
        if not self._closed:
            self._closed = True
            self._opened.standby.close()
            self._opened.maps.close()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def hooks(self) -> TunnelHooks:
        """Hooks of the tunnel."""
        return self._opened.hooks

    @property
    def meta_id(self) -> int:
        """Id of the map ``meta``: the identity of the data path."""
        return self._opened.meta_id

    @property
    def local(self) -> IPAddress:
        """Underlay address of the tunnel."""
        return self._opened.local

    @property
    def layers(self) -> int:
        """Layers of the data path when it was opened, as bits of ``Layer``."""
        return self._opened.maps.read_meta().layers

    @property
    def capacity(self) -> Capacity:
        """Sizes of its tables."""
        maps = self._opened.maps
        return maps.capacity if isinstance(maps, Older) else capacity_of(maps)

    @property
    def _maps(self) -> Maps:
        return _current_schema(self._opened)

    @property
    def _lost(self) -> type[MizarnetError] | None:
        return self._opened.lost

    @property
    def maps(self) -> Maps:
        """Maps of the data path, for reading, after a check that they are still the tunnel's."""
        return _current_schema(self._current())

    def ask(self) -> Pending[int]:
        """Ask as :attr:`maps` does, for a caller that cannot wait: the answer is :attr:`meta_id`."""
        self._refuse_unusable()
        return self.host.begin(lambda: self._current().meta_id)

    def _current(self) -> _Opened:
        self._refuse_unusable()
        if self._lost or not self.host.run_near(self._stands):
            self.survey()
        return self._opened

    def survey(self) -> Survey:
        """The programs of ours on the tunnel's hooks, all of this data path."""
        self._refuse_unusable()
        opened = self._opened  # another thread may replace it meanwhile
        try:
            found = self.host.run_near(survey, opened.hooks.ifindex, opened.known)
        except NotFoundError:
            raise _lose(opened, self._gone()) from None
        standing = found.any
        if standing is None:
            raise _lose(opened, self._absence(opened))
        refuse_newer(found)
        if standing.meta_id != opened.meta_id or opened.lost:
            raise _lose(
                opened, StaleHandleError("the transit agent behind this handle was replaced", hint=_REOPEN)
            )
        opened.learn(found)
        return found

    @contextmanager
    def writing(self, *sections: Section, timeout: float | None = None) -> Generator[Maps, None, None]:
        """The maps under the host's lock, with a program at every place.

        Args:
            sections: Sections of the lock that the caller's changes need; without one, the host alone.
            timeout: Time to wait for them, in seconds; None: 10.

        Raises:
            LockTimeoutError: Another process held a section for 10 s.
            ExistsError: A program is missing, and a filter of another program has its place.
            AgentNotFoundError: The data path is unfinished, or the tunnel was moved from another namespace.
        """
        self._refuse_unusable()
        with ExitStack() as held:
            held.enter_context(self.host.locked(*sections, timeout=timeout))
            while sections and self._lacks_something():
                held.close()
                with self.host.locked():
                    self.make_whole()
                held.enter_context(self.host.locked(*sections))
            if not sections:
                self.make_whole()
            # Before the first change, since a stamp that cannot be written must not fail a call that was done.
            self._maps.stamp()
            try:
                yield self._maps
            except KernelError as refused:
                if refused.errno == errno.EPERM:
                    self.survey()  # says so if the tables were frozen, and others have their place by now
                raise
            finally:
                if self._lost is None:
                    self._stamp_again()

    @contextmanager
    def reading(self) -> Generator[Maps, None, None]:
        """The maps under a lock that keeps writers of tables out, for those that cannot be read meanwhile.

        Raises:
            LockTimeoutError: Another process held the lock for 10 s.
        """
        self._refuse_unusable()
        with self.host.locked(SHARED_TABLES):
            yield self.maps

    def rehearse(self, program: Program, frame: bytes, context: Context, facts: Facts) -> Outcome:
        """A dry run of this package's agent or guard on the tables; arguments as for :meth:`DryRun.run`.

        Nothing is changed or sent. The programs are loaded at the first call, which takes about 50 ms.

        Raises:
            BpfError: The kernel refused the frame before the program saw it.
            LayoutError: The object was built from other headers than this package.
            VerifierError: The kernel's verifier rejected a program.
            PrivilegeError: ``CAP_BPF``, ``CAP_NET_ADMIN`` or ``CAP_PERFMON`` is missing.
        """
        opened = self._current()
        with opened.standby.on(_current_schema(opened)) as dry_run:
            return dry_run.run(program, frame, context, facts)

    def _stamp_again(self) -> None:
        try:
            self._maps.stamp()
        except MizarnetError as refused:
            log.warning("%s: what reads its tables may miss the last change: %s", self.name, refused)

    def _lacks_something(self) -> bool:
        """Whether :meth:`make_whole` has something to do; raises as that does."""
        findings = self.findings()
        self.refuse(findings)
        return bool(findings)

    def make_whole(self) -> None:
        """Repair what every write needs, programs and lifeline; raises as :meth:`writing` does."""
        findings = self.findings()
        self.refuse(findings)
        if of_kind(findings, {FindingKind.LIFELINE_MISSING}):
            self.hooks.write_lifeline(self._maps)
        if of_kind(findings, {FindingKind.PROGRAM_MISSING}):
            try:
                self.hooks.put_back(self._maps, self._maps.read_meta().layers)
            except NotFoundError:
                self.survey()  # if it is the device that is gone, this says so
                raise
            self.refuse(self.findings())

    def findings(self) -> list[Finding]:
        """Findings about the programs and maps of the data path, but for their build; none if it is whole."""
        found = self.survey()
        meta = self._maps.read_meta()
        return [*self._of_meta(meta), *self._of_hooks(found, meta), *self._of_lifeline(meta)]

    def outdated(self) -> list[Finding]:
        """Findings about attached programs of another build than this package; reads the package's object file."""
        wanted = installed_build()
        return [
            self.finding(
                FindingKind.PROGRAM_OUTDATED,
                build_text(wanted),
                build_text(build),
                f"programs of build {build_text(build)} are attached",
                "TransitAgent.upgrade() replaces them",
            )
            for build in self.builds - {wanted}
        ]

    def astray(self) -> list[Finding]:
        """A finding if a program works for another address or MTU than the tunnel's; else none."""
        wanted = constants(self._maps)
        others = {each.constants for each in self.survey().standing.values()} - {wanted}
        there, here = codec.whereabouts(wanted), ", ".join(map(codec.whereabouts, others))
        text = (
            f"programs work for {here}, and the tunnel is at {there} by now: a change of it was not finished"
        )
        return [self.finding(FindingKind.CONSTANTS_DIFFER, there, here, text)] if others else []

    def finding(
        self,
        kind: FindingKind,
        wanted: object,
        found: object,
        text: str,
        remedy: str = "",
        cure: Cure | None = None,
    ) -> Finding:
        """A finding about this data path."""
        return Finding(
            kind,
            self.subject,
            wanted,
            found,
            text,
            remedy,
            self.name,
            self.meta_id,
            cure=cure,
        )

    def _of_meta(self, meta: Meta) -> Iterator[Finding]:
        if meta.state is not State.LIVE:
            making = meta.state is State.MAKING
            kind = FindingKind.UNFINISHED if making else FindingKind.ENDING
            text = f"it is being {'attached' if making else 'detached'}, or the process that did it died"
            cure = Cure.EITHER if making else Cure.COLLECT
            yield self.finding(kind, State.LIVE.name, meta.state.name, text, _UNUSABLE[kind], cure)
        cookie, here = meta.head.netns_cookie, self.host.cookie
        if cookie != here:
            text = "its tunnel was moved here from another network namespace"
            yield self.finding(FindingKind.MOVED, cookie, here, text, _UNUSABLE[FindingKind.MOVED])

    def _of_hooks(self, found: Survey, meta: Meta) -> Iterator[Finding]:
        for place in found.missing(meta.layers):
            text = f"no program of mizarnet is attached at {place}"
            yield self.finding(FindingKind.PROGRAM_MISSING, str(place), None, text)

    def _of_lifeline(self, meta: Meta) -> Iterator[Finding]:
        # The kernel deletes the entry when the device leaves its namespace.
        if meta.state is not State.DELETING and self._lacks_lifeline():
            text = "its lifeline is empty, so what is on the underlay passes every packet"
            yield self.finding(FindingKind.LIFELINE_MISSING, self.hooks.ifindex, None, text)

    def _lacks_lifeline(self) -> bool:
        return any(each.lookup(FIRST) is None for each in self._maps.lifelines)

    def refuse(self, findings: list[Finding]) -> None:
        """Raises ``AgentNotFoundError``, with all findings, if one of them makes the data path unusable."""
        unusable = of_kind(findings, _UNUSABLE)
        if unusable:
            kind = unusable[-1].kind
            of_older = self.is_older and kind is not FindingKind.MOVED
            raise AgentNotFoundError(
                f"the transit agent of {self.name} is not whole: {messages(findings)}",
                hint=_UNUSABLE_OF_OLDER if of_older else _UNUSABLE[kind],
            )

    def refuse_detached(self) -> None:
        """Raises ``AgentNotFoundError`` unless ``meta`` still says that the data path is finished and of this host."""
        self.refuse([*self._of_meta(self._maps.read_meta())])

    def warn_if_outdated(self) -> None:
        """Warn if an attached program is of another build than this package."""
        builds = self.builds
        if builds - {installed_build()}:
            warn_outdated(builds)

    @property
    def builds(self) -> set[int]:
        """Builds of the attached programs; where this is of an older schema, also of those that took its place."""
        return (self._there() if self.is_older else self.survey()).builds

    @property
    def is_replaced(self) -> bool:
        """Whether another data path has taken the place of this one, which is of an older schema."""
        there = self._there().any
        return there is not None and there.meta_id != self.meta_id

    def _there(self) -> Survey:
        """The programs on the tunnel's hooks, of whatever data path they are."""
        try:
            found = self.hooks.survey()
        except NotFoundError:
            raise self._gone() from None
        if found.any is None:
            raise StaleHandleError("the transit agent behind this handle was detached", hint=_REOPEN)
        return found

    # -- inside

    def _refuse_unusable(self) -> None:
        self._refuse_closed()
        _current_schema(self._opened)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClosedError(
                "the transit agent's handle is closed", hint="open another with TransitAgent.open()"
            )
        refuse_forked(self._pid, "handle")

    def _stands(self) -> bool:
        """Whether a known program of this data path is on tcx: a quick test, run inside the host's namespace."""
        opened = self._opened
        with suppress(NotFoundError, UnsupportedError):
            for direction in {place.direction for place in PLACES}:
                for program_id in TcxHook(opened.hooks.ifindex, direction).query().program_ids:
                    known = opened.known.get(program_id)
                    if known is not None:
                        return known.meta_id == opened.meta_id
        return False

    def _gone(self) -> MizarnetError:
        return StaleHandleError(f"tunnel {self.name} is gone", hint=f"{CREATE_AGAIN}; {_REOPEN}")

    def _absence(self, opened: _Opened) -> MizarnetError:
        """The error for hooks without a program of ours: detached by a call, or taken off by another program."""
        if opened.lost is None:
            taken = opened.maps.read_meta().state is not State.DELETING
        else:
            taken = opened.lost is AgentNotFoundError
        if taken:
            return AgentNotFoundError(
                f"another program took agent and guard off every hook of {self.name} (tcx, clsact)",
                hint=_MAKE_AGAIN,
            )
        return StaleHandleError("the transit agent behind this handle was detached", hint=_REOPEN)


def _current_schema(opened: _Opened) -> Maps:
    """The maps; raises ``LayoutError`` if they are of an older schema."""
    if isinstance(opened.maps, Older):
        raise other_schema(opened.maps.standing, "agent.upgrade() moves it to this version")
    return opened.maps


def _lose(opened: _Opened, error: MizarnetError) -> MizarnetError:
    """Release maps that are no longer the tunnel's, whose memory no program uses; returns ``error``."""
    if opened.lost is None:
        opened.lost = type(error)
        opened.maps.let_go()
        opened.standby.close()
    return error
