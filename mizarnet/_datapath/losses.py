# SPDX-License-Identifier: Apache-2.0
"""What the kernel counted as lost on a host between two looks, behind the verdicts of agent and guard."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

import attrs

from mizarnet._datapath.host import Host
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._kernel.counters import read_counters
from mizarnet._kernel.netlink import read_statistics
from mizarnet._model.stats import LOSSES

_OF_UNDERLAY = (
    "rx_dropped",
    "tx_dropped",
    "rx_errors",
    "tx_errors",
    "rx_missed_errors",
    "rx_otherhost_dropped",
)
"""Counters of the underlay's device that are evidence."""


@attrs.frozen
class _Look:
    """Counters at one moment.

    Attributes:
        time: Seconds of the monotonic clock.
        counters: Counts by name: ``"tunnel0.tx_errors"`` or ``"Udp.NoPorts"``.
    """

    time: float
    counters: Mapping[str, int]


def read_losses(device: TunnelDevice) -> dict[str, int]:
    """Packets that a tunnel's device lost, by the names of the counters in ``LOSSES``, without those that are 0."""
    found = read_statistics(device.host, device.ifindex)
    return {name: found[name] for name in LOSSES if found.get(name)}


class Watch:
    """Looks at the counters of a host again and again.

    Attributes:
        rates: Counters that grew between the last two looks, as events per second.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._last: _Look | None = None
        self.rates: Mapping[str, float] = {}

    def begin(self, devices: Iterable[TunnelDevice]) -> None:
        """Take a first look, unless there was one before."""
        if self._last is None:
            self.look(devices)

    def look(self, devices: Iterable[TunnelDevice]) -> None:
        """Take a look, and compare it with the one before."""
        now = _Look(time.monotonic(), dict(_read(self._host, devices)))
        before, self._last = self._last, now
        self.rates = {} if before is None else dict(_rates(before, now))


def _read(host: Host, devices: Iterable[TunnelDevice]) -> Iterator[tuple[str, int]]:
    for device in devices:
        for name, count in read_statistics(host, device.ifindex).items():
            if name in LOSSES:
                yield f"{device.name}.{name}", count
        for name, count in read_statistics(host, device.underlay_ifindex).items():
            if name in _OF_UNDERLAY:
                yield f"{device.underlay}.{name}", count
    yield from host.run(read_counters).items()


def _rates(before: _Look, now: _Look) -> Iterator[tuple[str, float]]:
    elapsed = max(now.time - before.time, 1e-3)
    for name, count in now.counters.items():
        grown = count - before.counters.get(name, count)
        if grown > 0:
            yield name, grown / elapsed
