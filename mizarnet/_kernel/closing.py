# SPDX-License-Identifier: Apache-2.0
"""Letting go: by a call or by leaving a ``with`` block, once, and with a warning when it was forgotten."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from mizarnet.errors import ForkedError


class Closing(ABC):
    """Anything that is closed at the end of its ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it; again is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Owner(Closing):
    """The one owner of something, which is let go of once. Its finaliser does it if need be, with a warning.

    A constructor sets ``_closed`` to False as soon as there is something to let go of.
    """

    _closed = True

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Let go of it; again is harmless."""
        if not self._closed:
            self._closed = True
            self._release()

    @abstractmethod
    def _release(self) -> None:
        """Let go of it; called once."""

    def _release_forgotten(self) -> None:
        """As much of `_release` as a finaliser may do, which can run anywhere."""
        self._release()

    def __del__(self) -> None:
        if not self._closed:
            try:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            finally:  # the warning may be an error (-W error)
                self._closed = True
                self._release_forgotten()


def refuse_forked(pid: int, what: str) -> None:
    """Raises ``ForkedError`` in any process but ``pid``, which made the thing that ``what`` names."""
    if pid != os.getpid():
        raise ForkedError(f"the {what} was made before a fork", hint="open another in this process")
