# SPDX-License-Identifier: Apache-2.0
"""What an agent must be: its programs on the hooks, its switch, and tables without entries of what is gone."""

from __future__ import annotations

from collections.abc import Iterator

from mizarnet._datapath import closing, forwarding, readers, switches
from mizarnet._datapath.age import is_young
from mizarnet._datapath.checks.shortcut import shortcut_findings
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.loader import constants
from mizarnet._kernel.bpf import with_program
from mizarnet._kernel.netlink import Link, get_link
from mizarnet._model.enumerations import SwitchFlag
from mizarnet._model.finding import Cure, Finding, FindingKind, Subject
from mizarnet._model.specs import XdpMode
from mizarnet.errors import NotFoundError


def agent_findings(datapath: DataPath, *, near: bool = False) -> Iterator[Finding]:
    """Findings about the programs and constants of a data path, and about its switch and shortcut.

    Args:
        datapath: The data path.
        near: Whether to look for switch and shortcut on the devices of theirs alone, and not on every one of the host.
    """
    yield from datapath.findings()
    yield from _ahead(datapath)
    yield from datapath.outdated()
    yield from datapath.astray()
    yield from switch_findings(datapath, near=near)
    yield from shortcut_findings(datapath, near=near)
    yield from reader_findings(datapath)


def reader_findings(datapath: DataPath) -> Iterator[Finding]:
    """Findings for readers of events that are gone."""
    for each in readers.left(datapath.maps):
        text = "whoever read events here is gone without a word"
        subject = Subject("reader", str(each.index))
        yield Finding(
            FindingKind.READER_LEFT,
            subject,
            None,
            each.index,
            text,
            tunnel=datapath.name,
            instance=each.owner,
        )


def is_being_changed(datapath: DataPath) -> bool:
    """Whether a call may be attaching or detaching the agent just now."""
    meta = datapath.maps.read_meta()
    return is_young(meta.state, meta.changed)


def _ahead(datapath: DataPath) -> Iterator[Finding]:
    for side, program_id in datapath.survey().ahead:
        name = with_program(program_id, lambda program: program.name) if program_id else None
        what = (
            f"program {name or 'without a name'} (id {program_id})"
            if program_id
            else "a filter without a program"
        )
        ours = "guard" if side == "ingress" else "agent"
        yield datapath.finding(
            FindingKind.PROGRAM_AHEAD,
            f"{ours} first, without {program_id}",
            what,
            f"{what} of other software runs on {side} before the {ours}, and can let frames past it",
            "detach it, or attach it behind ours",
        )


def switch_findings(datapath: DataPath, *, near: bool = False) -> Iterator[Finding]:
    """Findings about the switch of a data path; arguments as above."""
    noted = datapath.maps.read_switching()
    link = get_link(datapath.host, ifindex=noted.ifindex) if noted.ifindex else None
    standing = switches.own(datapath, links=([link] if link else []) if near else None)
    if not standing:
        if noted.ifindex:
            text = "its program was taken off, and forwarding that was turned on for it may still be on"
            name = link.name if link else str(noted.ifindex)
            yield _of_switch(datapath, FindingKind.SWITCH_GONE, name, noted.ifindex, None, text)
        return
    for each in standing:
        link = each.link
        if not noted.ifindex:
            text = "it is being attached or detached, or the process that did it died"
            yield _of_switch(
                datapath, FindingKind.UNFINISHED, link.name, link.ifindex, None, text, cure=Cure.EITHER
            )
        elif noted.flags & SwitchFlag.GENERIC_XDP and each.mode is XdpMode.NATIVE:
            text = "it takes itself to be on the generic hook: the process that attached it died at its last step"
            wanted = XdpMode.NATIVE.value
            yield _of_switch(
                datapath, FindingKind.UNFINISHED, link.name, wanted, "generic", text, cure=Cure.REPAIR
            )
        elif not _forwards(datapath, link.name):
            text = f"{link.name} does not forward, so that every packet takes the slow way through the guard"
            yield _of_switch(datapath, FindingKind.FORWARDING_OFF, link.name, True, False, text)
        if _is_open(datapath, link, near=near):
            text = (
                f"the rule that keeps {link.name} from forwarding for others is gone: this host is a router"
            )
            yield _of_switch(datapath, FindingKind.RULES_DIFFER, link.name, "a rule", None, text)
        yield from each.lost(datapath.name)
        yield from each.outdated(datapath.name)
        yield from each.astray(constants(datapath.maps), datapath.name)


def _is_open(datapath: DataPath, device: Link, *, near: bool) -> bool:
    """Whether a device that a switch made a router forwards for everybody; asking nft is too slow for a probe."""
    flags = datapath.maps.read_switching().flags
    return (
        not near
        and bool(flags & SwitchFlag.SET_FORWARDING_IPV4)
        and closing.is_open(datapath.host, device.ifindex)
    )


def _forwards(datapath: DataPath, device: str) -> bool:
    try:
        return forwarding.is_on(datapath.host, device, datapath.local.version)
    except NotFoundError:
        return False


def _of_switch(
    datapath: DataPath,
    kind: FindingKind,
    name: str,
    wanted: object,
    found: object,
    text: str,
    cure: Cure | None = None,
) -> Finding:
    subject = Subject("switch", name)
    return Finding(
        kind, subject, wanted, found, text, tunnel=datapath.name, instance=datapath.meta_id, cure=cure
    )
