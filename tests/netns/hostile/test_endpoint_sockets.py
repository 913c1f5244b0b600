# SPDX-License-Identifier: Apache-2.0
"""The same without packet sockets: datagrams, pings and raw IP that the endpoint's own stack routes and sends."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import attrs
import pytest

from mizarnet import Verdict
from mizarnet._model.specs import VIRTUAL_MAC
from tests.frames import echo_request
from tests.netns.hostile.endpoint import sources
from tests.netns.hostile.endpoint.net import Neighbourhood, know
from tests.netns.hostile.endpoint.trial import Kind, assert_refused, shots_of
from tests.netns.hostile.endpoint.tunnels import PORTS, tunnel_packet
from tests.support.flood import flood, frame_count
from tests.support.icmp import family_of

IP_TRANSPARENT, IPV6_HDRINCL, IPV6_TRANSPARENT = 19, 36, 75  # <linux/in.h>, <linux/in6.h>


@attrs.frozen
class Talk:
    """A socket of the sender's, connected, and what it says."""

    to: tuple[str, int]
    messages: Sequence[bytes]
    kind: int = socket.SOCK_DGRAM
    protocol: int = 0
    source: str = ""

    @contextmanager
    def open(self, hood: Neighbourhood) -> Iterator[socket.socket]:
        """Bound to ``source``, whosever that is: with raw sockets comes the right to bind to foreign addresses."""
        six = family_of(self.to[0]) == socket.AF_INET6
        level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
        with hood.sender.namespace.socket(family_of(self.to[0]), self.kind, self.protocol) as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            if six:
                made.setsockopt(level, socket.IPV6_MULTICAST_IF, hood.sender.endpoint.ifindex)
            if six and self.protocol == socket.IPPROTO_RAW:
                made.setsockopt(level, IPV6_HDRINCL, 1)
            if self.source:
                made.setsockopt(level, IPV6_TRANSPARENT if six else IP_TRANSPARENT, 1)
                made.bind((self.source, 0))
            made.connect(self.to)
            yield made


@pytest.fixture(scope="module", autouse=True)
def routes(hood: Neighbourhood) -> None:
    """The sender's stack believes that everybody is its neighbour, the hosts too."""
    space = hood.sender.namespace
    space.run("ip", "route", "replace", "default", "dev", "eth0")
    for host in hood.world.hosts:
        know(space, host.address, "eth0", str(VIRTUAL_MAC), "permanent")


# -- what it says ------------------------------------------------------------------------------------------

FOUR, SIX = b"\x08\x00", b"\x86\xdd"
NO_SOURCE = bytes(4)


def _raw(hood: Neighbourhood, kinds: Sequence[str], ethertype: bytes) -> list[bytes]:
    """The packets in the frames of those kinds, but those whose source the stack itself fills in."""
    made: dict[str, Kind] = sources.KINDS
    shots = [shot for name in kinds for shot in shots_of(made[name], hood, hood.sender.endpoint)]
    packets = [shot.frame[14:] for shot in shots if shot.frame[12:14] == ethertype]
    return [packet for packet in packets if ethertype == SIX or packet[12:16] != NO_SOURCE]


def raw_ipv4(hood: Neighbourhood) -> list[Talk]:
    """Packets with headers made by hand, with every foreign source."""
    kinds = [name for name in sources.KINDS if "IPv4" in name]
    made = _raw(hood, kinds, FOUR)
    return [Talk((to.ip, 0), made, socket.SOCK_RAW, socket.IPPROTO_RAW) for to in (hood.near, hood.far)]


def raw_ipv6(hood: Neighbourhood) -> list[Talk]:
    """The same with IPv6."""
    kinds = [name for name in sources.KINDS if "IPv6" in name]
    made = _raw(hood, kinds, SIX)
    return [Talk((to.ipv6, 0), made, socket.SOCK_RAW, socket.IPPROTO_RAW) for to in (hood.near, hood.far)]


def datagrams_from_others(hood: Neighbourhood) -> list[Talk]:
    """Sockets that are bound to addresses of others, in spite of their being others'."""
    four = (hood.near.ip, hood.far.ip, hood.other_far.ip, "10.0.0.77", "192.0.2.1")
    six = (hood.near.ipv6, hood.other_far.ipv6, "fd00::77")
    to = hood.far
    return [
        *(Talk((to.ip, 9), [b"forged"], source=source) for source in four if source != to.ip),
        *(Talk((to.ipv6, 9), [b"forged"], source=source) for source in six),
    ]


def to_the_hosts(hood: Neighbourhood) -> list[Talk]:
    """Datagrams, tunnel packets and pings to the hosts' addresses."""
    addresses = [host.address for host in hood.world.hosts]
    pings = [echo_request(1, number) for number in range(100)]
    return [
        *(Talk((to, port), [b"host"]) for to in addresses for port in (9, 22, 53)),
        *(Talk((to, port), [tunnel_packet(hood, port)]) for to in addresses for port in PORTS),
        *(Talk((to, 0), pings, socket.SOCK_RAW, socket.IPPROTO_ICMP) for to in addresses),
    ]


def to_everybody(hood: Neighbourhood) -> list[Talk]:
    """Broadcasts and groups, with tunnel packets in them."""
    four = ("255.255.255.255", "10.0.0.255", "224.0.0.1", "224.0.0.251", "239.255.255.250")
    six = ("ff02::1", "ff02::fb", "ff05::2")
    data = [b"to all", *(tunnel_packet(hood, port) for port in PORTS)]
    return [Talk((to, port), data) for to in (*four, *six) for port in (5353, PORTS[0])]


KINDS: dict[str, tuple[Verdict, Callable[[Neighbourhood], list[Talk]]]] = {
    "raw IPv4 from others": (Verdict.FOREIGN_SOURCE, raw_ipv4),
    "raw IPv6 from others": (Verdict.FOREIGN_SOURCE, raw_ipv6),
    "datagrams from others": (Verdict.FOREIGN_SOURCE, datagrams_from_others),
    "to the hosts": (Verdict.NO_DESTINATION, to_the_hosts),
    "to everybody": (Verdict.MULTICAST, to_everybody),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_the_own_stack_sends(hood: Neighbourhood, name: str) -> None:
    verdict, kind = KINDS[name]
    talks = kind(hood)
    each = max(1, frame_count(routed=True) // len(talks))
    count = each * len(talks)

    def send() -> None:
        for talk in talks:
            with talk.open(hood) as sender:
                flooded = flood(sender.fileno(), talk.messages, each)
                assert flooded.refused == {}, f"to {talk.to} the sender was told {flooded.refused}"

    assert_refused(hood, hood.sender.endpoint, {verdict: count}, send, own=count)
