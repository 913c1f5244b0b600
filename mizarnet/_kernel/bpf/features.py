# SPDX-License-Identifier: Apache-2.0
"""What the running kernel offers to BPF. Asking changes nothing."""

from __future__ import annotations

import errno as _errno
import functools
import os

import attrs

from mizarnet._kernel.bpf._lib import failure, ffi, lib
from mizarnet._kernel.bpf._log import listening
from mizarnet._model.described import Described
from mizarnet._model.public import public

_BTF = "/sys/kernel/btf/vmlinux"


@public
@attrs.frozen
class Feature(Described):
    """One thing that a kernel may offer; true when it is known to.

    Attributes:
        available: Whether the kernel offers it; None: unknown, as it could not be tried.
        reason: Why the kernel does not, or why that is unknown; empty when available.
        instead: What is used, or to be done, without it; empty when available, or when that is for the asker to say.
    """

    available: bool | None
    reason: str = ""
    instead: str = ""

    @property
    def answer(self) -> str:
        """``"yes"``, ``"no"`` or ``"unknown"``."""
        return _ANSWERS[self.available]

    def __bool__(self) -> bool:
        return self.available is True


_ANSWERS = {True: "yes", False: "no", None: "unknown"}
YES = Feature(available=True)
_GET_BTF = "mount /sys, or run a kernel that is built with CONFIG_DEBUG_INFO_BTF=y"


def has_btf() -> Feature:
    """Whether the kernel describes its types (BTF, ``CONFIG_DEBUG_INFO_BTF``), as libbpf and calls of kfuncs need."""
    if os.access(_BTF, os.R_OK):
        return YES
    return Feature(available=False, reason=f"the kernel has no BTF: there is no {_BTF}", instead=_GET_BTF)


def has_tcx() -> Feature:
    """Whether the kernel has tcx (6.6, ``CONFIG_NET_XGRESS``): asks for the programs of an interface."""
    result = _ask_for_tcx()
    if result in _TCX_LOOKED:
        return YES
    if result == -_errno.EINVAL:
        return Feature(available=False, reason="the kernel has no tcx, which came with 6.6")
    refused = failure("ask for tcx", -result, needs=_TCX_NEEDS)
    return Feature(available=None, reason=refused.message, instead=refused.hint)


def uses_tcx() -> bool:
    """Whether the kernel has tcx, for calls that would otherwise take no answer for no.

    A caller without ``CAP_NET_ADMIN`` gets none, and can change nothing there.

    Raises:
        BpfError: The kernel did not say, for want of memory for instance.
    """
    result = _ask_for_tcx()
    if result not in (*_TCX_LOOKED, -_errno.EINVAL, -_errno.EPERM):
        raise failure("ask for tcx", -result, needs=_TCX_NEEDS)
    return result in _TCX_LOOKED


_TCX_NEEDS = ("CAP_NET_ADMIN",)
# ENODEV: no interface of that index here; ENOSPC: more programs than asked for. In both cases tcx looked.
_TCX_LOOKED = (0, -_errno.ENODEV, -_errno.ENOSPC)


def _ask_for_tcx() -> int:
    count, revision = ffi.new("__u32 *", 0), ffi.new("__u64 *")
    return int(lib.mzn_tcx_query(1, lib.MZN_TCX_INGRESS, ffi.NULL, count, revision))


def has_kfuncs(*names: str) -> Feature:
    """Whether the kernel has all these functions in its BTF, as a program that calls them needs."""
    if not (btf := has_btf()):
        return btf
    missing = [name for name in names if name not in _kernel_functions(names)]
    return Feature(
        available=not missing,
        reason=f"the kernel has no {', '.join(missing)}" if missing else "",
    )


@functools.cache
def _kernel_functions(names: tuple[str, ...]) -> frozenset[str]:
    """The functions among ``names`` that the kernel has. Reading its types takes milliseconds; they never change."""
    with listening() as said:
        btf = lib.btf__load_vmlinux_btf()
    if not btf:
        raise failure("read the kernel's types", ffi.errno, said="; ".join(said))
    try:
        return frozenset(
            name for name in names if lib.btf__find_by_name_kind(btf, name.encode(), lib.BTF_KIND_FUNC) > 0
        )
    finally:
        lib.btf__free(btf)
