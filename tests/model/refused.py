# SPDX-License-Identifier: Apache-2.0
"""How a check says that a frame is to be dropped."""

from __future__ import annotations

from mizarnet import Verdict


class Refused(Exception):
    """The first check that refuses a frame names the reason."""

    def __init__(self, reason: Verdict) -> None:
        super().__init__(reason)
        self.reason = reason
