# SPDX-License-Identifier: Apache-2.0
"""How often each map is read and written, one entry at a time, in batches, and as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from mizarnet._kernel.bpf import Map, _batch

SINGLE = ("lookup", "update", "add", "delete", "take")
BATCH = ("update_many", "delete_many")


def watched(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts from now on, by map and call, as ``"endpoints.lookup"``; a batch counts its entries.

    ``"endpoints.read"`` is a walk through the whole map.
    """
    calls: Counter[str] = Counter()
    for name in SINGLE:
        monkeypatch.setattr(Map, name, _single(calls, name))
    for name in BATCH:
        monkeypatch.setattr(Map, name, _batched(calls, name))
    read = _batch.read

    def walk(shape: _batch.Shape) -> Iterator[_batch.Chunk]:
        calls[f"{shape.name}.read"] += 1
        return read(shape)

    monkeypatch.setattr(_batch, "read", walk)
    return calls


def _single(calls: Counter[str], name: str) -> Callable[..., Any]:
    original = getattr(Map, name)

    def call(self: Map, *args: Any, **kwargs: Any) -> Any:
        calls[f"{self.name}.{name}"] += 1
        return original(self, *args, **kwargs)

    return call


def _batched(calls: Counter[str], name: str) -> Callable[..., Any]:
    original = getattr(Map, name)

    def call(self: Map, entries: Any) -> Any:
        given = dict(entries) if isinstance(entries, Mapping) else list(entries)
        calls[f"{self.name}.{name}"] += len(given)
        return original(self, given)

    return call
