# SPDX-License-Identifier: Apache-2.0
"""Dry runs of the programs: one frame at a time, with the kernel's answers given by the caller.

The object is made of the sources of the shipped programs. A run without a network has no tunnel key, origin, flow hash
or next hop: the caller gives these facts, and the calls of the programs are recorded. Both are in memory that is shared
with the kernel, so a run is one system call. It has maps of its own, or the tables of a data path in use, which
programs only read: what they write, their counters, is the run's own in either case.
"""

from __future__ import annotations

import errno
import mmap
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple, Self

from mizarnet._datapath import loader
from mizarnet._datapath.dry_run.facts import ASKED, FACTS, KEY, Asked, Facts
from mizarnet._datapath.maps import Maps
from mizarnet._kernel import objects
from mizarnet._kernel.bpf import FrameRunner, Object
from mizarnet._kernel.closing import Closing
from mizarnet._kernel.netlink import LOOPBACK_IFINDEX
from mizarnet._kernel.refusals import explained
from mizarnet._model.codec import FIRST, u32
from mizarnet._model.enumerations import Limit, Program, Verdict
from mizarnet._model.layout import new
from mizarnet.errors import BpfError

DEVICE: Final = LOOPBACK_IFINDEX
"""Index of the device that every frame is on: the kernel uses the loopback device for a run."""
CAPACITY = loader.Capacity(max_endpoints=256, max_local=256)
NO_TOKEN = bytes(12)

# The kernel refuses to run an IP packet shorter than its header. So a short frame is padded to _SHORTEST bytes, and cut
# again before the program sees it.
_SHORTEST = 64
# It takes no frame that does not fit into a page, with its own bookkeeping. A longer one is lengthened by zeros.
_LONGEST_GIVEN = 3072
LONGEST: Final = 16000
"""Bytes of the longest frame that a program can be run on."""


class Context(NamedTuple):
    """Facts of a packet besides its bytes (``struct __sk_buff``).

    Attributes:
        mark: Mark of the packet.
        priority: Priority of the packet.
        ingress_ifindex: Index of the device that received the packet; 0: none.
        token: First three words of the packet's control block: 12 bytes.
        tstamp: Departure time of the packet, in nanoseconds.
        gso_size: Payload of each segment in bytes, if the frame is to be segmented; else 0.
    """

    mark: int = 0
    priority: int = 0
    ingress_ifindex: int = 0
    token: bytes = NO_TOKEN
    tstamp: int = 0
    gso_size: int = 0


# The members of struct __sk_buff in <linux/bpf.h> that Context has, in its order.
_CONTEXT = struct.Struct("=8xI20xII8x12s92xQ16xI12x")


class Outcome(NamedTuple):
    """Result of a dry run.

    Attributes:
        action: Return value of the program, such as ``TC_ACT_SHOT`` (2).
        frame: Frame as it goes on; None if the verdict is a drop reason.
        context: Context as it goes on; ``NO_CONTEXT`` if the verdict is a drop reason, or for a transit switch.
        asked: Recorded calls of the program, and what it counted.
    """

    action: int
    frame: bytes | None
    context: Context
    asked: Asked

    @property
    def verdict(self) -> Verdict:
        """Verdict that the program counted last."""
        return Verdict(self.asked.verdict)


NO_CONTEXT: Final = Context()
NO_FACTS: Final = Facts()
_FIRST_DROP: int = Limit.FIRST_DROP
_NOTHING_ASKED = bytes(ASKED.size)
_SHARED = FACTS.size + ASKED.size
_LAYOUTS = KEY, FACTS, ASKED


def object_path(*, route_identity: bool) -> Path:
    """Path of the shipped object; any kernel can load both, since neither reads a packet's route."""
    return objects.object_path("dry-run", route_identity=route_identity)


def _name(program: Program) -> str:
    return loader.PROGRAMS[program]


def _runner(loaded: Object, program: Program) -> FrameRunner:
    size = 0 if program is Program.SWITCH else _CONTEXT.size
    return FrameRunner(loaded.programs[_name(program)], room=LONGEST, context_size=size)


class DryRun(Closing):
    """The programs, with maps of their own or on the tables of a data path. For one thread.

    Close it, or use it in a ``with``.

    Attributes:
        maps: Tables and counters that the caller fills as those of an agent; of :meth:`beside` those that were given,
            whose counters are not the run's.
    """

    def __init__(self, loaded: Object, maps: Maps | None = None) -> None:
        """Own a loaded object; not for callers: see :meth:`load` and :meth:`beside`."""
        with ExitStack() as undo:
            undo.enter_context(loaded)
            self.maps: Maps = maps or Maps.of(loaded)
            self._own_devices = [loaded.maps[name] for name in loader.OWN_DEVICE.values()]
            with explained("map the memory of a trial run"):
                self._memory = mmap.mmap(loaded.maps["dry_run"].fileno(), mmap.PAGESIZE)
            undo.callback(self._memory.close)
            self._runners = {
                each: _runner(loaded, each) for each in Program if _name(each) in loaded.programs
            }
            if maps is not None:  # the programs keep the tables, and nobody else reads the counters
                for each in loaded.maps.values():
                    each.close()
            self._undo = undo.pop_all()

    @classmethod
    def load(cls, config: bytes, path: Path) -> Self:
        """Load an object with its constants.

        Args:
            config: Constants of the programs: a packed ``mzn_config``.
            path: Path of the object, such as that of :func:`object_path`.

        Raises:
            LayoutError: The object was built from other headers than this package.
            VerifierError: The kernel's verifier rejected a program.
            PrivilegeError: ``CAP_BPF``, ``CAP_NET_ADMIN`` or ``CAP_PERFMON`` is missing.
        """
        with ExitStack() as undo:
            made = cls(loader.load(config, CAPACITY, path=path, layouts=_LAYOUTS))
            undo.callback(made.close)
            made.set_devices(tunnel=True, moved=False)
            undo.pop_all()
            return made

    @classmethod
    def beside(cls, maps: Maps) -> Self:
        """Load this package's agent and guard on the tables and constants of a data path, which no run changes.

        Args:
            maps: Maps of the data path; their owner keeps them open meanwhile.

        Raises:
            LayoutError: The object was built from other headers than this package.
            VerifierError: The kernel's verifier rejected a program.
            PrivilegeError: ``CAP_BPF``, ``CAP_NET_ADMIN`` or ``CAP_PERFMON`` is missing.
        """
        path = object_path(route_identity=bool(objects.has_route_identity()))
        return cls(loader.load_beside(maps, (loader.AGENT, loader.GUARD), path=path, layouts=_LAYOUTS), maps)

    def set_devices(self, *, tunnel: bool, moved: bool) -> None:
        """Set which devices are there, each of which is :data:`DEVICE`; programs of the underlay ask.

        Args:
            tunnel: Whether the tunnel's exists.
            moved: Whether that of the underlay has left the host.
        """
        there = {**dict.fromkeys(self.maps.lifelines, tunnel), **dict.fromkeys(self._own_devices, not moved)}
        for each, is_there in there.items():
            if is_there:
                each.update(FIRST, u32(DEVICE))
            else:
                each.delete(FIRST)

    def run(
        self, program: Program, frame: bytes, context: Context = NO_CONTEXT, facts: Facts = NO_FACTS
    ) -> Outcome:
        """Run a program on a frame.

        Args:
            program: Program to run.
            frame: Bytes of the frame from the Ethernet header on, 14 to ``LONGEST``. Agent and guard see zeros in
                place of what is beyond the first 3,072.
            context: Facts of the packet besides its bytes; not used for a transit switch.
            facts: Answers that the program gets in place of the kernel's.

        Returns:
            Result of the run.

        Raises:
            BpfError: The kernel refused the frame before the program saw it.
        """
        runner, given, length, known = self._runners[program], frame, 0, b""
        if program is not Program.SWITCH:
            known = _CONTEXT.pack(*context)
            if not _SHORTEST <= len(frame) <= _LONGEST_GIVEN:
                given, length = frame[:_LONGEST_GIVEN].ljust(_SHORTEST, b"\0"), len(frame)
        self._memory[:_SHARED] = facts.pack(length) + _NOTHING_ASKED
        action = runner.run(given, known)
        asked = Asked.unpack(self._memory[FACTS.size : _SHARED])
        if not asked.verdicts:
            raise BpfError(f"run {_name(program)!r} on a frame of {len(frame)} bytes", errno=errno.EMSGSIZE)
        if asked.verdict >= _FIRST_DROP:
            return Outcome(action, None, NO_CONTEXT, asked)
        left = new(Context, _CONTEXT.unpack(runner.context)) if known else NO_CONTEXT
        return Outcome(action, runner.frame(), left, asked)

    def close(self) -> None:
        """Close the programs and their maps."""
        self._undo.close()
