# SPDX-License-Identifier: Apache-2.0
"""One step of a plan: a change, what it takes for granted, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import attrs

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.feeds import Feed, register
from mizarnet._datapath.host import Host
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._model.finding import Change, Finding
from mizarnet.errors import MizarnetError
from mizarnet.tunnel import Tunnel

if TYPE_CHECKING:
    from mizarnet.plan.kept import Kept


class Rank(IntEnum):
    """The order of steps that is safe under traffic: what comes before what goes, and what is next to an end last."""

    TUNNEL = 0
    AGENT = 1
    REPAIR = 2
    SWITCH = 3
    PEERS = 4
    NETWORKS = 5
    REMOTES = 6
    ENDPOINTS = 7
    GATEWAYS_COME = 8
    """Entries that lead to a gateway elsewhere, and go before it is made here."""
    GATEWAYS = 9
    GATEWAYS_GO = 10
    GATEWAYS_WENT = 11
    """Entries that lead to a gateway elsewhere, which was here before."""
    ENDPOINTS_GO = 12
    REMOTES_GO = 13
    NETWORKS_GO = 14
    PEERS_GO = 15


class Stale(Exception):
    """The object is not as it was when the plan was made."""


@attrs.define
class Place(AbstractContextManager["Place"]):
    """Where a plan is applied; leaving it closes what it opened.

    Attributes:
        session: The host.
        netns: Its namespace, as the caller named it.
        tunnel: Name of the tunnel.
        seen: What an error is of when something is gone that was there when the plan was made.
        feed: Writer of the entries.
        moved: Whether a step has given the tunnel another underlay, which takes a switch on the old one along.
        kept: What was there before a step replaced tunnel or agent; None: none did.
    """

    session: Host
    netns: str | None
    tunnel: str
    seen: tuple[type[MizarnetError], ...]
    feed: Feed
    moved: bool = attrs.field(default=False, init=False)
    kept: Kept | None = attrs.field(default=None, init=False)
    _datapath: DataPath | None = attrs.field(default=None, init=False)

    def __exit__(self, *_: object) -> None:
        self.forget()

    @contextmanager
    def path(self) -> Generator[str, None, None]:
        """A path of the host's namespace, for calls that take one."""
        with self.session.open_netns() as here:
            yield f"/proc/self/fd/{here.fileno()}"

    @contextmanager
    def opened(self) -> Generator[Tunnel, None, None]:
        """The tunnel, with a handle of its own."""
        with self.path() as path, Tunnel.open(self.tunnel, netns=path) as tunnel:
            tunnel.netns = self.netns
            yield tunnel

    def datapath(self) -> DataPath:
        """The data path on the tunnel, one handle for all steps; raises as ``TransitAgent.open`` does."""
        if self._datapath is None:
            device = TunnelDevice.open(self.session, self.tunnel)
            self._datapath = DataPath.open(device.hooks)
        return self._datapath

    def forget(self) -> None:
        """Close the handle: after steps that may have replaced the agent."""
        if self._datapath is not None:
            self._datapath.close()
            self._datapath = None

    def sign(self, datapath: DataPath) -> None:
        """Make sure that the feed's name is known, for a caller that holds the tables' lock."""
        register(datapath.maps, self.feed)


Claims = frozenset[tuple[object, ...]]
"""What one endpoint or gateway of a host alone can have, such as an address."""


@attrs.frozen(eq=False)
class Step:
    """A step that is taken by itself.

    Attributes:
        change: The change.
        rank: Its place in the order.
        run: Makes the change; raises ``Stale`` if the object is not as it was.
        plans_again: Whether what comes after it has to be found anew, since it takes all else with it.
        takes: What its object has afterwards, and not before.
        frees: What its object has before, and not afterwards.
        parted: Makes two of it: what gives up what the object has, and a step that does the rest. None: that cannot be.
    """

    change: Change
    rank: Rank
    run: Callable[[Place], object]
    plans_again: bool = False
    takes: Claims = frozenset()
    frees: Claims = frozenset()
    parted: Callable[[], tuple[Callable[[Place], object], Step]] | None = None


@attrs.frozen(eq=False)
class EntryStep:
    """A change of an entry of a table; those of one table and rank are made together.

    Attributes:
        change: The change.
        rank: Its place in the order.
        table: Name of the table, an attribute of the agent.
        key: Packed key.
        value: Packed value; None: the entry goes.
        seen: Packed value that was there; None: there was none.
    """

    change: Change
    rank: Rank
    table: str
    key: bytes
    value: bytes | None
    seen: bytes | None


@attrs.frozen(eq=False)
class RepairStep:
    """A difference from the own record of an object, which is mended as ``Host.repair`` does; all of them together.

    Attributes:
        change: The change.
        finding: What was found.
        rank: Its place in the order.
    """

    change: Change
    finding: Finding
    rank: Rank = Rank.REPAIR


@attrs.frozen(eq=False)
class HeirStep:
    """An entry that takes the place of that of an endpoint which leaves; it is written with that endpoint's step.

    Attributes:
        change: The change.
        key: Packed key.
        value: Packed value.
        endpoint: Name of the endpoint.
        rank: Its place in the order.
    """

    change: Change
    key: bytes
    value: bytes
    endpoint: str
    rank: Rank = Rank.ENDPOINTS_GO


AnyStep = Step | EntryStep | RepairStep | HeirStep
Fields = Mapping[str, Any]
