# SPDX-License-Identifier: Apache-2.0
"""The model of the datapath: what it understands, and the guard. Rules by their number."""

from __future__ import annotations

import attrs
import pytest

from mizarnet import Verdict
from tests.frames import geneve_option, ipv4, ipv6, patched, udp
from tests.model import judge
from tests.model.case import TC_OK, TC_REDIRECT, TC_SHOT, Case, Outcome, Outer, ProgramName, Received
from tests.model.checksum import changed, internet_checksum
from tests.support import small_host as host
from tests.support.small_host import KEY, KEY6, ROUTED, sent, to

PLAIN4, PLAIN6 = to("10.0.0.3"), to("fd00::3")


def test_checksums_are_those_of_the_standards() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D  # RFC 1071, section 3
    assert changed(0xDD2F, b"\x55\x55", b"\x32\x85") == 0x0000  # RFC 1624, section 4
    assert (
        changed(0xFFFF, b"\x12\x34", b"\x12\x34") == 0x0000
    )  # both mean zero, and equation 3 prefers this one


# -- section 1 ---------------------------------------------------------------------------------------------


def chain(kinds: list[int], sizes: list[int], *, upper: bytes = udp(9, 9, b""), last: int = 17) -> bytes:
    """``sizes``: the second byte of each header, which says how long it is."""
    body = b""
    for following, kind, size in zip([*kinds[1:], last], kinds, sizes, strict=True):
        length = 8 if kind == 44 else 4 * (size + 2) if kind == 51 else 8 * (size + 1)
        body += bytes([following, size]) + bytes(length - 2)
    return sent(ipv6("fd00::1", "fd00::3", body + upper, protocol=kinds[0]))


UNDERSTOOD: dict[str, tuple[bytes, Verdict]] = {
    "P1 service tag": (patched(PLAIN4, 12, b"\x88\xa8"), Verdict.VLAN_TAGGED),
    "P1 tag": (patched(PLAIN4, 12, b"\x81\x00"), Verdict.VLAN_TAGGED),
    "P1 old service tag": (patched(PLAIN4, 12, b"\x91\x00"), Verdict.VLAN_TAGGED),
    "P2": (patched(PLAIN4, 12, b"\x88\xcc"), Verdict.UNKNOWN_ETHERTYPE),
    "P3 IPv4": (PLAIN4[:33], Verdict.TRUNCATED),
    "P3 IPv6": (PLAIN6[:53], Verdict.TRUNCATED),
    "P4 version": (patched(PLAIN4, 14, b"\x65"), Verdict.BAD_IPV4),
    "P4 header": (patched(PLAIN4, 14, b"\x44"), Verdict.BAD_IPV4),
    "P4 total below header": (patched(PLAIN4, 16, b"\x00\x13"), Verdict.BAD_IPV4),
    "P4 total beyond frame": (PLAIN4[:-1], Verdict.BAD_IPV4),
    "P4 long": (sent(ipv4("10.0.0.1", "10.0.0.3", bytes(300)))[:-1], Verdict.BAD_IPV4),
    "P4 header and nothing else": (sent(ipv4("10.0.0.1", "10.0.0.3", b"")), Verdict.ENCAPSULATED),
    "P5 version": (patched(PLAIN6, 14, b"\x40"), Verdict.BAD_IPV6),
    "P5 payload": (PLAIN6[:-1], Verdict.BAD_IPV6),
    "P5 long": (sent(ipv6("fd00::1", "fd00::3", bytes(300)))[:-1], Verdict.BAD_IPV6),
    "P5 jumbo": (patched(PLAIN6, 18, b"\0\0")[:61], Verdict.BAD_IPV6),
    "P6 seven": (chain(7 * [60], 7 * [0]), Verdict.EXTENSION_HEADERS),
    "P6 far": (chain([0, 43], [16, 0]), Verdict.EXTENSION_HEADERS),
    "P6 cut": (chain([0], [0], upper=b"abc", last=60), Verdict.TRUNCATED),
    "P6 beyond the end": (chain([0], [0], upper=b"\x11\x01\0\0", last=60), Verdict.ENCAPSULATED),
    "P6 six": (chain([0, 60, 43, 51, 44, 60], [0, 0, 0, 4, 0, 0]), Verdict.ENCAPSULATED),
    "P6 at 128": (chain([0, 43], [15, 0]), Verdict.ENCAPSULATED),
    "P6 offset ends the walk": (patched(chain(7 * [44], 7 * [0]), 56, b"\0\x08"), Verdict.ENCAPSULATED),
    "P6 long offset": (patched(chain(7 * [44], 7 * [0]), 56, b"\1\0"), Verdict.ENCAPSULATED),
    "P6 no offset": (patched(chain(7 * [44], 7 * [0]), 56, b"\0\7"), Verdict.EXTENSION_HEADERS),
    "padding": (patched(PLAIN6, 18, b"\0\0")[:60], Verdict.ENCAPSULATED),
    "trailer": (PLAIN4 + b"trailer", Verdict.ENCAPSULATED),
}


@pytest.mark.parametrize("rule", UNDERSTOOD)
def test_agent_and_guard_understand_frames_alike(rule: str) -> None:
    frame, verdict = UNDERSTOOD[rule]
    by_agent = judge(Case(program="agent", frame=frame, origin=ROUTED), host.state())
    assert by_agent.verdict == verdict
    # In this VNI nobody has the addresses.
    by_guard = judge(Case(program="guard", frame=frame, key=attrs.evolve(KEY, vni=9)), host.state())
    assert by_guard.verdict == (Verdict.NO_DESTINATION if verdict == Verdict.ENCAPSULATED else verdict)


@pytest.mark.parametrize("program", ["agent", "guard"])
def test_a_tag_beside_the_frame_counts_even_if_it_is_zero(program: ProgramName) -> None:
    outcome = judge(Case(program=program, frame=PLAIN4, tag=0, origin=ROUTED, key=KEY), host.state())
    assert outcome == Outcome(verdict=Verdict.VLAN_TAGGED, action=TC_SHOT)


# -- guard -------------------------------------------------------------------------------------------------


def guard(frame: bytes, **rest: object) -> Outcome:
    case = attrs.evolve(Case(program="guard", frame=frame, key=KEY, mark=5, priority=6, tstamp=7), **rest)
    return judge(case, host.state())


def incoming(destination: str, *, source: str = "10.0.0.3", by: bytes = host.AFAR) -> bytes:
    return to(destination, source=source, by=by)


def key(**changes: object) -> dict[str, object]:
    return {"key": attrs.evolve(KEY, **changes)}


HARMLESS = geneve_option(1, bytes(8)) + geneve_option(0x7F)
GUARDED: dict[str, tuple[bytes, dict[str, object], Verdict]] = {
    "G2 no key": (incoming("10.0.0.2"), {"key": None}, Verdict.NO_TUNNEL_KEY),
    "G2 other family": (incoming("10.0.0.2"), {"key": KEY6}, Verdict.NO_TUNNEL_KEY),
    "G2 other mark": (incoming("10.0.0.2"), {"key": None, "mark": host.MARK_BOUNCED}, Verdict.NO_TUNNEL_KEY),
    "G3": (incoming("10.0.0.2"), key(local=host.HOST), Verdict.FOREIGN_LOCAL),
    "G4 control": (incoming("10.0.0.2"), key(control=True), Verdict.GENEVE_OPTIONS),
    "G4 critical": (incoming("10.0.0.2"), key(critical=True), Verdict.GENEVE_OPTIONS),
    "G4 critical option": (
        incoming("10.0.0.2"),
        key(options=HARMLESS + geneve_option(0x80)),
        Verdict.GENEVE_OPTIONS,
    ),
    "G4 too long": (
        incoming("10.0.0.2"),
        key(options=geneve_option(1, bytes(4), length=2)),
        Verdict.GENEVE_OPTIONS,
    ),
    "G4 rest": (incoming("10.0.0.2"), key(options=HARMLESS + b"abc"), Verdict.GENEVE_OPTIONS),
    "G4 harmless": (incoming("10.0.0.2"), key(options=HARMLESS), Verdict.ACCEPTED),
    "G5": (incoming("10.0.0.2"), key(remote=host.ip("198.51.100.1")), Verdict.FOREIGN_PEER),
    "G7": (host.question4("10.0.0.3", "10.0.0.2"), {}, Verdict.BAD_ARP),
    "G8": (host.question6("fd00::2"), {}, Verdict.BAD_ND),
    **{
        f"G8 behind {kind}": (
            chain([kind], [2], upper=host.question6("fd00::2")[54:], last=58),
            {},
            Verdict.BAD_ND,
        )
        for kind in (0, 43, 44, 51, 60)
    },
    "G8 behind six": (
        chain([0, 60, 43, 51, 44, 60], [0, 0, 0, 4, 0, 0], upper=host.question6("fd00::2")[54:], last=58),
        {},
        Verdict.BAD_ND,
    ),
    "G8 no type": (sent(ipv6("fd00::3", "fd00::2", b"", protocol=58)), {}, Verdict.BAD_ND),
    "G9 MAC": (b"\1" + incoming("10.0.0.2")[1:], {}, Verdict.MULTICAST),
    "G9 IPv4": (incoming("239.1.2.3"), {}, Verdict.MULTICAST),
    "G9 broadcast": (incoming("255.255.255.255"), {}, Verdict.MULTICAST),
    "G9 IPv6": (to("ff02::2", source="fd00::3"), {}, Verdict.MULTICAST),
    "G10": (patched(incoming("10.0.0.2"), 0, host.TUNNEL), {}, Verdict.TUNNEL_MAC),
    "G11 MAC": (incoming("10.0.0.2", by=host.WEB), {}, Verdict.SOURCE_IS_LOCAL),
    "G11 address": (incoming("10.0.0.2", source="10.3.0.2"), {}, Verdict.SOURCE_IS_LOCAL),
    "G11 MAC of another VNI": (incoming("10.0.0.2", by=host.OTHER), {}, Verdict.ACCEPTED),
    "G13 no network": (incoming("10.9.0.1"), {}, Verdict.NO_DESTINATION),
    "G13 no switches": (incoming("10.1.9.1"), {}, Verdict.NO_DESTINATION),
    "G13 this host": (incoming("10.2.0.1"), {}, Verdict.NO_DESTINATION),
    "G13 other VNI": (incoming("10.0.0.2"), key(vni=8), Verdict.NO_DESTINATION),
    "G14 last hop": (incoming("10.0.0.3", source="10.0.0.4"), key(ttl=1), Verdict.OUTER_HOP_LIMIT),
    "G14 no hop": (incoming("10.0.0.3", source="10.0.0.4"), key(ttl=0), Verdict.OUTER_HOP_LIMIT),
    "G15 refused": (
        incoming("10.0.0.3", source="10.0.0.4"),
        {"key_refused": True},
        Verdict.TUNNEL_KEY_REFUSED,
    ),
}


@pytest.mark.parametrize("rule", GUARDED)
def test_guard(rule: str) -> None:
    frame, rest, verdict = GUARDED[rule]
    outcome = guard(frame, **rest)
    if verdict == Verdict.ACCEPTED:
        assert outcome.verdict == verdict
    else:
        assert outcome == Outcome(verdict=verdict, action=TC_SHOT)


def test_guard_lets_the_agents_frame_in_as_it_is() -> None:  # G1
    frame = b"\xff\xff not even understood"
    assert guard(frame, key=None, mark=host.MARK_LOCAL, tag=3) == Outcome(
        verdict=Verdict.ACCEPTED_LOCALLY, action=TC_OK, frame=frame, priority=6, tstamp=7
    )


@pytest.mark.parametrize("frame", [incoming("10.0.0.2"), to("fd00::2", source="fd00::3", by=host.AFAR)])
def test_guard_gives_an_endpoint_its_frame(frame: bytes) -> None:  # G12
    assert guard(frame) == Outcome(
        verdict=Verdict.ACCEPTED,
        action=TC_OK,
        frame=host.DB + frame[6:],
        priority=6,
        tstamp=7,
        received=Received(2, len(frame)),
    )


@pytest.mark.parametrize(("destination", "to"), [("10.0.0.3", host.HOST), ("10.1.0.1", host.SWITCHES[1])])
def test_guard_sends_on_what_is_elsewhere(destination: str, to: bytes) -> None:  # G15
    frame = incoming(destination, source="10.0.0.4")
    assert guard(frame, flow_hash=13, **key(ttl=2)) == Outcome(
        verdict=Verdict.BOUNCED,
        action=TC_REDIRECT,
        frame=frame,
        mark=host.MARK_BOUNCED,
        token=host.TOKEN_BOUNCED,
        priority=6,
        tstamp=7,
        outer=Outer(7, to, host.LOCAL, 1),
        redirect="egress",
    )
