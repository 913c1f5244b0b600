# SPDX-License-Identifier: Apache-2.0
"""The host that everything is done to, and another one, on which somebody asks who answers."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path

import attrs

import mizarnet as mz
from mizarnet._kernel.closing import Closing
from mizarnet._kernel.netlink import delete_netns, delete_unmounted
from tests.crash.attempt import Attempt, Ended, ended
from tests.machine.asker import Asker
from tests.machine.deeds import CAPACITY, Deed
from tests.machine.model import TABLES, Model
from tests.support.injector import Fault, Injector
from tests.support.namespace import Namespace
from tests.world import TUNNEL, UNDERLAY, World, calm

SPACES = ("space1", "space2")
VNI, ASKER = 7, "10.0.0.200"
_OWNER = "ground"
"""The feed by which the host knows where the asker is."""
_NAMES = Path("/run/netns")


@attrs.frozen
class Act:
    """A call that a process of its own makes.

    Attributes:
        name: What it is called.
        host: Name of the host's namespace.
        deed: What is done.
    """

    name: str
    host: str
    deed: Deed

    def prepare(self, _: object) -> object:
        """The handle that the call needs."""
        return self.deed.open(self.host)

    def call(self, handle: object) -> object:
        """The call."""
        return self.deed.call(handle)


class Ground(Closing):
    """Two hosts, of which the first has nobody on it to begin with.

    Attributes:
        injector: Lets faults happen.
        host: Name of the first host's namespace.
        agent: Its agent, by one handle from the beginning to the end.
        asker: Asks from the second host.
    """

    def __init__(self, injector: Injector) -> None:
        self.injector = injector
        self._undo = ExitStack()
        try:
            self._make()
        except BaseException:
            self._undo.close()
            raise

    def _make(self) -> None:
        self._world = World("vxlan", **CAPACITY)
        self._undo.callback(self._abandon)
        first, second = self._world.hosts
        self.host, self.agent = first.namespace.name, first.agent
        self._peers = [*self.agent.peers]
        for name in SPACES:
            self._undo.callback(delete_netns, name)
            calm(Namespace(name))
        container = self._world.container(second, VNI, f"{ASKER}/24", name="asker")
        self.asker = self._undo.enter_context(Asker(container.namespace, self.agent))
        self._home = second.address
        second.agent.endpoints.update({(VNI, f"10.0.0.{n}"): mz.Remote(first.address) for n in range(1, 10)})
        self.welcome()

    def _abandon(self) -> None:
        """End the hosts without the checks of a test, which would follow another failure."""
        with suppress(AssertionError, mz.MizarnetError):
            self._world.__exit__(AssertionError())
        for path in _NAMES.glob("mizarnet-*"):
            if not delete_unmounted(path.name):
                delete_netns(path.name)

    def close(self) -> None:
        """End it, in whatever state it is."""
        self._undo.close()

    @property
    def model(self) -> Model:
        """What is there to begin with."""
        peers = {each: (None, "") for each in self._peers}
        return Model(frozenset(SPACES)).with_entries("peers", peers)

    def welcome(self) -> None:
        """Tell a new agent where the asker is, for a feed of its own."""
        self.agent.endpoints.update({(VNI, ASKER): mz.Remote(self._home)}, feed=_OWNER, take=True)

    # -- what is done

    def do(self, deed: Deed) -> Ended:
        """Do something here; how it ended."""
        found, _ = ended(lambda: deed.call(self.agent))
        return found

    def do_apart(self, deed: Deed, fault: Fault) -> Ended | None:
        """Do something in another process, to which something happens; how it ended, None if the process died."""
        with Attempt(self, Act(repr(deed), self.host, deed), fault) as attempt:
            found = attempt.outcome()
            attempt.told()
            return found

    def attach(self) -> None:
        """Tunnel and agent as they were, whatever there is, and go on with them."""
        with self.tunnel() as tunnel:
            mz.TransitAgent.attach(tunnel, **CAPACITY).close()
        self.agent.reopen()
        self.welcome()

    def tunnel(self) -> mz.Tunnel:
        """The tunnel, made if it is not there."""
        return mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=self.host)

    def clear(self) -> None:
        """Back to what was there to begin with."""
        for name in SPACES:
            with suppress(mz.ExistsError):
                calm(Namespace(name))
        mz.Endpoint.delete_many(self.agent, [each.name for each in mz.Endpoint.list(self.agent, dead=True)])
        mz.TransitSwitch.detach(UNDERLAY, netns=self.host)
        for name in TABLES:
            table = getattr(self.agent, name)
            kept = self._peers if name == "peers" else [key for key in table if table.feed_of(key) == _OWNER]
            table.apply([], {*table} - {*kept}, take=True)
        for path in _NAMES.glob("mizarnet-*"):
            delete_unmounted(path.name)  # whoever dies in the middle leaves an empty name


def private_names() -> list[str]:
    """Names of the namespaces that were made for VMs."""
    return sorted(path.name for path in _NAMES.glob("mizarnet-*") if os.path.ismount(path))
