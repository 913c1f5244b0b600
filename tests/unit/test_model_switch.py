# SPDX-License-Identifier: Apache-2.0
"""The model of the transit switch. Rules by their number."""

from __future__ import annotations

import pytest

from mizarnet import Verdict
from tests.frames import (
    TYPE_ARP,
    checksum,
    ethernet,
    geneve,
    geneve_option,
    ipv4,
    ipv6,
    patched,
    sum_of_message,
    u16,
    udp,
    vxlan,
)
from tests.model import judge
from tests.model.case import XDP_PASS, XDP_TX, Case, Hop, HopResult, Outcome
from tests.support import small_host as host
from tests.support.small_host import sent, to

HEADER4 = host.HOP_TO + host.HOP_FROM + b"\x08\x00"
HEADER6 = host.HOP_TO + host.HOP_FROM + b"\x86\xdd"
HOP = Hop(HopResult.SUCCESS, True, host.HOP_TO, host.HOP_FROM)


def outer4(
    body: bytes, *, source_port: int = 1001, hops: int = 64, peer: str = "192.0.2.9", to: str = "192.0.2.1"
) -> bytes:
    return sent(ipv4(peer, to, udp(source_port, 4789, body), hops=hops), source=host.AFAR)


def outer6(body: bytes, *, source_port: int = 1001, hops: int = 64, check: int = 0) -> bytes:
    datagram = patched(udp(source_port, 4789, body), 6, u16(check))
    return sent(ipv6("2001:db8::9", "2001:db8::1", datagram, hops=hops), source=host.AFAR)


def switch(frame: bytes, hop: Hop = HOP, **rest: object) -> Outcome:
    return judge(Case(program="switch", frame=frame, mark=5, priority=6, hop=hop), host.state(**rest))


def inner(destination: str) -> bytes:
    return to(destination, source="10.0.0.4", by=host.AFAR)


REMOTE = outer4(vxlan(7, inner("10.0.0.3")))
REMOTE6 = outer6(vxlan(7, inner("10.0.0.3")))
REMOTE_GENEVE = outer4(geneve(7, inner("10.0.0.3"), options=geneve_option(1, bytes(8))))
PASSED: dict[str, bytes] = {
    "ARP": ethernet(host.VIRTUAL, host.AFAR, TYPE_ARP, REMOTE[14:]),
    "other family": REMOTE6,
    "no IP header": REMOTE[:33],
    "options": patched(REMOTE, 14, b"\x46"),
    "version": patched(REMOTE, 14, b"\x65"),
    "TCP": patched(REMOTE, 23, b"\x06"),
    "first fragment": patched(REMOTE, 20, b"\x20\x00"),
    "last fragment": patched(REMOTE, 20, b"\x00\x01"),
    "destination": outer4(vxlan(7, inner("10.0.0.3")), to="192.0.2.3"),
    "no tunnel header": REMOTE[:49],
    "port": patched(REMOTE, 36, b"\x12\xb6"),
    "VXLAN flags": patched(REMOTE, 42, b"\x0c"),
    "VXLAN reserved": patched(REMOTE, 45, b"\x01"),
    "VXLAN last byte": patched(REMOTE, 49, b"\x01"),
    "inner type": patched(REMOTE, 62, b"\x08\x06"),
    "inner IPv4": REMOTE[: 50 + 33],
    "inner IPv6": outer4(vxlan(7, to("fd00::3")))[: 50 + 53],
    "no peer": outer4(vxlan(7, inner("10.0.0.3")), peer="198.51.100.1"),
    "local": outer4(vxlan(7, inner("10.0.0.2"))),
    "no network": outer4(vxlan(7, inner("10.9.0.1"))),
    "other VNI": outer4(vxlan(8, inner("10.0.0.3"))),
    "VNI with the same end": outer4(vxlan(0x010007, inner("10.0.0.3"))),
    "no switches": outer4(vxlan(7, inner("10.1.9.1"))),
    "this host": outer4(vxlan(7, inner("10.2.0.1"))),
    "hops": outer4(vxlan(7, inner("10.0.0.3")), hops=1),
}
PASSED6 = {
    "other family": REMOTE,
    "no IP header": REMOTE6[:53],
    "version": patched(REMOTE6, 14, b"\x40"),
    "extension header": patched(REMOTE6, 20, b"\x3c"),
    "destination": patched(REMOTE6, 53, b"\x03"),
    "hops": outer6(vxlan(7, inner("10.0.0.3")), hops=1),
}
PASSED_GENEVE = {
    "version": patched(REMOTE_GENEVE, 42, b"\x43"),
    "control": patched(REMOTE_GENEVE, 43, b"\x80"),
    "critical": patched(REMOTE_GENEVE, 43, b"\x40"),
    "protocol": patched(REMOTE_GENEVE, 44, b"\x08\x00"),
    "options beyond the frame": patched(REMOTE_GENEVE, 42, b"\x3f"),
}


@pytest.mark.parametrize(
    ("frame", "rest"),
    [
        *(pytest.param(frame, {}, id=name) for name, frame in PASSED.items()),
        *(pytest.param(frame, {"v6": True}, id=f"IPv6 {name}") for name, frame in PASSED6.items()),
        *(pytest.param(frame, {"encap": "geneve"}, id=f"Geneve {n}") for n, frame in PASSED_GENEVE.items()),
    ],
)
def test_switch_passes_what_is_not_its_business(frame: bytes, rest: dict[str, object]) -> None:
    assert switch(frame, **rest) == Outcome(verdict=Verdict.PASSED, action=XDP_PASS, frame=frame)


@pytest.mark.parametrize(
    "frame",
    [
        outer4(vxlan(7, inner("10.0.0.3")), hops=2),
        outer4(vxlan(7, inner("10.0.0.3")[:34])),
        outer4(vxlan(7, to("fd00::3")[:54])),
        patched(REMOTE, 20, b"\xc0\0"),
    ],
    ids=[
        "last hop but one",
        "IPv4 header and nothing else",
        "IPv6 header and nothing else",
        "don't fragment",
    ],
)
def test_switch_needs_no_more_than_this(frame: bytes) -> None:
    assert switch(frame).verdict == Verdict.BOUNCED


BLACKHOLE = Hop(HopResult.BLACKHOLE, True, bytes(6), bytes(6))
HOPS = {
    "X2": (Hop(HopResult.NO_NEIGHBOUR, True, bytes(6), bytes(6)), Verdict.PASSED_NO_NEIGHBOUR),
    "X2 before X5": (Hop(HopResult.NO_NEIGHBOUR, False, bytes(6), bytes(6)), Verdict.PASSED_NO_NEIGHBOUR),
    "X3": (Hop(HopResult.FORWARDING_OFF, True, bytes(6), bytes(6)), Verdict.PASSED_FORWARDING_OFF),
    "X4": (BLACKHOLE, Verdict.PASSED_NO_ROUTE),
    "X5": (Hop(HopResult.SUCCESS, False, host.HOP_TO, host.HOP_FROM), Verdict.PASSED_OTHER_INTERFACE),
}


@pytest.mark.parametrize("rule", HOPS)
def test_switch_leaves_a_packet_without_a_way_to_the_guard(rule: str) -> None:
    hop, verdict = HOPS[rule]
    asked = (host.LOCAL, host.HOST)
    assert switch(REMOTE, hop) == Outcome(verdict=verdict, action=XDP_PASS, frame=REMOTE, asked=asked)


def test_switch_without_its_tunnel_leaves_everything_alone() -> None:
    passed = Outcome(verdict=Verdict.PASSED, action=XDP_PASS, frame=REMOTE)
    assert switch(REMOTE, tunnel=False) == passed
    assert switch(REMOTE, tunnel=True).verdict == Verdict.BOUNCED


def test_switch_on_the_generic_hook_leaves_checksums_alone() -> None:  # X1
    summed = patched(REMOTE, 40, b"\x12\x34")
    passed = Outcome(verdict=Verdict.PASSED_CHECKSUM, action=XDP_PASS, frame=summed)
    assert switch(summed, BLACKHOLE, generic=True) == passed
    assert switch(REMOTE, generic=True).verdict == Verdict.BOUNCED
    assert switch(summed).verdict == Verdict.BOUNCED


@pytest.mark.parametrize(
    ("body", "encap", "to"),
    [
        (vxlan(7, inner("10.0.0.3")), "vxlan", host.HOST),
        (vxlan(7, inner("10.1.0.1")), "vxlan", host.SWITCHES[1]),
        (vxlan(7, to("fd00::3")), "vxlan", host.HOST),
        (geneve(7, inner("10.0.0.3"), options=geneve_option(1, bytes(8)), flags=0x3F), "geneve", host.HOST),
    ],
)
def test_switch_sends_on_over_ipv4(body: bytes, encap: str, to: bytes) -> None:  # X6
    frame = outer4(body)
    check = u16(checksum(frame[14:22] + b"\x3f\x11\0\0" + host.LOCAL + to))
    assert switch(frame, encap=encap) == Outcome(
        verdict=Verdict.BOUNCED,
        action=XDP_TX,
        frame=HEADER4 + frame[14:22] + b"\x3f\x11" + check + host.LOCAL + to + frame[34:],
        asked=(host.LOCAL, to),
    )


def test_switch_leaves_a_wrong_header_checksum_as_wrong_as_it_was() -> None:
    wrong = patched(REMOTE, 24, bytes([REMOTE[24] ^ 1]))
    outcome = switch(wrong)
    assert outcome.frame is not None
    assert checksum(outcome.frame[14:34]) == checksum(wrong[14:34]) != 0


@pytest.mark.parametrize("right", [True, False])
def test_switch_sends_on_over_ipv6(right: bool) -> None:
    body = vxlan(7, inner("10.1.0.1"))
    check = sum_of_message(outer6(body)[14:]) if right else 0
    frame = outer6(body, check=check)
    outcome = switch(frame, v6=True)
    assert outcome.verdict == Verdict.BOUNCED
    assert outcome.asked == (host.LOCAL6, host.SWITCHES6[1])
    result = outcome.frame
    assert result is not None
    addresses = host.LOCAL6 + host.SWITCHES6[1]
    assert result[:60] == HEADER6 + frame[14:21] + b"\x3f" + addresses + frame[54:60]
    assert sum_of_message(result[14:]) == 0 if right else result[60:62] == bytes(2)
    assert result[62:] == frame[62:]


def test_switch_never_makes_a_udp_checksum_of_zero() -> None:
    body = vxlan(7, inner("10.0.0.3"))
    # 2001:db8::1 stays in the sum and 2001:db8::9 becomes ::2: seven less, which is all there was.
    frame = outer6(body, check=0xFFFF - 7)
    outcome = switch(frame, v6=True)
    assert outcome.frame is not None
    assert outcome.frame[60:62] == b"\xff\xff"
