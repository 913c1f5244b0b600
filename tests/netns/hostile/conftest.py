# SPDX-License-Identifier: Apache-2.0
"""A hostile endpoint and its neighbours, which the tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns.hostile.endpoint.net import Neighbourhood, neighbourhood
from tests.support.topology import EncapName


@pytest.fixture(scope="module")
def hood(encap: EncapName) -> Iterator[Neighbourhood]:
    """Everybody on two hosts, once for each encapsulation of this kernel."""
    with neighbourhood(encap) as made:
        yield made
