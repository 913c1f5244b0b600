# SPDX-License-Identifier: Apache-2.0
"""A host: a network namespace in which tunnels live, and the lock that brings its writers into order."""

from __future__ import annotations

from contextlib import AbstractContextManager

from mizarnet._datapath import lock
from mizarnet._kernel.netlink import Session


class Host(Session):
    """A session of the network namespace that a tunnel lives in.

    The lock is for order alone: nothing is wrong where two processes do not see each other's.
    """

    def locked(self) -> AbstractContextManager[None]:
        """Hold the host's lock, against other processes and other threads; raises as :func:`lock.locked` does."""
        return lock.locked(self.cookie)

    @property
    def lock_id(self) -> int:
        """Id of the lock's file, by which a holder knows that an earlier holder let go of it; 0: there is none."""
        return lock.identity(self.cookie)
