# SPDX-License-Identifier: Apache-2.0
"""The process behind an Intruder: reads attempts, one JSON string a line, and writes what came of each.

It runs without the library and without the tests' environment: system calls made by hand.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shlex
import socket
import struct
import subprocess
import sys
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
_CLONE_NEWNET = 0x40000000
# Numbers of <linux/bpf.h> and <linux/rtnetlink.h>.
_NEXT_ID = {"program": 11, "map": 12, "link": 31}
_FD_BY_ID = {"program": 13, "map": 14, "link": 30}
_PROG_LOAD, _OBJ_GET, _PROG_QUERY, _LINK_CREATE = 5, 7, 16, 28
_SCHED_CLS, _XDP = 3, 6
_HOOKS = {"tcx ingress": (_SCHED_CLS, 46, 0), "tcx egress": (_SCHED_CLS, 47, 0), "generic XDP": (_XDP, 37, 2)}
_SHOW, _DELETE, _TARGET_NETNSID = 18, 17, 46
_links: list[int] = []  # a link lasts as long as its descriptor


def _check(result: Any) -> Any:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """The result, and the attributes as the kernel left them."""
    room = ctypes.create_string_buffer(attributes, 128)
    return _check(_libc.syscall(_BPF, command, room, len(room))), room.raw


def next_id(kind: str) -> int:
    """The number of the first program, map or link of the machine."""
    found: int = struct.unpack_from("I", _bpf(_NEXT_ID[kind], bytes(4))[1], 4)[0]
    return found


def open_id(kind: str, number: int) -> None:
    """A descriptor for a number."""
    os.close(_bpf(_FD_BY_ID[kind], struct.pack("I", number))[0])


def open_pin(path: str) -> None:
    """A descriptor for a pin."""
    name = ctypes.create_string_buffer(path.encode())
    os.close(_bpf(_OBJ_GET, struct.pack("QII", ctypes.addressof(name), 0, 0))[0])


def query(device: str, hook: str) -> list[int]:
    """The numbers of the programs on a tcx hook."""
    room = ctypes.create_string_buffer(256)
    facts = (socket.if_nametoindex(device), _HOOKS[hook][1], 0, 0, ctypes.addressof(room), 64)
    count = struct.unpack_from("I", _bpf(_PROG_QUERY, struct.pack("IIIIQI", *facts))[1], 24)[0]
    return list(struct.unpack_from(f"{count}I", room.raw))


def attach(device: str, hook: str, code: str = "b700000000000000 9500000000000000") -> None:
    """Put a program on a hook of a device; without ``code`` (hexadecimal) it returns 0."""
    kind, where, flags = _HOOKS[hook]
    instructions = ctypes.create_string_buffer(bytes.fromhex(code))
    licence = ctypes.create_string_buffer(b"GPL")
    facts = (kind, (len(instructions) - 1) // 8, ctypes.addressof(instructions), ctypes.addressof(licence))
    program = _bpf(_PROG_LOAD, struct.pack("IIQQ", *facts))[0]
    try:
        facts = (program, socket.if_nametoindex(device), where, flags)
        _links.append(_bpf(_LINK_CREATE, struct.pack("IIII", *facts))[0])
    finally:
        os.close(program)


def send(source: str, to: str) -> None:
    """A datagram from an address that need not be there (IP_FREEBIND and IPV6_FREEBIND take no privilege)."""
    family, level, option = (socket.AF_INET6, 41, 78) if ":" in to else (socket.AF_INET, 0, 15)
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.setsockopt(level, option, 1)
        made.bind((source, 0))
        made.sendto(b"forged", (to, 9))


def send_frame(device: str, frame: str) -> None:
    """A frame (hexadecimal) as it is, out of a device; ENOBUFS says that a program dropped it there."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as made:
        made.bind((device, 0))
        made.send(bytes.fromhex(frame))


def option(level: int, number: int) -> None:
    """Set an option of a socket to 7."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setsockopt(level, number, 7)


def enter(descriptor: int) -> None:
    """Go to another network namespace."""
    _check(_libc.setns(descriptor, _CLONE_NEWNET))


def show_by_number(nsid: int, ifindex: int) -> None:
    """Read a device of another namespace, by this one's number for it."""
    _by_number(_SHOW, nsid, ifindex)


def delete_by_number(nsid: int, ifindex: int) -> None:
    """Delete a device of another namespace, by this one's number for it."""
    _by_number(_DELETE, nsid, ifindex)


def _by_number(what: int, nsid: int, ifindex: int) -> None:
    body = struct.pack("=BBHiII", 0, 0, 0, ifindex, 0, 0) + struct.pack("=HHi", 8, _TARGET_NETNSID, nsid)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as route:
        route.send(struct.pack("=IHHII", 16 + len(body), what, 5, 1, 0) + body)  # NLM_F_REQUEST | NLM_F_ACK
        answer = route.recv(1 << 16)
    kind, code = struct.unpack_from("=H", answer, 4)[0], struct.unpack_from("=i", answer, 16)[0]
    if kind == 2 and code:  # NLMSG_ERROR
        raise OSError(-code, "refused")


def _evaluate(expression: str) -> str:
    try:
        value = eval(expression)
    except OSError as refused:
        return errno.errorcode[refused.errno or errno.EIO]
    return "done" if value is None else str(value) if value else "nothing"


def _attempt(what: str) -> str | tuple[int, str, str]:
    if what.startswith(">"):
        return _evaluate(what[1:].strip())
    done = subprocess.run(
        ["timeout", "-s", "KILL", "10", *shlex.split(what)],
        capture_output=True,
        text=True,
        close_fds=False,  # what this process inherited, its commands inherit
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


if __name__ == "__main__":
    print(json.dumps("ready"), flush=True)
    for _line in sys.stdin:
        print(json.dumps(_attempt(json.loads(_line))), flush=True)
