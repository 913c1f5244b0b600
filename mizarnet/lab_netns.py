# SPDX-License-Identifier: Apache-2.0
"""The namespaces of a lab: how they are named, recognised, claimed and removed.

A namespace is a lab's if its name begins with the lab's name and the alias of its loopback device names the lab. A name
alone is no proof: another program may have chosen it.
"""

from __future__ import annotations

import fcntl
from contextlib import ExitStack, suppress

from mizarnet._datapath import private_netns
from mizarnet._datapath.host import Host
from mizarnet._datapath.lock import forget, locked, of_name
from mizarnet._kernel.netlink import (
    LOOPBACK_IFINDEX,
    NetnsHandle,
    Session,
    create_netns,
    delete_link,
    delete_netns,
    delete_unmounted,
    dump_links,
    get_link,
    list_netns,
    resolve,
)
from mizarnet._model.log import log
from mizarnet._model.specs import Encap
from mizarnet.errors import ExistsError, InUseError, NetnsNotFoundError

_NO_HOST = 0
"""No namespace has this cookie: under it the names of labs are locked while they are claimed."""
FABRIC = "fabric"
"""Namespace of the bridge; made first and removed last, and locked as long as the lab's process lives."""


def make(lab: str, name: str) -> str:
    """Make the namespace ``<lab>-<name>``, with ``lo`` up, and return its name.

    Raises:
        ExistsError: There is a namespace of that name.
    """
    netns = f"{lab}-{name}"
    try:
        create_netns(netns, alias=_mark(lab))
    except ExistsError as refused:
        raise ExistsError(
            str(refused),
            holder=netns,
            hint=f"delete it if nothing needs it (ip netns delete {netns}), or give another name=",
        ) from None
    log.info("namespace %s made", netns)
    return netns


def exists(lab: str, name: str) -> bool:
    """Whether the lab has a namespace of that name."""
    try:
        opened(lab, name).close()
    except NetnsNotFoundError:
        return False
    return True


def opened(lab: str, name: str) -> Session:
    """A session of the lab's namespace of that name; raises ``NetnsNotFoundError`` if the lab has none."""
    with ExitStack() as undo:
        session = undo.enter_context(Session.open(f"{lab}-{name}"))
        if not _is_marked(session, lab):
            raise NetnsNotFoundError(f"{lab}-{name} is a namespace, but none of lab {lab}")
        undo.pop_all()
        return session


def _mark(lab: str) -> str:
    return f"mizarnet lab={lab}"


def _is_marked(session: Session, lab: str) -> bool:
    loopback = get_link(session, ifindex=LOOPBACK_IFINDEX)
    return loopback is not None and loopback.alias == _mark(lab)


# -- one process owns a lab --------------------------------------------------------------------------------


def claim(lab: str) -> NetnsHandle:
    """Make the fabric's namespace, after removing the remains of a lab of that name whose process died.

    The lab is claimed as long as the handle is open; the kernel unlocks it when the process dies.

    Raises:
        InUseError: The process that made a lab of that name lives and has not deleted it.
        ExistsError: A namespace that is not this lab's has the name.
        LockTimeoutError: Another process has been claiming it for 10 s.
    """
    with locked(_NO_HOST, of_name(lab)):  # else a fabric is there that its maker has not locked yet
        with suppress(NetnsNotFoundError), resolve(f"{lab}-{FABRIC}") as left_over:
            _lock(left_over, lab)
        remove_all(lab)
        fabric = resolve(make(lab, FABRIC))
        _lock(fabric, lab)
        return fabric


def _lock(fabric: NetnsHandle, lab: str) -> None:
    try:
        fcntl.flock(fabric.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUseError(
            f"a lab named {lab!r} is running, here or in another process",
            users=[lab],
            hint="delete() that one, or give another name=",
        ) from None


# -- removing ----------------------------------------------------------------------------------------------


def remove_all(lab: str) -> None:
    """Remove every namespace of the lab, and those made for its VMs; after a failure the rest is removed as well."""
    with ExitStack() as stack:
        for netns in _members(lab):
            stack.callback(_remove, netns, lab)


def _members(lab: str) -> list[str]:
    """Names of the lab's namespaces, the fabric's first."""
    names = [name for name in list_netns(f"{lab}-") if name.rpartition("-")[0] == lab]
    return sorted(names, key=f"{lab}-{FABRIC}".__ne__)


def _remove(netns: str, lab: str) -> None:
    try:
        with Host.open(netns) as host:
            if not _is_marked(host, lab):
                return
            try:
                _remove_overlay(host)
            finally:
                delete_netns(netns)  # without a process in it, the kernel then ends what is left
                log.info("namespace %s removed", netns)
                forget(host.cookie)
    except NetnsNotFoundError:
        delete_unmounted(netns)  # the file has no namespace mounted on it, or was deleted meanwhile


def _remove_overlay(host: Host) -> None:
    """Delete the tunnels, with agents and endpoints: a process in the namespace may keep the namespace alive."""
    for link in [link for kind in Encap for link in dump_links(host, kind=kind.value)]:
        if link.external:
            with host.locked():
                delete_link(host, link.ifindex)
    private_netns.sweep(lambda cookie, _: cookie == host.cookie)
