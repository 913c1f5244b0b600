# SPDX-License-Identifier: Apache-2.0
"""When something that is not finished counts as abandoned."""

from __future__ import annotations

import time

from mizarnet._model.enumerations import State

ABANDONED = 60.0
"""Time in seconds after which something unfinished counts as abandoned, whatever lock its maker holds."""


def is_young(state: State, changed: int) -> bool:
    """Whether a call may be making or deleting something now.

    Args:
        state: How far it has come.
        changed: When that was written, in nanoseconds of the boot clock.
    """
    if state is State.LIVE:
        return False
    return time.clock_gettime(time.CLOCK_BOOTTIME) - changed / 1e9 < ABANDONED
