# SPDX-License-Identifier: Apache-2.0
"""The shipped programs in a kernel that a test makes up: one frame at a time, everything they do about it visible.

The object answers for the kernel where a test run has no answer: tunnel key, origin, flow hash, next hop. What the
programs ask for is read from memory that is shared with the kernel, so a run is one system call.
"""

from __future__ import annotations

import mmap
import struct
from array import array
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from mizarnet import Verdict
from mizarnet.abi.records import FIRST, u32
from mizarnet.bpf import Object, ObjectSpec
from mizarnet.bpf._lib import check, ffi, lib
from mizarnet.numbers import Limit, Program
from tests.model.case import NO_TOKEN, Case, Outcome, Outer, Received, RoutedBy, Sent, TunnelKey
from tests.model.state import Config, Ip, State
from tests.support.twin_object import shipped
from tests.support.twin_tables import pack_config, pack_switching, tables, words

# The device of a test run is the loopback device.
DEVICE, OTHER_DEVICE = 1, 2
PROGRAMS = {"agent": Program.AGENT, "guard": Program.GUARD, "switch": Program.SWITCH}
CAPACITY = 256


# struct dry_facts and struct dry_asked of csrc/bpf/dry_run/facts.h.
_FACTS = struct.Struct("=IIIIIIQIiI6s6sIIII16s16sIIII256s")
_ASKED = struct.Struct("=19I16s16s5I16s16s")
# struct __sk_buff of <linux/bpf.h>: mark, priority, ingress_ifindex, cb, tstamp, gso_size.
_CONTEXT = struct.Struct("=8xI20xII8x12s92xQ16xI12x")
_CONTEXT_BYTES = _CONTEXT.size
_NO_CONTEXT = (0, 0, 0, NO_TOKEN, 0, 0)
_WITH_TOKEN = (Verdict.BOUNCED, Verdict.BOUNCE_ADMITTED)
_ROOM = 4096
# A test run refuses an IP packet shorter than its header: a longer one is cut before the program sees it.
_SHORTEST = 64
_NO_ADDRESS, _NO_MAC = bytes(16), bytes(6)
# enum origin_kind of csrc/bpf/lib/identity.h.
_NO_ORIGIN, _DEVICE_ORIGIN, _SOCKET_ORIGIN = 0, 1, 2
# tunnel_flags as BPF_F_TUNINFO_FLAGS gives them, read as a number in the order of this machine.
_DONT_FRAGMENT, _CONTROL, _CRITICAL, _OPTIONS = (
    struct.unpack("=H", struct.pack(">H", flag))[0] for flag in (0x100, 0x200, 0x400, 0x800)
)
_IPV6_KEY, _ZERO_CHECKSUM = 1, 2  # BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX
_TO_INGRESS = 1  # BPF_F_INGRESS
_UDP = 17
_FAMILIES = {2: 4, 10: 16}  # AF_INET, AF_INET6: bytes of an address


class Twin:
    """A loaded object with the tables of a state. Close it, or use it in a ``with``."""

    def __init__(self, loaded: Object, config: Config) -> None:
        """Take over a loaded object."""
        self._loaded = loaded
        self._config = config
        self._undo = ExitStack()
        self._undo.enter_context(loaded)
        shared = loaded.maps["dry_run"]
        self._memory = mmap.mmap(shared.fileno(), mmap.PAGESIZE)
        self._undo.callback(self._memory.close)
        self._fds = {name: loaded.programs[f"mzn_{name}"].fileno() for name in PROGRAMS}
        self._output = ffi.new("char[]", _ROOM)
        self._context, self._context_out = ffi.new("char[]", _CONTEXT_BYTES), ffi.new("char[]", 512)
        self._context_view = ffi.buffer(self._context)
        self._context_out_view = ffi.buffer(self._context_out)
        self._options = ffi.new("struct bpf_test_run_opts *")
        self._options.sz = ffi.sizeof("struct bpf_test_run_opts")
        self._options.data_out = self._output
        self._known: dict[str, dict[bytes, bytes]] = {name: {} for name in ("interfaces", "endpoints")}
        self._known |= {"networks": {}, "peers": {}}
        # Any device does: the programs ask whether there is one.
        loaded.maps["lifeline"].update(FIRST, struct.pack("=I", DEVICE))

    @classmethod
    def load(cls, config: Config, object_path: Path | None = None) -> Self:
        """Load an object with its constants; the package's if no other is given."""
        path = object_path or shipped(route_identity=config.route_identity)
        with ObjectSpec.open(path, name="twin") as spec:
            spec.set_variable("config", pack_config(config))
            for name in ("endpoints", "interfaces", "records", "traffic"):
                spec.set_max_entries(name, CAPACITY)
            return cls(spec.load(), config)

    def fill(self, state: State) -> None:
        """Replace what stands in the tables; the counters start over."""
        if state.config != self._config:
            raise ValueError("the object was loaded with other constants")
        wanted = tables(state)
        for name, entries in wanted.items():
            table, known = self._loaded.maps[name], self._known[name]
            table.delete_many(key for key in known if key not in entries)
            table.update_many((key, value) for key, value in entries.items() if known.get(key) != value)
        self._known = wanted
        self._loaded.maps["switching"].update(FIRST, pack_switching(state))
        for name in ("verdicts", "traffic"):
            counters = self._loaded.maps[name]
            zero = bytes(counters.slot_size)
            counters.update_many((u32(key), zero) for key in range(counters.max_entries))

    def counters(self) -> tuple[array[int], array[int]]:
        """The words of ``verdicts`` and of ``traffic`` since the tables were filled."""
        maps = self._loaded.maps
        return maps["verdicts"].sum_words()[1], maps["traffic"].sum_words()[1]

    def run(self, case: Case) -> Outcome:
        """Run a program on a frame.

        Raises:
            BpfError: The kernel refused the frame before the program saw it.
        """
        frame, cut = case.frame, 0
        if len(frame) < _SHORTEST and case.program != "switch":
            frame, cut = frame.ljust(_SHORTEST, b"\0"), len(frame)
        self._memory[: _FACTS.size + _ASKED.size] = _facts(case, cut) + bytes(_ASKED.size)
        options = self._options
        data = ffi.from_buffer("char[]", frame)
        options.data_in, options.data_size_in, options.data_size_out = data, len(frame), _ROOM
        options.ctx_in = options.ctx_out = ffi.NULL
        options.ctx_size_in = options.ctx_size_out = 0
        if case.program != "switch":
            ingress = DEVICE if case.from_tunnel else 0
            facts = (case.mark, case.priority, ingress, case.token, case.tstamp, case.gso_size)
            self._context_view[:] = _CONTEXT.pack(*facts)
            options.ctx_in, options.ctx_size_in = self._context, _CONTEXT_BYTES
            options.ctx_out, options.ctx_size_out = self._context_out, _CONTEXT_BYTES
        result = lib.bpf_prog_test_run_opts(self._fds[case.program], options)
        if result:
            check(result, f"run {case.program} on {frame.hex()}")
        return self._outcome(case, int(options.retval))

    def _outcome(self, case: Case, action: int) -> Outcome:
        """What was noted, as an outcome; what no outcome can say must not have happened."""
        asked = _ASKED.unpack_from(self._memory, _FACTS.size)
        assert asked[:2] == (1, PROGRAMS[case.program]), "one verdict"
        assert asked[3] == len(case.frame), "counted with its length"
        verdict = Verdict(asked[2])
        frame, context = None, _NO_CONTEXT
        if not verdict.dropped:
            frame = bytes(ffi.buffer(self._output, self._options.data_size_out))
            if case.program != "switch":
                context = _CONTEXT.unpack_from(self._context_out_view)
        return Outcome(
            verdict=verdict,
            action=action,
            frame=frame,
            mark=context[0],
            token=context[3] if verdict in _WITH_TOKEN else NO_TOKEN,
            priority=context[1],
            tstamp=context[4],
            sent=_sent(*asked[4:8]),
            received=_received(*asked[8:11]),
            redirect=_redirect(*asked[11:14]),
            outer=_outer(*asked[14:22]),
            asked=_way(*asked[22:28]),
        )

    def close(self) -> None:
        """Let go of the object."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# -- facts in ----------------------------------------------------------------------------------------------


def _facts(case: Case, cut: int) -> bytes:
    tag = 0 if case.tag is None else 0x8100 << 16 | case.tag
    origin = case.origin
    if origin is None:
        origin_kind, ifindex, cookie, family = _NO_ORIGIN, 0, 0, 0
    elif isinstance(origin, RoutedBy):
        origin_kind, ifindex, cookie, family = _DEVICE_ORIGIN, origin.ifindex, origin.netns_cookie, 0
    else:
        origin_kind, ifindex, cookie, family = _SOCKET_ORIGIN, 0, origin.netns_cookie, origin.family
    hop = case.hop
    if hop is None:
        way: tuple[int, int, bytes, bytes] = (0, 0, _NO_MAC, _NO_MAC)
    else:
        device = DEVICE if hop.same_device else OTHER_DEVICE
        way = (hop.result, device, hop.destination_mac, hop.source_mac)
    head = (cut, tag, case.flow_hash, case.key_refused, origin_kind, ifindex, cookie, family)
    left = case.checksum
    deferred = (0, 0, 0) if left is None else (1, left.start, left.place)
    return _FACTS.pack(*head, *way, *_key_facts(case.key), *deferred, *_option_facts(case.key))


def _option_facts(key: TunnelKey | None) -> tuple[int, bytes]:
    return (0, b"") if key is None else (len(key.options), key.options)


def _key_facts(key: TunnelKey | None) -> tuple[int, int, int, int, bytes, bytes]:
    if key is None:
        return 0, 0, 0, 0, _NO_ADDRESS, _NO_ADDRESS
    flags = _OPTIONS if key.options else 0
    flags |= (_CONTROL if key.control else 0) | (_CRITICAL if key.critical else 0)
    flags |= _DONT_FRAGMENT if key.dont_fragment else 0
    family = 4 if len(key.remote) == 4 else 6
    addresses = words(key.remote), words(key.local)
    return family, key.vni, key.ttl, flags, *addresses


# -- what was asked for ------------------------------------------------------------------------------------


def _sent(times: int, number: int, verdict: int, length: int) -> Sent | None:
    assert times <= 1, "sent once"
    return Sent(number, length, verdict >= Limit.FIRST_DROP) if times else None


def _received(times: int, number: int, length: int) -> Received | None:
    assert times <= 1, "received once"
    return Received(number, length) if times else None


def _redirect(times: int, ifindex: int, flags: int) -> Literal["ingress", "egress"] | None:
    if not times:
        return None
    assert (times, ifindex) == (1, DEVICE), "redirected once, on the tunnel"
    assert flags in (0, _TO_INGRESS), "redirected to one of its sides"
    return "ingress" if flags else "egress"


def _outer(
    times: int, family: int, vni: int, ttl: int, flags: int, remote: bytes, local: bytes, extra: int
) -> Outer | None:
    if not times:
        return None
    is_ipv6 = family == 6
    assert times == 1, "one tunnel key"
    assert extra == 0, "nothing else in the tunnel key"
    assert flags == _ZERO_CHECKSUM | (_IPV6_KEY if is_ipv6 else 0), "no checksum, fragments allowed"
    return Outer(vni, remote if is_ipv6 else remote[12:], local if is_ipv6 else local[12:], ttl)


def _way(
    times: int, family: int, protocol: int, ifindex: int, source: bytes, destination: bytes
) -> tuple[Ip, Ip] | None:
    if not times:
        return None
    size = _FAMILIES[family]
    assert (times, protocol, ifindex) == (1, _UDP, DEVICE), "asked once, for UDP by this device"
    assert not any(source[size:] + destination[size:]), "nothing beyond the addresses"
    return source[:size], destination[:size]
