# SPDX-License-Identifier: Apache-2.0
"""One verb under all its trials: what it left after each, what the next call made of that, and what stayed."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import attrs

import mizarnet as mz
from mizarnet._datapath import age
from tests.crash.attempt import Attempt, Ended, ended
from tests.crash.ground import Ground
from tests.crash.plan import COLLECT, LEAVE, SAME, UNDO, Listed, Trial
from tests.crash.report import Complaint, Tally
from tests.crash.state import State, difference
from tests.crash.verbs import Verb
from tests.support.injector import Calls, Fault

_SHOWN = 6
_KILLS = ("kill", "instant")
_FAILS = ("error", "starve", "persist")


@attrs.frozen
class Reference:
    """What an undisturbed call does.

    Attributes:
        before: State in which it begins.
        full: State that it gives.
        listed: System calls that it makes.
        seconds: How long it takes.
    """

    before: State
    full: State
    listed: Listed
    seconds: float


def warm(ground: Ground, verb: Verb) -> None:
    """Call a verb in each way: what is imported, or noted once for ever, is no part of the calls that are counted."""
    for step in (*verb.again.values(), *verb.again.values()):
        verb.before(ground)
        _close(step(ground))
        verb.undo(ground)
        _require(ground, ground.calm, f"{verb.name} is not undone")


def refer(ground: Ground, verb: Verb) -> Reference:
    """Call a verb undisturbed, and list what it calls."""
    warm(ground, verb)
    full, before, changing = _list(ground, verb, Calls.CHANGING)
    again, _, asking = _list(ground, verb, Calls.ASKING)
    assert again == full, f"{verb.name} does not give the same twice: {difference(full, again)}"
    return Reference(before, full, Listed(changing, asking), _measure(ground, verb))


def _list(ground: Ground, verb: Verb, calls: Calls) -> tuple[State, State, list[str]]:
    verb.before(ground)
    before = ground.read()
    with Attempt(ground, verb, Fault(0, calls)) as attempt:
        found = attempt.outcome()
        assert found is not None, f"{verb.name} died"
        assert found.error is None, f"{verb.name} fails undisturbed: {found.text}"
        full = ground.read()
        listed = attempt.told()
    verb.undo(ground)
    _require(ground, ground.calm, f"{verb.name} is not undone")
    return full, before, listed


def _measure(ground: Ground, verb: Verb) -> float:
    verb.before(ground)
    with Attempt(ground, verb, None) as attempt:
        started = time.monotonic()
        attempt.outcome()
        seconds = time.monotonic() - started
    verb.undo(ground)
    return seconds


def _require(ground: Ground, wanted: State, what: str) -> None:
    found = ground.settled(wanted)
    assert found == wanted, f"{what}: {difference(wanted, found)}"


class Judge:
    """Tries a verb, on ground that is made anew when something was left on it."""

    def __init__(self, make_ground: Callable[[], Ground], verb: Verb, tally: Tally, seed: str) -> None:
        """Call the verb undisturbed first."""
        self._make_ground, self._verb, self._tally = make_ground, verb, tally
        self._random = random.Random(seed)
        self._ground = make_ground()
        try:
            self.reference = refer(self._ground, verb)
        except BaseException:
            self._ground.close()
            raise

    def close(self) -> None:
        """End it: the bystanders say what they lost."""
        try:
            self._ground.assert_no_programs()
        except AssertionError as left:
            self._tally.complain(None, Complaint.LEFT_OVER, str(left))
        self._leave()

    def _leave(self) -> None:
        for delivery in self._ground.deliveries():
            self._tally.sent += delivery.sent
            if delivery.lost or delivery.refused:
                self._tally.complain(None, Complaint.PACKETS, f"bystanders: {delivery}")
        self._ground.close()

    def try_all(self, trials: Sequence[Trial]) -> None:
        """Try each."""
        for trial in trials:
            if not self._try(trial):
                self._leave()
                self._ground = self._make_ground()
                warm(self._ground, self._verb)

    def _try(self, trial: Trial) -> bool:
        """Whether nothing was left over."""
        started, _ = ended(lambda: self._verb.before(self._ground))
        before = self._ground.read()
        if started.error is not None or before != self.reference.before:
            why = started.text or _shown(difference(self.reference.before, before))
            self._tally.complain(trial, Complaint.LEFT_OVER, f"it cannot begin: {why}")
            return False
        with ExitStack() as stack:
            attempt = stack.enter_context(Attempt(self._ground, self._verb, trial.fault))
            case = Case(self._ground, self._verb, self.reference, trial, attempt)
            for complaint, why in case.run(self._random):
                self._tally.complain(trial, complaint, why)
            self._tally.count(trial, case)
        return self._is_undone(trial)

    def _is_undone(self, trial: Trial) -> bool:
        undone, _ = ended(lambda: self._verb.undo(self._ground))
        left = self._ground.settled(self._ground.calm)
        if undone.error is None and left == self._ground.calm:
            return True
        why = undone.text + _shown(difference(self._ground.calm, left))
        self._tally.complain(trial, Complaint.LEFT_OVER, why)
        return False


class Case:
    """One trial.

    Attributes:
        happened: Whether the fault met the call; a call that waits makes more calls at one time than at another.
        left: What the call left: "old", "new" or "between".
        raised: Whether it raised an error.
        repeated: Whether the same call was made again and gave what it should.
        collected: Whether gc was called and gave what it should.
        repaired: Whether something had to be repaired after that.
    """

    def __init__(
        self, ground: Ground, verb: Verb, reference: Reference, trial: Trial, attempt: Attempt
    ) -> None:
        self._ground, self._verb, self._reference = ground, verb, reference
        self._trial, self._attempt = trial, attempt
        self.happened, self.left, self.raised, self.repeated = True, "", False, False
        self.collected = self.repaired = False

    def run(self, chance: random.Random) -> Iterator[tuple[Complaint, str]]:
        """What is wrong."""
        try:
            found = self._outcome(chance)
        except TimeoutError as hang:
            yield Complaint.HANGS, str(hang)
            return
        if found is None:
            self._attempt.told()
        after = self._ground.read()
        self.left = self._what_is(after)
        lost = self._ground.of_others - after
        if lost:
            yield Complaint.OTHERS, _shown(sorted(lost))
        if found is not None:
            self.raised = found.error is not None
            yield from self._of_living(found, after)
        elif self._trial.mode not in _KILLS:
            yield Complaint.DIED, "the process ended"
        yield from self._of_next(after)
        if self._trial.fault is not None:
            self.happened = bool(self._attempt.told())

    def _outcome(self, chance: random.Random) -> Ended | None:
        if self._trial.fault is None:
            time.sleep(chance.uniform(0, self._reference.seconds))
            os.kill(self._attempt.process, signal.SIGKILL)
            return None
        return self._attempt.outcome()

    def _what_is(self, state: State) -> str:
        if state == self._reference.before:
            return "old"
        return "new" if state == self._reference.full else "between"

    # -- of the process, if it lives

    def _of_living(self, found: Ended, after: State) -> Iterator[tuple[Complaint, str]]:
        mode, was = self._trial.mode, difference(self._reference.before, after)
        expected = found.interrupted and mode == "interrupt"
        if not found.typed and not expected:
            yield Complaint.OUTSIDE, found.text
        if found.error is None and after != self._reference.full:
            yield Complaint.UNTRUE, _shown(difference(self._reference.full, after))
        if found.leaked:
            yield Complaint.LEAKS, ", ".join(found.leaked)
        if found.error is None:
            return
        if mode in _FAILS and not self._is_told(found):
            yield Complaint.FIRST_LOST, found.text
        if mode == "fork":
            yield Complaint.RAISED, found.text
        elif mode in ("interrupt", "delay") and self.left == "between" and not self._verb.bulk:
            yield Complaint.HALF, f"{found.error}: {_shown(was)}"
        elif mode in ("error", "starve", "delay") and self._verb.rolls_back and self.left != "old":
            done = "though it was done" if self.left == "new" else _shown(was)
            yield Complaint.NOT_BACK, f"{found.error}: {done}\n{found.text}"

    def _is_told(self, found: Ended) -> bool:
        assert self._trial.fault is not None
        return errno.errorcode[self._trial.fault.errno] in found.numbers

    # -- of the next call

    def _of_next(self, after: State) -> Iterator[tuple[Complaint, str]]:
        if self._trial.way == UNDO:
            return
        if self._trial.way == COLLECT:
            yield from self._of_collection()
            return
        if self._trial.way == LEAVE:
            yield from self._of_the_minute(after)
        full = self._reference.full
        result: object = None
        if self._trial.way == SAME:
            second = self._attempt.again()
        else:
            way = next(iter(self._verb.again)) if self._trial.way == LEAVE else self._trial.way
            second, result = ended(lambda: self._verb.again[way](self._ground))
        state = self._ground.settled(full)
        _close(result)
        if second is None:
            yield Complaint.DIED, "the process ended at the second call"
        elif second.error is not None and not (second.absent and state == full):
            yield Complaint.AGAIN, f"it raises: {second.text}"
        elif state != full:
            yield Complaint.AGAIN, f"it gives something else: {_shown(difference(full, state))}"
        else:
            self.repeated = True

    # -- of a collection

    def _of_collection(self) -> Iterator[tuple[Complaint, str]]:
        """After gc a check finds nothing, and there is what was before the call, or what it gives."""
        with _minute_over(), mz.Host.open(netns=self._ground.host) as host:
            report = host.gc()
            if not report:
                yield Complaint.NOT_CLEAN, str(report)
            found = _wrong(host)
            if found and all(each.repairable for each in found):
                self.repaired = True
                host.repair(found)
                found = _wrong(host)
            if found:
                yield Complaint.NOT_CLEAN, _shown([*map(str, found)])
        wanted = (self._reference.before, self._reference.full)
        state = self._ground.settled(wanted[self.left == "new"])
        if state in wanted:
            self.collected = True
        elif not (self._verb.bulk or self._verb.keeps_part):
            nearest = min(wanted, key=lambda each: len(each ^ state))
            yield Complaint.NOT_COLLECTED, _shown(difference(nearest, state))

    def _of_the_minute(self, after: State) -> Iterator[tuple[Complaint, str]]:
        """Within the minute gc leaves alone what a call may be making."""
        with mz.Host.open(netns=self._ground.host) as host:
            host.gc()
        state = self._ground.read()
        if any(" making" in fact or " deleting" in fact for fact in after) and state != after:
            yield Complaint.NOT_LEFT, _shown(difference(after, state))


@contextmanager
def _minute_over() -> Iterator[None]:
    """As if a minute had gone by since the last step of whoever died."""
    before, age.ABANDONED = age.ABANDONED, 0.0
    try:
        yield
    finally:
        age.ABANDONED = before


_AS_BEFORE = {
    mz.FindingKind.PROGRAM_OUTDATED,
    mz.FindingKind.NEXT_HOP_UNUSABLE,
    mz.FindingKind.SHORTCUT_PAST,
    mz.FindingKind.OTHER_VERSION,
}
"""What a verb may leave on purpose: other programs and tables, networks without next hops, and a shortcut."""


def _wrong(host: mz.Host) -> list[mz.Finding]:
    """What a check finds, but for what is of the whole machine, or left on purpose."""
    found = host.check()
    return [each for each in found if each.object.kind != "kernel" and each.kind not in _AS_BEFORE]


def _close(result: object) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close()


def _shown(lines: Sequence[str]) -> str:
    more = len(lines) - _SHOWN
    return "\n".join([*lines[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])
