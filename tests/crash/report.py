# SPDX-License-Identifier: Apache-2.0
"""What came of a verb's trials: counted by kind of fault, and each violation with the command that repeats it."""

from __future__ import annotations

import enum
import textwrap
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.crash.judge import Case
    from tests.crash.plan import Trial


class Complaint(enum.Enum):
    """What may not be."""

    OTHERS = "something of the bystanders was changed"
    PACKETS = "datagrams of the bystanders were lost"
    LEFT_OVER = "something was left over"
    AGAIN = "the same call again does not give the full result"
    NOT_BACK = "it was not rolled back"
    HALF = "it was half done"
    UNTRUE = "it succeeded and was not done"
    RAISED = "it raised an error"
    OUTSIDE = "its error is outside the tree"
    FIRST_LOST = "its error does not tell the first one"
    LEAKS = "the failed call left descriptors or threads behind"
    DIED = "the process died"
    HANGS = "it hangs"
    NOT_CLEAN = "a check finds something after gc"
    NOT_COLLECTED = "gc leaves neither what was before nor the full result"
    NOT_LEFT = "gc does not leave it alone for a minute"


_COLUMNS = ("trials", "missed", "old", "new", "between", "raised", "again ok", "collected", "repaired")


class Tally:
    """Of one verb.

    Attributes:
        verb: Its name.
        sent: Datagrams of the bystanders meanwhile.
        violations: How many.
    """

    def __init__(self, verb: str, seed: int) -> None:
        self.verb, self._seed = verb, seed
        self.sent = 0
        self.violations = 0
        self._counts: dict[str, Counter[str]] = {}
        self._complaints: dict[str, Counter[Complaint]] = {}

    def count(self, trial: Trial, case: Case) -> None:
        """Count a trial that ended."""
        counts = self._counts.setdefault(trial.mode, Counter())
        counts["trials"] += 1
        counts["missed"] += not case.happened
        counts["raised"] += case.raised
        counts["again ok"] += case.repeated
        counts["collected"] += case.collected
        counts["repaired"] += case.repaired
        counts[case.left] += 1

    def complain(self, trial: Trial | None, complaint: Complaint, why: str) -> None:
        """Say what is wrong, at once."""
        self.violations += 1
        mode = "all" if trial is None else trial.mode
        self._complaints.setdefault(mode, Counter())[complaint] += 1
        options = "" if trial is None else f" {trial.options}"
        print(f"VIOLATION {self.verb}: {trial or 'in the end'}: {complaint.value}")
        print(textwrap.indent(why.rstrip(), "    "))
        print(
            f"    again: python -m tests.crash --verb '{self.verb}'{options} --seed {self._seed}", flush=True
        )

    def lines(self) -> list[str]:
        """A line for each kind of fault, and what was wrong."""
        return [self._line(mode) for mode in self._counts] + self._in_the_end()

    def _line(self, mode: str) -> str:
        counts = " ".join(f"{name} {self._counts[mode][name]:4}" for name in _COLUMNS)
        return f"{self.verb:27} {mode:9} {counts} {self._wrong(mode)}".rstrip()

    def _in_the_end(self) -> list[str]:
        datagrams = f"{self.verb:27} datagrams {self.sent}"
        return [f"{datagrams} {self._wrong('all')}".rstrip()]

    def _wrong(self, mode: str) -> str:
        found = self._complaints.get(mode, {})
        return "| " + ", ".join(f"{each.name} {count}" for each, count in found.items()) if found else ""
