# SPDX-License-Identifier: Apache-2.0
"""Whole cases: frames, and what the kernel knows about them. The same numbers always give the same case."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice

from tests.fuzz.damage import Damage
from tests.fuzz.frames import LONGEST, Grammar
from tests.fuzz.options import option_fields
from tests.fuzz.outer import OuterFrames
from tests.fuzz.pools import PICK, mostly, pool
from tests.fuzz.speakers import Directory, Speaker, flipped, sender, tenant
from tests.fuzz.states import inside, state_of
from tests.model.case import NO_TOKEN, Case, DeferredChecksum, Hop, HopResult, ProgramName, TunnelKey
from tests.model.state import Ip, State

PER_STATE = 400
"""Cases before the same tables."""
_SHORTEST_SEGMENTED = 64
"""A shorter frame is cut from a longer one before the program sees it, and the kernel then forgets the segments."""

_PRIORITIES = mostly(0, 1, 7, 0x10001, 0xFFFFFFFF)
_TIMES = mostly(0, 1, 1_700_000_000_000_000_000, 1 << 62)
_CLOCKS = mostly(1_500_000_000, 0, 999_999_999, 1_000_000_000, 1_999_999_999, 2_000_000_000, 257_000_000_000)
"""Around the seconds in which senders have been told that a packet is too long."""
_CHECKSUM_STARTS = (34, 34, 54, 54, 62, 33, 53, 14)
_TAGS = (0, 7, 0xFFF, 0xE001)


def cases_of(program: ProgramName, seed: int, number: int, state: State) -> Iterator[Case]:
    """All cases of a program before the tables of a state."""
    rng = random.Random(f"{program} {seed} {number}")
    make = _MAKERS[program](rng, state)
    return (make() for _ in range(PER_STATE))


def case_of(program: ProgramName, seed: int, index: int) -> tuple[State, Case]:
    """One case again, by its index in a run."""
    number, index_in_state = divmod(index, PER_STATE)
    state = state_of(seed, number)
    return state, next(islice(cases_of(program, seed, number, state), index_in_state, None))


class _Maker:
    """What the cases of all programs have in common."""

    def __init__(self, rng: random.Random, state: State) -> None:
        self.bits = rng.getrandbits
        self.state = state
        self.directory = Directory(state, rng)
        self.grammar = Grammar(rng, [*self.directory.macs, *self.directory.other_macs], state.config.mtu)
        self._damage = Damage(rng)
        self._last = bytes(64)
        self._marks = [state.config.mark_local, state.config.mark_bounced]
        self._marks += [mark ^ 1 << rng.randrange(32) for mark in self._marks] + [1, rng.getrandbits(32)]

    def damaged(self, frame: bytes) -> bytes:
        """Seven of ten are left as they are."""
        frame = frame[:LONGEST]
        last, self._last = self._last, frame
        fate = self.bits(5)
        if fate < 22:
            return frame
        if fate < 30:
            return self._damage.mutated(frame)
        return self._damage.spliced(last, frame) if fate == 30 else self._damage.spliced(frame, last)

    def mark(self) -> int:
        """Mostly none."""
        return 0 if self.bits(2) else self._marks[self.bits(PICK) % 6]

    def tag(self) -> int | None:
        """A VLAN tag beside the frame: rare."""
        return None if self.bits(7) else _TAGS[self.bits(2)]

    def segment(self, frame: bytes) -> int:
        """Bytes of a segment, around the most that the tunnel takes."""
        bits = self.bits
        if bits(5) or len(frame) < _SHORTEST_SEGMENTED:
            return 0
        if bits(1):
            return self.state.config.mtu - 28 + (0, 1, -1, 2)[bits(2)]
        return 1 + bits(14) if bits(3) else 0xFFFF - bits(1)

    def checksum(self, frame: bytes) -> DeferredChecksum | None:
        """Left to a device by one in eight, mostly where a transport header has it."""
        bits = self.bits
        if bits(3):
            return None
        start = _CHECKSUM_STARTS[bits(3)] if bits(3) else bits(8)
        place = start + (6, 16, 2, 0, 1, 8, 6, 16)[bits(3)] if bits(3) else len(frame) - bits(3)
        return DeferredChecksum(start, place)

    def hash(self) -> int:
        """Of the flow."""
        bits = self.bits
        return bits(32) if bits(2) else bits(4)


class _AgentCases(_Maker):
    """Frames of the host's endpoints, of others that have no business here, and bounced ones."""

    def __init__(self, rng: random.Random, state: State) -> None:
        super().__init__(rng, state)
        of = self.directory
        strangers = [*of.other_macs, *[flipped(rng, mac) for mac in of.macs]]
        known = [sender(of, mac, record, strangers) for mac, record in state.senders.items()]
        self._speakers = pool(rng, (64, known))
        self._keys = _keys(rng, of, of.vnis[0], option_fields(rng))
        token = state.config.token_bounced
        self._tokens = pool(rng, (52, [token]), (12, _others_like(rng, token)))

    def __call__(self) -> Case:
        bits = self.bits
        of = self._speakers[bits(PICK)]
        frame = self.damaged(self.grammar.frame(of))
        if bits(4) == 0:
            return self._bounced(of, frame)
        return Case(
            program="agent",
            frame=frame,
            mark=self.mark(),
            priority=_PRIORITIES[bits(PICK)],
            tstamp=_TIMES[bits(PICK)],
            gso_size=self.segment(frame),
            checksum=self.checksum(frame),
            tag=self.tag(),
            origin=of.origins[bits(PICK)],
            flow_hash=self.hash(),
            key_refused=not bits(6),
            clock=_CLOCKS[bits(PICK)],
        )

    def _bounced(self, of: Speaker, frame: bytes) -> Case:
        """As the guard sends them back, or with one thing that is not so."""
        bits = self.bits
        odd = bits(3)
        return Case(
            program="agent",
            frame=frame,
            mark=self.mark() if odd == 0 else self.state.config.mark_bounced,
            token=self._tokens[bits(PICK)],
            priority=bits(16),
            tstamp=_TIMES[bits(PICK)],
            gso_size=self.segment(frame),
            tag=self.tag(),
            from_tunnel=odd != 1,
            origin=of.origins[bits(PICK)] if odd == 2 else None,
            key=None if odd == 3 else self._keys[bits(PICK)],
            flow_hash=bits(32),
            key_refused=not bits(6),
        )


class _GuardCases(_Maker):
    """Frames that came out of the tunnel, those that the agent redirected, and such as are neither."""

    def __init__(self, rng: random.Random, state: State) -> None:
        super().__init__(rng, state)
        of = self.directory
        vnis = [*of.vnis, rng.choice((0, rng.getrandbits(24)))]
        self._speakers = pool(rng, *_shared([tenant(of, vni, sent_on=False) for vni in vnis]))
        options = option_fields(rng)
        self._keys = {vni: _keys(rng, of, vni, options) for vni in vnis}

    def __call__(self) -> Case:
        bits = self.bits
        of = self._speakers[bits(PICK)]
        frame = self.damaged(self.grammar.frame(of))
        keyless = not bits(5)
        return Case(
            program="guard",
            frame=frame,
            mark=self.state.config.mark_local if keyless and bits(1) else self.mark(),
            priority=_PRIORITIES[bits(PICK)],
            tstamp=_TIMES[bits(PICK)],
            gso_size=self.segment(frame),
            tag=self.tag(),
            from_tunnel=bool(bits(3)),
            key=None if keyless else self._keys[of.vni][bits(PICK)],
            flow_hash=self.hash(),
            key_refused=not bits(5),
        )


class _SwitchCases(_Maker):
    """Tunnel packets on the underlay, most of them to be sent on."""

    def __init__(self, rng: random.Random, state: State) -> None:
        super().__init__(rng, state)
        of = self.directory
        vnis = [*of.vnis, rng.choice((0, rng.getrandbits(24)))]
        self._speakers = pool(rng, *_shared([tenant(of, vni, sent_on=True) for vni in vnis]))
        self._outer = OuterFrames(rng, of)
        results = [HopResult.SUCCESS] * 8 + list(HopResult)
        self._hops = [
            Hop(rng.choice(results), rng.random() < 0.9, rng.randbytes(6), rng.randbytes(6))
            for _ in range(64)
        ]

    def __call__(self) -> Case:
        bits = self.bits
        of = self._speakers[bits(PICK)]
        inner = self.grammar.frame(of)
        frame = self._outer.packet(of.vni, inner) if bits(6) else inner
        return Case(program="switch", frame=self.damaged(frame), hop=self._hops[bits(PICK)])


class _ShortcutCases(_Maker):
    """Tunnel packets on the underlay, most of them plain and for endpoints of this host."""

    def __init__(self, rng: random.Random, state: State) -> None:
        super().__init__(rng, state)
        of = self.directory
        vnis = [*of.vnis, rng.choice((0, rng.getrandbits(24)))]
        self._speakers = pool(rng, *_shared([tenant(of, vni, sent_on=False) for vni in vnis]))
        self._outer = OuterFrames(rng, of)

    def __call__(self) -> Case:
        bits = self.bits
        of = self._speakers[bits(PICK)]
        inner = self.damaged(self.grammar.frame(of))
        if bits(4) == 0:
            frame = self.damaged(self._outer.packet(of.vni, inner))
        elif bits(4):
            frame = self._outer.plain(of.vni, inner)
        else:
            frame = self._outer.nearly_plain(of.vni, inner)
        return Case(
            program="shortcut",
            frame=frame,
            mark=self.mark(),
            priority=_PRIORITIES[bits(PICK)],
            tstamp=_TIMES[bits(PICK)],
            gso_size=0 if bits(3) else 1 + bits(14),
            tag=self.tag(),
            to_other=not bits(6),
            room_refused=not bits(6),
        )


_MAKERS: dict[ProgramName, Callable[[random.Random, State], Callable[[], Case]]] = {
    "agent": _AgentCases,
    "guard": _GuardCases,
    "switch": _SwitchCases,
    "shortcut": _ShortcutCases,
}


def _shared(speakers: list[Speaker]) -> list[tuple[int, list[Speaker]]]:
    """The last speaks little: its VNI is nobody's."""
    return [(61, speakers[:-1]), (3, speakers[-1:])]


def _others_like(rng: random.Random, token: bytes) -> list[bytes]:
    """None at all, and one bit of each word wrong."""
    words = [token[at : at + 4] for at in range(0, len(token), 4)]
    wrong = [[*words[:at], flipped(rng, word), *words[at + 1 :]] for at, word in enumerate(words)]
    return [NO_TOKEN, *map(b"".join, wrong)]


def _keys(rng: random.Random, of: Directory, vni: int, options: list[bytes]) -> list[TunnelKey]:
    """Tunnel keys: most from a peer and for this host."""
    config = of.state.config
    size = len(config.local)
    peers = [inside(rng, prefix) for prefix in sorted(of.state.peers) if len(prefix[0]) == size]
    other = 20 - size
    strangers = [rng.randbytes(size), config.local, *(flipped(rng, ip) for ip in peers), *of.hosts()]

    def key(remote: Ip, local: Ip) -> TunnelKey:
        return TunnelKey(
            vni=vni,
            remote=remote,
            local=local,
            ttl=rng.choice((64, 64, 255, 10, 9, 8, 2, 1, 0)),
            control=rng.random() < 0.03,
            critical=rng.random() < 0.03,
            options=rng.choice(options) if rng.random() < 0.2 else b"",
            dont_fragment=rng.random() < 0.1,
        )

    made = [key(rng.choice(peers or strangers), config.local) for _ in range(56)]
    made += [key(rng.choice(strangers), config.local) for _ in range(4)]
    made += [key(rng.choice(peers or strangers), flipped(rng, config.local)) for _ in range(2)]
    return [*made, key(rng.randbytes(other), rng.randbytes(other)), key(bytes(other), bytes(other))]
