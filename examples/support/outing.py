# SPDX-License-Identifier: Apache-2.0
"""What is tried through a gateway, and what becomes of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import mizarnet as mz
from support import drawing
from support.containers import Containers

PORT = 7000
"""Port on which every container tells its name (worker.py)."""
_ASK = """
import socket, sys
asking = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
asking.send(b"w")
print(asking.recv(99).decode())
"""
_SEND = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(100):
    sender.sendto(bytes.fromhex(sys.argv[3]), (sys.argv[1], int(sys.argv[2])))
"""


class Outing:
    """Containers that leave, and the outside, which is a host that has nothing to do with their VNIs."""

    def __init__(self, lab: mz.Lab, *, outside: mz.LabHost) -> None:
        self._lab = lab
        self._outside = outside
        self._containers = Containers()
        self._checks: list[bool] = []

    def __enter__(self) -> Self:
        self._containers.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._containers.__exit__(kind, error, trace)

    def _expect(self, text: str, good: bool) -> None:
        self._checks.append(good)
        drawing.check(text, good)

    def _names(self) -> list[str]:
        found = [each for host in self._lab.hosts for each in mz.Endpoint.list(host.agent)]
        return [each.name for each in found if not each.name.startswith("gateway/")]

    def _pings(self, name: str) -> bool:
        asked = self._lab.run(name, "ping", "-c1", "-W2", str(self._outside.address), check=False)
        return asked.returncode == 0

    def leave(self) -> None:
        """Everybody pings the outside."""
        drawing.heading(f"Out to {self._outside.address}")
        for name in self._names():
            self._expect(f"{name} reaches the outside", self._pings(name))

    def ask_from_outside(self, ports: Mapping[int, str], *, at: mz.LabHost) -> None:
        """The outside asks at published ports for the name of whoever is there."""
        drawing.heading(f"In by ports of {at.address}")
        served = [
            each
            for host in self._lab.hosts
            for each in mz.Endpoint.list(host.agent)
            if each.name in ports.values()
        ]
        self._containers.start(served)
        for port, name in ports.items():
            told = self._run(self._outside.name, _ASK, str(at.address), str(port)).stdout.strip()
            self._expect(f"port {port} leads to {told}", told == name)

    def try_a_tunnel(self, name: str, vni: int) -> None:
        """A container sends what a host would take for frames of another VNI."""
        drawing.heading("Out to the port of a tunnel")
        port = self._outside.tunnel.port
        before = self._outside.agent.stats()
        frame = f"08000000{vni:06x}00" if port == 4789 else f"00006558{vni:06x}00"
        self._run(name, _SEND, str(self._outside.address), str(port), frame + "00" * 60)
        seen = sum(each.packets for each in self._outside.agent.stats().since(before).guard.values())
        self._expect(f"{name} sends 100 frames of VNI {vni} to a host, {seen} arrive", seen == 0)

    def stay_in(self) -> None:
        """Without gateways nobody leaves."""
        drawing.heading("Without a gateway")
        for name in self._names():
            self._expect(f"{name} stays in", not self._pings(name))

    def _run(self, where: str, code: str, *given: str) -> subprocess.CompletedProcess[str]:
        return self._lab.run(where, sys.executable, "-IS", "-c", code, *given)

    def conclude(self) -> int:
        """The exit status."""
        good = all(self._checks)
        print("\nall as expected" if good else "\nNOT as expected")
        return 0 if good else 1
