# SPDX-License-Identifier: Apache-2.0
"""The one comparison of what was asked for with what exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from mizarnet._plain import text
from mizarnet.errors import ExistsError

K = TypeVar("K")
V = TypeVar("V")


def differences(wanted: Mapping[K, V | None], found: Mapping[K, V]) -> dict[K, tuple[V, V | None]]:
    """What is not as wanted: by its name, the value that is wanted and the one that is found.

    Args:
        wanted: Values by name; None leaves a name open.
        found: Values by name; names that are missing are found as None.
    """
    return {
        name: (value, found.get(name))
        for name, value in wanted.items()
        if value is not None and value != found.get(name)
    }


def refuse_differences(
    what: str, wanted: Mapping[str, object], found: Mapping[str, object], *, holder: str, hint: str = ""
) -> None:
    """Raises ``ExistsError`` unless what exists is what was asked for.

    Args:
        what: What exists, such as ``"tunnel tunnel0"``.
        wanted: What was asked for, by the name of the argument; None: left open.
        found: What exists, by the same names.
        holder: Name of what exists.
        hint: What to do about it.
    """
    differing = differences(wanted, found)
    if differing:
        listed = ", ".join(
            f"{name} is {text(there)}, not {text(value)}" for name, (value, there) in differing.items()
        )
        raise ExistsError(f"{what} exists, but {listed}", holder=holder, differences=differing, hint=hint)
