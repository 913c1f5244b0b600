# SPDX-License-Identifier: Apache-2.0
"""Pins, and opening them again, here and in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mizarnet.bpf import (
    Direction,
    Link,
    Map,
    MapType,
    Object,
    Program,
    ProgramType,
    attach_tcx,
    ensure_bpffs,
    make_pin_directory,
    query_tcx,
    unpin,
)
from mizarnet.errors import BpfError, ExistsError, NotFoundError
from tests.bpf.binding.veth import Namespace, needs_tcx, run
from tests.support.wait import wait_until

OPEN_ELSEWHERE = """
import sys
from mizarnet.bpf import Map, Program
with Map.open_pinned(sys.argv[1], name="table") as table, Program.open_pinned(sys.argv[2]) as program:
    table.update(bytes(8), b"x" * 64)
    print(table.id, program.id)
"""


@pytest.fixture
def directory(bpffs: Path, request: pytest.FixtureRequest) -> str:
    path = str(bpffs / "mizarnet" / request.node.name)
    make_pin_directory(path)
    return path


def test_directories_are_private(directory: str) -> None:
    make_pin_directory(directory)
    for path in (directory, os.path.dirname(directory)):
        assert (os.stat(path).st_mode & 0o777, os.stat(path).st_uid) == (0o700, 0)


def test_pins_outlive_handles(directory: str, sample: Object) -> None:
    table, first = sample.maps["table"], sample.programs["first"]
    table.pin(f"{directory}/table")
    first.pin(f"{directory}/first")
    assert os.stat(f"{directory}/table").st_mode & 0o777 == 0o600
    sample.close()
    with Map.open_pinned(f"{directory}/table", name="table", type=MapType.HASH) as again:
        assert again.id == table.id
    with Program.open_pinned(f"{directory}/first", name="first", type=ProgramType.SCHED_CLS) as program:
        assert program.id == first.id
        assert program.test_run(bytes(64)).verdict == 1
    assert unpin(f"{directory}/table")
    assert not unpin(f"{directory}/table")


def test_another_process_opens_them(directory: str, sample: Object) -> None:
    table, first = sample.maps["table"], sample.programs["first"]
    table.pin(f"{directory}/table")
    first.pin(f"{directory}/first")
    argv = [sys.executable, "-c", OPEN_ELSEWHERE, f"{directory}/table", f"{directory}/first"]
    assert run(*argv) == f"{table.id} {first.id}\n"
    assert table.lookup(bytes(8)) == b"x" * 64


@needs_tcx
def test_link_stays_attached(directory: str, sample: Object, inside: Namespace) -> None:
    index = inside.index("mzb0")
    path = f"{directory}/link"
    egress = Direction.EGRESS
    with inside(lambda: attach_tcx(sample.programs["first"], index, direction=egress)) as link:
        link.pin(path)
        number = link.id
    assert inside(lambda: query_tcx(index, direction=egress)) == [sample.programs["first"].id]
    with Link.open_pinned(path) as again:
        assert (again.id, again.type, again.direction) == (number, "tcx", egress)
        again.update(sample.programs["second"], expected=sample.programs["first"])
    assert inside(lambda: query_tcx(index, direction=egress)) == [sample.programs["second"].id]
    unpin(path)
    # The kernel frees a pin, and what it held, when no reader can be on it any more.
    wait_until(lambda: not inside(lambda: query_tcx(index, direction=egress)))


def test_wrong_kind(directory: str, sample: Object) -> None:
    sample.maps["table"].pin(f"{directory}/table")
    sample.programs["first"].pin(f"{directory}/first")
    with pytest.raises(BpfError, match="is a bpf-map, not a program"):
        Program.open_pinned(f"{directory}/table")
    with pytest.raises(BpfError, match="is a bpf-prog, not a map"):
        Map.open_pinned(f"{directory}/first")
    with pytest.raises(BpfError, match="is a bpf-prog, not a link"):
        Link.open_pinned(f"{directory}/first")


def test_wrong_name_or_type(directory: str, sample: Object) -> None:
    sample.maps["table"].pin(f"{directory}/table")
    sample.programs["first"].pin(f"{directory}/first")
    with pytest.raises(BpfError, match="holds map 'table'"):
        Map.open_pinned(f"{directory}/table", name="other")
    with pytest.raises(BpfError, match="of type HASH"):
        Map.open_pinned(f"{directory}/table", type=MapType.LPM_TRIE)
    with pytest.raises(BpfError, match="holds program 'first'"):
        Program.open_pinned(f"{directory}/first", name="second")
    with pytest.raises(BpfError, match="of type SCHED_CLS"):
        Program.open_pinned(f"{directory}/first", type=ProgramType.XDP)


def test_nothing_there(directory: str) -> None:
    with pytest.raises(NotFoundError):
        Map.open_pinned(f"{directory}/nothing")


def test_name_taken(directory: str, sample: Object) -> None:
    sample.maps["table"].pin(f"{directory}/table")
    with pytest.raises(ExistsError) as caught:
        sample.maps["prefixes"].pin(f"{directory}/table")
    assert caught.value.holder == f"{directory}/table"


def test_no_bpffs(tmp_path: Path, sample: Object) -> None:
    with pytest.raises(BpfError):
        sample.maps["table"].pin(str(tmp_path / "table"))
    (tmp_path / "file").touch()
    with pytest.raises(BpfError):
        Map.open_pinned(str(tmp_path / "file"))
    with pytest.raises(NotFoundError):
        ensure_bpffs(str(tmp_path / "nothing"))


def test_mounted_once(bpffs: Path) -> None:
    """Also when several processes come at the same time."""
    again = f"from mizarnet.bpf import ensure_bpffs; ensure_bpffs({str(bpffs / 'x')!r})"
    ensure_bpffs(str(bpffs))
    assert Path("/proc/self/mounts").read_text().count(f" {bpffs} bpf ") == 1
    place = bpffs.parent / "race"
    place.mkdir(exist_ok=True)
    again = again.replace(str(bpffs / "x"), str(place))
    crowd = [subprocess.Popen([sys.executable, "-c", again]) for _ in range(4)]
    assert [child.wait(60) for child in crowd] == [0] * 4
    assert Path("/proc/self/mounts").read_text().count(f" {place} bpf ") == 1
    run("umount", str(place))
