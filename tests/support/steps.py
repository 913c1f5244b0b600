# SPDX-License-Identifier: Apache-2.0
"""The exception of a signal handler at a chosen step of a call."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from types import FrameType


def ends_at(step: int, call: Callable[[], object]) -> bool:
    """Make a call that ``KeyboardInterrupt`` ends at a step of this thread; returns whether it has so many.

    Python runs signal handlers where a function begins, and where a built-in one has returned: these are the steps.
    """
    left = step

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        if event in ("call", "c_return"):
            left -= 1
            if left < 0:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(count)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    return left < 0


def each_step(call: Callable[[], object]) -> Iterator[int]:
    """Make a call again and again, ended at each of its steps in turn, until one comes to its own end."""
    for step in itertools.count():
        if not ends_at(step, call):
            return
        yield step
