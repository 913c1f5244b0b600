# SPDX-License-Identifier: Apache-2.0
"""A real VM on the descriptors of an endpoint: QEMU, in emulation, with a Debian kernel and busybox."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import mizarnet as mz

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "vm"))
from kernels import Kernel, require, write_initramfs
from kernels import kernel as fetched_kernel

SERIES = "6.12"
DRIVERS = ("virtio_pci", "virtio_net")
BOOT_SECONDS = 90.0
"""Seconds to boot: five on an idle machine."""
COMMAND_SECONDS = 30.0
MARK = b"\n=== "
END = re.compile(re.escape(MARK) + rb"\d+\n\Z")
"""The end of a command's output, with its exit status."""


class Guest:
    """A running VM, with the endpoint's addresses on its one NIC and a web server for ``/www``."""

    def __init__(self, endpoint: mz.Endpoint, fds: Sequence[int], *, kernel: str | None = None) -> None:
        """Boot it; it has copies of the descriptors.

        Args:
            endpoint: A MACVTAP.
            fds: Its descriptors.
            kernel: A directory with ``boot/vmlinuz-<release>`` and ``lib/modules/<release>``, such as an unpacked
                package, or ``/``; None: the one that the tests use, fetched when it is not there.
        """
        self._stack = ExitStack()
        with self._stack as undo:
            work = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="mizarnet-guest-")))
            self._console = work / "console"
            self._process = undo.enter_context(_start(endpoint, fds, _find_kernel(kernel), work))
            undo.callback(self._process.kill)
            self._read(time.monotonic() + BOOT_SECONDS)
            self._stack = undo.pop_all()

    def run(self, command: str, *, timeout: float = COMMAND_SECONDS) -> str:
        """Run a shell command in the VM.

        Returns:
            What it printed, errors included.

        Raises:
            subprocess.CalledProcessError: It failed.
            TimeoutError: The VM did not answer in time.
            ConnectionError: The VM has ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        status, output = self._read(time.monotonic() + timeout)
        if status:
            raise subprocess.CalledProcessError(status, command, output)
        return output

    def _read(self, deadline: float) -> tuple[int, str]:
        """Wait for the command that runs; its status and output."""
        assert self._process.stdout is not None
        read = b""
        while not END.search(read):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise TimeoutError(f"the VM does not answer; it said {read!r}{self._last_words()}")
            some = os.read(self._process.stdout.fileno(), 1 << 16)
            if not some:
                raise ConnectionError(f"the VM ended{self._last_words()}")
            read += some
        output, _, status = read.rpartition(MARK)
        return int(status), output.decode()

    def _last_words(self) -> str:
        console = self._console.read_text(errors="replace") if self._console.exists() else ""
        return "; its console's last lines:\n" + "\n".join(console.splitlines()[-20:])

    def stop(self) -> None:
        """Kill the VM; a second call does nothing."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _find_kernel(directory: str | None) -> Kernel:
    if directory is None:
        return fetched_kernel(SERIES)
    *_, image = sorted(Path(directory, "boot").glob("vmlinuz-*"))
    return Kernel(Path(directory), image.name.removeprefix("vmlinuz-"))


def _start(endpoint: mz.Endpoint, fds: Sequence[int], kernel: Kernel, work: Path) -> subprocess.Popen[bytes]:
    initramfs = work / "initramfs"
    write_initramfs(initramfs, kernel, Path(__file__).with_name("guest.sh"), needed=DRIVERS)
    addresses = ",".join(map(str, endpoint.addresses))
    return subprocess.Popen(
        [
            # The VM ends with this process, also if that is killed.
            *(require("setpriv", "util-linux"), "--pdeathsig", "KILL"),
            require("qemu-system-x86_64", "qemu-system-x86"),
            *("-machine", "q35", "-accel", "tcg,thread=single", "-smp", "1", "-m", "256M"),
            # Without rdrand the first random number takes a second.
            *("-cpu", "Nehalem,+rdrand", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *(
                "-netdev",
                f"tap,id=net,vhost=off,{'fd' if len(fds) == 1 else 'fds'}={':'.join(map(str, fds))}",
            ),
            *("-device", f"virtio-net-pci,netdev=net,mac={endpoint.mac},host_mtu={endpoint.state().mtu}"),
            *("-serial", f"file:{work / 'console'}", "-serial", "stdio"),
            *("-kernel", str(kernel.image), "-initrd", str(initramfs)),
            # The kernel sometimes rejects an emulated time stamp counter, and every other clock is slow to read.
            *("-append", f"console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable ADDRESSES={addresses}"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=fds,
        start_new_session=True,  # Ctrl-C is for the example, which then ends this
    )
