# SPDX-License-Identifier: Apache-2.0
"""Every scenario runs with each encapsulation of the kernel and, as its twin, with IPv6 endpoints."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[4, pytest.param(6, marks=pytest.mark.twin)], ids=["ipv4", "ipv6"])
def version(request: pytest.FixtureRequest) -> int:
    """The family that the endpoints speak."""
    found: int = request.param
    return found
