# SPDX-License-Identifier: Apache-2.0
"""Where it happens: a host with bystanders, another host, and namespaces for the endpoints that come and go."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path

import mizarnet as mz
from mizarnet._kernel.closing import Closing
from mizarnet._kernel.netlink import Session, create_veth
from tests.crash.state import Reader, State
from tests.support.flow import Delivery, Probe
from tests.support.injector import Injector
from tests.support.schemas import OLDER
from tests.support.standing import data_paths
from tests.support.wait import wait_until
from tests.world import BLUE, TUNNEL, World, calm

OTHER, PORT = "tunnel1", 7777
"""The tunnel that is made and deleted; the bystanders' own stays."""
NICS = "nic0", "nic1"
"""Two ends of a cable, of which a tunnel with a gateway goes from one to the other."""
LABELS = ("e1", "e2", "e3")
_EVERY = 0.005  # seconds between two datagrams of a bystander
_OF_OTHERS = ("near ", "next ", f"host device {TUNNEL} ", "host address ", "host hook ", f"{TUNNEL} ")
_MAY_CHANGE = (" runs build ", f"{TUNNEL} meta: ", f"{TUNNEL} switching: ")


class Ground(Closing):
    """A host with bystanders on it.

    Attributes:
        injector: Lets faults happen.
        second: The object of a second build.
        older: The object of an older schema, in the same directory.
        host: Name of the host's namespace.
        spaces: Names of the namespaces for endpoints, by label.
        agent: The bystanders' agent, by a handle that stays open.
        calm: State of the host with nobody but the bystanders.
        of_others: What of it belongs to bystanders, and may change at no time.
    """

    def __init__(self, injector: Injector, second: Path, *, rules: bool = False) -> None:
        """Make it, and let the bystanders talk; ``rules``: whether those of nftables are of its state."""
        self._rules = rules
        self.injector, self.second, self.older = injector, second, second.with_name(OLDER)
        self._undo = ExitStack()
        try:
            self._make(self._undo.enter_context(_Abandoned()).world)
        except BaseException:
            self._undo.close()
            raise

    def _make(self, world: World) -> None:
        first, second = world.hosts
        self.host, self.agent = first.namespace.name, first.agent
        near, beside, far = (
            world.container(host, BLUE, f"10.0.0.{number}/24", name=f"bystander{number}")
            for number, host in enumerate((first, first, second), 1)
        )
        made = {label: world.namespace(label) for label in LABELS}
        for each in made.values():
            calm(each)
        self.spaces = {label: each.name for label, each in made.items()}
        seen = {"near": near.namespace.name, "next": beside.namespace.name, **self.spaces}
        self._reader = Reader(self.host, seen, rules=self._rules)
        self._undo.callback(self._reader.close)
        if self._rules:
            with Session.open(self.host) as session:
                create_veth(session, NICS[0], peer=NICS[1])
        if self._rules:  # the name of the feed that gateways write for stays in the table of names
            self.agent.networks.apply({(1, "0.0.0.0/0"): mz.Network()}, feed="gateway")
            self.agent.networks.apply({}, [(1, "0.0.0.0/0")], feed="gateway")
        self.calm = self.read()
        self.of_others = frozenset(fact for fact in self.calm if _is_of_others(fact))
        self._programs = self._living()
        self._probes = [
            self._undo.enter_context(Probe(near.namespace, to.namespace, to.ip, every=_EVERY))
            for to in (beside, far)
        ]

    def read(self) -> State:
        """The state of the host now."""
        return self._reader.read()

    def settled(self, wanted: State) -> State:
        """The state of the host: the wanted one, as soon as the kernel has done what it defers, or another."""
        with suppress(AssertionError):
            wait_until(lambda: self.read() == wanted, timeout=0.5)
        return self.read()

    def deliveries(self) -> list[Delivery]:
        """What became of the bystanders' datagrams; they send no more."""
        return [each.result() for each in self._probes]

    def assert_no_programs(self) -> None:
        """No program of a data path of this host that is gone lives on."""
        wait_until(lambda: self._living() == self._programs, "programs live on that are on no hook")

    def _living(self) -> set[int]:
        cookie = self._reader.cookie
        paths = data_paths().items()
        return {
            meta for meta, found in paths if any(each.head.netns_cookie == cookie for each in found.values())
        }

    # -- for verbs

    def open(self) -> mz.TransitAgent:
        """A new handle of the bystanders' agent."""
        return mz.TransitAgent.open(TUNNEL, netns=self.host)

    def open_other(self) -> mz.TransitAgent:
        """A new handle of the other tunnel's agent."""
        return mz.TransitAgent.open(OTHER, netns=self.host)

    def tunnel(self) -> mz.Tunnel:
        """The other tunnel, made if it is not there."""
        return mz.Tunnel.create(OTHER, encap="vxlan", underlay="eth0", port=PORT, netns=self.host)

    def delete_other(self) -> None:
        """Delete the other tunnel with all that is on it, or what is left of it."""
        with self.tunnel() as tunnel:
            tunnel.delete(force=True)

    def close(self) -> None:
        """End it, in whatever state it is."""
        self._undo.close()


class _Abandoned(Closing):
    """A world that is left without the checks of a test: the judge makes his own, and goes on after a violation."""

    def __init__(self) -> None:
        self.world = World("vxlan")

    def close(self) -> None:
        with suppress(AssertionError, mz.MizarnetError):
            self.world.__exit__(AssertionError())


def _is_of_others(fact: str) -> bool:
    return fact.startswith(_OF_OTHERS) and not any(part in fact for part in _MAY_CHANGE)
