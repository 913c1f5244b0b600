# SPDX-License-Identifier: Apache-2.0
"""Frames of an endpoint's own making, as a container or a VM sends them, and what arrives there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from tests.frames import (
    ADVERTISEMENT,
    BROADCAST,
    ICMPV6,
    SOLICITATION,
    SOURCE_MAC,
    TARGET_MAC,
    TYPE_ARP,
    arp,
    ethernet,
    frame,
    icmpv6,
    ip,
    ipv6,
    link_option,
    neighbour,
)
from tests.support.traffic import Capture, send_raw
from tests.support.vmm import Vmm
from tests.world import Container

SOLICITED_OVERRIDE = 0x60000000


@attrs.frozen
class Station:
    """An endpoint whose frames are made by hand.

    Attributes:
        write: Send a frame, which may be refused.
        read: The first frame that is wanted; those before it are lost.
    """

    mac: bytes
    write: Callable[[bytes], None]
    read: Callable[[Callable[[bytes], bool]], bytes]

    @classmethod
    @contextmanager
    def of_container(cls, container: Container) -> Iterator[Station]:
        """Beside the container's own stack, which goes on."""
        device = container.endpoint.ifname
        with container.packet_socket() as raw, Capture(container.namespace, device) as seen:
            yield cls(
                container.mac, lambda frame: send_raw(raw, frame), lambda wanted: seen.until(wanted)[-1]
            )

    @classmethod
    def of_vm(cls, vmm: Vmm) -> Station:
        """Alone: a VM played on a descriptor has no stack."""
        return cls(vmm.mac, vmm.write, lambda wanted: vmm.read(wanted)[1])

    def ask(self, sender: str, target: str) -> None:
        """Ask for the MAC of an address, of the family that the sender's is of."""
        self.write(_question(self.mac, sender, target))

    def assert_told(self, mac: bytes, *, sender: str, target: str) -> None:
        """Ask, and await the answer, which is right in every byte."""
        self.ask(sender, target)
        wanted = _answer(self.mac, mac, sender, target)
        self.read(lambda frame: frame == wanted)


def _question(mac: bytes, sender: str, target: str) -> bytes:
    if ":" not in sender:
        return ethernet(BROADCAST, mac, TYPE_ARP, arp(mac, sender, target))
    last = ip(target)[-3:]
    group = f"ff02::1:ff{last[0]:02x}:{last[1]:02x}{last[2]:02x}"
    message = icmpv6(sender, group, SOLICITATION, neighbour(target, link_option(SOURCE_MAC, mac)))
    return frame(b"\x33\x33\xff" + last, mac, ipv6(sender, group, message, protocol=ICMPV6, hops=255))


def _answer(asker: bytes, found: bytes, sender: str, target: str) -> bytes:
    if ":" not in sender:
        return ethernet(asker, found, TYPE_ARP, arp(found, target, sender, operation=2, target_mac=asker))
    body = neighbour(target, link_option(TARGET_MAC, found), flags=SOLICITED_OVERRIDE)
    message = icmpv6(target, sender, ADVERTISEMENT, body)
    return frame(asker, found, ipv6(target, sender, message, protocol=ICMPV6, hops=255))
