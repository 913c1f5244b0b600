# SPDX-License-Identifier: Apache-2.0
"""How many frames an attack has."""

from __future__ import annotations

import os


def frames() -> int:
    """A million; ``MIZARNET_TEST_FRAMES`` says otherwise, for an emulated machine."""
    return int(os.environ.get("MIZARNET_TEST_FRAMES", 1_000_000))
