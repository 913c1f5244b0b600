# SPDX-License-Identifier: Apache-2.0
"""The one world of the tests: hosts as namespaces with an underlay, tunnels, agents, containers and tenants."""

from tests.world.container import Container, Host
from tests.world.spaces import (
    ADDRESSES,
    TUNNEL,
    UNDERLAY,
    EncapName,
    cable,
    calm,
    device,
    links,
    mac_of,
    new_namespace,
    quiet,
)
from tests.world.tenants import BLUE, GREEN, RED, Tenants
from tests.world.world import ROUTES, SHORTCUT, SWITCH_VERDICTS, Subnet, World, alive, common_tests, total
