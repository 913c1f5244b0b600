# SPDX-License-Identifier: Apache-2.0
"""Frames that are dropped, since nobody has the address that they are for."""

from __future__ import annotations

from tests.frames import datagram
from tests.support.traffic import send_frame
from tests.world import Container

NOBODY = "10.0.0.99"
SOON = 5.0
"""Time in seconds in which an event comes that comes at all."""


def frame_of(sender: Container, to: str = NOBODY, payload: bytes = b"refused") -> bytes:
    return datagram(sender.mac, sender.ip, to, destination_mac=sender.mac, payload=payload)


def send(sender: Container, frame: bytes) -> None:
    send_frame(sender.namespace, sender.endpoint.ifname, frame)
