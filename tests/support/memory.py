# SPDX-License-Identifier: Apache-2.0
"""What this process has allocated, and not what its allocators keep for later, which comes and goes."""

from __future__ import annotations

import ctypes
import gc
import sys

import attrs


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


@attrs.frozen
class Allocated:
    """At one moment.

    Attributes:
        blocks: Small blocks that Python's objects have.
        kb: What malloc has given to Python and to libraries, in all threads, in kB; the small blocks are not of it.
    """

    blocks: int
    kb: int

    @classmethod
    def now(cls) -> Allocated:
        """After a collection of what nobody refers to."""
        gc.collect()
        mallinfo = ctypes.CDLL(None).mallinfo2
        mallinfo.restype = _Mallinfo2
        info = mallinfo()
        return cls(sys.getallocatedblocks(), (info.uordblks + info.hblkhd) >> 10)
