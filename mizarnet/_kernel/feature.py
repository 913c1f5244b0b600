# SPDX-License-Identifier: Apache-2.0
"""One thing that a kernel may offer, and the one that programs are chosen by."""

from __future__ import annotations

import attrs

from mizarnet._kernel import bpf

_KFUNCS = ("bpf_cast_to_kern_ctx", "bpf_rdonly_cast")


@attrs.frozen
class Feature:
    """One thing that a kernel may offer; true when it does.

    Attributes:
        available: Whether it does.
        reason: Why not; empty when available.
        instead: What is used, or to be done, without it; empty when available.
    """

    available: bool
    reason: str = ""
    instead: str = ""

    def __bool__(self) -> bool:
        return self.available


YES = Feature(available=True)


def has_route_identity() -> bpf.Feature:
    """Whether programs can read the route of a packet on this kernel (6.2)."""
    return bpf.has_kfuncs(*_KFUNCS)
