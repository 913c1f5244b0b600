# SPDX-License-Identifier: Apache-2.0
"""A host: a network namespace in which tunnels live, and the locks that its writers take."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property

from mizarnet._datapath import lock
from mizarnet._datapath.lock import Section
from mizarnet._kernel.netlink import Session, own_nsid


class Host(Session):
    """A session of the network namespace that a tunnel lives in.

    The locks are only for order: correctness does not depend on them, as two processes may not see each other's file.
    """

    def locked(self, *sections: Section, timeout: float | None = None) -> AbstractContextManager[None]:
        """Hold sections of the host's lock; without one, the host alone. Raises as :func:`lock.locked` does."""
        return lock.locked(self.cookie, *sections, timeout=timeout)

    @cached_property
    def own_nsid(self) -> int:
        """Id by which the host's namespace knows itself: the kernel names a device's parent so, seen from elsewhere."""
        return own_nsid(self)

    @property
    def lock_id(self) -> int:
        """Id of the locks' file: whoever holds a section of it knows that an earlier holder released it; 0: no file."""
        return lock.identity(self.cookie)
