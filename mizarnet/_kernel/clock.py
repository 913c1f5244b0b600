# SPDX-License-Identifier: Apache-2.0
"""The clock that programs read (``bpf_ktime_get_ns``), seen from this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from mizarnet._kernel.refusals import explained

_OFFSETS = Path("/proc/self/timens_offsets")
_SECOND = 10**9
_EPOCH = datetime.fromtimestamp(0, UTC)


@attrs.frozen
class KernelClock:
    """The kernel's monotonic clock.

    Attributes:
        offset: By how many nanoseconds the clock of this process's time namespace is ahead of it.
    """

    offset: int

    @classmethod
    def open(cls) -> KernelClock:
        """Of this process; raises ``KernelError`` where ``/proc`` does not tell the offset."""
        with explained(f"read {_OFFSETS}"), suppress(FileNotFoundError):  # a kernel without time namespaces
            for line in _OFFSETS.read_text(encoding="ascii").splitlines():
                name, seconds, nanoseconds = line.split()
                if name == "monotonic":
                    return cls(int(seconds) * _SECOND + int(nanoseconds))
        return cls(0)

    def now(self) -> int:
        """Time in nanoseconds."""
        return time.monotonic_ns() - self.offset

    def dates(self) -> Callable[[int], datetime]:
        """The dates of moments in nanoseconds, in UTC, as the host's clock shows dates now."""
        ahead = time.time_ns() - self.now()
        return lambda moment: _EPOCH + timedelta(microseconds=(moment + ahead) // 1000)
