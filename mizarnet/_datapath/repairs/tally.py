# SPDX-License-Identifier: Apache-2.0
"""What a repair tried in vain, and why."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import attrs

from mizarnet._model.finding import Finding, Report
from mizarnet.errors import MizarnetError


@attrs.frozen
class Tally:
    """The errors of one repair.

    Attributes:
        errors: Why a finding could not be mended, by its message.
    """

    errors: dict[str, str] = attrs.field(factory=dict[str, str], init=False)

    @contextmanager
    def trying(self, *findings: Finding) -> Generator[None, None, None]:
        """Note an error for findings, and go on with others."""
        try:
            yield
        except MizarnetError as error:
            self.errors.update({each.message: str(error) for each in findings})

    def report(self, asked: Iterable[Finding], still: Iterable[Finding]) -> Report:
        """The report on findings that were to be mended, of which some still hold."""
        given, keys = list(asked), {each.key for each in still}
        left = tuple(each for each in given if each.key in keys)
        done = tuple(each for each in given if each.key not in keys)
        messages = {each.message for each in left}
        errors = {message: why for message, why in self.errors.items() if message in messages}
        return Report(done, left, errors)
