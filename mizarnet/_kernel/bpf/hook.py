# SPDX-License-Identifier: Apache-2.0
"""What the hooks of a device have in common: their sides, and the words for what the kernel refuses.

Programs are attached without links, so they belong to the device: no descriptor and no pin keeps them, and they go
with it. An interface index means what it means in the network namespace of the calling *thread*.
"""

from __future__ import annotations

import enum
import errno as _errno
import socket
from collections.abc import Sequence

from mizarnet._kernel.bpf._lib import NETWORK_NEEDS, failure
from mizarnet._kernel.bpf.program import program_label
from mizarnet.errors import ExistsError, MizarnetError, NotFoundError


class Direction(enum.Enum):
    """Side of a device, seen from the host: ingress is what the device receives."""

    INGRESS = "ingress"
    EGRESS = "egress"


def device_exists(ifindex: int) -> bool:
    """Whether the network namespace of the calling thread has a device of that index."""
    try:
        socket.if_indextoname(ifindex)
    except OSError:
        return False
    return True


def device_name(ifindex: int) -> str:
    """Name of a device of the calling thread's network namespace, for messages; its index if it is gone."""
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return f"interface {ifindex}"


def hook_failure(
    operation: str,
    errno: int,
    ifindex: int,
    *,
    holders: Sequence[int] = (),
    said: str = "",
    hint: str = "",
) -> MizarnetError:
    """Explain a failure by looking at what is there, since the kernel says EINVAL to much.

    Args:
        operation: What was tried, in words.
        errno: Error number.
        ifindex: Index of the device.
        holders: Ids of the programs that may be in the way.
        said: Text of libbpf or the kernel about it.
        hint: What to do about the holders.
    """
    if not device_exists(ifindex):
        return NotFoundError(f"{operation}: there is no such interface in this network namespace")
    if holders and errno in (_errno.EBUSY, _errno.EEXIST):
        names = ", ".join(map(program_label, holders))
        return ExistsError(f"{operation}: {names} is attached", holder=names, hint=hint)
    return failure(operation, errno, needs=NETWORK_NEEDS, said=said)
