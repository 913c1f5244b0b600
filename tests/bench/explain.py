# SPDX-License-Identifier: Apache-2.0
"""How long an explanation takes: ten that find nothing wrong, over two hosts, after the first.

``python -m tests.bench.explain`` prints a line for each, and fails if one takes longer than it may.
"""

from __future__ import annotations

import time
from typing import Any

import mizarnet as mz

MOST = 0.2
"""Time in seconds that each may take."""
ROUNDS = 20
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("ping", {}),
    ("ping, full size", {"size": 1450}),
    ("IPv6", {"destination": "fd00::2"}),
    ("UDP", {"protocol": "udp", "port": 53}),
    ("TCP", {"protocol": "tcp", "port": 80}),
    ("TCP super-packet", {"protocol": "tcp", "port": 80, "size": 60000}),
    ("same host", {"destination": "10.0.0.3"}),
    ("gateway", {"destination": "10.0.0.254"}),
    ("ARP", {"protocol": "arp"}),
    ("neighbour discovery", {"destination": "fd00::2", "protocol": "nd"}),
]


def main() -> int:
    slow = 0
    with mz.Lab(name="explained") as lab:
        first, second = (host.agent for host in lab.hosts)
        for agent, number, name in ((first, 1, "a"), (second, 2, "b"), (first, 3, "c")):
            ips = [f"10.0.0.{number}/24", f"fd00::{number}/64"]
            gateway = ["10.0.0.254", "fd00::fe"]
            mz.Endpoint.create(agent, name=name, vni=7, ip=ips, gateway=gateway, netns=lab.container(name))
        lab.publish()
        lab.run("a", "ping", "-c1", "-W2", "10.0.0.2")
        begin = time.perf_counter()
        mz.explain_path([first, second], "a", "10.0.0.2")
        print(f"{'the first, which loads programs':32} {(time.perf_counter() - begin) * 1e3:7.1f} ms")
        for name, asked in ASKED:
            given = {"destination": "10.0.0.2", **asked}
            took: list[float] = []
            for _ in range(ROUNDS):
                begin = time.perf_counter()
                found = mz.explain_path([first, second], "a", **given)
                took.append(time.perf_counter() - begin)
                assert found.ok, found
            took.sort()
            slow += took[-1] > MOST
            print(f"{name:32} {took[len(took) // 2] * 1e3:7.1f} ms, at most {took[-1] * 1e3:7.1f}")
    return int(slow > 0)


if __name__ == "__main__":
    raise SystemExit(main())
