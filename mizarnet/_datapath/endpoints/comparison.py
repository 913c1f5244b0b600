# SPDX-License-Identifier: Apache-2.0
"""Comparison of an existing endpoint with the specification that a caller gives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import attrs

from mizarnet._kernel.netlink import resolve
from mizarnet._model.codec import Record
from mizarnet._model.differences import refuse_differences
from mizarnet._model.specs import EndpointSpec
from mizarnet.errors import KernelError, NetnsNotFoundError, PrivilegeError

_HOST = "the host's own"


def is_its_namespace(wanted: EndpointSpec, existing: Record) -> bool:
    """Whether the name of the namespace still leads to the one that the endpoint lives in."""
    if wanted.netns is None or wanted.netns != existing.spec.netns:
        return True  # left open, or compared by refuse_other()
    return _lives_in(wanted.netns, existing)


def identity_at(netns: str) -> tuple[int, int] | None:
    """Identity of the namespace that a name or path leads to; None if it leads to none that can be entered."""
    with suppress(NetnsNotFoundError, PrivilegeError, KernelError), resolve(netns) as found:
        return found.netns.identity
    return None


def is_replaced(existing: Record, identity: Callable[[str], tuple[int, int] | None] = identity_at) -> bool:
    """Whether the name of the endpoint's namespace leads to another one by now; False also if it leads nowhere.

    Args:
        existing: The endpoint.
        identity: Finds the identity of a namespace; many endpoints may have one.
    """
    found = None if existing.spec.netns is None else identity(existing.spec.netns)
    return found is not None and found != existing.netns_id


def _lives_in(netns: str, existing: Record) -> bool:
    """Whether a name or path leads to the endpoint's namespace, whatever its name was when the endpoint was made."""
    with resolve(netns) as found:
        return found.netns.identity == existing.netns_id


def leads_to(netns: str, existing: Record) -> bool:
    """Whether a name or path leads to the endpoint's namespace; False also if it leads nowhere."""
    with suppress(NetnsNotFoundError):
        return _lives_in(netns, existing)
    return False


def refuse_other(wanted: EndpointSpec, existing: Record) -> None:
    """Raises ``ExistsError`` unless the endpoint is as ``wanted`` says; fields that are None are not compared."""
    given = attrs.asdict(wanted, recurse=False)
    present = attrs.asdict(existing.spec, recurse=False)
    if wanted.netns is None and not existing.private:
        given["netns"], present["netns"] = _HOST, existing.spec.netns or _HOST
    elif wanted.netns is not None and leads_to(wanted.netns, existing):
        present["netns"] = wanted.netns
    refuse_differences(
        f"endpoint {wanted.name!r}",
        given,
        present,
        holder=wanted.name,
        hint="what is left out asks for its default: give what there is, another name=, or delete the endpoint first",
    )
