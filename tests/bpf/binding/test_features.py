# SPDX-License-Identifier: Apache-2.0
"""Questions to the kernel."""

from __future__ import annotations

import os
import subprocess
import sys

from mizarnet._kernel.bpf import has_btf, has_kfuncs, has_tcx, libbpf_version

RELEASE = tuple(int(part) for part in os.uname().release.split(".")[:2])


def test_answers_fit_the_kernel() -> None:
    assert has_tcx().available == (RELEASE >= (6, 6))
    assert has_btf()
    casts = has_kfuncs("bpf_cast_to_kern_ctx", "bpf_rdonly_cast")
    assert casts.available == (RELEASE >= (6, 2))


def test_a_no_has_its_reason() -> None:
    answer = has_kfuncs("bpf_cast_to_kern_ctx", "mzn_no_such_function")
    assert not answer
    assert "mzn_no_such_function" in answer.reason


def test_without_privileges() -> None:
    ask = (
        "from mizarnet._kernel.bpf import has_tcx; answer = has_tcx(); print(answer.available, answer.reason)"
    )
    argv = ["setpriv", "--bounding-set=-sys_admin,-bpf,-net_admin", sys.executable, "-c", ask]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True)
    assert "CAP_NET_ADMIN" in done.stdout


def test_libbpf_version() -> None:
    assert libbpf_version().startswith("v1.")
