# SPDX-License-Identifier: Apache-2.0
"""Traffic between a VM and containers, in both directions: ping, and a page over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import mizarnet as mz
from support import drawing
from support.guest import Guest

PAGE_BYTES = 1 << 20
SECONDS = 30
FETCH = f"busybox timeout {SECONDS} busybox wget -q -O - http://{{}}/page | sha256sum"


class Visits:
    """Lets the VM and containers talk to each other, prints what happens, and remembers whether all was as expected."""

    def __init__(self, lab: mz.Lab, vm: mz.Endpoint, guest: Guest) -> None:
        self._lab, self._vm, self._guest = lab, vm, guest
        self._checks: list[bool] = []
        self._page = guest.run(f"head -c {PAGE_BYTES} /dev/urandom | tee /www/page | sha256sum")

    def exchange(self, other: mz.Endpoint) -> None:
        """Both ways: an echo request, and a page of random bytes that must arrive as it was."""
        name, theirs = other.name, os.urandom(PAGE_BYTES)
        drawing.heading(f"The VM, {self._vm.ip}, and {name}, {other.ip}")
        self._expect(f"the VM pings {name}", "1 packets received" in self._in_vm(f"ping -c 1 {other.ip}"))
        self._expect(
            f"{name} pings the VM", "1 received" in self._in_container(name, f"ping -c 1 {self._vm.ip}")
        )
        before = self._vm.stats()
        with _web_server(other, theirs):
            fetched = self._in_vm(FETCH.format(other.ip))
        now = self._vm.stats()
        self._expect(f"the VM reads a page of {name}", _digest(fetched) == sha256(theirs).hexdigest())
        self._show_frames("received", now.received - before.received)
        fetched = self._in_container(name, FETCH.format(self._vm.ip))
        self._expect(f"{name} reads a page of the VM", _digest(fetched) == _digest(self._page))
        self._show_frames("sent", self._vm.stats().sent - now.sent)

    def _show_frames(self, verb: str, frames: mz.Counter) -> None:
        """Offloads are on if the frames of a page are larger than the VM's MTU allows on a wire."""
        mean = frames.bytes // frames.packets
        mtu = self._vm.state().mtu
        self._expect(f"    {verb} in frames of {mean} bytes on average, with an MTU of {mtu}", mean > mtu)

    def _expect(self, text: str, good: bool) -> None:
        self._checks.append(good)
        drawing.check(text, good)

    def _in_vm(self, command: str) -> str:
        try:
            return self._guest.run(command, timeout=2 * SECONDS)
        except subprocess.CalledProcessError as failed:
            return f"failed: {failed.output}"

    def _in_container(self, name: str, command: str) -> str:
        done = self._lab.run(name, "sh", "-c", command, timeout=2 * SECONDS, check=False)
        return done.stdout + done.stderr

    def conclude(self) -> int:
        """The example's exit status."""
        good = all(self._checks)
        print("\nall as expected" if good else "\nNOT as expected: see BAD above")
        return 0 if good else 1


def _digest(output: str) -> str:
    return output.split()[0]


@contextmanager
def _web_server(endpoint: mz.Endpoint, page: bytes) -> Generator[None, None, None]:
    """A web server in the container, with one page."""
    with tempfile.TemporaryDirectory(prefix="mizarnet-page-") as directory:
        Path(directory, "page").write_bytes(page)
        process = subprocess.Popen(
            [
                *("nsenter", f"--net=/run/netns/{endpoint.netns}", sys.executable, "-ISu"),
                *("-m", "http.server", "80", "--directory", directory),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the example, which then ends this
        )
        with process:
            try:
                assert process.stdout is not None
                process.stdout.readline()  # it listens
                yield
            finally:
                process.kill()
