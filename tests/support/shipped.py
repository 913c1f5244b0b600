# SPDX-License-Identifier: Apache-2.0
"""The programs as they are shipped, on single frames and with the tables of a state."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import attrs

import mizarnet
from mizarnet import Counter, Verdict
from mizarnet._datapath import loader
from mizarnet._kernel.bpf import Object
from mizarnet._kernel.netlink import LOOPBACK_IFINDEX
from mizarnet._model.codec import FIRST
from mizarnet._model.stats import unpack_stats
from tests.model.case import ProgramName
from tests.model.state import State
from tests.support.twin import PROGRAMS
from tests.support.twin_tables import pack_config, pack_switching, tables

OBJECTS = Path(mizarnet.__file__).parent / "_objects"
# A test run of XDP puts what does not fit into a page into further buffers; more than this is not in the first one.
PAGE_FRAME = 3520


def blind(state: State) -> State:
    """The same for the object that does not read where a frame came from, which every kernel loads."""
    return attrs.evolve(state, config=attrs.evolve(state.config, route_identity=False))


def _counted(program: Mapping[Verdict, Counter]) -> list[Verdict]:
    return [verdict for verdict, counter in program.items() if counter.packets]


@attrs.frozen
class Ran:
    """What a program did with a frame."""

    verdict: Verdict
    action: int
    frame: bytes


@attrs.frozen
class Shipped:
    """A loaded object with filled tables."""

    loaded: Object
    state: State

    @classmethod
    def load(cls, state: State) -> Shipped:
        """The object that fits the state's constants; :meth:`close` it."""
        name = "transit" if state.config.route_identity else "transit-mac-only"
        capacity = loader.Capacity(max_endpoints=256, max_local=256)
        loaded = loader.load(pack_config(state.config), capacity, path=OBJECTS / f"{name}.bpf.o")
        for table, entries in tables(state).items():
            loaded.maps[table].update_many(entries)
        made = cls(loaded, state)
        made.switching(state)
        there = {"lifeline": state.tunnel, "landing": state.tunnel}
        there |= {"switch_device": not state.moved, "shortcut_device": not state.moved}
        for name, is_there in there.items():
            if is_there:
                loaded.maps[name].update(FIRST, struct.pack("=I", LOOPBACK_IFINDEX))
        return made

    def switching(self, state: State) -> None:
        """Write how the transit switch is attached."""
        self.loaded.maps["switching"].update(FIRST, pack_switching(state))

    def run(self, program: ProgramName, frame: bytes, context: bytes) -> Ran:
        """Run a program on a frame; it must count exactly one verdict, with the frame's length."""
        verdicts = self.loaded.maps["verdicts"]
        before = verdicts.sum_words()[1]
        ran = self.loaded.programs[f"mzn_{program}"].test_run(frame, context=context)
        words = zip(verdicts.sum_words()[1], before, strict=True)
        since = unpack_stats([now - then for now, then in words])
        counted = {name: _counted(getattr(since, name)) for name in PROGRAMS}
        length = min(len(frame), PAGE_FRAME) if program == "switch" else len(frame)
        (verdict,) = counted.pop(program)
        assert getattr(since, program)[verdict] == Counter(1, length)
        assert not any(counted.values())
        return Ran(verdict, ran.verdict, ran.frame)

    def close(self) -> None:
        """Let go of the programs."""
        self.loaded.close()

    def __enter__(self) -> Shipped:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
