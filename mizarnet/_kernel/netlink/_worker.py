# SPDX-License-Identifier: Apache-2.0
"""Threads that live in a network namespace: one per namespace and process, shared by its sessions."""

from __future__ import annotations

import errno
import math
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

from mizarnet._kernel.jobs import carried, is_whole
from mizarnet._kernel.netlink._syscalls import enter_netns
from mizarnet._kernel.netlink.netns import Netns, NetnsHandle, is_current, netns_of_thread
from mizarnet._kernel.rtnetlink import Rtnl
from mizarnet._kernel.threads import Pending, start
from mizarnet.errors import LockTimeoutError, NetlinkError, NetnsNotFoundError

P = ParamSpec("P")
T = TypeVar("T")

_JOIN_SECONDS = 10.0
_REASON = "the kernel's rtnl lock may be held by something else"


class Worker:
    """A thread inside a network namespace, with one rtnetlink socket.

    Attributes:
        netns: Namespace of the thread, which keeps it alive.
        cookie: Cookie of the namespace.
        rtnl: Socket in the namespace; only the thread itself may use it.
        users: Sessions that share the thread; guarded by the registry's lock.
    """

    rtnl: Rtnl
    cookie: int

    def __init__(self, handle: NetnsHandle) -> None:
        self.netns: Netns = handle.netns
        self.users = 0
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        ready: Pending[None] = Pending()
        # daemon: waiting for the kernel's rtnl lock cannot be interrupted, and must not hold up exit.
        self._thread = threading.Thread(
            target=self._live,
            args=(handle.fileno(), ready),
            name=f"mizarnet-netns-{self.netns.inode}",
            daemon=True,
        )
        try:
            start(self._thread)
            ready.wait()
            ready.result()
        except BaseException:
            self._jobs.put(None)  # if it is a signal that ends the wait: nobody else knows of the thread
            raise

    def _live(self, fd: int, ready: Pending[None]) -> None:
        ready.fulfil(partial(self._settle, fd))
        if ready.error is not None:
            return
        with self.rtnl:
            while (job := self._jobs.get()) is not None:
                job()
                del job  # it may hold the last reference to a session

    def _settle(self, fd: int) -> None:
        # A new thread starts in its creator's namespace; staying there needs no privilege.
        if not is_current(self.netns):
            enter_netns(fd)
        self.rtnl = Rtnl()
        self.cookie = self.rtnl.cookie()

    def is_current_thread(self) -> bool:
        """Whether the caller runs on this worker."""
        return threading.current_thread() is self._thread

    def open_netns(self) -> NetnsHandle | None:
        """A handle of the namespace, for the caller to close, without the thread, which must be alive.

        None where ``/proc`` is of another pid namespace, and knows the thread by another number.
        """
        native_id = self._thread.native_id
        assert native_id is not None  # the thread was waited for
        with suppress(NetnsNotFoundError):
            handle = netns_of_thread(native_id)
            if handle.netns == self.netns:
                return handle
            handle.close()
        return None

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Pending[T]:
        """Queue a call; never blocks, and safe inside a finaliser."""
        pending: Pending[T] = Pending()
        self._jobs.put(partial(pending.fulfil, carried(partial(function, *args, **kwargs))))
        return pending

    def stop(self) -> None:
        """Tell the thread to end after what is queued, and wait for it."""
        self._jobs.put(None)
        if not self.is_current_thread():
            self._thread.join(_JOIN_SECONDS)

    def abandon(self) -> None:
        """Close the socket in a forked child, where the thread does not exist."""
        self.rtnl.close()


def await_call(pending: Pending[T], *, timeout: float) -> T:
    """Wait for a queued call and return its result or raise its error.

    A call that has begun may change something. As a step of a verb it is waited for, however long the kernel takes:
    only then is it known what there is to undo.

    Raises:
        LockTimeoutError: It did not start in time, and will not; nothing was done.
        NetlinkError: It only reads, started and did not end in time (errno ETIMEDOUT); it goes on in the background.
    """
    try:
        if pending.wait(timeout):
            return pending.result()
        if pending.cancel():
            raise LockTimeoutError(f"not started within {timeout:g} s: {_REASON}", timeout=timeout)
        if pending.wait(math.inf if is_whole() else 0):
            return pending.result()
        raise NetlinkError(
            f"call in a network namespace, {timeout:g} s",
            errno=errno.ETIMEDOUT,
            hint=f"{_REASON}; the call goes on and its outcome is unknown",
        )
    finally:
        del pending  # the error's traceback refers to this frame


class _Registry:
    """The live workers of this process: those that sessions share, by namespace, and those of one session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared: dict[tuple[int, int], Worker] = {}
        self._single: set[Worker] = set()
        self._watches_fork = False

    def acquire(self, handle: NetnsHandle, *, shared: bool) -> Worker:
        with self._lock:
            if not self._watches_fork:
                os.register_at_fork(after_in_child=self._after_fork)
                self._watches_fork = True
            if not shared:
                worker = Worker(handle)
                self._single.add(worker)
                return worker
            identity = handle.netns.identity
            worker = self._shared.get(identity) or Worker(handle)
            self._shared[identity] = worker
            worker.users += 1
            return worker

    def release(self, worker: Worker) -> None:
        with self._lock:
            worker.users -= 1
            if worker.users > 0:
                return
            if worker in self._single:
                self._single.remove(worker)
            else:
                del self._shared[worker.netns.identity]
        worker.stop()

    def _after_fork(self) -> None:
        # The lock may have been held by a thread that the child does not have.
        self._lock = threading.Lock()
        workers = [*self._shared.values(), *self._single]
        self._shared, self._single = {}, set()
        for worker in workers:
            worker.abandon()


registry = _Registry()
