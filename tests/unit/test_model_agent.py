# SPDX-License-Identifier: Apache-2.0
"""The model of the transit agent. Rules by their number."""

from __future__ import annotations

import pytest

from mizarnet import Verdict
from tests.frames import (
    ADVERTISEMENT,
    TARGET_MAC,
    TYPE_ARP,
    arp,
    checksums_hold,
    ethernet,
    ipv4,
    ipv6,
    link_option,
    neighbour,
    patched,
)
from tests.model.case import TC_OK, TC_SHOT, DeferredChecksum, Outcome, RoutedBy, Sent, SentBy
from tests.support import small_host as host
from tests.support.small_host import (
    KEY,
    KEY6,
    NUMBERS,
    ROUTED,
    agent,
    dropped,
    icmp6,
    question4,
    question6,
    redirected,
    sent,
    to,
)

# -- 2.1 and 2.2 -------------------------------------------------------------------------------------------

BOUNCED = {
    "mark": host.MARK_BOUNCED,
    "token": host.TOKEN_BOUNCED,
    "from_tunnel": True,
    "origin": None,
    "key": KEY,
}


@pytest.mark.parametrize("rest", [{}, {"route_identity": False, "origin": ROUTED}, {"v6": True, "key": KEY6}])
def test_a_bounced_frame_is_let_out_as_it_is(rest: dict[str, object]) -> None:
    frame = b"\xff\xff not even understood"
    expected = Outcome(verdict=Verdict.BOUNCE_ADMITTED, action=TC_OK, frame=frame, priority=6, tstamp=7)
    assert agent(frame, **BOUNCED | rest) == expected


@pytest.mark.parametrize(
    "rest",
    [
        {"mark": host.MARK_LOCAL},
        {"token": bytes(12)},
        *({"token": host.TOKEN_BOUNCED[:at] + b"?" + host.TOKEN_BOUNCED[at + 1 :]} for at in range(12)),
        {"from_tunnel": False},
        {"origin": ROUTED},
        {"key": None},
        {"key": KEY6},
    ],
)
def test_what_only_looks_bounced_is_a_frame_like_others(rest: dict[str, object]) -> None:
    frame = patched(to("10.0.0.3"), 6, host.AFAR)
    assert agent(frame, **BOUNCED | rest) == Outcome(verdict=Verdict.UNKNOWN_SENDER, action=TC_SHOT)


def test_who_has_no_record_has_no_counter() -> None:
    own, unknown = (to("10.0.0.3", by=mac) for mac in (host.TUNNEL, host.AFAR))
    assert agent(own) == Outcome(verdict=Verdict.TUNNEL_OWN, action=TC_SHOT)  # A2
    assert agent(unknown) == Outcome(verdict=Verdict.UNKNOWN_SENDER, action=TC_SHOT)  # A3


LONGEST = sent(ipv4("10.0.0.1", "10.0.0.3", bytes(host.MTU - 20)))
SMALL, SEGMENT = to("10.0.0.3"), host.MTU - 28
ORIGINS: dict[str, tuple[bytes, dict[str, object], Verdict]] = {
    "A8": (LONGEST + b"x", {}, Verdict.OVERSIZED),
    "A8 longest": (LONGEST, {}, Verdict.ENCAPSULATED),
    "A8 segments": (SMALL, {"gso_size": SEGMENT + 1}, Verdict.OVERSIZED),
    "A8 longest segments": (LONGEST + b"x", {"gso_size": SEGMENT}, Verdict.ENCAPSULATED),
    "A8 segments of the sender": (LONGEST + b"x", {"gso_size": 0xFFFF}, Verdict.ENCAPSULATED),
    "A9": (SMALL, {"checksum": DeferredChecksum(33, 40)}, Verdict.BAD_OFFLOAD),
    "A9 checksum of UDP": (SMALL, {"checksum": DeferredChecksum(34, 40)}, Verdict.ENCAPSULATED),
    "A9 first bytes": (SMALL, {"checksum": DeferredChecksum(34, 35)}, Verdict.BAD_OFFLOAD),
    "A9 last bytes": (SMALL, {"checksum": DeferredChecksum(34, len(SMALL) - 2)}, Verdict.ENCAPSULATED),
    "A9 beyond": (SMALL, {"checksum": DeferredChecksum(34, len(SMALL) - 1)}, Verdict.BAD_OFFLOAD),
    "A9 ARP": (
        question4("10.0.0.1", "10.0.0.3"),
        {"checksum": DeferredChecksum(34, 36)},
        Verdict.BAD_OFFLOAD,
    ),
    "A8 before A9": (LONGEST + b"x", {"checksum": DeferredChecksum(0, 0)}, Verdict.OVERSIZED),
    "A4 before A8": (LONGEST + b"x", {"origin": RoutedBy(102, 4)}, Verdict.FOREIGN_DEVICE),
    "A4 namespace": (SMALL, {"origin": RoutedBy(102, 4)}, Verdict.FOREIGN_DEVICE),
    "A4 device": (SMALL, {"origin": RoutedBy(101, 5)}, Verdict.FOREIGN_DEVICE),
    "A4 device not known": (
        to("10.0.0.3", by=host.ROUTER),
        {"origin": RoutedBy(101, 5)},
        Verdict.ENCAPSULATED,
    ),
    "A5": (SMALL, {"origin": SentBy(101, 2)}, Verdict.REFLECTED),
    "A5 before A6": (SMALL, {"origin": SentBy(102, 10)}, Verdict.REFLECTED),
    "A6": (SMALL, {"origin": SentBy(102, 17)}, Verdict.FOREIGN_SOCKET),
    "A6 packet socket": (SMALL, {"origin": SentBy(101, 17)}, Verdict.ENCAPSULATED),
    "A6 XDP socket": (SMALL, {"origin": SentBy(101, 44)}, Verdict.ENCAPSULATED),
    "A6 tap": (SMALL, {"origin": SentBy(101, 0)}, Verdict.ENCAPSULATED),
    "A7": (SMALL, {"origin": None}, Verdict.NO_ORIGIN),
    "A7 ARP": (question4("10.0.0.1", "10.0.0.2"), {"origin": None}, Verdict.NEIGHBOUR_ANSWERED),
    "not asked": (SMALL, {"origin": RoutedBy(102, 4), "route_identity": False}, Verdict.ENCAPSULATED),
}

# Frames of somebody else are not counted for the sender that they name.
IMPOSTORS = (Verdict.FOREIGN_DEVICE, Verdict.FOREIGN_SOCKET, Verdict.REFLECTED, Verdict.NO_ORIGIN)


@pytest.mark.parametrize("rule", ORIGINS)
def test_who_may_send(rule: str) -> None:
    frame, rest, verdict = ORIGINS[rule]
    outcome = agent(frame, **rest)
    assert outcome.verdict == verdict
    counted = Sent(NUMBERS[frame[6:12]], len(frame), dropped=verdict >= Verdict.TRUNCATED)
    assert outcome.sent == (None if verdict in IMPOSTORS else counted)


# -- 2.3 and 2.4 -------------------------------------------------------------------------------------------

ASKED = question4("10.0.0.1", "10.0.0.2")
QUESTIONS4: dict[str, tuple[bytes, Verdict]] = {
    "R1": (ASKED[:41], Verdict.TRUNCATED),
    "R2 hardware": (patched(ASKED, 14, b"\0\6"), Verdict.BAD_ARP),
    "R2 protocol": (patched(ASKED, 16, b"\x86\xdd"), Verdict.BAD_ARP),
    "R2 hardware length": (patched(ASKED, 18, b"\5"), Verdict.BAD_ARP),
    "R2 protocol length": (patched(ASKED, 19, b"\6"), Verdict.BAD_ARP),
    "R2 operation": (question4("10.0.0.1", "10.0.0.2", operation=2), Verdict.BAD_ARP),
    "R3": (question4("10.0.0.1", "10.0.0.2", body_mac=host.DB), Verdict.ARP_SPOOFED),
    "R4 probe": (question4("0.0.0.0", "10.0.0.1"), Verdict.OWN_ADDRESS_ASKED),
    "R4 announcement": (question4("10.0.0.1", "10.0.0.1"), Verdict.OWN_ADDRESS_ASKED),
    "R5": (question4("10.0.0.2", "10.0.0.1"), Verdict.ARP_SPOOFED),
    "R5 probe": (question4("0.0.0.0", "10.0.0.2"), Verdict.ARP_SPOOFED),
    "R6": (question4("10.0.0.1", "10.9.0.1"), Verdict.NEIGHBOUR_UNKNOWN),
}


@pytest.mark.parametrize("rule", QUESTIONS4)
def test_arp_that_is_not_answered(rule: str) -> None:
    frame, verdict = QUESTIONS4[rule]
    assert agent(frame) == dropped(frame, verdict)


# A neighbour of this host, one of another, one that only a network contains, a gateway outside of them.
FOUND4 = {
    "10.0.0.2": host.DB,
    "10.3.0.3": host.VIRTUAL,
    "10.1.0.77": host.VIRTUAL,
    "10.0.0.254": host.VIRTUAL,
}


@pytest.mark.parametrize("target", FOUND4)
def test_arp_that_is_answered(target: str) -> None:
    frame, found = question4("10.0.0.1", target) + b"trailer", FOUND4[target]
    body = arp(found, target, "10.0.0.1", operation=2, target_mac=host.WEB)
    answer = ethernet(host.WEB, found, TYPE_ARP, body)
    assert agent(frame) == redirected(frame, Verdict.NEIGHBOUR_ANSWERED, answer)


def test_only_a_forwarding_sender_may_send_from_other_addresses() -> None:  # L1, D2
    foreign, forwarded = (to("10.0.0.3", source="10.7.7.7", by=by) for by in (host.WEB, host.ROUTER))
    assert agent(foreign) == dropped(foreign, Verdict.FOREIGN_SOURCE)
    assert agent(forwarded).verdict == Verdict.ENCAPSULATED
    assert agent(to("ff02::2", source=host.WEB_LINK_LOCAL)).verdict == Verdict.MULTICAST
    assert agent(to("ff02::2", source="::")).verdict == Verdict.MULTICAST
    assert agent(to("fd00::3", source="::")).verdict == Verdict.FOREIGN_SOURCE
    assert agent(to("fd00::3", source=host.WEB_LINK_LOCAL)).verdict == Verdict.FOREIGN_SOURCE  # D2
    assert agent(to("ff02::2", source="fe80::a:bff:fe0c:d02")).verdict == Verdict.FOREIGN_SOURCE
    assert agent(to("224.0.0.1", source="0.0.0.0")).verdict == Verdict.FOREIGN_SOURCE


def hidden(following: bytes, message: bytes, *, hops: int = 255) -> bytes:
    """A message behind an extension header, whose first byte says what follows."""
    return sent(
        ipv6("fd00::1", "fd00::2", b"\x3a" + following[1:] + message, protocol=following[0], hops=hops)
    )


GOOD = question6("fd00::2")
MESSAGE = GOOD[54:]
QUESTIONS6: dict[str, tuple[bytes, Verdict]] = {
    "L2": (sent(ipv6("fd00::1", "fd00::2", MESSAGE[:23], protocol=58, hops=255)), Verdict.BAD_ND),
    "L2 no type": (sent(ipv6("fd00::1", "fd00::2", b"", protocol=58)), Verdict.BAD_ND),
    "L3 hops": (question6("fd00::2", hops=254), Verdict.BAD_ND),
    "L3 code": (question6("fd00::2", code=1), Verdict.BAD_ND),
    "L3 options": (hidden(b"\x3c" + bytes(7), MESSAGE), Verdict.BAD_ND),
    "L3 fragment": (hidden(b"\x2c" + bytes(7), MESSAGE), Verdict.BAD_ND),
    "L4": (question6("fd00::1", kind=136), Verdict.OWN_ADDRESS_ASKED),
    "L4 link-local": (question6(host.WEB_LINK_LOCAL, kind=136), Verdict.OWN_ADDRESS_ASKED),
    "L5 advertisement": (question6("fd00::2", kind=136), Verdict.ND_SPOOFED),
    "L5 router": (question6("fd00::1", kind=134), Verdict.ND_SPOOFED),
    "L5 redirect": (question6("fd00::1", kind=137), Verdict.ND_SPOOFED),
    "L6": (question6("fd00::1", source="::"), Verdict.OWN_ADDRESS_ASKED),
    "L6 link-local": (question6(host.WEB_LINK_LOCAL, source="::"), Verdict.OWN_ADDRESS_ASKED),
    "L7": (question6("fd00::2", source="::", option=b""), Verdict.ND_SPOOFED),
    "L8": (question6("fd00::2", option=b"\1\1" + host.DB), Verdict.ND_SPOOFED),
    "L9": (question6("fd09::2"), Verdict.NEIGHBOUR_UNKNOWN),
    "router solicitation": (question6("fd00::2", kind=133), Verdict.MULTICAST),
}


@pytest.mark.parametrize("rule", QUESTIONS6)
def test_neighbour_discovery_that_is_not_answered(rule: str) -> None:
    frame, verdict = QUESTIONS6[rule]
    assert agent(frame) == dropped(frame, verdict)


@pytest.mark.parametrize(
    ("target", "found", "rest"),
    [
        ("fd00::2", host.DB, {}),
        ("fd00::3", host.VIRTUAL, {"source": host.WEB_LINK_LOCAL}),
        ("fd01::77", host.VIRTUAL, {"option": b""}),
        ("fd00::fe", host.VIRTUAL, {"option": b"\2\1" + host.DB}),
        ("fd00::2", host.DB, {"option": b"\1\1" + host.DB[:5]}),
    ],
)
def test_solicitation_that_is_answered(target: str, found: bytes, rest: dict[str, object]) -> None:
    frame = question6(target, **rest)
    body = neighbour(target, link_option(TARGET_MAC, found), flags=0x60000000)
    source = str(rest.get("source", "fd00::1"))
    answer = sent(icmp6(target, source, ADVERTISEMENT, body, hops=255), source=found, destination=host.WEB)
    assert len(answer) == 86
    assert checksums_hold(answer)
    assert agent(frame) == redirected(frame, Verdict.NEIGHBOUR_ANSWERED, answer)
