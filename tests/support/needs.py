# SPDX-License-Identifier: Apache-2.0
"""What a test needs of the kernel, where one that is supported may lack it."""

from __future__ import annotations

import pytest

from mizarnet._kernel.bpf import has_tcx


def need_shortcut() -> None:
    """Skip where no shortcut can be attached: such a kernel takes no outer headers of another IP version away (6.3)."""
    if not has_tcx():
        pytest.skip("no shortcut on this kernel: it takes tcx (6.6)")
