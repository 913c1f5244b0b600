# SPDX-License-Identifier: Apache-2.0
"""What was seen of a packet on one host, until its way ends or leaves the host."""

from __future__ import annotations

from typing import NoReturn

import attrs

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import LocalEndpoints
from mizarnet._datapath.host import Host
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._model.enumerations import Verdict
from mizarnet._model.explanation import Crossing, Explanation, Step


class Ended(Exception):
    """The packet's way is over; the last step says why."""


@attrs.define
class Trail:
    """The steps of one packet on one host.

    Attributes:
        device: Tunnel of the host.
        datapath: Data path of the tunnel.
        at: Name of the host, for the steps.
        steps: What was looked at so far.
        left: The packet as it leaves for another host.
        arrived: The packet as it came from another host.
    """

    device: TunnelDevice
    datapath: DataPath
    at: str
    steps: list[Step] = attrs.field(factory=list[Step])
    left: Crossing | None = None
    arrived: Crossing | None = None

    @property
    def host(self) -> Host:
        """The host."""
        return self.device.host

    @property
    def endpoints(self) -> LocalEndpoints:
        """The endpoints of the host, as they are now."""
        return LocalEndpoints.of(self.datapath)

    def note(
        self,
        looked_at: str,
        matched: str,
        *,
        verdict: Verdict | None = None,
        remark: str = "",
        remedy: str = "",
    ) -> None:
        """Note a step after which the packet goes on."""
        self.steps.append(Step(self.at, looked_at, matched, verdict=verdict, remark=remark, remedy=remedy))

    def unknown(self, looked_at: str, matched: str, *, remedy: str = "") -> None:
        """Note what cannot be known from here."""
        self.steps.append(Step(self.at, looked_at, matched, ok=None, remedy=remedy))

    def end(
        self, looked_at: str, matched: str, *, verdict: Verdict | None = None, remedy: str = ""
    ) -> NoReturn:
        """Note the step that ends the packet's way; raises ``Ended``."""
        self.steps.append(Step(self.at, looked_at, matched, ok=False, verdict=verdict, remedy=remedy))
        raise Ended

    def arrive(self) -> NoReturn:
        """End the packet's way where it was to end."""
        raise Ended

    def explanation(self) -> Explanation:
        """All of it."""
        return Explanation(tuple(self.steps), self.left, self.arrived)
