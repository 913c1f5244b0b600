# SPDX-License-Identifier: Apache-2.0
"""What the trials need that takes a compiler."""

from __future__ import annotations

from pathlib import Path

from tests.support.builds import compile_second
from tests.support.injector import Injector
from tests.support.schemas import compile_older


def build(directory: Path) -> Path:
    """The injector, another build of the programs, and those of an older schema."""
    Injector.build(directory)
    compile_second(directory)
    compile_older(directory)
    return directory
