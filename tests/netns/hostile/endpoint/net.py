# SPDX-License-Identifier: Apache-2.0
"""A hostile endpoint among its neighbours: of its own tenant and of another, on its host and on the other one.

All speak IPv4 and IPv6, and nobody says anything unasked. The tenants' addresses overlap.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs

import mizarnet as mz
from mizarnet._kernel.objects import has_route_identity
from mizarnet._model.specs import VIRTUAL_MAC
from tests.frames import ICMP, VIRTUAL, frame, icmp, ipv4
from tests.support.namespace import Namespace
from tests.support.onlookers import Onlooker, assert_seen, assert_silence
from tests.support.traffic import send_frame
from tests.support.wait import wait_until
from tests.world import BLUE, GREEN, UNDERLAY, Container, EncapName, Host, World, mac_of, quiet

SETTLED_SECONDS = 0.3


@attrs.frozen(eq=False)
class Neighbourhood:
    """``sender`` is the hostile one; ``near`` and ``far`` are its tenant's, ``other`` and ``other_far`` another's.

    The other tenant may have VMs too, next to the sender.
    """

    world: World
    sender: Container
    near: Container
    far: Container
    other: Container
    other_far: Container
    onlookers: tuple[Onlooker, ...]
    vms: tuple[Container, ...] = ()

    @property
    def first(self) -> Host:
        """The host of the sender."""
        return self.world.hosts[0]

    @property
    def second(self) -> Host:
        """The other host."""
        return self.world.hosts[1]

    @property
    def victims(self) -> tuple[Container, ...]:
        """Everybody but the sender."""
        return self.near, self.far, self.other, self.other_far, *self.vms

    def knowledge(self) -> dict[str, list[str]]:
        """What the victims know of their neighbours and of IPv6 routes."""
        victims = (self.near, self.far, self.other, self.other_far)
        return {each.namespace.name: sorted(_tables(each.namespace)) for each in victims}

    def traffic(self) -> dict[str, tuple[int, int, int]]:
        """How much of the victims was sent, received and refused, by the agents' word."""
        stats = {each.namespace.name: each.endpoint.stats() for each in self.victims}
        return {name: _frames(each) for name, each in stats.items()}

    def forget(self) -> None:
        """What the onlookers have seen so far is over."""
        for onlooker in self.onlookers:
            onlooker.forget()

    def assert_silence(self) -> None:
        """Nothing has arrived anywhere."""
        assert_silence(self.onlookers)

    def assert_seen(self, **expected: int) -> None:
        """That many frames have arrived, at the victims named; those for the other host came over the wire."""
        far = sum(frames for name, frames in expected.items() if name in ("far", "other_far"))
        assert_seen(self.onlookers, {**expected, "wire to h2": far, "wire to h1": 0})

    def assert_awake(self) -> None:
        """Every onlooker sees an honest frame: each endpoint gets one, and the wire carries three of them."""
        self.forget()
        self._speak()
        one_each = {onlooker.label: 1 for onlooker in self.onlookers}
        assert_seen(self.onlookers, {**one_each, "wire to h2": 2})
        self.forget()

    def _speak(self) -> None:
        for one, to in (
            (self.sender, self.near),
            (self.sender, self.far),
            (self.other, self.other_far),
            (self.other_far, self.other),
            *((self.other, vm) for vm in self.vms),
        ):
            send_frame(one.namespace, "eth0", honest(one.mac, one.ip, to.ip))


def honest(mac: bytes, source: str, destination: str) -> bytes:
    """A frame that makes nobody answer: the reply to an echo request that was never sent."""
    return frame(VIRTUAL, mac, ipv4(source, destination, icmp(0, bytes(60)), protocol=ICMP))


def _frames(of: mz.EndpointStats) -> tuple[int, int, int]:
    """Before kernel 6.2 a frame with a victim's MAC is refused as the victim's own."""
    refused = of.dropped.packets if has_route_identity() else 0
    return of.sent.packets, of.received.packets, refused


def _tables(space: Namespace) -> Iterator[str]:
    """One line for each entry, without what changes by itself: how sure the kernel is of a neighbour."""
    output = space.run("sh", "-c", "ip -j neighbour show; ip -j -6 route show table all")
    neighbours, routes = map(json.loads, output.splitlines())
    for each in neighbours:
        yield f"{each['dst']} is at {each.get('lladdr')} on {each['dev']}"
    for each in routes:
        yield json.dumps(each)


# -- making one --------------------------------------------------------------------------------------------


@contextmanager
def neighbourhood(encap: EncapName) -> Iterator[Neighbourhood]:
    """Two hosts with everybody on them."""
    with World(encap) as world, ExitStack() as undo:
        for host in world.hosts:
            quiet(host.namespace)
        first, second = world.hosts
        made = {
            "sender": world.container(first, BLUE, (*addresses(1), *further(1))),
            "near": world.container(first, BLUE, (*addresses(2), *further(2))),
            "far": world.container(second, BLUE, addresses(3)),
            "other": world.container(first, GREEN, addresses(2)),
            "other_far": world.container(second, GREEN, addresses(5)),
        }
        introduce(world, made)
        settle(world)
        yield Neighbourhood(world, **made, onlookers=tuple(_onlookers(world, made, undo)))


def further(number: int) -> tuple[str, str]:
    """Further addresses of an endpoint: of another prefix, since the first ones of that stand for random ones."""
    return f"10.0.1.{number}/24", f"fd00:0:0:1::{number:x}/64"


def addresses(number: int) -> tuple[str, str]:
    """Of the endpoint of that number, in any VNI."""
    return f"10.0.0.{number}/24", f"fd00::{number:x}/64"


def introduce(world: World, made: Mapping[str, Container]) -> None:
    """Everybody knows its neighbours, and the hosts each other, so that nobody asks while something is counted.

    The victims know as if they had asked a while ago: they would believe what they are told unasked.
    """
    for name, one in made.items():
        for to in made.values():
            if to.endpoint.vni == one.endpoint.vni and to is not one:
                mac = to.endpoint.mac if to.host is one.host else VIRTUAL_MAC
                for address in (to.ip, to.ipv6):
                    know(
                        one.namespace, address, "eth0", str(mac), "permanent" if name == "sender" else "stale"
                    )
    for here, there in (world.hosts, world.hosts[::-1]):
        mac_there = mac_of(there.namespace, UNDERLAY).hex(":")
        know(here.namespace, there.address, UNDERLAY, mac_there, "permanent")


def know(space: Namespace, address: str, device: str, mac: str, state: str) -> None:
    """Write an entry of a neighbour table.

    The kernel forgets old entries when all namespaces together have many; not those learned elsewhere, which
    believe a lie as others do.
    """
    entry = (address, "dev", device, "lladdr", mac, "nud", state, "extern_learn")
    space.run("ip", "neighbour", "replace", *entry)


def settle(world: World) -> None:
    """Wait until the devices have said what they say when they come up."""
    heard: list[Any] = [None, 0.0]

    def silent() -> bool:
        now = world.stats()
        if now != heard[0]:
            heard[:] = now, time.monotonic()
        return time.monotonic() - heard[1] > SETTLED_SECONDS

    wait_until(silent, "somebody keeps talking")


def _onlookers(world: World, made: Mapping[str, Container], undo: ExitStack) -> Iterator[Onlooker]:
    places = {name: (each.namespace, "eth0") for name, each in made.items() if name != "sender"}
    places |= {f"wire to h{n}": (host.namespace, UNDERLAY) for n, host in enumerate(world.hosts, 1)}
    for label, place in places.items():
        onlooker = Onlooker(label, *place)
        undo.callback(onlooker.close)
        yield onlooker
