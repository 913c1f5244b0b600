# SPDX-License-Identifier: Apache-2.0
"""One descriptor, owned by exactly one object."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from typing import Self

from mizarnet._kernel.closing import Owner
from mizarnet._kernel.refusals import explained
from mizarnet.errors import ClosedError


def require_descriptors(count: int, *, operation: str) -> None:
    """Raises ``KernelError`` (EMFILE) unless this process may open that many descriptors now."""
    with ExitStack() as opened, explained(operation):
        for _ in range(count):
            opened.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


class Fd(Owner):
    """A descriptor that is closed once, and what the kernel has behind it.

    Closing a descriptor never undoes anything in the kernel that is attached or otherwise in use. Close it only when no
    other thread is inside a call with it, as with any file object; :meth:`let_go` and :meth:`retire` have no such
    condition.

    Attributes:
        what: Description of the descriptor in messages.
    """

    def __init__(self, number: int, *, what: str) -> None:
        """Own the descriptor ``number``."""
        self._number = number
        self.what: str = what
        self._retired = False
        self._closed = False

    @classmethod
    def copy_of(cls, number: int, *, what: str) -> Self:
        """Own a duplicate of somebody else's descriptor; raises ``KernelError`` if there are too many."""
        with explained(f"copy the descriptor of {what}"):
            copy = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
        return cls(copy, what=what)

    def fileno(self) -> int:
        """The descriptor's number.

        Raises:
            ClosedError: It was closed.
        """
        if self._closed:
            raise ClosedError(f"{self.what} is closed")
        return self._number

    def let_go(self) -> None:
        """Let go of what is behind it, and keep the number until ``close()``, so that nothing else gets it.

        Another thread may have the number in hand: its call fails (EINVAL).
        """
        if self._closed:
            return
        with suppress(OSError), open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), self._number, inheritable=False)

    def retire(self) -> None:
        """Let go of what is behind it, and close it with the last reference to this object, which every call holds."""
        self.let_go()
        self._retired = True

    def _release(self) -> None:
        os.close(self._number)

    def __del__(self) -> None:
        if not self._closed and self._retired:
            self.close()
        super().__del__()

    def __repr__(self) -> str:
        return f"<{self.what}, {'closed' if self._closed else f'fd {self._number}'}>"
