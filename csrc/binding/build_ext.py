# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Describe the extension module ``mizarnet._kernel.bpf._ext`` to cffi.

Only describes it: where libbpf lies is asked by ``setup.py`` when it really builds, so that making an sdist
needs no libbpf.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

# cffi executes this file without __file__, from the directory of setup.py.
BINDING = Path("csrc/binding")

ffibuilder = FFI()
ffibuilder.cdef((BINDING / "libbpf.cdef.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "mizarnet._kernel.bpf._ext",
    '#include "shim.h"',
    sources=[str(BINDING / "shim.c")],
    depends=[str(BINDING / "shim.h"), str(BINDING / "libbpf.cdef.h")],
    include_dirs=[str(BINDING)],
    define_macros=[("_GNU_SOURCE", "1")],
)
