# SPDX-License-Identifier: Apache-2.0
"""The feature that programs are chosen by."""

from __future__ import annotations

from mizarnet._kernel.bpf import Feature, has_kfuncs


def has_route_identity() -> Feature:
    """Whether programs can read the route of a packet on this kernel (6.2)."""
    return has_kfuncs("bpf_cast_to_kern_ctx", "bpf_rdonly_cast")
