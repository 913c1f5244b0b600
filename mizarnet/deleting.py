# SPDX-License-Identifier: Apache-2.0
"""Deleting on the way out what a call made, for scripts, tests and notebooks."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar

from mizarnet.agent import TransitAgent
from mizarnet.endpoint import Endpoint
from mizarnet.errors import InvalidTypeError
from mizarnet.switch import TransitSwitch
from mizarnet.tunnel import Tunnel

_T = TypeVar("_T", Tunnel, TransitAgent, TransitSwitch, Endpoint)


@contextmanager
def deleting(thing: _T) -> Generator[_T, None, None]:
    """Delete a tunnel or an endpoint, or detach an agent or a switch, when the block ends: only what its call created.

    What existed before stays. The handle is closed either way. Endpoints still on a tunnel or agent make it stay,
    with ``InUseError``.

    Raises:
        InvalidTypeError: ``thing`` is none of the four.
    """
    if not isinstance(thing, (Tunnel, TransitAgent, TransitSwitch, Endpoint)):
        raise InvalidTypeError(f"cannot delete a {type(thing).__name__}", argument="thing")
    try:
        yield thing
    finally:
        _end(thing)


def _end(thing: Tunnel | TransitAgent | TransitSwitch | Endpoint) -> None:
    if isinstance(thing, Endpoint):
        if thing.created:
            thing.delete()
        return
    if isinstance(thing, TransitSwitch):
        if thing.created:
            thing.detach()
        return
    with thing:
        if isinstance(thing, Tunnel) and thing.created:
            thing.delete()
        elif isinstance(thing, TransitAgent) and thing.created:
            thing.detach()
