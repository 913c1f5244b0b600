# SPDX-License-Identifier: Apache-2.0
"""Counters of transit agents and endpoints for Prometheus; it needs the extra ``metrics`` of the package.

::

    prometheus_client.REGISTRY.register(mz.metrics.Collector(agent))
    prometheus_client.start_http_server(9464)
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import count

import attrs

from mizarnet._datapath.endpoints import counters
from mizarnet._model.codec import Counted
from mizarnet._model.enumerations import Program, Verdict
from mizarnet._model.log import log
from mizarnet._model.public import public
from mizarnet._model.stats import Counter, EndpointStats, Stats
from mizarnet.agent import TransitAgent, datapath_of, renew
from mizarnet.errors import (
    AgentNotFoundError,
    InvalidValueError,
    LayoutError,
    MissingLibraryError,
    MizarnetError,
    StaleHandleError,
)

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, Sample
except ImportError as _missing:
    raise MissingLibraryError(str(_missing), hint="pip install 'mizarnet[metrics]'") from None

__all__ = ["Collector"]


@attrs.frozen
class _Reading:
    """What was read of one agent."""

    stats: Stats
    endpoints: list[tuple[Counted, EndpointStats]]


@public
class Collector:
    """A collector of ``prometheus_client``, to be registered once. It reads the kernel at each scrape.

    ============================================= ============================================================
    metric                                        labels besides ``tunnel``
    ============================================= ============================================================
    ``mizarnet_up``                               none; 0 if the agent could not be read
    ``mizarnet_endpoints``                        none; endpoints of this host that have counters
    ``mizarnet_verdict_packets_total``            ``program``, ``verdict``, ``kind``
    ``mizarnet_verdict_bytes_total``              the same
    ``mizarnet_lost_packets_total``               ``counter``: of the tunnel's device, as in ``Stats.lost``
    ``mizarnet_endpoint_sent_packets_total``      ``vni``, ``endpoint``
    ``mizarnet_endpoint_sent_bytes_total``        the same
    ``mizarnet_endpoint_received_packets_total``  the same
    ``mizarnet_endpoint_received_bytes_total``    the same
    ``mizarnet_endpoint_labels``                  ``vni``, ``endpoint``, ``label_<name>``; 1, if it has any
    ``mizarnet_endpoint_drops_total``             ``vni``, ``endpoint``, ``verdict``, ``kind``; without chatter
    ``mizarnet_endpoint_unexplained_drops_total`` ``vni``, ``endpoint``; where a reason made room for another
    ============================================= ============================================================

    ``tunnel`` is the tunnel's name, behind its namespace and a slash if it was opened by that. Verdicts and kinds are
    in lower case. Counters start over when an agent is attached again, those of an endpoint when it is made again.

    A handle that went stale, since its agent was replaced or upgraded, is reopened: give the collector one of its own
    if others shall notice. An agent that cannot be read, or was closed, is 0 in ``mizarnet_up``, and has no other
    metric: a scrape raises no error of this library. Scrapes may run in several threads.
    """

    def __init__(self, *agents: TransitAgent) -> None:
        """Collect from these agents.

        Args:
            agents: Handles, which stay the caller's.

        Raises:
            InvalidTypeError: One of them is no agent.
            InvalidValueError: There is none, or two have one name.
        """
        named: dict[str, TransitAgent] = {}
        for agent in agents:
            datapath_of(agent)  # refuses anything but an agent
            name = _name_of(agent)
            if name in named:
                raise InvalidValueError(f"two agents are of {name}", argument="agents", value=name)
            named[name] = agent
        if not named:
            raise InvalidValueError("there is no agent to collect from", argument="agents", value=agents)
        self._agents: Mapping[str, TransitAgent] = named
        self._down: set[str] = set()

    def describe(self) -> Iterable[Metric]:
        """Nothing: so a registration reads no counters."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of all agents, read before the first of them is given out."""
        families = _Families()
        for name, agent in self._agents.items():
            families.add(name, self._read(name, agent))
        yield from families.all()

    def _read(self, name: str, agent: TransitAgent) -> _Reading | None:
        try:
            try:
                found = _read(agent)
            except (StaleHandleError, AgentNotFoundError, LayoutError):
                renew(agent)
                found = _read(agent)
        except MizarnetError as error:
            if name not in self._down:  # else it was said before
                # As text: who keeps the record shall not keep what the error's traceback holds, such as tables.
                log.warning("no metrics of %s: %s", name, str(error))
            self._down.add(name)
            return None
        self._down.discard(name)
        return found


def _name_of(agent: TransitAgent) -> str:
    tunnel = agent.tunnel
    return tunnel.name if tunnel.netns is None else f"{tunnel.netns}/{tunnel.name}"


def _read(agent: TransitAgent) -> _Reading:
    return _Reading(agent.stats(), [*counters.read_all(datapath_of(agent).maps)])


@attrs.frozen
class _Family:
    """A metric that is filled sample by sample.

    Attributes:
        metric: The metric, as the client library has it.
        sample: Name of each sample.
    """

    metric: Metric
    sample: str

    @classmethod
    def counter(cls, name: str, text: str) -> _Family:
        """A counter, without samples."""
        return cls(CounterMetricFamily(name, text), f"{name}_total")

    @classmethod
    def gauge(cls, name: str, text: str) -> _Family:
        """A gauge, without samples."""
        return cls(GaugeMetricFamily(name, text), name)

    def add(self, labels: dict[str, str], value: float) -> None:
        """Add a sample; the labels of several samples may be one dictionary, which nobody changes."""
        self.metric.samples.append(Sample(self.sample, labels, value))


class _Families:
    """The metrics of one scrape, filled agent by agent."""

    def __init__(self) -> None:
        self._up = _Family.gauge("mizarnet_up", "Whether the transit agent could be read.")
        self._count = _Family.gauge("mizarnet_endpoints", "Endpoints of this host.")
        self._verdicts = (
            _Family.counter("mizarnet_verdict_packets", "Frames by what a program decided about them."),
            _Family.counter("mizarnet_verdict_bytes", "Bytes of these frames, Ethernet header included."),
        )
        self._lost = _Family.counter(
            "mizarnet_lost_packets",
            "Packets that the tunnel's device lost behind the verdicts of the programs.",
        )
        self._endpoints = (
            _Family.counter("mizarnet_endpoint_sent_packets", "Frames of an endpoint that were let out."),
            _Family.counter(
                "mizarnet_endpoint_sent_bytes", "Bytes of these frames, Ethernet header included."
            ),
            _Family.counter("mizarnet_endpoint_received_packets", "Frames handed to an endpoint."),
            _Family.counter(
                "mizarnet_endpoint_received_bytes", "Bytes of these frames, Ethernet header included."
            ),
        )
        self._labels = _Family.gauge("mizarnet_endpoint_labels", "Labels of an endpoint; always 1.")
        self._drops = _Family.counter(
            "mizarnet_endpoint_drops", "Frames of an endpoint, or for it, that were refused; without chatter."
        )
        self._unexplained = _Family.counter(
            "mizarnet_endpoint_unexplained_drops",
            "Frames that were refused, whose reason made room for another.",
        )

    def all(self) -> list[Metric]:
        """The metrics, in the order of the documentation."""
        of_agents = (self._up, self._count, *self._verdicts, self._lost)
        of_endpoints = (*self._endpoints, self._labels, self._drops, self._unexplained)
        return [family.metric for family in (*of_agents, *of_endpoints)]

    def add(self, tunnel: str, found: _Reading | None) -> None:
        """Add the samples of one agent; None: it could not be read."""
        labels = {"tunnel": tunnel}
        self._up.add(labels, int(found is not None))
        if found is None:
            return
        self._count.add(labels, len(found.endpoints))
        for program in Program:
            self._add_program(
                {**labels, "program": program.name.lower()}, getattr(found.stats, program.name.lower())
            )
        for counter, packets in found.stats.lost.items():
            self._lost.add({**labels, "counter": counter}, packets)
        for each, stats in found.endpoints:
            own = {**labels, "vni": str(each.vni), "endpoint": each.name}
            self._add_endpoint(own, stats)
            if each.labels:
                self._labels.add({**own, **told_labels(each.labels)}, 1)

    def _add_program(self, labels: dict[str, str], counted: Mapping[Verdict, Counter]) -> None:
        packets, sizes = self._verdicts
        for verdict, counter in counted.items():
            of = {**labels, **_LABELS[verdict]}
            packets.add(of, counter.packets)
            sizes.add(of, counter.bytes)

    def _add_endpoint(self, labels: dict[str, str], stats: EndpointStats) -> None:
        sent_packets, sent_bytes, received_packets, received_bytes = self._endpoints
        sent_packets.add(labels, stats.sent.packets)
        sent_bytes.add(labels, stats.sent.bytes)
        received_packets.add(labels, stats.received.packets)
        received_bytes.add(labels, stats.received.bytes)
        for verdict, counter in stats.drops.items():
            self._drops.add({**labels, **_LABELS[verdict]}, counter.packets)
        unexplained = stats.unexplained.packets
        if unexplained:
            self._unexplained.add(labels, unexplained)


def told_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of an endpoint as those of a metric, under ``label_`` and a name with ``_`` for what cannot be in one.

    Where several names become one that way, each gets ``_conflict`` and a number, in alphabetical order.
    """
    names: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(labels):
        names["label_" + re.sub("[^A-Za-z0-9_]", "_", name)].append(name)
    told = {plain: labels[same[0]] for plain, same in names.items() if len(same) == 1}
    for plain, same in names.items():
        if len(same) > 1:
            free = (each for number in count(1) if (each := f"{plain}_conflict{number}") not in told)
            for name in same:
                told[next(free)] = labels[name]
    return told


_LABELS = {verdict: {"verdict": verdict.name.lower(), "kind": verdict.kind.value} for verdict in Verdict}
