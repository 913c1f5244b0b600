# SPDX-License-Identifier: Apache-2.0
"""Several calls in one namespace at a time, where each of them waits for the kernel."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack

from mizarnet._kernel.netlink.session import Session

_LANES = 8


def side_by_side(session: Session, works: Iterable[Callable[[Session], None]]) -> None:
    """Do some work inside a session's namespace, several at a time, and wait for all of it.

    Args:
        session: Session of the namespace.
        works: Functions that take a session of their own; the order in which they begin is the one given.

    Raises:
        MizarnetError: A thread or socket could not be made, or a function raised it. All the others were done.
    """
    queue = deque(works)
    with ExitStack() as stack:
        lanes = [stack.enter_context(session.aside()) for _ in range(min(len(queue), _LANES))]
        begun = [lane.begin(_drain, queue, lane) for lane in lanes]
        errors = [future.exception() for future in begun]
        for error in filter(None, errors):
            raise error


def _drain(queue: deque[Callable[[Session], None]], session: Session) -> None:
    while True:
        try:
            work = queue.popleft()
        except IndexError:
            return
        work(session)
