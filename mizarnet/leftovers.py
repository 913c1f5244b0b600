# SPDX-License-Identifier: Apache-2.0
"""What does not end with a tunnel: the switch on the underlay, and namespaces that were made for endpoints."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from mizarnet import forwarding, private
from mizarnet.abi.layouts import SWITCHING
from mizarnet.abi.records import FIRST, Switching
from mizarnet.bpf import Map, Program, XdpHook, XdpMode
from mizarnet.checks import NETNS_DIRECTORY
from mizarnet.datapath import DataPath
from mizarnet.errors import NetnsNotFoundError
from mizarnet.netlink import Link, Session, delete_netns, get_link
from mizarnet.survey import Standing, StandingSwitch, find_switches, owner_lives


def clear_host(session: Session) -> None:
    """Remove what is left of tunnels of this host that are gone. The caller holds the host's lock.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    for switch in find_switches(session):
        if not owner_lives(session, switch.standing):
            remove_switch(session, switch)
    private.sweep(lambda cookie, ifindex: cookie == session.cookie and not get_link(session, ifindex=ifindex))


def clear_beside(found: DataPath) -> None:
    """Remove what does not end with the tunnel: a transit switch, and namespaces that were made for endpoints."""
    clear_switches(found)
    for record in found.all_records():
        if record.private:
            delete_netns(record.spec.netns or "")


def clear_switches(found: DataPath) -> None:
    """Take the switch of a data path off, and put back what a dead process may have changed without one."""
    for switch in found.own_switches():
        remove_switch(found.session, switch)
    _forget_changes(found.session, found.maps.switching)


def remove_switch(session: Session, switch: StandingSwitch) -> None:
    """Put back what a switch changed on its device, then take its program off, which keeps the note of that."""
    switching = _switching_of(switch.standing)
    program = Program.open_id(switch.standing.program_id)
    with ExitStack() as stack:
        if switching is not None:
            stack.callback(switching.close)
            _restore_forwarding(session, switching)
        if program is not None:
            stack.callback(program.close)
            session.run(XdpHook(switch.link.ifindex).detach, program, mode=xdp_mode(session, switch.link))
        if switching is not None:
            _forget_changes(session, switching)


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


def _restore_forwarding(session: Session, switching: Map) -> Switching:
    noted = Switching.unpack(switching.lookup(FIRST) or bytes(switching.value_size))
    forwarding.restore(session, noted.ifindex, noted.flags)
    return noted


def _forget_changes(session: Session, switching: Map) -> None:
    """Put back what is noted, and then say that there is no switch."""
    noted = _restore_forwarding(session, switching)
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
    return private.sweep(lambda cookie, _: cookie not in living)


def _living_cookies() -> set[int]:
    """Cookies of the namespaces that have a name or a thread."""
    threads = {_target(path): path for path in Path("/proc").glob("[0-9]*/task/[0-9]*/ns/net")}
    cookies: set[int] = set()
    for path in (*Path(NETNS_DIRECTORY).glob("*"), *threads.values()):
        try:
            with Session.open(path) as session:
                cookies.add(session.cookie)
        except NetnsNotFoundError:
            continue
    return cookies


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""  # the thread ended meanwhile
