# SPDX-License-Identifier: Apache-2.0
"""Two hosts with endpoints of every kind, of which the first is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs
import pytest

import mizarnet as mz
from mizarnet._datapath import age
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.bpf import Program
from mizarnet._model.codec import Record
from tests.support.namespace import Namespace
from tests.support.native_xdp import let_pass
from tests.support.traffic import assert_ping
from tests.world import TUNNEL, Container, Host, World, calm


@attrs.frozen
class Scene:
    """A host that is looked at, and another one.

    Attributes:
        world: Both hosts.
        host: The first one, which is looked at.
        seen: Its handle.
        web: A container there, with one address.
        app: Another, with addresses of both families and default routes.
        vm: A MACVTAP endpoint there.
        db: A container on the other host.
    """

    world: World
    host: Host
    seen: mz.Host
    web: Container
    app: Container
    vm: mz.Endpoint
    db: Container

    @classmethod
    def in_(cls, world: World, seen: mz.Host) -> Scene:
        """Make the endpoints."""
        first, second = world.hosts
        space = world.namespace("app")
        calm(space)
        app = world.add(
            first,
            space,
            name="app",
            vni=7,
            ip=("10.0.0.3/24", "fd00::3/64"),
            gateway=("10.0.0.254", "fd00::fe"),
        )
        return cls(
            world,
            first,
            seen,
            world.container(first, 7, "10.0.0.1/24", name="web"),
            world.tell(app),
            mz.Endpoint.create(first.agent, name="vm", vni=7, ip="10.0.0.4/24", kind="macvtap"),
            world.container(second, 7, "10.0.0.2/24", name="db"),
        )

    @property
    def agent(self) -> mz.TransitAgent:
        """Agent of the host that is looked at."""
        return self.host.agent

    @property
    def maps(self) -> Maps:
        """Its maps."""
        return self.agent._datapath.maps

    @property
    def space(self) -> Namespace:
        """Namespace of the host that is looked at."""
        return self.host.namespace

    @property
    def tunnel(self) -> str:
        """Name of its tunnel."""
        return TUNNEL

    def record(self, name: str) -> Record:
        """Record of an endpoint."""
        return mz.Endpoint.open(self.agent, name, dead=True)._record

    def check(self) -> list[mz.Finding]:
        """Findings about the host."""
        return of_host(self.seen.check())

    def assert_works(self) -> None:
        """Endpoints of both hosts reach each other."""
        assert_ping(self.web.namespace, self.db.ip)
        assert_ping(self.web.namespace, self.app.ip)

    def ip(self, *words: str) -> None:
        """Run ``ip`` in the host's namespace."""
        self.space.run("ip", *words)


def of_host(findings: Iterable[mz.Finding]) -> list[mz.Finding]:
    """Findings without those about the whole machine, whose neighbours are also those of other tests."""
    return [each for each in findings if each.object.kind != "kernel"]


@pytest.fixture
def scene() -> Iterator[Scene]:
    """New hosts for one test."""
    with World("vxlan") as world, mz.Host.open(netns=world.hosts[0].namespace.name) as seen:
        yield Scene.in_(world, seen)


@pytest.fixture
def no_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not finished counts as abandoned at once."""
    monkeypatch.setattr(age, "ABANDONED", 0.0)


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """An XDP program of somebody else's, which lets everything pass."""
    with let_pass(tmp_path_factory.mktemp("xdp")) as program:
        yield program
