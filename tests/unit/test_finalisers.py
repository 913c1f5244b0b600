# SPDX-License-Identifier: Apache-2.0
"""An interrupt may cut a constructor off at any place: its object is finalised all the same."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import mizarnet


def _finalised() -> Iterator[type]:
    for module in pkgutil.walk_packages(mizarnet.__path__, "mizarnet."):
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if (
                found.__module__ == module.name
                and hasattr(found, "__del__")
                and not inspect.isabstract(found)
            ):
                yield found


def test_an_object_of_which_nothing_was_made_can_be_finalised() -> None:
    found = list(_finalised())
    assert len(found) > 10
    for each in found:
        made = object.__new__(each)
        made.__del__()  # type: ignore[attr-defined]
