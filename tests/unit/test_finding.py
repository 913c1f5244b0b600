# SPDX-License-Identifier: Apache-2.0
"""Every kind of finding has a severity and a cure, and whatever says that it can be cured is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mizarnet as mz
from mizarnet import Cure, Finding, FindingKind, Severity, Subject
from mizarnet._datapath.repairs import collection, gateway
from mizarnet._datapath.repairs.agent import MENDERS
from mizarnet._datapath.repairs.endpoint import MENDED
from mizarnet._model.finding import worst_first

CHECKS = Path(mz.__file__).parent / "_datapath"


def finding(kind: FindingKind, subject: str = "endpoint", cure: Cure | None = None) -> Finding:
    return Finding(kind, Subject(subject, "x"), "this", "that", "it is so", "do that", cure=cure)


@pytest.mark.parametrize("kind", FindingKind)
def test_a_kind_has_severity_and_cure_and_is_found_somewhere(kind: FindingKind) -> None:
    each = finding(kind)
    assert each.severity in Severity
    assert each.cure in Cure
    sources = "".join(path.read_text() for path in CHECKS.rglob("*.py"))
    assert re.search(rf"FindingKind\.{kind.name}\b", sources), "no check finds it"


@pytest.mark.parametrize("kind", [kind for kind in FindingKind if finding(kind).repairable])
def test_what_can_be_mended_has_a_mender(kind: FindingKind) -> None:
    assert kind in MENDED or kind in gateway.MENDED or any(of == kind for _, of in MENDERS)


def test_what_can_be_collected_has_a_collector() -> None:
    kinds = {"gateway", "endpoint", "table", "device", "namespace", "agent", "switch", "shortcut", "reader"}
    assert set(collection.RANK) == kinds


def test_the_message_says_what_to_do() -> None:
    assert finding(FindingKind.NO_ROUTE).message == "endpoint x: it is so; do that"
    assert (
        finding(FindingKind.DEVICE_DOWN).message == "endpoint x: it is so; do that, or Host.repair() mends it"
    )
    assert str(finding(FindingKind.MODE_DIFFERS)).startswith("critical: endpoint x: ")
    assert finding(FindingKind.DEVICE_GONE, cure=Cure.COLLECT).message.endswith("Host.gc() removes it")


def test_the_worst_comes_first() -> None:
    kinds = [
        FindingKind.NAME_DIFFERS,
        FindingKind.LIFELINE_MISSING,
        FindingKind.DEVICE_DOWN,
        FindingKind.MODE_DIFFERS,
    ]
    assert [each.kind for each in worst_first(map(finding, kinds))] == kinds[::-1]


def test_a_report_is_true_when_nothing_is_left() -> None:
    each = finding(FindingKind.DEVICE_DOWN)
    assert mz.Report((each,))
    report = mz.Report((), (each,), {each: "the kernel said no"})
    assert not report
    assert str(report) == f"left  {each} (the kernel said no)"


def test_health_is_not_ok_with_an_error_and_is_with_a_warning() -> None:
    assert mz.Health(())
    assert mz.Health((finding(FindingKind.LOSS),)).ok
    assert not mz.Health((finding(FindingKind.DEVICE_DOWN),)).ok
