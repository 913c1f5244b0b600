# SPDX-License-Identifier: Apache-2.0
"""Whatever is done to a host behind mizarnet's back is told with object and remedy, and mended where it can be."""

from __future__ import annotations

import socket

import pytest

import mizarnet as mz
from mizarnet._kernel.netlink import create_netns
from tests.netns.check.conftest import Scene
from tests.netns.check.tamperings import TAMPERINGS, Found, Tampering


def told(findings: list[mz.Finding], wanted: Found) -> Found:
    """Kinds and objects of findings; an object that ``wanted`` leaves open is None."""
    open_kinds = {kind for kind, name in wanted if name is None}
    return {(each.kind, None if each.kind in open_kinds else str(each.object)) for each in findings}


def test_those_for_the_emulated_kernels_exist() -> None:
    assert TAMPERINGS.keys() >= ON_KERNELS


def _assert_mended(scene: Scene, found: list[mz.Finding], tampering: Tampering) -> None:
    report = scene.seen.repair(found) if tampering.cure == "repair" else scene.seen.gc()
    if scene.check() and tampering.cure == "repair":
        report = scene.seen.repair()  # of what the first repair brought to light
    if tampering.cure == "repair" and not report:  # of what cannot be mended, the rest is collected
        assert all(each.collectable for each in report.left), str(report)
        report = scene.seen.gc()
    assert report, str(report)
    assert scene.check() == []


ON_KERNELS = {
    "device: MAC changed",
    "device: mode bridge",
    "device: deleted",
    "device: VM's device deleted",
    "entry: senders",
    "agent: guard/clsact taken off",
    "tunnel: a qdisc",
    "tunnel: deleted by hand",
    "underlay: MTU lowered",
    "switch: forwarding off",
}
"""Those that are done on the emulated kernels, too."""


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.vm] if each in ON_KERNELS else []) for each in TAMPERINGS]
)
def test_a_tampering_is_told_and_mended(scene: Scene, name: str) -> None:
    tampering = TAMPERINGS[name]
    assert scene.check() == []
    indexes = {each.name: each.ifindex for each in mz.Endpoint.list(scene.agent)}
    tampering.do(scene)
    found = scene.check()
    assert told(found, tampering.found) == tampering.found, "\n".join(map(str, found))
    assert tampering.words in " ".join(each.message for each in found)
    assert all(bool(tampering.cure) or not (each.repairable or each.collectable) for each in found)
    if not tampering.cure:
        assert not scene.seen.repair(found)
        assert told(scene.check(), tampering.found) == tampering.found
        return
    _assert_mended(scene, found, tampering)
    if not name.startswith(("tunnel: deleted", "switch: its", "shortcut: its", "agent: all")):
        left = {each.name: each.ifindex for each in mz.Endpoint.list(scene.agent)}
        gone = {K for K in indexes if left.get(K) != indexes[K]}
        assert gone <= (
            {"web", "vm"} if "deleted" in name or "moved" in name or name == "entry: records" else set()
        )
        if "web" in left:
            scene.assert_works()


def test_a_namespace_made_anew_under_the_name_of_an_endpoints_is_told(scene: Scene) -> None:
    """A socket keeps the old one, as a process of the container would that did not end."""
    space = scene.web.namespace
    with space.socket(socket.AF_INET, socket.SOCK_DGRAM):
        space.delete()
        create_netns(space.name)
        found = scene.check()
        assert told(found, set()) == {(mz.FindingKind.NAMESPACE_REPLACED, "endpoint web")}
        assert found == scene.web.endpoint.check()
        assert "create it again" in found[0].message
        assert not scene.seen.repair(found)
        scene.seen.gc()
        assert scene.check() == found
    scene.web.endpoint.delete()
    assert scene.check() == []
