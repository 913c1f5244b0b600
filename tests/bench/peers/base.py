# SPDX-License-Identifier: Apache-2.0
"""What the peers have in common: two hosts with a cable between them, and four guests with addresses."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path
from typing import ClassVar

import attrs

from mizarnet._kernel.bpf import Object, ObjectSpec
from mizarnet._kernel.closing import Closing
from tests.support.namespace import Namespace
from tests.world import ADDRESSES, UNDERLAY, cable, device, mac_of, new_namespace, quiet

OVERHEAD = 50
"""Bytes of the outer headers of VXLAN over IPv4, with the inner Ethernet header."""
VNI = 77
GUEST = "eth0"
_SPOT = struct.Struct("=III6s2x")
_SETTINGS = struct.Struct("=IIII6s2x6s2x")


@attrs.frozen
class Way:
    """Two namespaces, and the address by which the first one reaches the second."""

    source: Namespace
    target: Namespace
    address: str


class Site(Closing):
    """Something in namespaces of its own, that vanishes with ``close()``."""

    def __init__(self) -> None:
        """Set it up."""
        self._undo = ExitStack()
        try:
            self.set_up()
        except BaseException:
            self._undo.close()
            raise

    def set_up(self) -> None:
        """Make all of it; what ends it goes into ``_undo``."""
        raise NotImplementedError

    def close(self) -> None:
        """End it."""
        self._undo.close()

    def namespace(self, label: str) -> Namespace:
        """A new namespace that says nothing unasked."""
        made = new_namespace(f"{type(self).__name__.lower()}-{label}")
        self._undo.callback(made.delete)
        quiet(made)
        return made


class Peer(Site):
    """A way to connect guests, built in namespaces of its own, that vanishes with ``close()``.

    Attributes:
        name: What it is called in tables.
        says: What it is, in a sentence.
        hosts: The two hosts, joined by a cable.
        remote: From a guest of the first host to one of the second; None: it has none.
        local: Between two guests of the first host; None: it has none.
    """

    name: ClassVar[str]
    says: ClassVar[str]

    def __init__(self, programs: Path, *, mtu: int = 1500) -> None:
        """Build it.

        Args:
            programs: The object of ``peers.bpf.c``.
            mtu: MTU of the underlay, in bytes.
        """
        self.mtu, self.inner_mtu = mtu, mtu - OVERHEAD
        self.remote: Way | None = None
        self.local: Way | None = None
        self._programs = programs
        super().__init__()

    def set_up(self) -> None:
        """Two hosts and a cable, and what connects the guests."""
        self.hosts = (self.namespace("ha"), self.namespace("hb"))
        cable(*self.hosts, mtu=self.mtu)
        self.build()

    def build(self) -> None:
        """Connect the guests; sets ``remote`` and ``local``."""
        raise NotImplementedError

    # -- for builders

    def guests(self) -> dict[tuple[int, int], Namespace]:
        """Two namespaces for each host, by the number of the host and their own."""
        return {(host, number): self.namespace(f"g{host}{number}") for host in (0, 1) for number in (0, 1)}

    def give(self, guest: Namespace, address: str) -> None:
        """Give a guest's device its address, and set it up."""
        guest.run("ip", "address", "add", f"{address}/24", "dev", GUEST)
        guest.run("ip", "link", "set", GUEST, "up")

    def introduce(self, guests: Mapping[tuple[int, int], Namespace]) -> None:
        """Tell each guest the MACs of the others, so that nobody has to ask."""
        macs = {place: mac_of(guest, GUEST).hex(":") for place, guest in guests.items()}
        for place, guest in guests.items():
            for other, mac in macs.items():
                if other != place:
                    command = ("ip", "neighbour", "replace", address_of(*other), "lladdr", mac, "dev", GUEST)
                    guest.run(*command, "nud", "permanent")

    def ways(self, guests: Mapping[tuple[int, int], Namespace]) -> None:
        """Set ``remote`` and ``local`` to those between guests with the usual addresses."""
        self.remote = Way(guests[0, 0], guests[1, 0], address_of(1, 0))
        self.local = Way(guests[0, 0], guests[0, 1], address_of(0, 1))

    def pairs(self, guests: Mapping[tuple[int, int], Namespace]) -> None:
        """Join each guest to its host by a veth pair, whose ends there are called ``q0`` and ``q1``."""
        for (host, number), guest in guests.items():
            near, mtu = f"q{number}", str(self.inner_mtu)
            far = ("peer", "name", GUEST, "mtu", mtu, "netns", guest.name)
            self.hosts[host].run("ip", "link", "add", near, "mtu", mtu, "type", "veth", *far)
            self.hosts[host].run("ip", "link", "set", near, "up")
            self.give(guest, address_of(host, number))

    def load(self, host: int, guests: Mapping[tuple[int, int], Namespace], *, tunnel: int = 0) -> Object:
        """The programs for a host, which know where each guest is."""
        loaded = self._undo.enter_context(ObjectSpec.open(self._programs, name="peers").load())
        here, there = self.hosts[host], self.hosts[1 - host]
        loaded.maps["setting"].update(
            bytes(4),
            _SETTINGS.pack(
                tunnel,
                device(here, UNDERLAY).ifindex,
                int(IPv4Address(ADDRESSES[host])),
                VNI,
                mac_of(here, UNDERLAY),
                mac_of(there, UNDERLAY),
            ),
        )
        for (where, number), guest in guests.items():
            is_here = where == host
            value = _SPOT.pack(
                0 if is_here else int(IPv4Address(ADDRESSES[where])),
                device(here, f"q{number}").ifindex if is_here else 0,
                1 + number,
                mac_of(guest, GUEST),
            )
            loaded.maps["spots"].update(IPv4Address(address_of(where, number)).packed, value)
        return loaded


def address_of(host: int, number: int) -> str:
    """Address of a guest."""
    return f"10.5.0.{10 * (host + 1) + number}"
