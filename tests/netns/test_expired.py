# SPDX-License-Identifier: Apache-2.0
"""Packets of a container's own stack that have used up their hops: "time exceeded" comes.

The agent makes the answer out of the packet, whose checksum may be left to the device, behind any extension headers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from mizarnet import Verdict
from tests.frames import HEADER_BYTES, checksums_hold, ip, sum_of_message
from tests.support.counting import refused_but_chatter
from tests.support.icmp import family_of, level_of
from tests.support.traffic import Capture
from tests.world import Container, Subnet, World

HERE, ELSEWHERE = Subnet(3, 1), Subnet(3, 2)
PORT = 9
QUOTED = 8
"""Bytes of a packet behind its IP header that come back."""
EXPERIMENTAL = 0x1E
"""A type of options that whoever does not know it skips (RFC 4727)."""
pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    """Nobody lives where it sends to: a packet that expires is not looked up."""
    with World("vxlan", hosts=1) as world:
        world.network(HERE)
        yield world.member(world.hosts[0], HERE, 2)


# -- what is sent ------------------------------------------------------------------------------------------

Send = Callable[[Container, str], None]


def dying(container: Container, kind: int, to: str, options: int) -> socket.socket:
    """A socket whose packets have one hop left, and so many bytes of destination options."""
    made = container.namespace.socket(family_of(to), kind)
    made.setsockopt(level_of(to), socket.IPV6_UNICAST_HOPS if ":" in to else socket.IP_TTL, 1)
    if options:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, destination_options(options))
    return made


def destination_options(size: int) -> bytes:
    """Options that say nothing, the first one beside the header's length."""
    more = size // 8 - 1
    return bytes([0, more, EXPERIMENTAL, 4]) + bytes(4) + more * (bytes([EXPERIMENTAL, 6]) + bytes(6))


def datagram(container: Container, to: str, *, options: int = 0) -> None:
    with dying(container, socket.SOCK_DGRAM, to, options) as sender:
        sender.sendto(b"is anybody there?", (to, PORT))


def syn(container: Container, to: str, *, options: int = 0) -> None:
    """It is not repeated, since nobody waits for the connection."""
    with dying(container, socket.SOCK_STREAM, to, options) as sender:
        sender.setblocking(False)
        sender.connect_ex((to, PORT))


# -- what comes back ---------------------------------------------------------------------------------------


def is_time_exceeded(frame: bytes) -> bool:
    if frame[12:14] == b"\x08\0":
        return frame[23] == socket.IPPROTO_ICMP and frame[34] == 11
    return frame[12:14] == b"\x86\xdd" and frame[20] == socket.IPPROTO_ICMPV6 and frame[54] == 3


def quotation(reply: bytes) -> bytes:
    """The beginning of the packet that a reply is about, from its IP header on."""
    return reply[14 + HEADER_BYTES[6 if reply[12:14] == b"\x86\xdd" else 4] + 8 :]


def options_of(packet: bytes) -> int:
    """Bytes of destination options behind an IPv6 header."""
    return 8 * (packet[41] + 1) if packet[6] == socket.IPPROTO_DSTOPTS else 0


# -- the tests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("send", [datagram, syn])
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_time_exceeded_comes_from_the_gateway_with_right_checksums(
    container: Container, send: Send, version: int
) -> None:
    """Though the checksum of the packet that it is made of was left to the device."""
    agent, to = container.host.agent, ELSEWHERE.address(2, version)
    with Capture(container.namespace, "eth0") as seen:
        before = agent.stats()
        send(container, to)
        *frames, reply = seen.until(is_time_exceeded)
    since = agent.stats().since(before)
    assert (since.agent[Verdict.GATEWAY_ANSWERED].packets, refused_but_chatter(since)) == (1, {})
    assert checksums_hold(reply)
    source = reply[26:30] if version == 4 else reply[22:38]
    assert source == ip(HERE.gateways[version == 6])
    (packet,) = (frame[14:] for frame in frames if frame[14:].startswith(quotation(reply)))
    assert len(quotation(reply)) == HEADER_BYTES[version] + QUOTED
    assert sum_of_message(packet) != 0


@pytest.mark.parametrize("options", [8, 32, 40, 56, 64, 72, 256])
@pytest.mark.parametrize("send", [datagram, syn])
def test_time_exceeded_comes_whatever_stands_before_the_transport_header(
    container: Container, send: Callable[..., None], options: int
) -> None:
    with Capture(container.namespace, "eth0") as seen:
        send(container, ELSEWHERE.address(2, 6), options=options)
        reply = seen.until(is_time_exceeded)[-1]
    assert checksums_hold(reply)
    assert options_of(quotation(reply)) == options
