# SPDX-License-Identifier: Apache-2.0
"""Marks and priorities of packets: the agent's secret ones, and an eye for all of them at a hook of a device."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import attrs

from mizarnet.abi import layouts
from mizarnet.bpf import Direction, Link, ObjectSpec, Program, attach_clsact, attach_tcx, has_tcx
from mizarnet.bpf.fd import Fd
from mizarnet.bpf.map import Map
from mizarnet.netlink import Session, get_link
from tests.support.calls import BPF_SYSCALL, OBJ_GET_INFO_BY_FD
from tests.support.topology import TUNNEL, Host, mac_of

SOURCE = Path(__file__).with_name("marks.bpf.c")
FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror")
MAP_GET_FD_BY_ID = 14  # enum bpf_cmd
_attach_clsact = partial(attach_clsact, priority=1, handle=1)
_libc = ctypes.CDLL(None, use_errno=True)


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
    program = Program.open_id(host.agent.state().programs["transit_agent"])
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
    numbers = ctypes.create_string_buffer(4 * 64)
    info = bytearray(256)  # struct bpf_prog_info; at 52 the number of its maps, then room for their numbers
    struct.pack_into("<I", info, 52, 64)
    struct.pack_into("<Q", info, 56, ctypes.addressof(numbers))
    facts = ctypes.create_string_buffer(bytes(info), len(info))
    _call(OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", program.fileno(), len(info), ctypes.addressof(facts)))
    (count,) = struct.unpack_from("<I", facts.raw, 52)
    for number in struct.unpack_from(f"<{count}I", numbers.raw):
        fd = _call(MAP_GET_FD_BY_ID, struct.pack("<III", number, 0, 0))
        with Map(Fd(fd, what=f"map {number}")) as found:
            if found.name.endswith(".rodata"):
                yield found.lookup(bytes(4)) or b""


def _call(command: int, attributes: bytes) -> int:
    result: int = _libc.syscall(BPF_SYSCALL[os.uname().machine], command, attributes, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf command {command}")
    return result


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
        attach = partial(session.run, attach_tcx if has_tcx() else _attach_clsact)
        link = attach(loaded.programs["look"], found.ifindex, direction=direction)
        undo.callback(session.run, link.close if isinstance(link, Link) else link.detach)
        yield Eye(loaded.maps["counters"])
