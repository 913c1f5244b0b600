# SPDX-License-Identifier: Apache-2.0
"""Hosts and containers, and the sockets of a container."""

from __future__ import annotations

import socket
from pathlib import Path

import attrs

import mizarnet as mz
from tests.support.icmp import family_of
from tests.support.namespace import SOCKET_SECONDS, Namespace


@attrs.frozen(eq=False)
class Host:
    """A namespace that plays a host."""

    namespace: Namespace
    address: str
    tunnel: mz.Tunnel
    agent: mz.TransitAgent


@attrs.frozen(eq=False)
class Container:
    """A namespace with an endpoint in it."""

    host: Host
    namespace: Namespace
    endpoint: mz.Endpoint

    @property
    def ip(self) -> str:
        """The endpoint's first address."""
        return str(self.endpoint.ip)

    @property
    def ipv6(self) -> str:
        """The endpoint's IPv6 address."""
        return self.address(6)

    @property
    def mac(self) -> bytes:
        """The endpoint's MAC."""
        return self.endpoint.mac.packed

    def address(self, version: int) -> str:
        """The endpoint's address of a family."""
        return next(str(each.ip) for each in self.endpoint.addresses if each.version == version)

    def delete(self) -> None:
        """Endpoint and namespace, before the world ends."""
        self.endpoint.delete()
        self.namespace.delete()

    # -- sockets

    def packet_socket(self) -> socket.socket:
        """An AF_PACKET socket on the endpoint's device that receives nothing."""
        return self.namespace.packet_socket(self.endpoint.ifname)

    def udp(self, port: int = 0, *, ip: str = "") -> socket.socket:
        """A UDP socket of the endpoint's (first) address."""
        return self._bound(socket.SOCK_DGRAM, ip or self.ip, port)

    def tcp(self, *, ip: str = "") -> socket.socket:
        """A TCP socket of the endpoint's (first) address."""
        return self._bound(socket.SOCK_STREAM, ip or self.ip, 0)

    def listener(self, *, ip: str = "") -> socket.socket:
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
        far.settimeout(SOCKET_SECONDS)
        return near, far

    def keeps(self, port: int) -> bool:
        """Whether a closed connection of the local TCP ``port`` is in TIME_WAIT."""
        files = [Path(f"/proc/thread-self/net/{name}") for name in ("tcp", "tcp6")]
        lines = "".join(self.namespace.call(file.read_text) for file in files).splitlines()
        return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "06" for line in lines)

    def _bound(self, kind: int, ip: str, port: int) -> socket.socket:
        made = self.namespace.socket(family_of(ip), kind)
        made.bind((ip, port))
        return made
