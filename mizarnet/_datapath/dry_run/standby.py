# SPDX-License-Identifier: Apache-2.0
"""Dry runs on the tables of a data path in use: loaded when they are needed, for one caller at a time."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

from mizarnet._datapath import loader
from mizarnet._datapath.dry_run import DryRun
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.closing import Closing
from mizarnet.errors import ClosedError


class Standby(Closing):
    """The dry run of an open data path. Its programs keep the tables, so it is closed with them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: DryRun | None = None
        self._constants = b""
        self._closed = False

    @contextmanager
    def on(self, maps: Maps) -> Generator[DryRun, None, None]:
        """The dry run on some maps, which are the same in each call.

        Raises:
            ClosedError: It was closed, or another thread closes it just now.
            LayoutError: As for :meth:`DryRun.beside`.
            VerifierError: As for :meth:`DryRun.beside`.
            PrivilegeError: As for :meth:`DryRun.beside`.
        """
        with self._lock:
            if self._closed:
                raise ClosedError("the transit agent's handle is closed")
            constants = loader.constants(maps)
            if self._loaded is None or constants != self._constants:  # the tunnel got another address or MTU
                self._let_go()
                self._loaded, self._constants = DryRun.beside(maps), constants
            yield self._loaded

    def close(self) -> None:
        """Close the programs, once no other thread uses them."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _let_go(self) -> None:
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None
