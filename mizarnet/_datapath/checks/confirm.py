# SPDX-License-Identifier: Apache-2.0
"""Looking twice: what a call of another process is in the middle of is no finding."""

from __future__ import annotations

import time
from collections.abc import Callable

from mizarnet._model.finding import Finding

PAUSE = 0.1
"""Time in seconds between two looks: the steps between two states of a verb take a tenth of it."""
_ROUNDS = 3


def confirmed(look: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings that two looks one after the other agree in; a look without findings ends it at once."""
    before = look()
    now: list[Finding] = []
    for _ in range(_ROUNDS - 1):
        if not before:
            return []
        time.sleep(PAUSE)
        known = {finding.key for finding in before}
        before = look()
        now = [finding for finding in before if finding.key in known]
        if len(now) == len(before):
            break
    return now
