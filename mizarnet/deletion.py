# SPDX-License-Identifier: Apache-2.0
"""A context manager that deletes what a call created, for scripts, tests and notebooks."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar

from mizarnet._model.public import public
from mizarnet.agent import TransitAgent
from mizarnet.endpoint import Endpoint
from mizarnet.errors import InvalidTypeError
from mizarnet.gateway import Gateway
from mizarnet.switch import TransitSwitch
from mizarnet.tunnel import Tunnel

_T = TypeVar("_T", Tunnel, TransitAgent, TransitSwitch, Endpoint, Gateway)


@public
@contextmanager
def deleting(thing: _T) -> Generator[_T, None, None]:
    """Delete or detach a tunnel, agent, switch, endpoint or gateway when the block ends, if its call created it.

    An object that existed before stays. The handle is closed in either case.

    Args:
        thing: Handle of a tunnel, agent, switch, endpoint or gateway, as its ``create()`` or ``attach()`` returned it.

    Raises:
        InvalidTypeError: ``thing`` is none of these.
        InUseError: At the end of the block: endpoints are left on the tunnel or agent, which stays.
    """
    if not isinstance(thing, (Tunnel, TransitAgent, TransitSwitch, Endpoint, Gateway)):
        raise InvalidTypeError(f"cannot delete a {type(thing).__name__}", argument="thing")
    try:
        yield thing
    finally:
        _end(thing)


def _end(thing: Tunnel | TransitAgent | TransitSwitch | Endpoint | Gateway) -> None:
    if isinstance(thing, (Endpoint, Gateway)):
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
