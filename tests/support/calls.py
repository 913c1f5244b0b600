# SPDX-License-Identifier: Apache-2.0
"""What the kernel itself says of programs and maps: the functions that one calls, which there are, who uses which."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from mizarnet._kernel.bpf import Program

BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}
PROGRAMS, MAPS, OBJ_GET_INFO_BY_FD = 11, 12, 15  # enum bpf_cmd: BPF_PROG_GET_NEXT_ID and so on
INSTRUCTION = struct.Struct("<BBhi")
CALL, HELPER, LOAD_64 = 0x85, 0, 0x18
_libc = ctypes.CDLL(None, use_errno=True)


def numbers(what: int) -> frozenset[int]:
    """Of all ``PROGRAMS`` or all ``MAPS`` of this kernel, whoever made them. No number is given twice."""
    found: list[int] = [0]
    while True:
        attributes = ctypes.create_string_buffer(struct.pack("=III", found[-1], 0, 0), 12)
        if _libc.syscall(BPF_SYSCALL[os.uname().machine], what, attributes, len(attributes)):
            if ctypes.get_errno() != errno.ENOENT:
                raise OSError(ctypes.get_errno(), "list what is loaded")
            return frozenset(found[1:])
        found.append(struct.unpack_from("=I", attributes.raw, 4)[0])


def users(map_id: int) -> list[int]:
    """Numbers of the programs, of all that the kernel has, that use a map."""
    return sorted(number for number in numbers(PROGRAMS) if map_id in _maps_of(number))


def _maps_of(number: int) -> tuple[int, ...]:
    program = Program.open_id(number)
    if program is None:
        return ()  # somebody else's, and gone meanwhile
    with program:
        room = ctypes.create_string_buffer(4 * 64)
        info = bytearray(256)
        struct.pack_into("=IQ", info, 52, 64, ctypes.addressof(room))  # nr_map_ids, map_ids
        (count,) = struct.unpack_from("=I", _info(program, info), 52)
        return struct.unpack_from(f"={count}I", room.raw)


def _info(program: Program, info: bytearray) -> bytes:
    """``struct bpf_prog_info``, asked for with the pointers in ``info``."""
    facts = ctypes.create_string_buffer(bytes(info), len(info))
    attributes = struct.pack("<IIQ", program.fileno(), len(info), ctypes.addressof(facts))
    if _libc.syscall(BPF_SYSCALL[os.uname().machine], OBJ_GET_INFO_BY_FD, attributes, len(attributes)):
        raise OSError(ctypes.get_errno(), "read the facts of a program")
    return facts.raw


def translated(program: Program) -> bytes:
    """The instructions as the kernel runs them, with the helpers' addresses."""
    room = ctypes.create_string_buffer(1 << 20)
    # struct bpf_prog_info: type, id, tag, lengths of the two codes, then pointers to room for them
    info = bytearray(256)
    struct.pack_into("<II", info, 16, 0, len(room))
    struct.pack_into("<QQ", info, 24, 0, ctypes.addressof(room))
    (length,) = struct.unpack_from("<I", _info(program, info), 20)
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
