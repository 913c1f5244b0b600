# SPDX-License-Identifier: Apache-2.0
"""Opening, choosing, loading; and why a load fails."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from mizarnet._kernel.bpf import Member, Object, ObjectSpec
from mizarnet.errors import BpfError, ClosedError, InvalidValueError, NotFoundError, VerifierError

FRAME = bytes(64)


def test_layout_of_a_structure(spec: ObjectSpec) -> None:
    layout = spec.layouts["sample_value"]
    assert layout.size == 64
    assert layout.members == (
        Member("number", 0, 4, "__u32"),
        Member("wide", 8, 8, "__u64"),
        Member("halves", 8, 8, "__u32[2]"),
        Member("inner", 16, 36, "struct sample_inner[2]"),
        Member("colour", 52, 4, "enum sample_colour"),
        Member("matrix", 56, 6, "__u8[2][3]"),
    )


def test_enumerators_keep_their_sign(spec: ObjectSpec) -> None:
    assert spec.enums["sample_colour"] == {"SAMPLE_RED": 3, "SAMPLE_BELOW": -7}


def test_names_before_loading(spec: ObjectSpec) -> None:
    assert {"table", "prefixes", "counters", "events", ".rodata"} <= set(spec.maps)
    assert set(spec.programs) == {"first", "second", "turn"}


def test_variables_reach_the_program(spec: ObjectSpec) -> None:
    spec.set_variable("answer", struct.pack("=I", 42))
    spec.set_variable("secret", b"abcdef")
    with spec.load() as loaded:
        run = loaded.programs["first"].test_run(FRAME)
    assert (run.verdict, run.frame[:8]) == (42, b"abcdef\0\0")


@pytest.mark.parametrize(("name", "value"), [("answer", b"1"), ("secret", bytes(7)), ("nothing", b"1234")])
def test_wrong_variable_is_refused(spec: ObjectSpec, name: str, value: bytes) -> None:
    with pytest.raises(InvalidValueError, match=name):
        spec.set_variable(name, value)


def test_capacity(spec: ObjectSpec) -> None:
    spec.set_max_entries("table", 1000)
    with spec.load() as loaded:
        assert loaded.maps["table"].max_entries == 1000
        assert loaded.maps["table"].memory > 1000 * 64


def test_capacity_of_nothing_is_refused(spec: ObjectSpec) -> None:
    with pytest.raises(InvalidValueError):
        spec.set_max_entries("nothing", 1)
    with pytest.raises(InvalidValueError):
        spec.set_max_entries("table", 0)


def test_a_specification_loads_once(spec: ObjectSpec) -> None:
    spec.load().close()
    with pytest.raises(ClosedError):
        spec.load()
    with pytest.raises(ClosedError):
        spec.set_max_entries("table", 1)
    assert spec.layouts["sample_inner"].size == 18


def test_programs_share_a_reused_map(sample: Object, objects: Path) -> None:
    with ObjectSpec.open(objects / "sample.bpf.o", name="again") as spec:
        spec.reuse_map("counters", sample.maps["counters"])
        with spec.load() as second:
            assert second.maps["counters"].id == sample.maps["counters"].id
            assert second.maps["table"].id != sample.maps["table"].id
            second.programs["first"].test_run(FRAME)
    assert sample.maps["counters"].sum_words()[1][4] == 1


def test_rejection_carries_the_whole_log(objects: Path) -> None:
    spec = ObjectSpec.open(objects / "rejected.bpf.o", name="rejected")
    with pytest.raises(VerifierError) as caught:
        spec.load()
    error = caught.value
    assert error.program == "careless"
    assert error.log[0].startswith("func#0 @0") or error.log[0].startswith("0:") or error.log[0]
    assert any("invalid access to packet" in line for line in error.log)
    assert error.log[-1].startswith("processed ")
    assert pickle.loads(pickle.dumps(error)).log == error.log


def test_long_log_is_kept_whole(objects: Path) -> None:
    """Longer than libbpf's own first buffer."""
    with pytest.raises(VerifierError) as caught:
        ObjectSpec.open(objects / "longwinded.bpf.o", name="longwinded").load()
    log = caught.value.log
    assert sum(len(line) for line in log) > 100_000
    assert any("R1 type=ctx expected=fp" in line or "invalid" in line for line in log[-5:])
    numbers = [int(line.split(":")[0]) for line in log if line.split(":")[0].isdigit()]
    assert numbers[0] == 0
    assert max(numbers) > 2000


def test_unknown_kernel_function_is_no_verifier_matter(objects: Path) -> None:
    with pytest.raises(BpfError) as caught:
        ObjectSpec.open(objects / "unknown.bpf.o", name="unknown").load()
    assert not isinstance(caught.value, VerifierError)
    assert "mzn_no_such_function" in caught.value.kernel_message


def test_what_is_no_object(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        ObjectSpec.open(tmp_path / "nothing", name="nothing")
    (tmp_path / "text").write_text("no object")
    with pytest.raises(BpfError):
        ObjectSpec.open(tmp_path / "text", name="text")


LOAD_ALL = """
import sys
from mizarnet._kernel.bpf import ObjectSpec
from mizarnet.errors import MizarnetError, PrivilegeError
for path in sys.argv[1:]:
    try:
        ObjectSpec.open(path, name="child").load().close()
    except PrivilegeError as error:
        print(*error.missing)
    except MizarnetError as error:
        print(type(error).__name__)
"""


def child(*command: str, paths: list[Path]) -> subprocess.CompletedProcess[str]:
    argv = [*command, sys.executable, "-c", LOAD_ALL, *map(str, paths)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True)


def test_missing_capabilities_are_named(objects: Path) -> None:
    less = ("setpriv", "--bounding-set=-sys_admin,-bpf,-net_admin")
    done = child(*less, paths=[objects / "sample.bpf.o"])
    assert done.stdout == "CAP_BPF CAP_NET_ADMIN\n"


def test_nothing_is_printed(objects: Path) -> None:
    done = child(paths=[objects / "rejected.bpf.o", objects / "unknown.bpf.o"])
    assert done.stdout == "VerifierError\nBpfError\n"
    assert done.stderr == ""
