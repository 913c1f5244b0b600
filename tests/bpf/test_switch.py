# SPDX-License-Identifier: Apache-2.0
"""The transit switch as it is shipped, on single frames and with the kernel's own routes: byte by byte as the model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import attrs
import pytest

from mizarnet import Verdict
from tests.frames import HEADER_BYTES, patched, seal
from tests.support.fixtures import by_state, named_states
from tests.support.shipped import PAGE_FRAME, Shipped, blind
from tests.support.switch_bench import Bench, benches, set_forwarding, staged
from tests.support.switch_knowledge import HERE, SWITCHED, SWITCHED_IPV6, THERE, THERE_IPV6, TUNNELS

LONGEST_OPTIONS = 252
EITHER = [THERE, THERE_IPV6]
KEPT = by_state("switch")


@pytest.fixture(scope="module")
def all_benches(isolated: None) -> Iterator[dict[str, Bench]]:
    with staged() as stage, benches(stage) as made:
        yield made


@pytest.fixture(scope="module", params=TUNNELS)
def bench(request: pytest.FixtureRequest, all_benches: dict[str, Bench]) -> Bench:
    """Once for each encapsulation over each family."""
    return all_benches[request.param]


def udp_at(bench: Bench) -> int:
    """Offset of the outer UDP header."""
    return 14 + HEADER_BYTES[bench.underlay.version]


def resealed(frame: bytes, *, has_udp_checksum: bool = False) -> bytes:
    """The same frame with right checksums, so that only what was changed on purpose is odd."""
    return frame[:14] + seal(frame[14:], has_udp_checksum=has_udp_checksum)


@pytest.mark.vm
@pytest.mark.parametrize("name", KEPT)
def test_the_kept_cases(all_benches: dict[str, Bench], name: str) -> None:
    """Where the kernel knows a way to every host that they ask for."""
    with Shipped.load(blind(named_states()[name])) as shipped:
        bench = attrs.evolve(all_benches[TUNNELS[0]], shipped=shipped, state=shipped.state)
        for fixture in KEPT[name].values():
            bench.agree(fixture.case.frame, fixture.name)


# -- bounced -----------------------------------------------------------------------------------------------


@pytest.mark.vm
@pytest.mark.parametrize("to", EITHER)
@pytest.mark.parametrize("has_checksum", [False, True], ids=["plain", "with a checksum"])
@pytest.mark.parametrize("size", [3, 8900, 8901])
def test_frames_of_odd_length_and_of_several_pages(
    bench: Bench, to: str, has_checksum: bool, size: int
) -> None:
    frame = bench.packet(to, payload=random.Random(size).randbytes(size), has_checksum=has_checksum)
    assert bench.agree(frame).verdict is Verdict.BOUNCED


def test_only_the_first_buffer_of_a_large_frame_is_counted(bench: Bench) -> None:
    """What PAGE_FRAME says, on this kernel: headers must lie in the first buffer."""
    assert len(bench.packet()) < PAGE_FRAME < 4096


@pytest.mark.vm
def test_checksums_in_the_corners_of_ones_complement(bench: Bench) -> None:
    """Every sum before and after, 0x0000 and 0xffff among them: two bytes of payload walk through all of them."""
    before, after = set[int](), set[int]()
    at = udp_at(bench) + 6
    for word in [0, 1, 0xFFFE, 0xFFFF, *_words_that_make_corners(bench)]:
        frame = bench.packet(payload=word.to_bytes(2, "big"), has_checksum=True)
        ran = bench.agree(frame)
        before.add(int.from_bytes(frame[at : at + 2], "big"))
        after.add(int.from_bytes(ran.frame[at : at + 2], "big"))
    assert {1, 0xFFFF, 0xFFFE} <= before
    assert {1, 0xFFFF, 0xFFFE} <= after
    assert 0 not in before | after


def _words_that_make_corners(bench: Bench) -> Iterator[int]:
    """Payload words after which the checksum, before or after the bounce, is next to where zero would be."""
    at = udp_at(bench) + 6
    plain = bench.packet(payload=bytes(2), has_checksum=True)
    for frame in (plain, bench.run(plain).frame):
        check = int.from_bytes(frame[at : at + 2], "big")
        # The inner UDP has no checksum, and its payload stands at an even place: adding to it takes from the sum.
        yield from ((check - corner) % 0xFFFF for corner in (0, 1, 0xFFFE))


@pytest.mark.vm
@pytest.mark.parametrize("version", [4, 6])
def test_geneve_options_are_skipped(all_benches: dict[str, Bench], version: int) -> None:
    bench, dice = all_benches[f"Geneve over IPv{version}"], random.Random(version)
    for size in range(0, LONGEST_OPTIONS + 1, 4):
        for to in EITHER:
            frame = bench.packet(to, options=dice.randbytes(size), has_checksum=bool(size % 8))
            assert bench.agree(frame).verdict is Verdict.BOUNCED, size


@pytest.mark.vm
def test_a_flow_keeps_its_switch_and_flows_spread_over_all(bench: Bench) -> None:
    chosen: Counter[bytes] = Counter()
    for port in range(49152, 49152 + 32):
        first, again = (bench.agree(bench.packet("10.3.0.1", source_port=port)).frame for _ in range(2))
        assert first == again
        assert bench.agree(bench.packet("10.3.0.77", source_port=port, hops=9)).frame[:6] == first[:6]
        chosen[first[:6]] += 1
    assert [*chosen.values()] == 16 * [2]


# -- passed ------------------------------------------------------------------------------------------------


@pytest.mark.vm
@pytest.mark.parametrize("to", EITHER)
def test_cut_at_every_byte(bench: Bench, to: str) -> None:
    """A frame is bounced as soon as it has the inner addresses, and never before."""
    frame = bench.packet(to, payload=b"", options=bytes(8))
    whole = len(frame) - 8  # without the inner UDP header
    for length in range(14, len(frame) + 1):
        expected = Verdict.BOUNCED if length >= whole else Verdict.PASSED
        assert bench.agree(frame[:length]).verdict is expected, length


# -- left to the guard -------------------------------------------------------------------------------------


@pytest.mark.vm
@pytest.mark.parametrize(
    ("to", "verdict"),
    [
        ("10.0.0.109", Verdict.PASSED_NO_NEIGHBOUR),
        ("fd00::109", Verdict.PASSED_NO_NEIGHBOUR),
        ("10.0.0.110", Verdict.PASSED_OTHER_INTERFACE),
        ("10.0.0.111", Verdict.PASSED_NO_ROUTE),
        ("10.0.0.112", Verdict.BOUNCED),
        ("10.0.0.113", Verdict.PASSED_NO_ROUTE),
    ],
)
def test_the_ways_that_the_kernel_knows(bench: Bench, to: str, verdict: Verdict) -> None:
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
        for to in (THERE, SWITCHED, "10.0.0.109"):
            assert generic.agree(bench.packet(to, has_checksum=True)).verdict is Verdict.PASSED_CHECKSUM
        for frame in (bench.packet(has_checksum=True, hops=1), bench.packet(HERE, has_checksum=True)):
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
    to = dice.choice([*EITHER, SWITCHED, SWITCHED_IPV6, "10.4.0.1", "fd03::5"])
    has_checksum = dice.random() < 0.5
    frame = bench.packet(to, hops=dice.randrange(256), source_port=dice.randrange(65536),
                         has_checksum=has_checksum, options=dice.randbytes(4 * dice.randrange(64)))  # fmt: skip
    for _ in range(dice.randrange(4)):
        frame = patched(frame, dice.randrange(12, udp_at(bench) + 24), bytes([dice.randrange(256)]))
    good = frame[14] >> 4 == bench.underlay.version
    mended = good and dice.random() < 0.5
    return resealed(frame, has_udp_checksum=has_checksum) if mended else frame
