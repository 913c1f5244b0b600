# SPDX-License-Identifier: Apache-2.0
"""What does not end with a tunnel: the switch on the underlay, and namespaces that were made for endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from mizarnet._datapath import forwarding, private_netns
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.survey import Standing, StandingSwitch, find_switches, owner_lives
from mizarnet._kernel.bpf import Map, Program, XdpHook, XdpMode
from mizarnet._kernel.netlink import Link, Session, get_link
from mizarnet._model.arguments import NETNS_DIRECTORY
from mizarnet._model.codec import FIRST, Switching
from mizarnet._model.layouts import SWITCHING
from mizarnet.errors import NetnsNotFoundError, NotFoundError


def clear_host(session: Session) -> None:
    """Remove what is left of tunnels of this host that are gone. The caller holds the host's lock.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    for switch in find_switches(session):
        if not owner_lives(session, switch.standing):
            remove_switch(session, switch)
    private_netns.sweep(
        lambda cookie, ifindex: cookie == session.cookie and not get_link(session, ifindex=ifindex)
    )


def clear_switches(found: DataPath) -> None:
    """Take the switch of a data path off, and put back what a dead process may have changed without one."""
    for switch in found.own_switches():
        remove_switch(found.session, switch)
    # In another namespace, to which the tunnel was moved, the index is another device's.
    if found.maps.read_meta().head.netns_cookie == found.session.cookie:
        noted = found.maps.read_switching()
        forwarding.restore(found.session, noted.ifindex, noted.flags)
        _forget(found.maps.switching, noted)


def remove_switch(session: Session, switch: StandingSwitch) -> None:
    """Put back what a switch changed on its device, then take its program off, which keeps the note of that."""
    hook = XdpHook(switch.link.ifindex)
    with ExitStack() as stack:
        stack.enter_context(suppress(NotFoundError))  # a device that went took all with it
        mode = xdp_mode(session, switch.link)
        noted, switching = None, _switching_of(switch.standing)
        if switching is not None:
            stack.callback(switching.close)
            noted = Switching.unpack(switching.lookup(FIRST) or bytes(switching.value_size))
            # A device that came from another namespace has left behind there what was changed.
            if noted.ifindex == hook.ifindex:
                forwarding.restore(session, noted.ifindex, noted.flags)
        program = Program.open_id(switch.standing.program_id)
        if program is not None:
            stack.callback(program.close)
            session.run(hook.detach, program, mode=mode)
        if switching is not None and noted is not None and noted.ifindex == hook.ifindex:
            _forget(switching, noted)


def _switching_of(standing: Standing) -> Map | None:
    """The map in which a switch notes its changes; None if it went, or is of another version."""
    for number in standing.map_ids:
        each = Map.open_id(number)
        if each is None:
            continue
        if (each.name, each.value_size) == ("switching", SWITCHING.size):
            return each
        each.close()
    return None


def _forget(switching: Map, noted: Switching) -> None:
    """Say that there is no switch, and nothing to put back."""
    switching.update(FIRST, Switching(ifindex=0, flags=0, generation=noted.generation).pack())


def xdp_mode(session: Session, link: Link) -> XdpMode:
    """How the XDP program of a device runs."""
    return XdpMode.GENERIC if session.run(XdpHook(link.ifindex).query).generic else XdpMode.NATIVE


def sweep() -> list[str]:
    """Remove private namespaces of hosts that ended; their names.

    A host has ended when its namespace has no name and no thread is in it.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    if not any(Path(NETNS_DIRECTORY).glob("mizarnet-*")):
        return []
    living = _living_cookies()
    return private_netns.sweep(lambda cookie, _: cookie not in living)


def _living_cookies() -> set[int]:
    """Cookies of the namespaces that have a name or a thread."""
    cookies: set[int] = set()
    seen: set[tuple[int, int]] = set()
    for path in (*Path(NETNS_DIRECTORY).glob("*"), *_threads()):
        identity = _identity(path)
        if identity is None or identity in seen:
            continue
        # A thread that ends meanwhile tells nothing: each other one of its namespace is asked, too.
        with suppress(NetnsNotFoundError), Session.open(path) as session:
            cookies.add(session.cookie)
            seen.add(identity)
    return cookies


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # it went meanwhile, or is a process that this user may not look at
    return found.st_dev, found.st_ino


def _threads() -> Iterator[Path]:
    """The namespace of each thread; a process that ends meanwhile has none."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for thread in (process / "task").iterdir():
                yield thread / "ns" / "net"
