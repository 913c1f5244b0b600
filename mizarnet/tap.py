# SPDX-License-Identifier: Apache-2.0
"""Descriptors of a VM's endpoint, by which its VMM reads and writes frames."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import final

from mizarnet._datapath.endpoints import configuration
from mizarnet._kernel.closing import Owner
from mizarnet._kernel.jobs import whole
from mizarnet._kernel.netlink import Link, Session, get_link, macvtap_holders, open_macvtap, set_link
from mizarnet._model.codec import Record
from mizarnet._model.described import Described
from mizarnet._model.log import log
from mizarnet._model.public import public
from mizarnet.errors import EndpointNotFoundError, KernelError, NetnsNotFoundError

MAKE_AGAIN = "Endpoint.create() makes it again"
"""What to do about an endpoint that is gone."""


@public
@final
class Tap(Described, Owner):
    """Open descriptors of a MACVTAP endpoint, made by :meth:`mizarnet.Endpoint.open_tap`.

    Each frame has a virtio header of 12 bytes before it (``struct virtio_net_hdr_v1``); checksum and TSO offloads
    are on. Hand :attr:`fds` to the VMM (``pass_fds=``, ``-netdev tap,fds=``), which keeps copies of its own; then this
    handle may be closed.

    The device is up while any process has a descriptor of it. :meth:`close` takes it down when no process has one:
    frames for the VM would otherwise reach the IP stack of the device's namespace. A process that this one may not look
    into, as that of another user without ``CAP_SYS_PTRACE``, may have one: then the device stays up. Close the handle
    after the VMM has its copies: a descriptor that is on its way through a socket is not seen, and neither is a process
    outside of this one's pid namespace.

    Attributes:
        fds: File descriptors, one for each queue; close-on-exec.
    """

    _DESCRIBED = ("fds", "closed")

    def __init__(self, fds: Sequence[int], record: Record) -> None:
        """Not for users: see :meth:`mizarnet.Endpoint.open_tap`."""
        self.fds: tuple[int, ...] = tuple(fds)
        self._record = record
        self._closed = False

    @whole
    def close(self) -> None:
        """Close the descriptors, and take the device down if no process has any; again is harmless."""
        super().close()

    def _release(self) -> None:
        try:
            self._release_forgotten()
        finally:
            take_down_if_unused(self._record)

    def _release_forgotten(self) -> None:
        with ExitStack() as order:  # each is closed, whatever becomes of the others
            for fd in self.fds:
                order.callback(_close, fd)

    def _caption(self) -> str:
        return f"Tap of endpoint {self._record.spec.name}"

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"fds {self.fds}"
        return f"<Tap of {self._record.spec.name!r}: {state}>"


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError as error:
        raise KernelError(
            f"close descriptor {fd} of a tap",
            errno=error.errno or errno.EIO,
            hint="close the Tap, not its descriptors: by then another file may have the number",
        ) from None


def open_tap(record: Record, queues: int) -> Tap:
    """Open descriptors from inside the device's namespace, then bring the device up.

    Raises:
        EndpointNotFoundError: The device is gone.
        NetnsNotFoundError: The device's namespace has no name in this process's ``/run/netns``.
        ExistsError: Another device took the device's MAC while it was down.
    """
    with _enter(record) as session:
        link = _device(session, record)
        if link is None:
            raise device_gone(record)
        tap = Tap(open_macvtap(session, link, queues), record)
        try:
            configuration.bring_up(session, link, record)
            log.info("endpoint %r opened: %s set up", record.spec.name, link.name)
        except BaseException:
            tap.close()
            raise
        return tap


def device_gone(record: Record) -> EndpointNotFoundError:
    """The error for an endpoint whose device somebody deleted."""
    return EndpointNotFoundError(f"the device of endpoint {record.spec.name!r} is gone", hint=MAKE_AGAIN)


def _enter(record: Record) -> Session:
    """A session of the endpoint's namespace, found by its name: no process may be in a private one."""
    try:
        return configuration.inside_named(record)
    except NetnsNotFoundError as missing:
        raise NetnsNotFoundError(
            missing.message,
            hint=f"endpoint {record.spec.name!r} lives there: call this in a process that has its creator's /run",
        ) from None


def take_down_if_unused(record: Record) -> None:
    """Take the device down unless a process has a descriptor of it, or may have one."""
    try:
        session = configuration.inside_named(record)
    except NetnsNotFoundError:
        return  # the endpoint is gone
    with session, suppress(KernelError):  # the device was deleted meanwhile
        link = _device(session, record)
        if link is None or not link.up or macvtap_holders(session, link):
            return
        set_link(session, link.ifindex, up=False)
        if macvtap_holders(session, link):  # a process opened it between the look and the change
            set_link(session, link.ifindex, up=True)
        else:
            log.info("endpoint %r closed: %s set down", record.spec.name, link.name)


def _device(session: Session, record: Record) -> Link | None:
    link = get_link(session, ifindex=record.ifindex)
    if link is None or (link.kind, link.mac) != (record.spec.kind.value, str(record.mac)):
        return None
    return link
