# SPDX-License-Identifier: Apache-2.0
"""A process that makes, deletes and writes what others make, delete and write at the same moment.

``python -m tests.support.rivals HOST SEED SECONDS NAMESPACE...`` says at its end, as JSON, how its calls ended. Errors
of the library are answers; anything else ends it.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import mizarnet as mz
from tests.world import TUNNEL

NAMES = [f"rival{number}" for number in range(5)]
ADDRESSES = [f"10.0.0.{number}" for number in range(101, 106)]
MACS = [f"02:00:00:00:01:{number:02x}" for number in range(4)]
IFNAMES = ["eth0", "eth1", "eth2"]
HOSTS = ["192.0.2.2", "192.0.2.3", "192.0.2.4"]
FEEDS = ["", "directory", "plan:web"]
FEWEST = 60
"""Calls that each makes, however slow the machine is: enough that each kind succeeds for somebody."""


class Rival:
    """Chooses at random what to do to the few names, addresses and MACs that there are."""

    def __init__(self, agent: mz.TransitAgent, seed: int, namespaces: list[str]) -> None:
        self._agent = agent
        self._random = random.Random(seed)
        self._namespaces = namespaces
        self._calls: list[Callable[[], object]] = [
            *[self.create] * 6,
            *[self.delete] * 3,
            self.delete_by_handle,
            self.write_one,
            self.write_many,
            self.sync,
            self.apply,
            self.forget,
            self.other_tables,
        ]

    def step(self) -> str:
        """One call; how it ended."""
        call = self._random.choice(self._calls)
        try:
            call()
        except mz.MizarnetError as error:
            return f"{call.__name__}: {type(error).__name__}"
        return f"{call.__name__}: done"

    def create(self) -> None:
        choose = self._random.choice
        vm = self._random.random() < 0.2
        mz.Endpoint.create(
            self._agent,
            name=choose(NAMES),
            vni=7,
            ip=f"{choose(ADDRESSES)}/24",
            netns=None if vm else choose(self._namespaces),
            ifname=choose(IFNAMES),
            mac=choose([None, *MACS]),
            kind="macvtap" if vm else "macvlan",
        )

    def delete(self) -> None:
        mz.Endpoint.delete_many(self._agent, [self._random.choice(NAMES)])

    def delete_by_handle(self) -> None:
        mz.Endpoint.open(self._agent, self._random.choice(NAMES)).delete()

    def write_one(self) -> None:
        self._agent.endpoints[self._key()] = self._remote()

    def write_many(self) -> None:
        self._agent.endpoints.update({self._key(): self._remote() for _ in range(3)}, **self._feed())

    def sync(self) -> None:
        self._agent.endpoints.sync({self._key(): self._remote() for _ in range(3)}, vni=7, **self._feed())

    def apply(self) -> None:
        put, gone = {self._key(): self._remote() for _ in range(2)}, {self._key()}
        self._agent.endpoints.apply(put, gone - put.keys(), **self._feed())

    def forget(self) -> None:
        del self._agent.endpoints[self._key()]

    def other_tables(self) -> None:
        self._agent.networks[7, "10.0.0.0/24"] = mz.Network(gateway=self._random.choice([None, "10.0.0.1"]))
        self._agent.peers.add("203.0.113.0/24")
        self._agent.peers.discard("203.0.113.0/24")

    def _feed(self) -> Any:
        return {"feed": self._random.choice(FEEDS), "take": self._random.random() < 0.5}

    def _key(self) -> tuple[int, str]:
        return 7, self._random.choice(ADDRESSES)

    def _remote(self) -> mz.Remote:
        return mz.Remote(self._random.choice(HOSTS))


def main(host: str, seed: int, seconds: float, namespaces: list[str]) -> None:
    """Begin when told to by a line."""
    with mz.TransitAgent.open(TUNNEL, netns=host) as agent:
        rival, ended = Rival(agent, seed, namespaces), Counter[str]()
        print("ready", flush=True)
        sys.stdin.readline()
        deadline = time.monotonic() + seconds
        for calls in itertools.count():
            if calls >= FEWEST and time.monotonic() > deadline:
                break
            ended[rival.step()] += 1
        print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
