# SPDX-License-Identifier: Apache-2.0
"""Work inside a network namespace, from any thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import ParamSpec, Self, TypeVar

from mizarnet._kernel.closing import Owner, refuse_forked
from mizarnet._kernel.netlink._worker import Worker, await_call, registry
from mizarnet._kernel.netlink.netns import Netns, NetnsHandle, is_current, resolve
from mizarnet._kernel.rtnetlink import Answer, Flag, Request, Rtm
from mizarnet._kernel.threads import Pending
from mizarnet._model.specs import NetnsLike
from mizarnet.errors import ClosedError

P = ParamSpec("P")
T = TypeVar("T")


class Session(Owner):
    """Runs calls on a thread that lives in one network namespace.

    Sessions of one process to one namespace share the thread, which ends when the last is closed. An open
    session keeps the namespace alive, even after its name is deleted: keep sessions to containers short.
    May be used from several threads and inside a running event loop; calls block. Not usable after a fork.
    """

    def __init__(self, handle: NetnsHandle, *, timeout: float = 10.0, shared: bool = True) -> None:
        self._netns = handle.netns
        self._timeout = timeout
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._worker: Worker = registry.acquire(handle, shared=shared)
        self._closed = False

    @classmethod
    def open(cls, netns: NetnsLike | NetnsHandle | None = None, *, timeout: float = 10.0) -> Self:
        """Open a session.

        Args:
            netns: Name, path, or open handle, which stays the caller's. None is the calling thread's own.
            timeout: Time in seconds within which each call must start, and one that only reads must end.

        Raises:
            NetnsNotFoundError: There is no such network namespace.
            PrivilegeError: CAP_SYS_ADMIN is missing; not needed for the calling thread's own namespace.
        """
        if isinstance(netns, NetnsHandle):
            return cls(netns, timeout=timeout)
        with resolve(netns) as handle:
            return cls(handle, timeout=timeout)

    @property
    def netns(self) -> Netns:
        """The session's namespace."""
        return self._netns

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the namespace."""
        return self._netns.identity

    @property
    def cookie(self) -> int:
        """The namespace's cookie, as BPF programs see it (kernel >= 5.14)."""
        return self._worker.cookie

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function inside the namespace and return its result.

        Inside such a call, other calls through the session run at once: several steps cost one hand-over.

        Raises:
            ClosedError: The session was closed.
            ForkedError: The session was made before a fork.
            LockTimeoutError: The call could not start in time; nothing was done.
            NetlinkError: The call is no step of a verb that changes something, and did not end in time (errno
                ETIMEDOUT): the kernel's rtnl lock may be held. It goes on in the background.
        """
        if self._worker.is_current_thread() and not self._closed:
            refuse_forked(self._pid, "session")
            return function(*args, **kwargs)
        begun = self.begin(function, *args, **kwargs)
        try:
            return await_call(begun, timeout=self._timeout)
        finally:
            del begun  # the error's traceback refers to this frame

    def begin(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Pending[T]:
        """Queue a call inside the namespace, whose end the caller waits for.

        Raises:
            ClosedError: The session was closed.
            ForkedError: The session was made before a fork.
        """
        refuse_forked(self._pid, "session")
        with self._lock:  # so that nothing is queued behind the order to stop
            if self._closed:
                raise ClosedError("the session was closed")
            return self._worker.submit(function, *args, **kwargs)

    def run_near(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that needs nothing but the namespace: at once where the calling thread is in it.

        Raises:
            ClosedError: The session was closed.
            ForkedError: The session was made before a fork.
            LockTimeoutError: As for :meth:`run`.
            NetlinkError: As for :meth:`run`.
        """
        if not self._closed and self._pid == os.getpid() and is_current(self._netns):
            return function(*args, **kwargs)
        return self.run(function, *args, **kwargs)

    def request(self, operation: str, kind: Rtm, body: bytes, flags: Flag = Flag.NONE) -> list[bytes]:
        """Send one rtnetlink request inside the namespace; see `Rtnl.request`."""
        return self.run(self._worker.rtnl.request, operation, kind, body, flags)

    def request_all(self, operation: str, kind: Rtm, body: bytes) -> list[bytes]:
        """Everything that the kernel has of a kind, as messages; ``body`` is the request without its header."""
        return self.request(operation, kind, body, Flag.DUMP)

    def request_each(
        self, operation: str, kind: Rtm, bodies: Sequence[bytes], *, reads: bool = False
    ) -> list[Answer]:
        """The answers to many requests inside the namespace; see `Rtnl.request_each`."""
        return self.run(self._worker.rtnl.request_each, operation, kind, bodies, reads=reads)

    def request_together(self, operation: str, *requests: Request) -> list[Answer]:
        """The answers to a few requests inside the namespace, one after the other; see `Rtnl.request_together`."""
        return self.run(self._worker.rtnl.request_together, operation, *requests)

    def aside(self) -> Session:
        """Another session of the namespace, with a thread of its own: for a call that others shall not wait for."""
        with self.open_netns() as here:
            return Session(here, timeout=self._timeout, shared=False)

    def open_netns(self) -> NetnsHandle:
        """A handle of the session's namespace, for the caller to close.

        Raises:
            ClosedError: The session was closed.
            ForkedError: The session was made before a fork.
        """
        refuse_forked(self._pid, "session")
        with self._lock:  # so that the thread does not end meanwhile
            if self._closed:
                raise ClosedError("the session was closed")
            found = self._worker.open_netns()
        return found or self.run(resolve, None)

    def close(self) -> None:
        """Let go of the namespace; again is allowed. Waits for the thread when it was the last session."""
        if self._pid != os.getpid():
            self._closed = True
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._release()

    def _release(self) -> None:
        registry.release(self._worker)

    def _release_forgotten(self) -> None:
        # Perhaps under the registry's lock: leave the rest to the thread.
        self._worker.submit(registry.release, self._worker)

    def __del__(self) -> None:
        if not self._closed and self._pid == os.getpid():
            super().__del__()

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<Session {self._netns.path or 'own'} inode={self._netns.inode}{state}>"
