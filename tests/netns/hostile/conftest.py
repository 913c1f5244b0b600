# SPDX-License-Identifier: Apache-2.0
"""Where attacks begin: at an endpoint among its neighbours, and on the underlay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns.hostile.endpoint.net import Neighbourhood, neighbourhood
from tests.support.wire import Wire
from tests.world import EncapName, Tenants


@pytest.fixture(scope="module")
def hood(encap: EncapName) -> Iterator[Neighbourhood]:
    """Everybody on two hosts, once for each encapsulation of this kernel."""
    with neighbourhood(encap) as made:
        yield made


@pytest.fixture
def wire(net: Tenants) -> Iterator[Wire]:
    """An attacker at the other end of the first host's cable."""
    with Wire(net) as made:
        yield made
