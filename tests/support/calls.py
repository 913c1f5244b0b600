# SPDX-License-Identifier: Apache-2.0
"""The kernel functions that a loaded program calls, from its translated instructions."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from mizarnet.bpf import Program

BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}
OBJ_GET_INFO_BY_FD = 15
INSTRUCTION = struct.Struct("<BBhi")
CALL, HELPER, LOAD_64 = 0x85, 0, 0x18
_libc = ctypes.CDLL(None, use_errno=True)


def translated(program: Program) -> bytes:
    """The instructions as the kernel runs them, with the helpers' addresses."""
    room = ctypes.create_string_buffer(1 << 20)
    # struct bpf_prog_info: type, id, tag, lengths of the two codes, then pointers to room for them
    info = bytearray(256)
    struct.pack_into("<II", info, 16, 0, len(room))
    struct.pack_into("<QQ", info, 24, 0, ctypes.addressof(room))
    facts = ctypes.create_string_buffer(bytes(info), len(info))
    attributes = struct.pack("<IIQ", program.fileno(), len(info), ctypes.addressof(facts))
    if _libc.syscall(BPF_SYSCALL[os.uname().machine], OBJ_GET_INFO_BY_FD, attributes, len(attributes)):
        raise OSError(ctypes.get_errno(), "read the instructions")
    (length,) = struct.unpack_from("<I", facts.raw, 20)
    return room.raw[:length]


def helper_calls(program: Program) -> list[str]:
    """Name of the kernel function of every call of a helper, in order."""
    symbols = {}
    for line in Path("/proc/kallsyms").read_text().splitlines():
        at, _, name = line.split()[:3]
        symbols.setdefault(int(at, 16), name)
    base = next(at for at, name in symbols.items() if name == "__bpf_call_base")
    assert base, "this kernel hides its addresses"
    return [symbols.get(base + offset, hex(base + offset)) for offset in _offsets(translated(program))]


def _offsets(code: bytes) -> Iterator[int]:
    instructions = INSTRUCTION.iter_unpack(code)
    for opcode, registers, _, immediate in instructions:
        if opcode == CALL and registers >> 4 == HELPER:
            yield immediate
        if opcode == LOAD_64:
            next(instructions)
