# SPDX-License-Identifier: Apache-2.0
"""Endpoints that have no part in what a tenant does, and everything of the host that must stay as it was."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Self

from tests.support.tables import contents
from tests.support.traffic import ping, udp_ask, udp_echo
from tests.world import TUNNEL, Container, Host, Tenants, device


def _of_host(host: Host) -> dict[str, Any]:
    agent = host.agent
    return {"agent": agent.state(), "maps": contents(agent), "tunnel": device(host.namespace, TUNNEL)}


class Bystanders:
    """One asks, a neighbour on its host and one on the other host answer."""

    def __init__(self, net: Tenants) -> None:
        """Remember how everything is."""
        self._net = net
        self._asking, self._answering = net.blue1, (net.blue2, net.blue3)
        self._undo = ExitStack()
        for each in self._answering:
            self._undo.enter_context(udp_echo(each.namespace, each.ip, tag=b"here "))
        self._before = self._facts()

    def _facts(self) -> dict[str, Any]:
        facts = {f"{each.address}": _of_host(each) for each in self._net.world.hosts}
        return facts | {each.ip: self._of(each) for each in (self._asking, *self._answering)}

    def _of(self, container: Container) -> object:
        return device(container.namespace, "eth0")

    def remember(self) -> None:
        """From now on it is to stay as it is now."""
        self._before = self._facts()

    def assert_untouched(self, why: str) -> None:
        """They still talk, and nothing of hosts and devices has changed."""
        for each in self._answering:
            assert ping(self._asking.namespace, each.ip), f"{why}: {each.ip} does not answer"
            assert udp_ask(self._asking.namespace, each.ip, b"?") == b"here ?", f"{why}: no datagram"
        now = self._facts()
        changed = {place: facts for place, facts in now.items() if facts != self._before[place]}
        assert not changed, f"{why}: changed from {self._before} to {changed}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()
