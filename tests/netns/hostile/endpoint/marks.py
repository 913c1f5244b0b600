# SPDX-License-Identifier: Apache-2.0
"""Marks and priorities of packets: the agent's secret ones, and an eye for all of them at a hook of a device."""

from __future__ import annotations

import struct
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from mizarnet._kernel.bpf import Direction, Map, ObjectSpec, Program
from mizarnet._kernel.netlink import Session, get_link
from mizarnet._model import layouts
from tests.support.standing import at_the_head, program_ids
from tests.world import TUNNEL, Host, mac_of

SOURCE = Path(__file__).with_name("marks.bpf.c")
FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror")


# -- the secret ones ---------------------------------------------------------------------------------------


@attrs.frozen
class Secrets:
    """The agent's word to the guard, and the guard's to the agent."""

    local: int
    bounced: int
    token: bytes


def secrets_of(host: Host) -> Secrets:
    """What only root of the host can read: the constants of the loaded program."""
    mac = mac_of(host.namespace, TUNNEL)
    program = Program.open_id(program_ids(host.agent)["mzn_agent"])
    assert program is not None
    with program:
        found = next(
            each for data in _constants(program) for each in _configs(data) if each.tunnel_mac == mac
        )
    return Secrets(found.mark_local, found.mark_bounced, found.token_bounced)


def _configs(data: bytes) -> Iterator[layouts.Config]:
    """What stands at each place of a data section, taken for the agent's constants."""
    size = layouts.CONFIG.size
    return (layouts.Config.unpack(data[at : at + size]) for at in range(0, len(data) - size + 1, 4))


def _constants(program: Program) -> Iterator[bytes]:
    """The read-only data sections that a loaded program uses."""
    for number in program.map_ids:
        found = Map.open_id(number)
        if found is not None:
            with found:
                if ".rodata" in found.name:
                    yield found.lookup(bytes(4)) or b""


# -- an eye for them ---------------------------------------------------------------------------------------


def build(directory: Path) -> Path:
    """Compile the eye into ``directory``."""
    output = directory / "marks.bpf.o"
    include = f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"
    command = ["clang", *FLAGS, "-idirafter", include, "-c", str(SOURCE), "-o", str(output)]
    subprocess.run(command, check=True, timeout=60)
    return output


@attrs.frozen
class Passed:
    """Frames that passed a hook."""

    frames: int
    marked: int
    with_priority: int


class Eye:
    """Looks at the frames on one side of a device."""

    def __init__(self, counters: Map) -> None:
        """Read from ``counters``."""
        self._counters = counters
        self._start = Passed(0, 0, 0)

    def forget(self) -> None:
        """Begin anew."""
        self._start = self._count()

    def passed(self) -> Passed:
        """What passed since then."""
        pairs = zip(attrs.astuple(self._count()), attrs.astuple(self._start), strict=True)
        return Passed(*(now - then for now, then in pairs))

    def _count(self) -> Passed:
        values = (self._counters.lookup(struct.pack("=I", number)) for number in range(3))
        return Passed(*(int.from_bytes(value or b"", "little") for value in values))


@contextmanager
def watching(program: Path, netns: str, name: str, direction: Direction) -> Iterator[Eye]:
    """An eye on the device called ``name`` of a namespace."""
    with ExitStack() as undo:
        session = undo.enter_context(Session.open(netns))
        found = get_link(session, name)
        assert found is not None
        with ObjectSpec.open(program, name="marks") as spec:
            loaded = undo.enter_context(spec.load())
        undo.enter_context(at_the_head(session, found.ifindex, loaded.programs["look"], direction))
        yield Eye(loaded.maps["counters"])
