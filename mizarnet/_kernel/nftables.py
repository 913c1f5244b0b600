# SPDX-License-Identifier: Apache-2.0
"""Tables of nftables, by the command ``nft``, inside a network namespace.

The command is what its makers keep compatible: it reads the language of its manual, and writes JSON. A file of commands
is one transaction, and all or nothing.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from typing import Any, TypeAlias

from mizarnet._kernel.netlink import Session
from mizarnet._kernel.refusals import refused
from mizarnet.errors import MizarnetError, UnsupportedError

FEATURE = "nftables"
Item: TypeAlias = dict[str, Any]
"""A chain, rule or other part of a listing, by its attributes in libnftables-json(5)."""

_DIRECTORIES = "/usr/sbin:/sbin:/usr/local/sbin"
_TIMEOUT = 30.0
_FAILED = "Error:"
"""What is in each of nft's messages of a failure."""
_KNOWN = {
    "Operation not permitted": errno.EPERM,
    "No such file or directory": errno.ENOENT,
    "File exists": errno.EEXIST,
    "Device or resource busy": errno.EBUSY,
    "Cannot allocate memory": errno.ENOMEM,
    "Operation not supported": errno.EOPNOTSUPP,
    "Protocol not supported": errno.EPROTONOSUPPORT,
    "Address family not supported by protocol": errno.EAFNOSUPPORT,
}
"""Error numbers by what nft says of them; os.strerror() speaks the language of the process."""
# What the kernel says of a part of nftables that it does not have, and has no module for.
_ABSENT = {errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT}


def refuse_without(session: Session, commands: str) -> None:
    """Raises ``UnsupportedError`` where the kernel cannot carry out ``commands``, of which nothing is carried out.

    Other errors as for :func:`apply`.
    """
    number, said = session.run(_run, ("--check", "--file", "-"), commands)[1:]
    if number in _ABSENT:
        raise UnsupportedError(
            f"this kernel has no nftables, or not all that is needed of it: {said}",
            feature=FEATURE,
            hint="load or build nf_tables, nft_nat, nft_masq, nft_ct and nft_fib_inet",
        )
    if number:
        raise refused(f"check rules of nftables: {said}", number, capability="CAP_NET_ADMIN")


def apply(session: Session, commands: str, operation: str) -> None:
    """Carry out commands in one transaction; ``operation`` says in words what is tried.

    Raises:
        KernelError: The kernel refused them; nothing was changed.
        PrivilegeError: CAP_NET_ADMIN is missing.
        UnsupportedError: The command nft is missing.
    """
    number, said = session.run(_run, ("--file", "-"), commands)[1:]
    if number:
        raise _refusal(operation, number, said)


def read(session: Session, *what: str) -> list[Item] | None:
    """What ``nft --json list ...`` tells, each item under its kind; None if there is no such thing.

    Args:
        session: Session of the namespace.
        what: What to list, such as ``"table", "inet", "filter"``.

    Raises:
        KernelError: The kernel refused it.
        UnsupportedError: The command nft is missing.
    """
    told, number, said = session.run(_run, ("--json", "list", *what), "")
    if number == errno.ENOENT:
        return None
    if number:
        raise _refusal(f"list {' '.join(what)} of nftables", number, said)
    listed: dict[str, list[Item]] = json.loads(told) if told.strip() else {}
    return listed.get("nftables", [])


def _refusal(operation: str, number: int, said: str) -> MizarnetError:
    return refused(f"{operation}: {said}", number, capability="CAP_NET_ADMIN")


def _run(arguments: tuple[str, ...], given: str) -> tuple[str, int, str]:
    """Run nft in the calling thread's namespace: its output, the errno of a failure or 0, and what it said."""
    path = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:{_DIRECTORIES}")
    if path is None:
        raise UnsupportedError(
            "the command nft is missing", feature=FEATURE, hint="on Debian: apt-get install nftables"
        )
    try:
        done = subprocess.run(
            [path, *arguments],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
            env={"LC_ALL": "C"},
            process_group=0,  # a terminal's SIGINT is for the caller, who waits for the end
        )
    except subprocess.TimeoutExpired:
        return "", errno.ETIMEDOUT, f"{path} did not end within {_TIMEOUT:.0f} s"
    except OSError as error:
        return "", error.errno or errno.EIO, f"{path} cannot be run"
    # Where SIGCHLD is ignored, or another thread waits for all children, Python knows no exit status, and says 0.
    if not done.returncode and _FAILED not in done.stderr:
        return done.stdout, 0, ""
    said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
    return "", next((number for text, number in _KNOWN.items() if text in said), errno.EINVAL), said
