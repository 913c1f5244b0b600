# SPDX-License-Identifier: Apache-2.0
"""Several calls in one namespace at a time, where each of them waits for the kernel."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress

from mizarnet._kernel.netlink.session import Session
from mizarnet.errors import KernelError

_MOST = 8


def side_by_side(session: Session, works: Iterable[Callable[[Session], None]]) -> None:
    """Do some work inside a session's namespace, several at a time, and wait for all of it.

    Where no thread or descriptor is left, it is done one after the other, by the session itself.

    Args:
        session: Session of the namespace.
        works: Functions that take the session to use; the order in which they begin is the one given.

    Raises:
        MizarnetError: A function raised it. All the others were done.
    """
    queue = deque(works)
    with ExitStack() as stack:
        lanes = [stack.enter_context(lane) for lane in _lanes(session, min(len(queue), _MOST))]
        begun = [lane.begin(_drain, queue, lane) for lane in lanes]
        for each in begun:
            each.wait()
        _drain(queue, session)  # nothing is left for it, unless there is no lane
        for each in begun:
            each.result()


def _lanes(session: Session, count: int) -> Iterator[Session]:
    with suppress(KernelError):
        for _ in range(count):
            yield session.aside()


def _drain(queue: deque[Callable[[Session], None]], session: Session) -> None:
    while True:
        try:
            work = queue.popleft()
        except IndexError:
            return
        work(session)
