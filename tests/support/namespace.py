# SPDX-License-Identifier: Apache-2.0
"""Network namespaces of the tests, with sockets in them.

A socket belongs to the namespace it was made in, whoever uses it later. So all traffic comes from the test's own
process: no helper process to start, to talk to and to kill.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket as sockets
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from subprocess import PIPE
from typing import TypeVar

from mizarnet._kernel.netlink import Session, create_netns, delete_netns, write_sysctl

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
SOCKET_SECONDS = 10.0
_libc = ctypes.CDLL(None, use_errno=True)


def enter(path: str) -> None:
    """Move the calling thread, and no other, into a network namespace."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(fd)


class Namespace:
    """A named network namespace."""

    def __init__(self, name: str) -> None:
        """Make it; loopback is up."""
        create_netns(name)
        self.name = name

    @classmethod
    def adopt(cls, name: str) -> Namespace:
        """One that exists already."""
        found = cls.__new__(cls)
        found.name = name
        return found

    @property
    def path(self) -> str:
        """Of the file that stands for it."""
        return f"/run/netns/{self.name}"

    def set(self, **sysctls: int) -> None:
        """Write settings below ``net``, by their paths."""
        with Session.open(self.name) as session:
            for path, value in sysctls.items():
                write_sysctl(session, path, str(value))

    def call(self, function: Callable[[], T]) -> T:
        """Call ``function`` on a thread that lives in the namespace."""

        def inside() -> T:
            enter(self.path)
            return function()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(inside).result(SOCKET_SECONDS)

    def socket(self, family: int, kind: int, protocol: int = 0) -> sockets.socket:
        """A socket of the namespace, with a timeout on everything it does."""
        made = self.call(lambda: sockets.socket(family, kind, protocol))
        made.settimeout(SOCKET_SECONDS)
        return made

    def packet_socket(self, device: str, protocol: int = 0) -> sockets.socket:
        """An AF_PACKET socket bound to a device; ``protocol`` 0 receives nothing, 3 everything."""
        made = self.socket(sockets.AF_PACKET, sockets.SOCK_RAW, 0)
        made.bind((device, protocol))
        return made

    def run(self, *argv: str, timeout: int = 20) -> str:
        """Run a command in the namespace; it must succeed. Its standard output."""
        # A process starts in the namespace of the thread that starts it: no other has to be started for that.
        process = self.call(
            lambda: subprocess.Popen(argv, stdout=PIPE, stderr=PIPE, text=True, process_group=0)
        )
        try:
            output, errors = process.communicate(timeout=timeout)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        assert process.returncode == 0, f"{' '.join(argv)} in {self.name}: {process.returncode}\n{errors}"
        return output

    def delete(self) -> None:
        """Delete it; again is harmless."""
        delete_netns(self.name)
