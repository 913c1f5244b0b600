# SPDX-License-Identifier: Apache-2.0
"""The model of the transit agent: where packets go, and what the gateway says. Rules by their number."""

from __future__ import annotations

import pytest

from mizarnet import Verdict
from tests.frames import checksum, checksums_hold, echo_request, icmp, ip, ipv4, ipv6, patched, u16, udp
from tests.model.case import TC_OK, Outcome, Outer, Received, Sent
from tests.support import small_host as host
from tests.support.small_host import agent, dropped, icmp6, redirected, sent, to

# -- 2.5 ---------------------------------------------------------------------------------------------------


def encapsulated(frame: bytes, result: bytes, to: bytes) -> Outcome:
    return Outcome(
        verdict=Verdict.ENCAPSULATED,
        action=TC_OK,
        frame=result,
        outer=Outer(7, to, host.LOCAL, 64),
        sent=Sent(1, len(frame), dropped=False),
    )


LOST: dict[str, tuple[bytes, dict[str, object], Verdict]] = {
    "D1 MAC": (patched(to("10.0.0.3"), 0, b"\1"), {}, Verdict.MULTICAST),
    "D1 IPv4": (to("224.0.0.1"), {}, Verdict.MULTICAST),
    "D1 last IPv4": (to("239.255.255.255"), {}, Verdict.MULTICAST),
    "D1 broadcast": (to("255.255.255.255"), {}, Verdict.MULTICAST),
    "D1 IPv6": (to("ff05::1"), {}, Verdict.MULTICAST),
    "D1 not quite": (to("240.0.0.1"), {}, Verdict.NO_DESTINATION),
    "D3": (to("10.0.0.1"), {}, Verdict.HAIRPIN),
    "D5 refused": (to("10.0.0.3"), {"key_refused": True}, Verdict.TUNNEL_KEY_REFUSED),
    "D7": (to("10.9.0.1"), {}, Verdict.NO_DESTINATION),
    "D8 no switches": (to("10.0.0.77"), {}, Verdict.NO_SWITCH),
    "D8 longest prefix": (to("10.1.9.1"), {}, Verdict.NO_SWITCH),
    "D8 this host": (to("10.2.0.1"), {}, Verdict.NO_SWITCH),
    "D9 refused": (to("10.1.0.1"), {"key_refused": True}, Verdict.TUNNEL_KEY_REFUSED),
}


@pytest.mark.parametrize("rule", LOST)
def test_packet_that_goes_nowhere(rule: str) -> None:
    frame, rest, verdict = LOST[rule]
    assert agent(frame, **rest) == dropped(frame, verdict)


@pytest.mark.parametrize("frame", [to("10.0.0.2", hops=1), to("fd00::2", hops=0)])
def test_neighbour_on_this_host_gets_the_frame(frame: bytes) -> None:  # D4
    result = host.DB + frame[6:]
    assert agent(frame) == redirected(frame, Verdict.DELIVERED_LOCALLY, result, Received(2, len(frame)))


@pytest.mark.parametrize("frame", [to("10.0.0.3", hops=1), to("fd00::3", hops=0)])
def test_neighbour_on_another_host_costs_no_hop(frame: bytes) -> None:  # D5
    assert agent(frame) == encapsulated(frame, frame, host.HOST)


def test_routed_packet_loses_a_hop() -> None:
    assert agent(to("10.3.0.2")).frame == host.DB + to("10.3.0.2", hops=63)[6:]
    frame = to("10.3.0.3", hops=2)
    assert agent(frame) == encapsulated(frame, to("10.3.0.3", hops=1), host.HOST)


@pytest.mark.parametrize("flow_hash", [12, 13])
def test_routed_packet_goes_to_the_switch_of_its_flow(flow_hash: int) -> None:  # D9
    for frame, result in ((to("10.1.0.1"), to("10.1.0.1", hops=63)), (to("fd01::1"), to("fd01::1", hops=63))):
        assert agent(frame, flow_hash=flow_hash) == encapsulated(frame, result, host.SWITCHES[flow_hash % 2])


def test_wrong_header_checksum_stays_as_wrong_as_it_was() -> None:
    wrong = patched(to("10.1.0.1"), 24, b"\xab\xcd")
    result = agent(wrong).frame
    assert result is not None
    assert checksum(result[14:34]) == checksum(wrong[14:34]) != 0


def test_header_checksum_of_all_ones_is_changed_as_equation_3_says() -> None:
    result = agent(patched(to("10.1.0.1"), 24, b"\xff\xff")).frame
    assert result is not None
    # HC' = ~(~ffff + ~4011 + 3f11) = ~(0000 + bfee + 3f11) = ~feff
    assert result[24:26] == b"\x01\x00"


# -- 2.6 ---------------------------------------------------------------------------------------------------


def expiring4(payload: bytes, *, protocol: int = 17, flags: int = 0, source: str = "10.0.0.1") -> bytes:
    return sent(ipv4(source, "10.1.0.1", payload, protocol=protocol, hops=1, flags=flags))


def expiring6(payload: bytes, *, protocol: int = 17) -> bytes:
    return sent(ipv6("fd00::1", "fd01::1", payload, protocol=protocol, hops=1))


def with_options(frame: bytes) -> bytes:
    """Four bytes of options before what follows the IPv4 header."""
    return patched(frame[:34] + bytes(4) + frame[34:], 14, b"\x46" + frame[15:16] + u16(len(frame) - 10))


SILENT: dict[str, bytes] = {
    "later fragment": expiring4(bytes(8), flags=1),
    "later fragment, IPv6": expiring6(b"\x11\0\0\x08" + bytes(12), protocol=44),
    "ICMP without type": expiring6(b"\1\0" + bytes(6), protocol=60),
    "ICMP error": expiring4(b"\3" + bytes(7), protocol=1),
    "echo reply": expiring4(b"\0" + bytes(7), protocol=1),
    "ICMPv6 error": expiring6(b"\x7f" + bytes(7), protocol=58),
    "ICMPv6 error in IPv4": expiring4(b"\x08" + bytes(7), protocol=58),
    "ICMP error in IPv6": expiring6(b"\x80" + bytes(7), protocol=1),
    "options": with_options(expiring4(bytes(8))),
    "short": expiring4(bytes(7)) + b"trailer",
    "short, IPv6": expiring6(bytes(7)),
    "no gateway": to("10.1.0.1", by=host.ROUTER, hops=0),
}


@pytest.mark.parametrize("what", SILENT)
def test_packet_that_expires_silently(what: str) -> None:
    assert agent(SILENT[what]) == dropped(SILENT[what], Verdict.HOP_LIMIT)


ANSWERED4 = [
    expiring4(udp(9, 9, b"payload")),
    expiring4(bytes(8)) + b"trailer",
    expiring4(bytes(8), flags=0x2000),
    patched(expiring4(bytes(8)), 22, b"\0"),
    *(expiring4(bytes([kind]) + bytes(7), protocol=1) for kind in (8, 13)),
    expiring4(b"\x80" + bytes(7), protocol=58),
]


@pytest.mark.parametrize("frame", ANSWERED4)
def test_packet_that_expires_is_answered(frame: bytes) -> None:
    message = icmp(11, bytes(4) + frame[14:42])
    packet = ipv4("10.0.0.254", "10.0.0.1", message, protocol=1)
    answer = sent(packet, source=host.VIRTUAL, destination=host.WEB)
    assert len(answer) == 70
    assert agent(frame) == redirected(frame, Verdict.GATEWAY_ANSWERED, answer)


ANSWERED6 = [
    expiring6(udp(9, 9, b"payload")),
    expiring6(b"\x80" + bytes(7), protocol=58),
    expiring6(b"\x08" + bytes(7), protocol=1),
    expiring6(b"\x11\0" + bytes(6), protocol=60),
]


@pytest.mark.parametrize("frame", ANSWERED6)
def test_ipv6_packet_that_expires_is_answered(frame: bytes) -> None:
    packet = icmp6("fd00::fe", "fd00::1", 3, bytes(4) + frame[14:62])
    answer = sent(packet, source=host.VIRTUAL, destination=host.WEB)
    assert len(answer) == 110
    assert checksums_hold(answer)
    assert agent(frame) == redirected(frame, Verdict.GATEWAY_ANSWERED, answer)


# -- 2.7 ---------------------------------------------------------------------------------------------------


def ping4(destination: str, message: bytes, *, flags: int = 0) -> bytes:
    return sent(ipv4("10.0.0.1", destination, message, protocol=1, flags=flags))


def ping6(destination: str, message: bytes) -> bytes:
    return sent(icmp6("fd00::1", destination, message[0], message[4:], code=message[1]))


ECHO, ECHO6 = echo_request(3, 4), b"\x80\0\0\0\0\3\0\4mizarnet"
UNANSWERED: dict[str, bytes] = {
    "D6 UDP": to("10.0.0.254"),
    "reply": ping4("10.0.0.254", b"\0" + bytes(7)),
    "fragment": ping4("10.0.0.254", ECHO, flags=0x2000),
    "short": ping4("10.0.0.254", ECHO[:7]) + b"trailer",
    "ICMPv6 in IPv4": sent(ipv4("10.0.0.1", "10.0.0.254", ECHO6, protocol=58)),
    "ICMP in IPv6": sent(ipv6("fd00::1", "fd00::fe", ECHO, protocol=1)),
    "IPv6 fragment": sent(ipv6("fd00::1", "fd00::fe", b"\x3a" + bytes(7) + ECHO6, protocol=44)),
}


@pytest.mark.parametrize("what", UNANSWERED)
def test_the_gateway_says_nothing_but_echo_replies(what: str) -> None:
    assert agent(UNANSWERED[what]) == dropped(UNANSWERED[what], Verdict.NO_DESTINATION)


# The sender's own gateway; the network's, on another link, and so one hop away.
@pytest.mark.parametrize(("gateway", "ttl"), [("10.0.0.254", 64), ("10.0.0.253", 64), ("10.1.0.254", 63)])
def test_echo_request_to_a_gateway_is_answered(gateway: str, ttl: int) -> None:
    frame = ping4(gateway, ECHO) + b"trailer"
    packet = ipv4(gateway, "10.0.0.1", icmp(0, ECHO[4:]), protocol=1, hops=ttl)
    answer = sent(packet + b"trailer", source=host.VIRTUAL, destination=host.WEB)
    assert agent(frame) == redirected(frame, Verdict.GATEWAY_ANSWERED, answer)


@pytest.mark.parametrize(("gateway", "hops"), [("fd00::fe", 64), ("fd01::fe", 63)])
def test_ipv6_echo_request_to_a_gateway_is_answered(gateway: str, hops: int) -> None:
    frame = ping6(gateway, patched(ECHO6, 1, b"\5"))  # the code is not looked at
    packet = icmp6(gateway, "fd00::1", 129, ECHO6[4:], code=5, hops=hops)
    answer = sent(packet, source=host.VIRTUAL, destination=host.WEB)
    assert agent(frame) == redirected(frame, Verdict.GATEWAY_ANSWERED, answer)


def test_echo_request_needs_no_more_than_eight_bytes() -> None:
    assert agent(ping4("10.0.0.254", ECHO[:8])).verdict == Verdict.GATEWAY_ANSWERED
    assert agent(ping6("fd00::fe", ECHO6[:8])).verdict == Verdict.GATEWAY_ANSWERED


def test_echo_reply_keeps_what_stands_before_the_message() -> None:
    plain = with_options(ping4("10.0.0.254", ECHO))
    answer = agent(plain).frame
    assert answer is not None
    assert answer[:38] == host.WEB + host.VIRTUAL + plain[12:26] + ip("10.0.0.254") + ip("10.0.0.1") + bytes(
        4
    )
    assert checksum(answer[38:]) == 0
    packet = ipv6("fd00::1", "fd00::fe", b"\x3a\0" + bytes(6) + ECHO6, protocol=60)
    answer = agent(sent(packet)).frame
    assert answer is not None
    assert answer[54:63] == b"\x3a\0" + bytes(6) + b"\x81"
