# SPDX-License-Identifier: Apache-2.0
"""Processes with a ``/run/mizarnet`` of their own: they do not see the lock that everybody else takes."""

from __future__ import annotations

_MOUNT = 'mount -t tmpfs -o mode=700 tmpfs /run/mizarnet && exec "$0" "$@"'

SHARED_RUN = ("unshare", "--mount", "--propagation", "unchanged")
"""In front of a command: another mount namespace with the same ``/run``."""
OWN_RUN = (*SHARED_RUN, "sh", "-c", _MOUNT)
"""In front of a command: another mount namespace with another ``/run/mizarnet``."""
