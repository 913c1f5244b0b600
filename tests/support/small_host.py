# SPDX-License-Identifier: Apache-2.0
"""A host with a few endpoints, as the model sees it, and frames by the byte for it."""

from __future__ import annotations

import attrs

from mizarnet import Verdict
from tests.frames import (
    BROADCAST,
    SOLICITATION,
    TYPE_ARP,
    arp,
    ethernet,
    frame,
    icmpv6,
    ip,
    ipv6,
    mac,
    neighbour,
    packet,
    udp,
)
from tests.model import judge
from tests.model.case import TC_REDIRECT, TC_SHOT, Case, Outcome, Received, RoutedBy, Sent, TunnelKey
from tests.model.state import Config, Local, Network, Remote, SenderRecord, State

WEB, DB, ROUTER, OTHER, AFAR = (mac(f"02:0a:0b:0c:0d:0{n}") for n in range(1, 6))
HOP_TO, HOP_FROM = mac("02:00:00:00:01:03"), mac("02:00:00:00:01:04")
WEB_LINK_LOCAL = "fe80::a:bff:fe0c:d01"
"""02:0a:0b:0c:0d:01 with its second bit inverted and ff:fe in the middle."""

LOCAL, HOST, SWITCHES = ip("192.0.2.1"), ip("192.0.2.2"), (ip("192.0.2.16"), ip("192.0.2.17"))
LOCAL6, HOST6, SWITCHES6 = ip("2001:db8::1"), ip("2001:db8::2"), (ip("2001:db8::16"), ip("2001:db8::17"))
CONFIG = Config(encap="vxlan", local=LOCAL)
TUNNEL, VIRTUAL, MTU = CONFIG.tunnel_mac, CONFIG.virtual_mac, CONFIG.mtu
MARK_LOCAL, MARK_BOUNCED, TOKEN_BOUNCED = CONFIG.mark_local, CONFIG.mark_bounced, CONFIG.token_bounced
ROUTED = RoutedBy(netns_cookie=101, ifindex=4)
KEY = TunnelKey(vni=7, remote=HOST, local=LOCAL, ttl=64)
KEY6 = TunnelKey(vni=7, remote=HOST6, local=LOCAL6, ttl=64)

_WEB = SenderRecord(
    vni=7,
    number=1,
    netns_cookie=101,
    ifindex=4,
    addresses=((ip("10.0.0.1"), 24), (ip("fd00::1"), 64)),
    gateways=(ip("10.0.0.254"), ip("fd00::fe")),
)
SENDERS = {
    WEB: _WEB,
    ROUTER: attrs.evolve(
        _WEB, number=3, ifindex=0, forwarding=True, addresses=((ip("10.0.0.9"), 24),), gateways=()
    ),
    OTHER: attrs.evolve(_WEB, number=4, vni=8),
}


def state(*, v6: bool = False, generic: bool = False, tunnel: bool = True, **changes: object) -> State:
    """In VNI 7, 10.1.0.0/16 and fd01::/48 have two transit switches; in 10.2.0.0/16 this host is one as well."""
    local, host, switches = (LOCAL6, HOST6, SWITCHES6) if v6 else (LOCAL, HOST, SWITCHES)
    return State(
        config=attrs.evolve(CONFIG, local=local, **changes),
        senders=SENDERS,
        endpoints={
            (7, ip("10.0.0.1")): Local(1, WEB),
            (7, ip("10.0.0.2")): Local(2, DB),
            (7, ip("fd00::2")): Local(2, DB),
            (7, ip("10.0.0.3")): Remote(host),
            (7, ip("fd00::3")): Remote(host),
            (7, ip("10.3.0.2")): Local(2, DB),
            (7, ip("10.3.0.3")): Remote(host),
        },
        networks={
            (7, (ip("10.0.0.0"), 16)): Network(ip("10.0.0.253"), ()),
            (7, (ip("10.1.0.0"), 16)): Network(ip("10.1.0.254"), switches),
            (7, (ip("10.1.9.0"), 24)): Network(None, ()),
            (7, (ip("10.2.0.0"), 16)): Network(None, (local, *switches)),
            (7, (ip("fd00::"), 48)): Network(None, ()),
            (7, (ip("fd01::"), 48)): Network(ip("fd01::fe"), switches),
        },
        peers=frozenset({(ip("192.0.2.0"), 24), (ip("2001:db8::"), 64)}),
        generic=generic,
        tunnel=tunnel,
    )


# -- frames ------------------------------------------------------------------------------------------------


def sent(packet: bytes, *, source: bytes = WEB, destination: bytes = VIRTUAL) -> bytes:
    """A packet in its frame, by default to the agent."""
    return frame(destination, source, packet)


def to(destination: str, *, source: str = "", by: bytes = WEB, hops: int = 64) -> bytes:
    """A datagram, by default from the first endpoint."""
    source = source or ("fd00::1" if ":" in destination else "10.0.0.1")
    return sent(packet(source, destination, udp(9, 9, b"payload."), hops=hops), source=by)


def question4(sender: str, target: str, *, operation: int = 1, body_mac: bytes = WEB) -> bytes:
    return ethernet(BROADCAST, WEB, TYPE_ARP, arp(body_mac, sender, target, operation=operation))


def icmp6(source: str, destination: str, kind: int, body: bytes, *, code: int = 0, hops: int = 64) -> bytes:
    """An ICMPv6 packet with a right checksum."""
    return ipv6(
        source, destination, icmpv6(source, destination, kind, body, code=code), protocol=58, hops=hops
    )


def question6(
    target: str,
    *,
    source: str = "fd00::1",
    kind: int = SOLICITATION,
    code: int = 0,
    hops: int = 255,
    option: bytes = b"\1\1" + WEB,
) -> bytes:
    question = icmp6(source, "ff02::1:ff00:2", kind, neighbour(target, option), code=code, hops=hops)
    return sent(question, destination=mac("33:33:ff:00:00:02"))


# -- what the agent makes of them --------------------------------------------------------------------------

NUMBERS = {WEB: 1, ROUTER: 3, OTHER: 4}


def agent(frame: bytes, *, route_identity: bool = True, v6: bool = False, **rest: object) -> Outcome:
    case = Case(program="agent", frame=frame, mark=5, priority=6, tstamp=7, origin=ROUTED)
    return judge(attrs.evolve(case, **rest), state(v6=v6, route_identity=route_identity))


def dropped(frame: bytes, verdict: Verdict) -> Outcome:
    sent = Sent(NUMBERS[frame[6:12]], len(frame), dropped=True)
    return Outcome(verdict=verdict, action=TC_SHOT, sent=sent)


def redirected(frame: bytes, verdict: Verdict, result: bytes, received: Received | None = None) -> Outcome:
    return Outcome(
        verdict=verdict,
        action=TC_REDIRECT,
        frame=result,
        mark=MARK_LOCAL,
        redirect="ingress",
        sent=Sent(NUMBERS[frame[6:12]], len(frame), dropped=False),
        received=received,
    )
