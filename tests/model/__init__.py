# SPDX-License-Identifier: Apache-2.0
"""The datapath in plain Python, written from docs/packet-rules.md and from nothing else.

Its rules stand in the order of that page, each with its number there; they share nothing with the programs but names.
"""

from __future__ import annotations

from tests.model import agent, guard, shortcut, switch
from tests.model.case import Case, Outcome
from tests.model.state import State
from tests.model.tables import Tables

__all__ = ["Model", "judge"]


class Model:
    """The programs of a host whose tables do not change."""

    def __init__(self, state: State) -> None:
        self._tables = Tables(state)
        self._programs = {
            "agent": agent.judge,
            "guard": guard.judge,
            "switch": switch.judge,
            "shortcut": shortcut.judge,
        }

    def judge(self, case: Case) -> Outcome:
        return self._programs[case.program](case, self._tables)


def judge(case: Case, state: State) -> Outcome:
    """What becomes of one frame. For many frames a `Model` looks at the tables only once."""
    return Model(state).judge(case)
