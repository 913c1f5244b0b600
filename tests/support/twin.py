# SPDX-License-Identifier: Apache-2.0
"""The programs before a case of the model: what it says becomes facts, and what they did becomes an outcome."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import attrs

from mizarnet import Counter, Verdict
from mizarnet._datapath.dry_run import DEVICE, Context, DryRun, object_path
from mizarnet._datapath.dry_run import Outcome as Ran
from mizarnet._datapath.dry_run.facts import NO_MAC, Asked, Facts, Key, Origin
from mizarnet._datapath.maps import Maps
from mizarnet._model import codec, layouts
from mizarnet._model.codec import FIRST, u32
from mizarnet._model.enumerations import Limit, Program
from mizarnet._model.stats import NOT_SUMMED, unpack_reasons
from tests.model.case import NO_TOKEN, Case, Outcome, Outer, Received, RoutedBy, Sent, SentBy, TunnelKey
from tests.model.shortcut import inner_length
from tests.model.state import Config, Ip, State
from tests.support.twin_tables import pack_config, pack_switching, tables, words

PROGRAMS = {
    "agent": Program.AGENT,
    "guard": Program.GUARD,
    "switch": Program.SWITCH,
    "shortcut": Program.SHORTCUT,
}
_VERDICTS = {int(verdict): verdict for verdict in Verdict}
_OTHER_DEVICE = DEVICE + 1
_ODD = 0x9E3779B97F4A7C15
_WITH_TOKEN = (Verdict.BOUNCED, Verdict.BOUNCE_ADMITTED)
# tunnel_flags as BPF_F_TUNINFO_FLAGS gives them, read as a number in the order of this machine.
_DONT_FRAGMENT, _CONTROL, _CRITICAL, _OPTIONS = (
    struct.unpack("=H", struct.pack(">H", flag))[0] for flag in (0x100, 0x200, 0x400, 0x800)
)
_IPV6_KEY, _ZERO_CHECKSUM = 1, 2  # BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX
_TO_INGRESS = 1  # BPF_F_INGRESS
_UDP = 17
_FAMILIES = {2: 4, 10: 16}  # AF_INET, AF_INET6: bytes of an address


class Twin:
    """Programs with the tables of a state. Close it, or use it in a ``with``."""

    def __init__(self, dry_run: DryRun, config: Config) -> None:
        """Take over loaded programs."""
        self._dry_run = dry_run
        self._config = config
        self._maps = dry_run.maps.by_name()
        self._known: dict[str, dict[bytes, bytes]] = {name: {} for name in ("senders", "endpoints")}
        self._known |= {"networks": {}, "routers": {}, "peers": {}}
        self._told: dict[int, int] = {}

    @classmethod
    def load(cls, config: Config, path: Path | None = None) -> Self:
        """Load an object with its constants; the package's if no other is given."""
        path = path or object_path(route_identity=config.route_identity)
        return cls(DryRun.load(pack_config(config), path), config)

    @property
    def maps(self) -> Maps:
        """The tables, and what the programs write."""
        return self._dry_run.maps

    def fill(self, state: State) -> None:
        """Replace what stands in the tables; the counters start over."""
        if state.config != self._config:
            raise ValueError("the object was loaded with other constants")
        wanted = tables(state)
        for name, entries in wanted.items():
            table, known = self._maps[name], self._known[name]
            table.delete_many(key for key in known if key not in entries)
            table.update_many({key: value for key, value in entries.items() if known.get(key) != value})
        self._known = wanted
        self._maps["switching"].update(FIRST, pack_switching(state))
        self._dry_run.set_devices(tunnel=state.tunnel, moved=state.moved)
        verdicts, traffic, drops = (self._maps[name] for name in ("verdicts", "traffic", "drops"))
        zero, cpus = bytes(verdicts.slot_size), traffic.slot_size // traffic.value_size
        verdicts.update_many({u32(key): zero for key in range(verdicts.max_entries)})
        traffic.update_many(
            {u32(slot): cpus * codec.no_traffic(instance(slot)) for slot in range(traffic.max_entries)}
        )
        self._told = {known.number: known.told_in << 8 | known.told for known in state.senders.values()}
        for number in self._told:
            self._tell(number)
        drops.delete_many(list(drops.keys()))

    def counters(self) -> tuple[array[int], array[int]]:
        """The words of ``verdicts`` and of ``traffic`` since the tables were filled."""
        words = (self._maps["verdicts"].sum_words(), self._maps["traffic"].sum_words(skip=NOT_SUMMED))
        return words[0][1], words[1][1]

    def reasons(self) -> dict[int, Mapping[Verdict, Counter]]:
        """What was dropped since then, by the number of the endpoint that it was counted for."""
        keys, values, _ = self._maps["drops"].lookup_all()
        found = unpack_reasons(keys, values)
        return {number: found[instance(number)] for number in map(_number, found)}

    def run(self, case: Case) -> Outcome:
        """Run a program on a frame; raises `BpfError` if the kernel refused it before the program saw it."""
        ingress = DEVICE if case.from_tunnel else 0
        segment = 0 if case.program == "shortcut" else case.gso_size  # else told as a fact
        context = Context(case.mark, case.priority, ingress, case.token, case.tstamp, segment)
        ran = self._dry_run.run(PROGRAMS[case.program], case.frame, context, _facts(case))
        outcome = _outcome(case, ran)
        if outcome.verdict is not Verdict.OVERSIZED_ANSWERED or outcome.sent is None:
            return outcome
        return attrs.evolve(outcome, told=self._times_told(case, outcome.sent.number))

    def _times_told(self, case: Case, number: int) -> int:
        """How often the sender has been told in the case's second. It is forgotten: no case depends on another."""
        first_cpu = (self._maps["traffic"].lookup_per_cpu(u32(number)) or [])[0]
        second, times = divmod(layouts.Traffic.unpack(first_cpu).told, 256)
        assert second == case.clock // 10**9, "told in this second"
        self._tell(number)
        return times

    def _tell(self, number: int) -> None:
        """As often as the state says; the counters stay."""
        traffic = self._maps["traffic"]
        first, *others = traffic.lookup_per_cpu(u32(number)) or []
        first = layouts.Traffic.unpack(first)._replace(told=self._told[number]).pack()
        traffic.update(u32(number), b"".join([first, *others]))

    def close(self) -> None:
        """Let go of the programs."""
        self._dry_run.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def instance(slot: int) -> int:
    """As random as those of endpoints are, and as long."""
    return slot * _ODD % (1 << 64)


def _number(instance: int) -> int:
    """The reverse."""
    return instance * pow(_ODD, -1, 1 << 64) % (1 << 64)


# -- facts in ----------------------------------------------------------------------------------------------


def _facts(case: Case) -> Facts:
    key, left = case.key, case.checksum
    return Facts(
        0 if case.tag is None else 0x8100 << 16 | case.tag,
        case.flow_hash,
        case.key_refused,
        case.clock,
        *_origin(case.origin),
        *_way_told(case),
        _NO_KEY if key is None else _key(key),
        case.to_other,
        case.gso_size if case.program == "shortcut" else 0,
        case.room_refused,
        *((False, 0, 0) if left is None else (True, left.start, left.place)),
        b"" if key is None else key.options,
    )


def _origin(origin: RoutedBy | SentBy | None) -> tuple[Origin, int, int, int]:
    if origin is None:
        return Origin.NONE, 0, 0, 0
    if isinstance(origin, RoutedBy):
        return Origin.DEVICE, origin.ifindex, origin.netns_cookie, 0
    return Origin.SOCKET, 0, origin.netns_cookie, origin.family


def _way_told(case: Case) -> tuple[int, int, bytes, bytes]:
    hop = case.hop
    if hop is None:
        return 0, 0, NO_MAC, NO_MAC
    return hop.result, DEVICE if hop.same_device else _OTHER_DEVICE, hop.destination_mac, hop.source_mac


_NO_KEY = Key()


def _key(key: TunnelKey) -> Key:
    flags = _OPTIONS if key.options else 0
    flags |= (_CONTROL if key.control else 0) | (_CRITICAL if key.critical else 0)
    flags |= _DONT_FRAGMENT if key.dont_fragment else 0
    family = 4 if len(key.remote) == 4 else 6
    return Key(family, key.vni, key.ttl, flags, words(key.remote), words(key.local))


# -- what was asked for: what no outcome can say must not have happened --------------------------------------


def _outcome(case: Case, ran: Ran) -> Outcome:
    asked, left = ran.asked, ran.context
    assert asked.verdicts == 1 and asked.program == PROGRAMS[case.program], "one verdict"
    verdict = _VERDICTS[asked.verdict]
    assert asked.length == counted_length(case, verdict), "counted with its length"
    return Outcome(
        verdict=verdict,
        action=ran.action,
        frame=ran.frame,
        mark=left.mark,
        token=left.token if verdict in _WITH_TOKEN else NO_TOKEN,
        priority=left.priority,
        tstamp=left.tstamp,
        sent=_sent(asked) if asked.sent else None,
        received=_received(asked) if asked.received else None,
        undelivered=_undelivered(asked) if asked.undelivered else None,
        redirect=_redirect(asked) if asked.redirects else None,
        outer=_outer(asked) if asked.keys else None,
        asked=_way(asked) if asked.hops else None,
    )


def counted_length(case: Case, verdict: Verdict) -> int:
    """The length that a frame is counted with."""
    taken_out = case.program == "shortcut" and verdict is not Verdict.PASSED
    return inner_length(case) if taken_out else len(case.frame)


def _sent(asked: Asked) -> Sent:
    assert asked.sent == 1, "sent once"
    return Sent(asked.sent_slot, asked.sent_length, asked.sent_verdict >= Limit.FIRST_DROP)


def _received(asked: Asked) -> Received:
    assert asked.received == 1, "received once"
    return Received(asked.received_slot, asked.received_length)


def _undelivered(asked: Asked) -> Received:
    assert asked.undelivered == 1, "undelivered once"
    assert asked.undelivered_verdict == asked.verdict, "with its reason"
    return Received(asked.undelivered_slot, asked.undelivered_length)


def _redirect(asked: Asked) -> Literal["ingress", "egress"]:
    assert (asked.redirects, asked.redirect_ifindex) == (1, DEVICE), "redirected once, on the tunnel"
    assert asked.redirect_flags in (0, _TO_INGRESS), "redirected to one of its sides"
    return "ingress" if asked.redirect_flags else "egress"


def _outer(asked: Asked) -> Outer:
    family, vni, ttl, flags, remote, local = asked.key
    is_ipv6 = family == 6
    assert asked.keys == 1, "one tunnel key"
    assert asked.key_extra == 0, "nothing else in the tunnel key"
    assert flags == _ZERO_CHECKSUM | (_IPV6_KEY if is_ipv6 else 0), "no checksum, fragments allowed"
    return Outer(vni, remote if is_ipv6 else remote[12:], local if is_ipv6 else local[12:], ttl)


def _way(asked: Asked) -> tuple[Ip, Ip]:
    size = _FAMILIES[asked.hop_family]
    once = (asked.hops, asked.hop_protocol, asked.hop_ifindex)
    assert once == (1, _UDP, DEVICE), "asked once, for UDP by this device"
    assert not any(asked.hop_source[size:] + asked.hop_destination[size:]), "nothing beyond the addresses"
    return asked.hop_source[:size], asked.hop_destination[:size]
