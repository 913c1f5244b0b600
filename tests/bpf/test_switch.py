# SPDX-License-Identifier: Apache-2.0
"""The transit switch on single frames, byte by byte against the model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product

import pytest

from mizarnet import Encap, Verdict
from tests.frames import (
    HEADER_BYTES,
    TYPE_ARP,
    TYPE_IPV4,
    TYPE_IPV6,
    arp,
    ethernet,
    patched,
    seal,
    tagged,
    u16,
)
from tests.support.switch_bench import (
    PAGE_FRAME,
    Bench,
    Wrapper,
    benches,
    inner_frame,
    set_forwarding,
    staged,
)
from tests.support.switch_knowledge import OWN, SENDER, VNI

LONGEST_OPTIONS = 252


@pytest.fixture(scope="module")
def all_benches(isolated: None) -> Iterator[dict[tuple[Encap, int], Bench]]:
    with staged() as stage, benches(stage) as made:
        yield made


@pytest.fixture(
    scope="module", params=product(Encap, (4, 6)), ids=lambda tunnel: f"{tunnel[0].value}-over-ipv{tunnel[1]}"
)
def bench(request: pytest.FixtureRequest, all_benches: dict[tuple[Encap, int], Bench]) -> Bench:
    """Once for each encapsulation over each family."""
    return all_benches[request.param]


def udp_at(bench: Bench) -> int:
    """Offset of the outer UDP header."""
    return 14 + HEADER_BYTES[bench.underlay.version]


def other_type(bench: Bench) -> int:
    """The EtherType of the family that the underlay is not of."""
    return TYPE_IPV6 if bench.underlay.version == 4 else TYPE_IPV4


def resealed(frame: bytes, *, has_udp_checksum: bool = False) -> bytes:
    """The same frame with right checksums, so that only what was changed on purpose is odd."""
    return frame[:14] + seal(frame[14:], has_udp_checksum=has_udp_checksum)


# -- bounced -----------------------------------------------------------------------------------------------

BOUNCED: list[tuple[str, Callable[[Bench], bytes]]] = [
    ("to a host", lambda b: b.packet("10.0.0.2")),
    ("to a host, IPv6 inside", lambda b: b.packet("fd01::2")),
    ("to the same address of another VNI", lambda b: b.packet("10.0.0.2", vni=8)),
    ("in the highest VNI", lambda b: b.packet("10.0.0.2", vni=0xFFFFFF)),
    ("to a host behind a gateway", lambda b: b.packet("10.0.0.12")),
    ("to a switch", lambda b: b.packet("10.2.0.1")),
    ("to a switch, IPv6 inside", lambda b: b.packet("fd02::1")),
    ("to the switch of the longer prefix", lambda b: b.packet("10.2.9.1")),
    ("by the default route of its VNI", lambda b: b.packet("10.2.9.1", vni=9)),
    ("by the default route of its family", lambda b: b.packet("fd99::1")),
    ("with its last hop but one", lambda b: b.packet(hops=2)),
    ("with the most hops", lambda b: b.packet(hops=255)),
    ("with a checksum", lambda b: b.packet(has_checksum=True)),
    ("with a checksum, to a switch", lambda b: b.packet("fd02::1", has_checksum=True, hops=2)),
    ("with a checksum, of odd length", lambda b: b.wrap(inner_frame("10.0.0.2", b"odd"), has_checksum=True)),
    ("larger than a page", lambda b: b.wrap(inner_frame("10.0.0.2", bytes(8900)))),
    ("larger than a page, with a checksum",
     lambda b: b.wrap(inner_frame("fd01::2", random.Random(1).randbytes(8901)), has_checksum=True)),
    ("with padding behind it", lambda b: b.packet() + bytes(7)),
    ("with the inner headers and nothing else", lambda b: b.wrap(inner_frame("10.0.0.2")[:34])),
    ("with the inner headers and nothing else, IPv6", lambda b: b.wrap(inner_frame("fd01::2")[:54])),
]  # fmt: skip


@pytest.mark.vm
@pytest.mark.parametrize("make", [case[1] for case in BOUNCED], ids=[case[0] for case in BOUNCED])
def test_bounced(bench: Bench, make: Callable[[Bench], bytes]) -> None:
    assert bench.agree(make(bench)).verdict is Verdict.BOUNCED


def test_only_the_first_buffer_of_a_large_frame_is_counted(bench: Bench) -> None:
    """What PAGE_FRAME says, on this kernel: headers must lie in the first buffer."""
    assert len(bench.packet()) < PAGE_FRAME < 4096


@pytest.mark.parametrize("flags", [0x4000, 0x8000], ids=["don't fragment", "reserved bit"])
def test_flags_that_make_no_fragment(bench: Bench, flags: int) -> None:
    if bench.underlay.version == 4:
        assert bench.agree(bench.packet(fragment=flags)).verdict is Verdict.BOUNCED


@pytest.mark.vm
def test_checksums_in_the_corners_of_ones_complement(bench: Bench) -> None:
    """Every sum before and after, 0x0000 and 0xffff among them: two bytes of payload walk through all of them."""
    wrapper = Wrapper(bench.state.config, bench.underlay, has_checksum=True)
    before, after = set[int](), set[int]()
    at = udp_at(bench) + 6
    for word in [0, 1, 0xFFFE, 0xFFFF, *_words_that_make_corners(bench, wrapper)]:
        frame = wrapper.around(inner_frame("10.0.0.2", word.to_bytes(2, "big")))
        ran = bench.agree(frame)
        before.add(int.from_bytes(frame[at : at + 2], "big"))
        after.add(int.from_bytes(ran.frame[at : at + 2], "big"))
    assert {1, 0xFFFF, 0xFFFE} <= before
    assert {1, 0xFFFF, 0xFFFE} <= after
    assert 0 not in before | after


def _words_that_make_corners(bench: Bench, wrapper: Wrapper) -> Iterator[int]:
    """Payload words after which the checksum, before or after the bounce, is next to where zero would be."""
    at = udp_at(bench) + 6
    plain = wrapper.around(inner_frame("10.0.0.2", bytes(2)))
    for frame in (plain, bench.run(plain).frame):
        check = int.from_bytes(frame[at : at + 2], "big")
        # The inner UDP has no checksum, and its payload stands at an even place: adding to it takes from the sum.
        yield from ((check - corner) % 0xFFFF for corner in (0, 1, 0xFFFE))


@pytest.mark.vm
@pytest.mark.parametrize("version", [4, 6])
def test_geneve_options_are_skipped(all_benches: dict[tuple[Encap, int], Bench], version: int) -> None:
    bench, dice = all_benches[Encap.GENEVE, version], random.Random(version)
    for size in range(0, LONGEST_OPTIONS + 1, 4):
        for to in ("10.0.0.2", "fd01::2"):
            frame = bench.packet(to, options=dice.randbytes(size), has_checksum=bool(size % 8))
            assert bench.agree(frame).verdict is Verdict.BOUNCED, size


@pytest.mark.vm
def test_a_flow_keeps_its_switch_and_flows_spread_over_all(bench: Bench) -> None:
    chosen: Counter[bytes] = Counter()
    for port in range(49152, 49152 + 30):
        first, again = (bench.agree(bench.packet("10.2.0.1", source_port=port)).frame for _ in range(2))
        assert first == again
        assert bench.agree(bench.packet("10.2.0.77", source_port=port, hops=9)).frame[:6] == first[:6]
        chosen[first[:6]] += 1
    assert sorted(chosen.values()) == [10, 10, 10]


# -- passed ------------------------------------------------------------------------------------------------

PASSED: list[tuple[str, Callable[[Bench], bytes]]] = [
    ("ARP", lambda b: ethernet(OWN, SENDER, TYPE_ARP, arp(SENDER, "192.0.2.2", "192.0.2.1"))),
    ("LLDP", lambda b: ethernet(OWN, SENDER, 0x88CC, b.packet()[14:])),
    ("the other family's type", lambda b: patched(b.packet(), 12, u16(other_type(b)))),
    ("the other family's version", lambda b: patched(b.packet(), 14, b"\x65" if b.underlay.version == 4 else b"\x45")),
    ("with an 802.1Q tag", lambda b: tagged(b.packet(), (0x8100, 7))),
    ("with an 802.1ad tag", lambda b: tagged(b.packet(), (0x88A8, 7))),
    ("to another port", lambda b: patched(b.packet(), udp_at(b) + 2, b"\x12\x34")),
    ("with the ports swapped", lambda b: patched(b.packet(source_port=b.state.config.port), udp_at(b) + 2, b"\xc0\0")),
    ("for an endpoint of this host", lambda b: b.packet("10.0.0.1")),
    ("for an endpoint of this host, IPv6", lambda b: b.packet("fd01::1")),
    ("for nobody", lambda b: b.packet("172.16.0.1")),
    ("for nobody of that VNI", lambda b: b.packet("10.0.0.2", vni=10)),
    ("for VNI zero", lambda b: b.packet("10.0.0.2", vni=0)),
    ("for a network without switches", lambda b: b.packet("10.4.0.1")),
    ("for a network that this host is a switch of", lambda b: b.packet("10.3.0.1")),
    ("the same, another flow", lambda b: b.packet("10.3.0.1", source_port=50_001)),
    ("the same, IPv6", lambda b: b.packet("fd03::1")),
    ("with its last hop", lambda b: b.packet(hops=1)),
    ("with no hop", lambda b: b.packet(hops=0)),
    ("with ARP inside", lambda b: b.wrap(ethernet(OWN, SENDER, TYPE_ARP, bytes(46)))),
    ("with an 802.1Q tag inside", lambda b: b.wrap(tagged(inner_frame("10.0.0.2"), (0x8100, 7)))),
]  # fmt: skip


@pytest.mark.vm
@pytest.mark.parametrize("make", [case[1] for case in PASSED], ids=[case[0] for case in PASSED])
def test_passed_untouched(bench: Bench, make: Callable[[Bench], bytes]) -> None:
    assert bench.agree(make(bench)).verdict is Verdict.PASSED


IPV4_FIELDS: list[tuple[str, int, tuple[int, ...]]] = [
    ("options", 14, (0x46,)), ("a header of 16 bytes", 14, (0x44,)), ("more fragments", 20, (0x20, 0)),
    ("the last fragment", 20, (0, 1)), ("a middle fragment", 20, (0x3F, 0xFF)), ("TCP", 23, (6,)),
    ("another destination", 30, (192, 0, 2, 9)), ("a source that is no peer", 26, (203, 0, 113, 2)),
]  # fmt: skip
IPV6_FIELDS: list[tuple[str, int, tuple[int, ...]]] = [
    ("a fragment header", 20, (44,)), ("hop-by-hop options", 20, (0,)), ("TCP", 20, (6,)),
    ("another destination", 53, (9,)), ("a source that is no peer", 22, (0x20, 1)),
]  # fmt: skip
IP_FIELDS = {4: IPV4_FIELDS, 6: IPV6_FIELDS}


@pytest.mark.vm
def test_outer_ip_that_is_not_ours(bench: Bench) -> None:
    for name, offset, new in IP_FIELDS[bench.underlay.version]:
        assert bench.agree(patched(bench.packet(), offset, bytes(new))).verdict is Verdict.PASSED, name


TUNNEL_BYTES: dict[Encap, list[tuple[str, int, tuple[int, ...]]]] = {
    Encap.VXLAN: [
        *((f"flag {1 << bit:#04x} too", 0, (0x08 | 1 << bit,)) for bit in range(8) if bit != 3),
        ("no VNI flag", 0, (0,)), ("reserved byte 1", 1, (1,)), ("reserved byte 2", 2, (1,)),
        ("reserved byte 3", 3, (0x80,)), ("reserved byte 7", 7, (1,)),
    ],
    Encap.GENEVE: [
        ("version 1", 0, (0x40,)), ("version 2", 0, (0x80,)), ("control", 1, (0x80,)), ("critical options", 1, (0x40,)),
        ("IPv4 in it", 2, (0x08, 0x00)), ("IPv6 in it", 2, (0x86, 0xDD)),
        ("options longer than the packet", 0, (0x3F,)),
    ],
}  # fmt: skip


@pytest.mark.vm
def test_tunnel_header_that_is_not_ours(bench: Bench) -> None:
    for name, offset, new in TUNNEL_BYTES[Encap(bench.state.config.encap)]:
        frame = patched(bench.packet(), udp_at(bench) + 8 + offset, bytes(new))
        assert bench.agree(frame).verdict is Verdict.PASSED, name


@pytest.mark.vm
@pytest.mark.parametrize("to", ["10.0.0.2", "fd01::2"])
def test_cut_at_every_byte(bench: Bench, to: str) -> None:
    """A frame is bounced as soon as it has the inner addresses, and never before."""
    frame = bench.packet(to, options=bytes(8))
    whole = len(bench.wrap(b"", options=bytes(8))) + (34 if "." in to else 54)
    for length in range(14, len(frame) + 1):
        expected = Verdict.BOUNCED if length >= whole else Verdict.PASSED
        assert bench.agree(frame[:length]).verdict is expected, length


# -- left to the guard -------------------------------------------------------------------------------------


@pytest.mark.vm
@pytest.mark.parametrize(
    ("to", "verdict"),
    [
        ("10.0.0.9", Verdict.PASSED_NO_NEIGHBOUR),
        ("fd01::9", Verdict.PASSED_NO_NEIGHBOUR),
        ("10.0.0.10", Verdict.PASSED_OTHER_INTERFACE),
        ("10.0.0.11", Verdict.PASSED_NO_ROUTE),
        ("10.0.0.13", Verdict.PASSED_NO_ROUTE),
    ],
)
def test_no_next_hop_for_the_program(bench: Bench, to: str, verdict: Verdict) -> None:
    assert bench.agree(bench.packet(to)).verdict is verdict


@pytest.mark.vm
def test_forwarding_off(bench: Bench) -> None:
    frame = bench.packet()
    set_forwarding(bench.stage.session, "eth0", False)
    try:
        ran = bench.run(frame)
    finally:
        set_forwarding(bench.stage.session, "eth0", True)
    assert (ran.verdict, ran.frame) == (Verdict.PASSED_FORWARDING_OFF, frame)
    assert bench.agree(frame).verdict is Verdict.BOUNCED


@pytest.mark.vm
def test_checksum_on_the_generic_hook(bench: Bench) -> None:
    with bench.on_generic_hook() as generic:
        for to in ("10.0.0.2", "10.2.0.1", "10.0.0.9"):
            assert generic.agree(bench.packet(to, has_checksum=True)).verdict is Verdict.PASSED_CHECKSUM
        for frame in (bench.packet(has_checksum=True, hops=1), bench.packet("10.0.0.1", has_checksum=True)):
            assert generic.agree(frame).verdict is Verdict.PASSED
        assert generic.agree(bench.packet()).verdict is Verdict.BOUNCED
    assert bench.agree(bench.packet(has_checksum=True)).verdict is Verdict.BOUNCED


# -- whatever comes ----------------------------------------------------------------------------------------


def test_frames_with_random_bytes_in_them(bench: Bench) -> None:
    """A thousand good frames, each with up to three odd bytes in its headers; checksums are mended in half of them."""
    seen: Counter[Verdict] = Counter()
    for seed in range(1000):
        seen[bench.agree(_odd_frame(bench, random.Random(seed))).verdict] += 1
    assert seen[Verdict.BOUNCED] > 100
    assert seen[Verdict.PASSED] > 100


def _odd_frame(bench: Bench, dice: random.Random) -> bytes:
    to = dice.choice(["10.0.0.2", "fd01::2", "10.2.0.5", "fd02::5", "10.3.0.1", "fd99::1"])
    has_checksum = dice.random() < 0.5
    frame = bench.packet(to, vni=VNI, hops=dice.randrange(256), source_port=dice.randrange(65536),
                         has_checksum=has_checksum, options=dice.randbytes(4 * dice.randrange(64)))  # fmt: skip
    for _ in range(dice.randrange(4)):
        frame = patched(frame, dice.randrange(12, udp_at(bench) + 24), bytes([dice.randrange(256)]))
    good = frame[14] >> 4 == bench.underlay.version
    mended = good and dice.random() < 0.5
    return resealed(frame, has_udp_checksum=has_checksum) if mended else frame
