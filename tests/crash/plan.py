# SPDX-License-Identifier: Apache-2.0
"""What happens at which call: the trials of a verb, of which a run takes all or a part that the seed chooses."""

from __future__ import annotations

import errno
import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import attrs

from tests.support.injector import Calls, Fault

T = TypeVar("T")

SAME, UNDO = "by the same process", "undone"
COLLECT, LEAVE = "collected", "left alone by gc"
"""What ``Host.gc`` does when the minute that a dead maker has is over, and before."""
_DELAY = 12.0  # seconds: the library's own limit is 10
_FORKING = 0.05  # seconds that a call is held while the process forks
_INSTANTS = 24
_LEFT_ALONE = 4  # at one call of so many gc is called before the minute is over, too
_BTF = "open /sys/kernel/btf"

_OF_CHANGES = {
    "bpf": (errno.ENOMEM, errno.EPERM),
    "netlink": (errno.ENOMEM, errno.EPERM),
    "lock": (errno.ENOLCK,),
    "create": (errno.ENOSPC, errno.EPERM),
    "mkdir": (errno.ENOSPC,),
    "unlink": (errno.EPERM,),
    "mknod": (errno.EPERM,),
    "mount": (errno.ENOMEM, errno.EPERM),
    "umount": (errno.EPERM,),
    "unshare": (errno.ENOSPC, errno.EPERM),
    "ioctl": (errno.ENOMEM,),
    "write": (errno.EPERM,),
}
_OF_QUESTIONS = {
    "bpf": (errno.ENOMEM,),
    "netlink": (errno.ENOMEM,),
    "open": (errno.EMFILE,),
    "socket": (errno.EMFILE,),
    "copy": (errno.EMFILE,),
    "ioctl": (errno.EMFILE,),
    "setns": (errno.EPERM,),
    "start": (errno.EAGAIN,),
}
"""Errors by the first word of a call. Those that mean something there, such as EEXIST, are no faults."""


@attrs.frozen
class Trial:
    """One thing that happens to one call, and what is done then.

    Attributes:
        mode: Kind of the fault.
        point: Number of the call that it happens to; of an instant: which one.
        what: The call, in words.
        way: What is done then.
        fault: For the injector; None: the process is killed at a random instant.
    """

    mode: str
    point: int
    what: str
    way: str
    fault: Fault | None

    def __str__(self) -> str:
        number = "" if self.fault is None or not self.fault.errno else f" {errno.errorcode[self.fault.errno]}"
        return f"{self.mode} {self.point} ({self.what}){number}, then {self.way}"

    @property
    def options(self) -> str:
        """Options of the command that repeats it."""
        number = self.fault.errno if self.fault else 0
        error = f" --errno {errno.errorcode[number]}" if number else ""
        return f"--mode {self.mode} --point {self.point}{error} --way '{self.way}'"


@attrs.frozen
class Listed:
    """The calls that a verb makes if nothing happens: those that change anything, and those that ask."""

    changing: Sequence[str]
    asking: Sequence[str]


def kills(listed: Listed, ways: Sequence[str]) -> Iterator[Trial]:
    """Killed in front of each call, and behind the last; each way on."""
    for point, what in _points(listed.changing):
        for way in (*ways, COLLECT, *([LEAVE] if point % _LEFT_ALONE == 0 else []), UNDO):
            yield Trial("kill", point, what, way, Fault(point, signal=signal.SIGKILL))


def instants(listed: Listed, ways: Sequence[str]) -> Iterator[Trial]:
    """Killed at random instants, which need not be between two calls."""
    for number in range(1, _INSTANTS + 1):
        yield Trial("instant", number, "a random instant", _turn(number, (*ways, COLLECT, UNDO)), None)


def interrupts(listed: Listed, ways: Sequence[str]) -> Iterator[Trial]:
    """The process gets a SIGINT in front of each call, and lives on."""
    for point, what in _points(listed.changing[:-1]):
        way = _turn(point, (SAME, *ways, COLLECT, UNDO))
        yield Trial("interrupt", point, what, way, Fault(point, signal=signal.SIGINT))


def forks(listed: Listed, ways: Sequence[str]) -> Iterator[Trial]:
    """The process forks while a call is held in front of each change; the child lives on."""
    for point, what in _points(listed.changing[:-1]):
        way = _turn(point, (*ways, SAME, COLLECT, UNDO))
        yield Trial("fork", point, what, way, Fault(point, signal=signal.SIGUSR1, hold=_FORKING))


def delays(listed: Listed, ways: Sequence[str]) -> Iterator[Trial]:
    """The kernel takes longer than the library waits, as when another process holds the rtnl lock."""
    for point, what in _points(listed.changing):
        if what.startswith("netlink"):
            yield Trial(
                "delay", point, what, _turn(point, (*ways, SAME, COLLECT, UNDO)), Fault(point, hold=_DELAY)
            )


def errors(listed: Listed, ways: Sequence[str]) -> Iterator[Trial]:
    """Each call that changes anything fails."""
    yield from _failing("error", Calls.CHANGING, listed.changing, _OF_CHANGES, ways)


def starvations(listed: Listed, ways: Sequence[str]) -> Iterator[Trial]:
    """Each call that asks, or makes a descriptor or thread, fails for want of something.

    What libbpf says of the kernel's BTF is always ESRCH.
    """
    yield from _failing("starve", Calls.ASKING, listed.asking, _OF_QUESTIONS, ways)


def persistences(listed: Listed, ways: Sequence[str]) -> Iterator[Trial]:
    """Each call that changes anything fails from some call on, those of the roll-back included."""
    for point, what in _points(listed.changing[:-1]):
        if _word(what) in _OF_CHANGES:
            fault = Fault(point, errno=_turn(point, (errno.ENOMEM, errno.EPERM)), lasting=True)
            yield Trial("persist", point, what, _turn(point, (SAME, *ways, COLLECT, UNDO)), fault)


MODES = {
    "kill": kills,
    "instant": instants,
    "interrupt": interrupts,
    "fork": forks,
    "delay": delays,
    "error": errors,
    "starve": starvations,
    "persist": persistences,
}


SPARSE = {"starve": 4, "delay": 3}
"""Of these modes a whole run takes one trial of so many: most of the calls are alike, or each takes long."""


def _failing(
    mode: str, calls: Calls, listed: Sequence[str], numbers: Mapping[str, Sequence[int]], ways: Sequence[str]
) -> Iterator[Trial]:
    turn = 0
    for point, what in _points(listed):
        for number in () if what.startswith(_BTF) else numbers.get(_word(what), ()):
            turn += 1
            way = _turn(turn, (SAME, *ways, COLLECT, UNDO))
            yield Trial(mode, point, what, way, Fault(point, calls, errno=number))


def _points(listed: Sequence[str]) -> Iterator[tuple[int, str]]:
    return enumerate(listed, 1)


def _word(what: str) -> str:
    return what.split()[0]


def _turn(number: int, all_of_them: Sequence[T]) -> T:
    return all_of_them[number % len(all_of_them)]


def chosen(trials: Sequence[Trial], share: int, seed: str) -> list[Trial]:
    """One of ``share`` of them, which the seed chooses, in their order."""
    count = -(-len(trials) // share)
    places = random.Random(seed).sample(range(len(trials)), count)
    return [trials[place] for place in sorted(places)]
