# SPDX-License-Identifier: Apache-2.0
"""The counters of this host's endpoints, and the reasons of what was dropped.

The sums are read before the reasons, and the programs count a reason before the sum that it is part of. So reasons that
come to less than the sum are reasons that made room for others, whatever is counted meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator

from mizarnet._datapath.maps import Maps
from mizarnet._model.codec import NO_SLOT, Counted, Record, drop_key, u32
from mizarnet._model.enumerations import Verdict
from mizarnet._model.stats import (
    NOT_SUMMED,
    Counter,
    EndpointStats,
    endpoint_stats_at,
    unpack_endpoint_stats,
    unpack_reason,
    unpack_reasons,
)

_DROPS = [verdict for verdict in Verdict if verdict.dropped]


def read(maps: Maps, record: Record) -> EndpointStats:
    """The counters of one endpoint."""
    slices = maps.traffic.lookup_per_cpu(u32(record.slot)) or []
    return unpack_endpoint_stats(slices, dict(_reasons(maps, record.instance)), record.spec.labels)


def _reasons(maps: Maps, instance: int) -> Iterator[tuple[Verdict, Counter]]:
    for verdict in _DROPS:
        value = maps.drops.lookup(drop_key(instance, verdict))
        if value is not None:
            yield verdict, unpack_reason(value)


def read_all(maps: Maps) -> Iterator[tuple[Counted, EndpointStats]]:
    """The counters of every endpoint that has an index into ``traffic``, from few system calls."""
    endpoints = [Counted.unpack(data) for _, data in maps.records.items()]
    _, words = maps.traffic.sum_words(skip=NOT_SUMMED)
    keys, values, _ = maps.drops.lookup_all()
    reasons = unpack_reasons(keys, values)
    for each in endpoints:
        if each.slot != NO_SLOT:
            of_each = reasons.get(each.instance, {})
            yield each, endpoint_stats_at(each.slot, words, of_each, each.labels)
