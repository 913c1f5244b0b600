# SPDX-License-Identifier: Apache-2.0
"""The compiled objects of the package, and the feature of a kernel that they are chosen by."""

from __future__ import annotations

from pathlib import Path

from mizarnet._kernel.bpf import Feature, has_kfuncs

# As files they are there wherever the compiled binding is; importlib.resources would take 3 ms to be imported.
_OBJECTS = Path(__file__).parent.parent / "_objects"


def has_route_identity() -> Feature:
    """Whether programs can read the route of a packet on this kernel (6.2)."""
    return has_kfuncs("bpf_cast_to_kern_ctx", "bpf_rdonly_cast")


def object_path(name: str, *, route_identity: bool) -> Path:
    """Path of an object, such as ``"transit"``; without ``route_identity`` of the one that reads no packet's route."""
    return _OBJECTS / f"{name}{'' if route_identity else '-mac-only'}.bpf.o"
