# SPDX-License-Identifier: Apache-2.0
"""The hosts themselves, without an overlay: what nothing can be faster than."""

from __future__ import annotations

from tests.bench.peers.base import Peer, Way
from tests.world import ADDRESSES


class Native(Peer):
    """One host to the other over the cable."""

    name = "native"
    says = "host to host over the cable, without an overlay"

    def build(self) -> None:
        """There is nothing to build."""
        self.remote = Way(*self.hosts, ADDRESSES[1])
