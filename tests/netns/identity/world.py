# SPDX-License-Identifier: Apache-2.0
"""Two hosts with endpoints, sockets in their namespaces, and an observer on each tunnel."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

import mizarnet as mz
from mizarnet._kernel.netlink import Session, delete_netns, write_sysctl
from tests.frames import datagram

from .observer import Frame, Observer, Origin

VNI: Final = 7
DEADLINE: Final = 10.0
IDENTITY: Final = (
    mz.Verdict.FOREIGN_DEVICE,
    mz.Verdict.FOREIGN_SOCKET,
    mz.Verdict.REFLECTED,
    mz.Verdict.NO_ORIGIN,
)
_NO_IPV6: Final = "ipv6/conf/default/disable_ipv6"


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; fail with ``what`` when it does not come."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@attrs.frozen(eq=False)
class Container:
    """A namespace with an endpoint, or the namespace of a host with one."""

    name: str
    host: mz.LabHost
    endpoint: mz.Endpoint
    session: Session

    @property
    def ip(self) -> str:
        """The endpoint's first address."""
        return str(self.endpoint.ip)

    @property
    def ipv6(self) -> str:
        """The endpoint's IPv6 address."""
        return str(self.endpoint.addresses[-1].ip)

    @property
    def origin(self) -> Origin:
        """What its frames must carry."""
        return Origin(self.endpoint.mac.packed, self.session.cookie, self.endpoint.ifindex)

    def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of the container's namespace, to be used anywhere."""
        made = self.session.run(socket.socket, family, kind, protocol)
        made.settimeout(DEADLINE)
        return made

    def udp(self, port: int = 0, *, ip: str | None = None) -> socket.socket:
        """A UDP socket of the endpoint's (first) address."""
        address = self.ip if ip is None else ip
        made = self.open(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, port))
        return made

    def tcp(self, *, ip: str | None = None) -> socket.socket:
        """A TCP socket of the endpoint's (first) address."""
        address = self.ip if ip is None else ip
        made = self.open(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        made.bind((address, 0))
        return made

    def listener(self, *, ip: str | None = None) -> socket.socket:
        """A TCP socket that listens."""
        made = self.tcp(ip=ip)
        made.listen()
        return made

    def connect(self, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
        """Both ends of a new connection to ``listener``."""
        address = listener.getsockname()
        near = self.tcp(ip=self.ipv6 if ":" in address[0] else self.ip)
        near.connect(address)
        far, _ = listener.accept()
        far.settimeout(DEADLINE)
        return near, far

    def keeps(self, port: int) -> bool:
        """Whether a closed connection of the local TCP ``port`` is in TIME_WAIT."""
        files = [Path(f"/proc/thread-self/net/{name}") for name in ("tcp", "tcp6")]
        lines = "".join(self.session.run(file.read_text) for file in files).splitlines()
        return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "06" for line in lines)

    def packet_socket(self) -> socket.socket:
        """An AF_PACKET socket on the endpoint's device that receives nothing."""
        made = self.open(socket.AF_PACKET, socket.SOCK_RAW)
        self.session.run(made.bind, (self.endpoint.ifname, 0))
        return made

    def set(self, sysctl: str, value: str) -> None:
        """Write a setting of the namespace."""
        write_sysctl(self.session, sysctl, value)


class World:
    """Endpoints a and b on the first host and c on the second, in one VNI."""

    def __init__(self, lab: mz.Lab, observer: Path | None, *, ipv6: bool = False) -> None:
        """Fill ``lab``; ``observer`` is the compiled object, None where the kernel cannot load it."""
        self.lab = lab
        self.route_identity = observer is not None
        self._sessions: list[Session] = []
        self._observers: Mapping[str, Observer] = {
            host.name: Observer(observer, host.tunnel) for host in lab.hosts if observer is not None
        }
        self.a = self._keep("a", 0, 1, ipv6)
        self.b = self._keep("b", 0, 2, ipv6)
        self.c = self._keep("c", 1, 3, ipv6)
        lab.publish()

    def _keep(self, name: str, host: int, number: int, ipv6: bool) -> Container:
        session = Session.open(self.lab.container(name))
        self._sessions.append(session)
        ip = (f"10.0.0.{number}/24", *([f"fd00::{number}/64"] if ipv6 else []))
        return self._add(session, name, host, ip, forwarding=False)

    def _add(
        self, session: Session, name: str, host: int, ip: tuple[str, ...], forwarding: bool
    ) -> Container:
        """Without an IPv6 address an endpoint gets no IPv6 at all: its noise would be counted."""
        write_sysctl(session, _NO_IPV6, "0" if len(ip) > 1 else "1")
        endpoint = mz.Endpoint.create(
            self.lab.hosts[host].agent, vni=VNI, ip=ip, netns=f"{self.lab.name}-{name}", forwarding=forwarding
        )
        return Container(name, self.lab.hosts[host], endpoint, session)

    @contextmanager
    def namespace(self, name: str) -> Iterator[Session]:
        """A namespace, and whatever is made in it, for the time of the ``with``."""
        netns = self.lab.container(name)
        try:
            with Session.open(netns) as session:
                write_sysctl(session, _NO_IPV6, "1")
                yield session
        finally:
            delete_netns(netns)

    @contextmanager
    def extra(self, name: str, *ip: str, forwarding: bool = False) -> Iterator[Container]:
        """One more endpoint on the first host, for the time of the ``with``."""
        with self.namespace(name) as session:
            made = self._add(session, name, 0, ip, forwarding)
            try:
                self.lab.publish()
                yield made
            finally:
                made.endpoint.delete()
                self.lab.publish()

    @contextmanager
    def host_endpoint(self, ip: str) -> Iterator[Container]:
        """An endpoint in the first host's own namespace, for the time of the ``with``."""
        host = self.lab.hosts[0]
        write_sysctl(host.tunnel.host, _NO_IPV6, "1")
        endpoint = mz.Endpoint.create(host.agent, vni=VNI, ip=ip, ifname="own0")
        try:
            self.lab.publish()
            yield Container("h1", host, endpoint, host.tunnel.host)
        finally:
            endpoint.delete()
            self.lab.publish()

    def close(self) -> None:
        """Let go of sessions and observers."""
        for observer in self._observers.values():
            observer.close()
        for session in self._sessions:
            session.close()

    def forget(self) -> None:
        """Forget the frames seen so far."""
        for observer in self._observers.values():
            observer.forget()

    def frames(self, container: Container, kind: str) -> set[Frame]:
        """The frames of that kind that ``container`` sent, seen at its host."""
        found = self._observers[container.host.name].frames(container.origin)
        return {frame for frame in found if frame.kind == kind}

    def expect(self, container: Container, kind: str, origin: tuple[str, str]) -> None:
        """Frames of that kind were seen, and all carried that (socket, routed device)."""
        if not self.route_identity:
            return  # a kernel that does not show the route to programs
        until(lambda: bool(self.frames(container, kind)), f"no {kind} of {container.name} was seen")
        assert {(frame.socket, frame.device) for frame in self.frames(container, kind)} == {origin}

    def ip(self, where: str, *lines: str) -> None:
        """Run ``ip`` with each line in a namespace of the lab."""
        for line in lines:
            self.lab.run(where, "ip", *line.split())

    def forget_neighbours(self, container: Container) -> None:
        """Make its next packet wait for ARP."""
        self.ip(container.name, f"neigh flush dev {container.endpoint.ifname}")

    def counts(self, verdicts: Iterable[mz.Verdict]) -> dict[mz.Verdict, int]:
        """What the agents of both hosts counted."""
        stats = [host.agent.stats().agent for host in self.lab.hosts]
        return {verdict: sum(each[verdict].packets for each in stats) for verdict in verdicts}


def udp_frame(
    sender: Container,
    to: Container,
    port: int,
    data: bytes,
    *,
    mac: bytes = b"",
    ip: str = "",
    to_mac: bytes = b"",
) -> bytes:
    """An Ethernet frame with a UDP datagram; ``mac`` and ``ip`` of the source, by default the sender's own."""
    destination_mac = to_mac or to.endpoint.mac.packed
    source_mac = mac or sender.endpoint.mac.packed
    return datagram(
        source_mac, ip or sender.ip, to.ip, destination_mac=destination_mac, payload=data, port=port
    )
