# SPDX-License-Identifier: Apache-2.0
"""Counters, as they were when they were read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import attrs

from mizarnet._model import layouts
from mizarnet._model.described import Described
from mizarnet._model.enumerations import Limit, Program, Verdict, VerdictKind
from mizarnet._model.html import table
from mizarnet._model.public import public
from mizarnet.errors import InvalidTypeError


@public
@attrs.frozen
class Counter(Described):
    """Frames and their bytes, Ethernet header included. A frame that is segmented later (GSO) counts once."""

    packets: int = 0
    bytes: int = 0

    def __add__(self, other: Counter) -> Counter:
        return Counter(self.packets + other.packets, self.bytes + other.bytes)

    def __sub__(self, other: Counter) -> Counter:
        return Counter(self.packets - other.packets, self.bytes - other.bytes)


def total(counters: Iterable[Counter]) -> Counter:
    """The sum of ``counters``."""
    return sum(counters, Counter())


def without_chatter(verdicts: Mapping[Verdict, Counter]) -> Mapping[Verdict, Counter]:
    """The drop reasons among ``verdicts`` that were counted and are no chatter."""
    return {
        verdict: counter
        for verdict, counter in verdicts.items()
        if counter.packets and verdict.dropped and verdict.kind is not VerdictKind.CHATTER
    }


def chatter_of(verdicts: Mapping[Verdict, Counter]) -> Mapping[Verdict, Counter]:
    """The drop reasons among ``verdicts`` that were counted and are chatter."""
    return {
        verdict: counter
        for verdict, counter in verdicts.items()
        if counter.packets and verdict.kind is VerdictKind.CHATTER
    }


@public
@attrs.frozen(repr=False)
class Stats(Described):
    """What each program decided, since the agent was attached.

    Attributes:
        agent: The transit agent's verdicts, every one of them, with zeros.
        guard: The guard's verdicts.
        switch: The transit switch's verdicts; all zero on a host that has none.
        shortcut: The verdicts of the shortcut on the way in; all zero where there is none.
        lost: Packets that the tunnel's device lost behind a verdict that let them go on, as in ``TunnelState.lost``.
    """

    agent: Mapping[Verdict, Counter]
    guard: Mapping[Verdict, Counter]
    switch: Mapping[Verdict, Counter]
    shortcut: Mapping[Verdict, Counter]
    lost: Mapping[str, int] = attrs.field(factory=dict[str, int], kw_only=True)

    def since(self, earlier: Stats, /) -> Stats:
        """What was counted after ``earlier``; raises ``InvalidTypeError`` for anything but such counters."""
        if not isinstance(earlier, Stats):
            raise InvalidTypeError(
                f"earlier must be a Stats, not {type(earlier).__name__}", argument="earlier"
            )
        return Stats(
            *(
                {verdict: now[verdict] - before[verdict] for verdict in Verdict}
                for now, before in zip(self._programs(), earlier._programs(), strict=True)
            ),
            lost={
                name: count - earlier.lost.get(name, 0)
                for name, count in self.lost.items()
                if count > earlier.lost.get(name, 0)
            },
        )

    @property
    def verdicts(self) -> Mapping[Verdict, Counter]:
        """Every verdict, over all programs, with zeros."""
        return {verdict: total(program[verdict] for program in self._programs()) for verdict in Verdict}

    @property
    def drops(self) -> Mapping[Verdict, Counter]:
        """The drop reasons that were counted and are no chatter, over all programs: what should be looked into."""
        return without_chatter(self.verdicts)

    @property
    def chatter(self) -> Mapping[Verdict, Counter]:
        """The drop reasons that were counted and are chatter, which healthy network stacks go on sending."""
        return chatter_of(self.verdicts)

    @property
    def dropped(self) -> Counter:
        """All frames that a program refused, chatter included."""
        return total(self.drops.values()) + total(self.chatter.values())

    def _programs(self) -> tuple[Mapping[Verdict, Counter], ...]:
        return self.agent, self.guard, self.switch, self.shortcut

    def _rows(self) -> list[tuple[str, str, int, int]]:
        names = (program.name.lower() for program in Program)
        return [
            (name, verdict.name.lower(), counter.packets, counter.bytes)
            for name, program in zip(names, self._programs(), strict=True)
            for verdict, counter in program.items()
            if counter.packets
        ]

    def __str__(self) -> str:
        lines = [f"{name:8} {verdict:24} {n:>12} {size:>16}" for name, verdict, n, size in self._rows()]
        lines += [f"lost     {name:24} {count:>12}" for name, count in self.lost.items()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        decided = (total(program.values()).packets for program in self._programs())
        names = (program.name.lower() for program in Program)
        listed = ", ".join(f"{name} {packets:,}" for name, packets in zip(names, decided, strict=True))
        dropped, chatter = (total(each.values()).packets for each in (self.drops, self.chatter))
        return f"<Stats: {listed} packets, of these {dropped:,} dropped, and {chatter:,} of chatter>"

    def _repr_html_(self) -> str:
        rows = [(*names, f"{packets:,}", f"{size:,}") for *names, packets, size in self._rows()]
        return table("Verdicts", ("program", "verdict", "packets", "bytes"), rows)


LOSSES: Mapping[str, str] = {
    "tx_carrier_errors": "no route to the other host, or no answer from its next hop",
    "collisions": "the way to the other host leads back into the tunnel",
    "tx_aborted_errors": "the tunnel key was missing, or of the wrong family",
    "tx_errors": "the kernel could not send them",
    "tx_dropped": "the kernel discarded them on the way out",
    "tx_fifo_errors": "no room to send them",
    "rx_errors": "their tunnel header was wrong",
    "rx_frame_errors": "their inner frame was wrong",
    "rx_dropped": "the kernel discarded them on the way in",
    "rx_nohandler": "the device was down for them",
    "rx_otherhost_dropped": "no device on the tunnel has their destination's MAC: it is gone, down, or has another",
}
"""Counters of a tunnel's device for packets that agent or guard let pass, and what each counts.

The names are those of ``struct rtnl_link_stats64`` (``ip -s -s link``). A packet may be counted by more than one of
them. ``rx_otherhost_dropped`` needs kernel 5.19.
"""


def unpack_stats(words: Sequence[int], lost: Mapping[str, int] | None = None) -> Stats:
    """From the map ``verdicts``, summed over the CPUs: packets and bytes in turn; and what the tunnel's device lost."""
    counters = [Counter(*pair) for pair in zip(words[::2], words[1::2], strict=True)]
    return Stats(
        *(_by_verdict(counters[Limit.VERDICTS * program :]) for program in Program), lost=dict(lost or {})
    )


def _by_verdict(counters: Sequence[Counter]) -> Mapping[Verdict, Counter]:
    return {verdict: counters[verdict] for verdict in Verdict}


@public
@attrs.frozen
class EndpointStats(Described):
    """What one endpoint sent and received, and what was refused of it and kept from it.

    Attributes:
        sent: Frames let out by the agent, and questions that it answered.
        received: Frames handed to the endpoint's device.
        dropped: Frames of the endpoint that the agent refused, chatter included.
        undelivered: Frames for the endpoint that the guard refused, when it had read for whom they were.
        reasons: Verdicts of the frames in ``dropped`` and ``undelivered`` that were counted for the endpoint, as far
            as they are known: ``unexplained`` are those that are not.
        labels: Labels of the endpoint.
    """

    sent: Counter
    received: Counter
    dropped: Counter
    undelivered: Counter = Counter()
    reasons: Mapping[Verdict, Counter] = attrs.field(factory=dict[Verdict, Counter])
    labels: Mapping[str, str] = attrs.field(factory=dict[str, str], kw_only=True)

    @property
    def drops(self) -> Mapping[Verdict, Counter]:
        """The reasons that are no chatter: what should be looked into."""
        return without_chatter(self.reasons)

    @property
    def chatter(self) -> Mapping[Verdict, Counter]:
        """The reasons that are chatter, which healthy network stacks go on sending."""
        return chatter_of(self.reasons)

    @property
    def unexplained(self) -> Counter:
        """Frames whose reason is not known any more, since it made room for another one in the table of reasons.

        It has room for 16,384, of all endpoints of the host. Those that were not counted for long go first.
        """
        packets = self.dropped.packets + self.undelivered.packets
        size = self.dropped.bytes + self.undelivered.bytes
        for known in self.reasons.values():
            packets -= known.packets
            size -= known.bytes
        return Counter(max(0, packets), max(0, size))


NOT_SUMMED = layouts.TRAFFIC.offset("sent.packets") // 8
"""Words at the beginning of a value of ``traffic`` that are no counters."""
_WORDS = layouts.TRAFFIC.size // 8
_VERDICTS = {int(verdict): verdict for verdict in Verdict}


def unpack_endpoint_stats(
    slices: Iterable[bytes], reasons: Mapping[Verdict, Counter], labels: Mapping[str, str]
) -> EndpointStats:
    """From the map ``traffic``: one packed value per CPU."""
    cpus = [layouts.Traffic.unpack(data) for data in slices]
    return EndpointStats(
        sent=_sum(cpu.sent for cpu in cpus),
        received=_sum(cpu.received for cpu in cpus),
        dropped=_sum(cpu.dropped for cpu in cpus),
        undelivered=_sum(cpu.undelivered for cpu in cpus),
        reasons=reasons,
        labels=labels,
    )


def endpoint_stats_at(
    slot: int, words: Sequence[int], reasons: Mapping[Verdict, Counter], labels: Mapping[str, str]
) -> EndpointStats:
    """From the whole map ``traffic``, summed over the CPUs: that of one index."""
    counters = words[slot * _WORDS + NOT_SUMMED : (slot + 1) * _WORDS]
    sent, received, dropped, undelivered = map(Counter, counters[::2], counters[1::2])
    return EndpointStats(sent, received, dropped, undelivered, reasons, labels=labels)


def unpack_reason(data: bytes) -> Counter:
    """Of a value of the map ``drops``."""
    return Counter(*layouts.COUNTER.unpack(data))


def unpack_reasons(keys: bytes, values: bytes) -> Mapping[int, Mapping[Verdict, Counter]]:
    """From the whole map ``drops``: the reasons of each endpoint, by its instance."""
    found: defaultdict[int, dict[Verdict, Counter]] = defaultdict(dict)
    entries = zip(layouts.DROP_KEY.iter_unpack(keys), layouts.COUNTER.iter_unpack(values), strict=True)
    for (instance, number), (packets, size) in entries:
        verdict = _VERDICTS.get(number)  # None: a newer version's programs counted it
        if verdict is not None and packets:
            found[instance][verdict] = Counter(packets, size)
    return found


def _sum(counters: Iterable[layouts.Counter]) -> Counter:
    packets, sizes = zip(*counters, strict=True)
    return Counter(sum(packets), sum(sizes))
