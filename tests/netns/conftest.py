# SPDX-License-Identifier: Apache-2.0
"""Two hosts for every test of this tier that asks for them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator

import pytest

import mizarnet as mz
from tests.support.fleet import Fleet, fleet_of_two
from tests.support.namespace import Namespace
from tests.support.vm import Guests
from tests.support.vmm import Vmm
from tests.world import Container, EncapName, Host, Tenants, World, cable, new_namespace

TUNSETOFFLOAD = 0x400454D0  # <linux/if_tun.h>


@pytest.fixture
def world() -> Iterator[World]:
    """Two new hosts with VXLAN, for a test that changes them."""
    with World("vxlan") as made:
        yield made


@pytest.fixture
def host() -> Iterator[Host]:
    """One new host with VXLAN, for a test that changes it."""
    with World("vxlan", hosts=1) as made:
        yield made.hosts[0]


@pytest.fixture
def bare() -> Iterator[Namespace]:
    """A host with an underlay and nothing else."""
    here, there = new_namespace("h1"), new_namespace("h2")
    cable(here, there)
    yield here
    here.delete()
    there.delete()


@pytest.fixture(scope="module")
def shared_world(encap: EncapName) -> Iterator[World]:
    """Two hosts that the tests of a module share, once for each encapsulation of this kernel."""
    with World(encap) as made:
        yield made


@pytest.fixture(scope="module")
def net(shared_world: World) -> Tenants:
    """Three tenants on them."""
    return Tenants.on(shared_world)


@pytest.fixture
def web(world: World) -> Container:
    """A container on the first of two new hosts; its endpoint is called ``web``."""
    return world.container(world.hosts[0], 7, "10.0.0.1/24", name="web")


# -- VMs on the hosts that a module shares


@pytest.fixture(scope="module")
def guests(shared_world: World) -> Guests:
    """A container next to the VMs to come, and one on the other host."""
    return Guests.of(shared_world)


@pytest.fixture(params=["near", "far"])
def container(request: pytest.FixtureRequest, guests: Guests) -> Container:
    """On the VM's host, and on the other."""
    found: Container = getattr(guests, request.param)
    return found


@pytest.fixture
def vm(guests: Guests) -> Iterator[mz.Endpoint]:
    """A VM's endpoint."""
    with guests.vm() as made:
        yield made


@pytest.fixture
def vmm(vm: mz.Endpoint) -> Iterator[Vmm]:
    """A VM on it."""
    with vm.open_tap() as tap:
        yield Vmm(vm, tap.fds[0])


@pytest.fixture
def plain(vm: mz.Endpoint) -> Iterator[Vmm]:
    """A VM without offloads: the host completes checksums and cuts segments for it."""
    with vm.open_tap() as tap:
        fcntl.ioctl(tap.fds[0], TUNSETOFFLOAD, 0)
        yield Vmm(vm, tap.fds[0])


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def version(request: pytest.FixtureRequest) -> int:
    """A family: mostly that which the endpoints speak."""
    found: int = request.param
    return found


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """Two new hosts, for plans."""
    with fleet_of_two() as made:
        yield made
