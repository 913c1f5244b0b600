# SPDX-License-Identifier: Apache-2.0
"""A host: a network namespace in which tunnels live, and the lock that its writers take in turn."""

from __future__ import annotations

from contextlib import AbstractContextManager

from mizarnet._datapath import lock
from mizarnet._kernel.netlink import Session


class Host(Session):
    """A session of the network namespace that a tunnel lives in.

    The lock is only for order: correctness does not depend on it, as two processes may not see each other's lock file.
    """

    def locked(self) -> AbstractContextManager[None]:
        """Hold the host's lock against other processes and threads; raises as :func:`lock.locked` does."""
        return lock.locked(self.cookie)

    @property
    def lock_id(self) -> int:
        """Id of the lock's file, by which its holder knows that an earlier holder released it; 0: there is no file."""
        return lock.identity(self.cookie)
