# SPDX-License-Identifier: Apache-2.0
"""What finalisers let go of: also where an interrupt cut a constructor off, and where warnings are errors."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator

import pytest

import mizarnet
from mizarnet._kernel.closing import Owner


def _finalised() -> Iterator[type]:
    for module in pkgutil.walk_packages(mizarnet.__path__, "mizarnet."):
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if (
                found.__module__ == module.name
                and hasattr(found, "__del__")
                and not inspect.isabstract(found)
            ):
                yield found


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_was_forgotten_is_let_go_of_though_warnings_are_errors() -> None:
    released: list[bool] = []

    class Thing(Owner):
        def __init__(self) -> None:
            self._closed = False

        def _release(self) -> None:
            released.append(True)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Thing()
    assert released == [True]


def test_an_object_of_which_nothing_was_made_can_be_finalised() -> None:
    found = list(_finalised())
    assert len(found) > 10
    for each in found:
        made = object.__new__(each)
        made.__del__()  # type: ignore[attr-defined]
