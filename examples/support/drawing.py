# SPDX-License-Identifier: Apache-2.0
"""Text on a terminal of a hundred columns."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import mizarnet as mz

_BOX = 46
_BOLD, _GREEN, _RED = "1", "32", "31"


def _colour(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() else text


def heading(text: str) -> None:
    print("\n" + _colour(text, _BOLD))


def check(text: str, good: bool) -> None:
    print("  " + (_colour("ok ", _GREEN) if good else _colour("BAD", _RED)) + f" {text}", flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1) -> None:
    """Columns as wide as they need to be, the first ``left`` of them flush left."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("    " + "   ".join(cells).rstrip())


def topology(hosts: Sequence[mz.LabHost]) -> None:
    """The hosts side by side on the underlay."""
    boxes = [_host(host) for host in hosts]
    height = max(map(len, boxes))
    padded = [[*box[:-3], *[_line("      |")] * (height - len(box)), *box[-3:]] for box in boxes]
    border = "+" + "-" * (_BOX - 2) + "+"
    foot = "+" + "eth0".center(_BOX - 2, "-") + "+"
    for parts in ([border] * len(hosts), *zip(*padded, strict=True), [foot] * len(hosts)):
        print("  " + "   ".join(parts))
    stem = "|".center(_BOX)
    print("  " + "   ".join([stem] * len(hosts)).rstrip())
    print("  " + _underlay(len(hosts)))


def _underlay(hosts: int) -> str:
    left = (_BOX - 1) // 2
    label = " underlay "
    return " " * left + "+" + label.center((hosts - 1) * (_BOX + 3) - 1, "=") + "+"


def _line(text: str) -> str:
    return "| " + text.ljust(_BOX - 4) + " |"


def _host(host: mz.LabHost) -> list[str]:
    lines = [_line(f"host {host.name}, {host.address}"), _line("")]
    for endpoint in sorted(mz.Endpoint.list(host.agent), key=lambda each: (each.vni, each.ip.packed)):
        lines.append(_line(f"      |-- {endpoint.name:7}  {endpoint.ip!s:10}  VNI {endpoint.vni}"))
    tunnel = f" {host.tunnel.name}: {host.tunnel.encap.value}, UDP port {host.tunnel.port} "
    return [
        *lines,
        _line("      |"),
        _line(tunnel.center(_BOX - 4, "=")),
        _line("  egress: transit agent    ingress: guard"),
    ]
