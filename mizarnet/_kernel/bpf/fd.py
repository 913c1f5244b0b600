# SPDX-License-Identifier: Apache-2.0
"""One descriptor, owned by exactly one object."""

from __future__ import annotations

import fcntl
import os
import warnings
from contextlib import suppress
from types import TracebackType
from typing import Self

from mizarnet.errors import ClosedError


class Fd:
    """A descriptor that is closed once.

    Closing a descriptor never undoes anything in the kernel that is attached or otherwise in use. Close it only when no
    other thread is inside a call with it, as with any file object; :meth:`let_go` has no such condition.
    """

    __slots__ = ("_number", "what")

    def __init__(self, number: int, *, what: str) -> None:
        """Own ``number``; ``what`` describes it in messages."""
        self._number = number
        self.what: str = what

    @classmethod
    def copy_of(cls, number: int, *, what: str) -> Self:
        """Own a duplicate of somebody else's descriptor."""
        return cls(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3), what=what)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._number < 0

    def fileno(self) -> int:
        """The number.

        Raises:
            ClosedError: It was closed.
        """
        if self._number < 0:
            raise ClosedError(f"{self.what} is closed")
        return self._number

    def let_go(self) -> None:
        """Let go of what is behind it, and keep the number until ``close()``, so that nothing else gets it.

        Another thread may have the number in hand: its call fails (EINVAL).
        """
        with suppress(OSError), open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), self.fileno(), inheritable=False)

    def close(self) -> None:
        """Close it; again is harmless."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"fd {self._number}"
        return f"<{self.what}, {state}>"

    def __del__(self) -> None:
        if self._number >= 0:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()


class Handle:
    """Something of the kernel behind a descriptor. Leaving its ``with`` block closes the descriptor only."""

    def __init__(self, fd: Fd) -> None:
        """Take over ``fd``."""
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor's number.

        Raises:
            ClosedError: It was closed.
        """
        return self._fd.fileno()

    @property
    def closed(self) -> bool:
        """Whether the descriptor was closed."""
        return self._fd.closed

    def let_go(self) -> None:
        """Let go of the object and keep the descriptor's number, for threads that have it in hand."""
        self._fd.let_go()

    def close(self) -> None:
        """Close the descriptor; again is harmless. The kernel keeps what is attached or otherwise in use."""
        self._fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._fd!r})"
