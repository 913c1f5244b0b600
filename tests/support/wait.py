# SPDX-License-Identifier: Apache-2.0
"""Waiting for something that will be true soon: polling with a deadline, never a bare sleep."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 10.0
"""Seconds, enough for an emulated machine."""


def wait_until(
    condition: Callable[[], object], what: str | Callable[[], str] = "", *, timeout: float = PATIENCE
) -> None:
    """Return when ``condition()`` is true; fail, saying ``what``, when it is not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError((what() if callable(what) else what) or "it did not happen in time")
        time.sleep(0.005)
