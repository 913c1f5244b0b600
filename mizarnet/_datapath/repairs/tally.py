# SPDX-License-Identifier: Apache-2.0
"""What a repair tried in vain, and why."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import attrs

from mizarnet._kernel.jobs import stopping
from mizarnet._model.finding import Finding, Report
from mizarnet.errors import ClosedError, ForkedError, LockTimeoutError, MizarnetError, PrivilegeError


@attrs.define
class Tally:
    """The errors of one repair.

    Attributes:
        errors: Why findings could not be mended.
        busy: Whether another process held a lock for too long: nothing more is tried then.
    """

    errors: dict[Finding, str] = attrs.field(factory=dict[Finding, str], init=False)
    busy: bool = attrs.field(default=False, init=False)

    @contextmanager
    def trying(self, *findings: Finding) -> Generator[None, None, None]:
        """Note an error for findings, and go on with others."""
        try:
            yield
        except (PrivilegeError, ClosedError, ForkedError):
            raise
        except MizarnetError as error:
            self.busy |= isinstance(error, LockTimeoutError)
            self.errors.update(dict.fromkeys(findings, str(error)))

    @property
    def goes_on(self) -> bool:
        """Whether to try more: no lock was busy, and nobody wants this call to end."""
        return not self.busy and not stopping()

    def report(self, asked: Iterable[Finding], still: Iterable[Finding]) -> Report:
        """The report on findings that were to be mended, of which some still hold."""
        given, keys = list(asked), {each.key for each in still}
        hold = {each for each in given if each.key in keys or each in self.errors}
        left = tuple(each for each in given if each in hold)
        done = tuple(each for each in given if each not in hold)
        return Report(done, left, {each: self.errors[each] for each in left if each in self.errors})
