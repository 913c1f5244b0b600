# SPDX-License-Identifier: Apache-2.0
"""What the shortcut of an agent must be, and what it goes past."""

from __future__ import annotations

from collections.abc import Iterator

from mizarnet._datapath import shortcuts
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.loader import constants
from mizarnet._datapath.shortcuts import Situation, StandingShortcut
from mizarnet._kernel.netlink import Link
from mizarnet._model.enumerations import State
from mizarnet._model.finding import Finding, FindingKind, Subject
from mizarnet._model.specs import Shortcut


def shortcut_findings(datapath: DataPath, *, near: bool = False) -> Iterator[Finding]:
    """Findings about the shortcut of a data path.

    Args:
        datapath: The data path.
        near: Whether to look on the underlay alone, and not on every device of the host.
    """
    seen = shortcuts.look(datapath.host, datapath.maps, near=near)
    meta = datapath.maps.read_meta()
    if seen.missing is not None and meta.state is State.LIVE:
        text = "its program is not there, so tunnel packets take the slower way through the kernel"
        yield _finding(datapath, FindingKind.SHORTCUT_GONE, seen.missing, seen.missing.ifindex, None, text)
    for each in seen.wrong:
        yield _unwanted(datapath, seen, each)
    if seen.right is not None:
        text = (
            f"tunnel packets to UDP port {meta.port} go past the host's INPUT rules and connection "
            "tracking, and past other programs on the device's ingress"
        )
        remedy = 'agent.update(shortcut="off") lets all of them take the kernel\'s way'
        yield _finding(datapath, FindingKind.SHORTCUT_PAST, seen.right.link, None, "on", text, remedy)
        yield from seen.right.lost(datapath.name)
    for each in seen.standing:
        yield from each.outdated(datapath.name)
        yield from each.astray(constants(datapath.maps), datapath.name)


def _unwanted(datapath: DataPath, seen: Situation, each: StandingShortcut) -> Finding:
    if seen.wish is Shortcut.OFF:
        text = "its program is there, and the shortcut is off"
    else:
        text = f"its program must not be there: {seen.obstacle or 'that is not the underlay'}"
    found = each.standing.program_id
    return _finding(datapath, FindingKind.SHORTCUT_UNWANTED, each.link, None, found, text)


def _finding(
    datapath: DataPath,
    kind: FindingKind,
    device: Link,
    wanted: object,
    found: object,
    text: str,
    remedy: str = "",
) -> Finding:
    subject = Subject(StandingShortcut.KIND, device.name)
    return Finding(kind, subject, wanted, found, text, remedy, datapath.name, datapath.meta_id)
