# SPDX-License-Identifier: Apache-2.0
"""A container that is a router: a network behind it, and a translator of addresses in it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from types import TracebackType
from typing import Self

import mizarnet as mz
from tests.frames import ICMP, ICMPV6
from tests.support.namespace import Namespace
from tests.world import Container, Host, Subnet, World

BEHIND = ("172.20.50.0/24", "fd50::/64")
INSIDE = {4: "172.20.50.9", 6: "fd50::9"}
_LENGTHS = {4: 24, 6: 64}
_ROUTERS_OWN = {4: "172.20.50.1", 6: "fd50::1"}
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
_DIRECTION = {4: 16, 6: 24}
"""Where the destination stands in a packet."""


def router(
    world: World, host: Host, net: Subnet, number: int, *, mtu: int = 1500
) -> tuple[Container, Namespace]:
    """An endpoint that forwards, and the namespace of a network behind it, whose link has this MTU."""
    made = world.add(host, world.space(), vni=net.vni, ip=net.interfaces(number), forwarding=True)
    behind = world.space()
    forward(made.namespace)
    made.namespace.run(
        *("ip", "link", "add", "lan0", "mtu", str(mtu), "type", "veth"),
        *("peer", "name", "eth0", "mtu", str(mtu), "netns", behind.name),
    )
    for version, length in _LENGTHS.items():
        add_address(made.namespace, "lan0", f"{_ROUTERS_OWN[version]}/{length}")
        add_address(behind, "eth0", f"{INSIDE[version]}/{length}")
    for version, ip in _ROUTERS_OWN.items():
        behind.run("ip", f"-{version}", "route", "add", "default", "via", ip)
    return made, behind


def name_next_hop(router: mz.Endpoint, *, on: Iterable[Host], prefixes: Iterable[str] = BEHIND) -> None:
    """Tell hosts that an endpoint is the next hop of networks, by default of those behind a router."""
    for host in on:
        for prefix, address in zip(prefixes, router.addresses, strict=True):
            host.agent.networks[router.vni, prefix] = mz.Network(via=address.ip)


def forward(namespace: Namespace) -> None:
    """Let the kernel forward packets there."""
    namespace.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


def add_address(namespace: Namespace, device: str, address: str) -> None:
    """Add an address that is there at once, and set the device up."""
    namespace.run("ip", "address", "add", address, "dev", device, *(("nodad",) if ":" in address else ()))
    namespace.run("ip", "link", "set", device, "up")


class Translator:
    """Gives packets another destination, as a load balancer or NAT does: the kernel routes them to and from it."""

    def __init__(self, namespace: Namespace, targets: Mapping[str, str]) -> None:
        """Translate each of some addresses into another one of its family."""
        self._targets = {ip_address(old).packed: ip_address(new).packed for old, new in targets.items()}
        self._tun = namespace.call(_open_tun)
        namespace.run("ip", "link", "set", "tun0", "up")
        for old in targets:
            namespace.run("ip", "route", "add", old, "dev", "tun0")
        self._over = os.eventfd(0)
        self._thread = threading.Thread(target=self._run, name="translator")
        self._thread.start()

    def _run(self) -> None:
        while self._over not in select.select([self._tun, self._over], [], [])[0]:
            packet = os.read(self._tun, 1 << 16)
            with suppress(KeyError):
                os.write(self._tun, self._translated(packet))

    def _translated(self, packet: bytes) -> bytes:
        version = packet[0] >> 4
        at, size = _DIRECTION[version], len(ip_address(INSIDE[version]).packed)
        old, new = packet[at : at + size], self._targets[packet[at : at + size]]
        made = bytearray(packet)
        made[at : at + size] = new
        if version == 4:
            _mend(made, 10, old, new)
        protocol, upper = (packet[9], 20) if version == 4 else (packet[6], 40)
        if protocol != ICMP:  # which alone does not cover the addresses
            _mend(made, upper + {6: 16, ICMPV6: 2}.get(protocol, 6), old, new)
        return bytes(made)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.eventfd_write(self._over, 1)
        self._thread.join()
        os.close(self._tun)
        os.close(self._over)


def _open_tun() -> int:
    found = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(found, _TUNSETIFF, struct.pack("16sH14x", b"tun0", _IFF_TUN | _IFF_NO_PI))
    return found


def _mend(packet: bytearray, at: int, old: bytes, new: bytes) -> None:
    """RFC 1624."""
    words = struct.Struct(f"!{len(old) // 2}H")
    total = ~int.from_bytes(packet[at : at + 2], "big") & 0xFFFF
    total += sum(~word & 0xFFFF for word in words.unpack(old)) + sum(words.unpack(new))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    packet[at : at + 2] = (~total & 0xFFFF).to_bytes(2, "big")
