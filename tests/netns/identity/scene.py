# SPDX-License-Identifier: Apache-2.0
"""Three endpoints on two hosts, and an observer on each tunnel that tells whose frames it saw."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import mizarnet as mz
from mizarnet._kernel.netlink import Session
from tests.frames import datagram
from tests.support.namespace import Namespace
from tests.support.wait import wait_until
from tests.world import Container, EncapName, Host, World, new_namespace, quiet

from .observer import Frame, Observer, Origin

VNI: Final = 7
IDENTITY: Final = (
    mz.Verdict.FOREIGN_DEVICE,
    mz.Verdict.FOREIGN_SOCKET,
    mz.Verdict.REFLECTED,
    mz.Verdict.NO_ORIGIN,
)


class Scene:
    """Endpoints a and b on the first host and c on the second, in one VNI."""

    def __init__(self, world: World, observer: Path | None, version: int) -> None:
        """Fill ``world``; ``observer`` is the compiled object, None where the kernel cannot load it.

        Without an IPv6 address an endpoint gets no IPv6 at all: its noise would be counted.
        """
        self.world = world
        self.version = version
        self.icmp, self.prefix = ("ICMP", "") if version == 4 else ("ICMPv6", "IPv6 ")
        self.route_identity = observer is not None
        self._observers: Mapping[Host, Observer] = {
            host: Observer(observer, host.tunnel) for host in world.hosts if observer is not None
        }
        first, second = world.hosts
        self.a, self.b, self.c = (
            world.container(
                host, VNI, (f"10.0.0.{number}/24", *([f"fd00::{number}/64"] if version == 6 else []))
            )
            for number, host in enumerate((first, first, second), 1)
        )

    def close(self) -> None:
        """Take the observers off."""
        for observer in self._observers.values():
            observer.close()

    @contextmanager
    def namespace(self, name: str) -> Iterator[Namespace]:
        """A namespace, and whatever is made in it, for the time of the ``with``."""
        made = new_namespace(name)
        try:
            quiet(made)
            yield made
        finally:
            made.delete()

    @contextmanager
    def extra(self, name: str, ip: str, *, forwarding: bool = False) -> Iterator[Container]:
        """One more endpoint on the first host, for the time of the ``with``."""
        with self.namespace(name) as space, self._added(space, ip, forwarding=forwarding) as made:
            yield made

    @contextmanager
    def host_endpoint(self, ip: str) -> Iterator[Container]:
        """An endpoint in the first host's own namespace, for the time of the ``with``."""
        space = self.world.hosts[0].namespace
        quiet(space)
        with self._added(space, ip, ifname="own0") as made:
            yield made

    @contextmanager
    def _added(self, space: Namespace, ip: str, **spec: object) -> Iterator[Container]:
        made = self.world.tell(self.world.add(self.world.hosts[0], space, vni=VNI, ip=ip, **spec))
        try:
            yield made
        finally:
            self.world.remove(made)
            self.world.publish()

    # -- sockets of the family that is spoken

    def udp(self, container: Container) -> socket.socket:
        """A UDP socket of an endpoint's address."""
        return container.udp(ip=container.address(self.version))

    def tcp(self, container: Container) -> socket.socket:
        """A TCP socket of an endpoint's address."""
        return container.tcp(ip=container.address(self.version))

    @contextmanager
    def connection(self, peer: Container) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Both ends of a connection from ``a``."""
        with peer.listener(ip=peer.address(self.version)) as listener:
            near, far = self.a.connect(listener)
            with near, far:
                yield near, far

    # -- what was seen and counted

    def forget(self) -> None:
        """Forget the frames seen so far."""
        for observer in self._observers.values():
            observer.forget()

    def frames(self, container: Container, kind: str) -> set[Frame]:
        """The frames of that kind that ``container`` sent, seen at its host."""
        with Session.open(container.namespace.name) as session:
            origin = Origin(container.mac, session.cookie, container.endpoint.ifindex)
        return {each for each in self._observers[container.host].frames(origin) if each.kind == kind}

    def expect(self, container: Container, kind: str, origin: tuple[str, str]) -> None:
        """Frames of that kind were seen, and all carried that (socket, routed device)."""
        if not self.route_identity:
            return  # a kernel that does not show the route to programs
        wait_until(lambda: self.frames(container, kind), f"no {kind} of {container.ip} was seen")
        assert {(each.socket, each.device) for each in self.frames(container, kind)} == {origin}

    def counts(self, verdicts: Iterable[mz.Verdict]) -> dict[mz.Verdict, int]:
        """What the agents of both hosts counted."""
        stats = [each.agent for each in self.world.stats()]
        return {verdict: sum(each[verdict].packets for each in stats) for verdict in verdicts}


@contextmanager
def new_scene(observer: Path | None, *, version: int = 4) -> Iterator[Scene]:
    """A scene on new hosts, with the encapsulation that a lab chooses."""
    encap: EncapName = "geneve" if mz.probe().geneve else "vxlan"
    with World(encap) as world, closing(Scene(world, observer, version)) as made:
        yield made


def ip(where: Namespace, *lines: str) -> None:
    """Run ``ip`` with each line in a namespace."""
    for line in lines:
        where.run("ip", *line.split())


def forget_neighbours(container: Container) -> None:
    """Make its next packet wait for ARP."""
    ip(container.namespace, f"neigh flush dev {container.endpoint.ifname}")


def udp_frame(
    sender: Container,
    to: Container,
    port: int,
    data: bytes,
    *,
    mac: bytes = b"",
    source: str = "",
    to_mac: bytes = b"",
) -> bytes:
    """A frame with a datagram; ``mac`` and ``source`` by default the sender's own."""
    return datagram(
        mac or sender.mac,
        source or sender.ip,
        to.ip,
        destination_mac=to_mac or to.mac,
        payload=data,
        port=port,
    )
