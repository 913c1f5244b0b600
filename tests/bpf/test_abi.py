# SPDX-License-Identifier: Apache-2.0
"""One definition: the header, all objects with its structures and what is generated for Python say the same."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import mizarnet
from mizarnet._datapath import loader
from mizarnet._kernel.bpf import ObjectSpec
from mizarnet._model import enumerations
from mizarnet._model.layouts import LAYOUTS
from mizarnet.errors import LayoutError

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "csrc"
OBJECTS = sorted(
    path
    for path in (Path(mizarnet.__file__).parent / "_objects").glob("*.bpf.o")
    if not path.name.startswith("behaviours")
)
GENERATOR = ("tools/gen_abi.py", "tools/abi_layouts.py")
GENERATED = ("mizarnet/_model/enumerations.py", "mizarnet/_model/layouts.py")
SCHEMA = f"MZN_LIMIT_SCHEMA = {enumerations.Limit.SCHEMA}"
CLANG = ("clang", "-O2", "-g", "-target", "bpf", "-mcpu=v3")


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # A tool finds its neighbours by the directory it lies in, which the sanitized run would leave out.
    known = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return subprocess.run(
        command, cwd=cwd, env=known, capture_output=True, text=True, check=False, timeout=60
    )


def compile_copy(tmp_path: Path, changes: Sequence[tuple[str, str]]) -> Path:
    """The object compiled from a header in which each of ``changes`` was made."""
    tree = tmp_path / "csrc"
    shutil.copytree(SOURCES, tree)
    header = tree / "include/mizarnet/abi.h"
    text = header.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    header.write_text(text)
    output = tmp_path / "transit.bpf.o"
    include = ("-I", tree / "include", "-idirafter", f"/usr/include/{platform.machine()}-linux-gnu")
    done = run(*CLANG, *include, "-c", tree / "bpf/transit.bpf.c", "-o", output, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return output


def check(path: Path) -> None:
    with ObjectSpec.open(path, name="transit") as spec:
        loader.check_object(spec)


def test_all_objects_are_there() -> None:
    names = ["dry-run-mac-only.bpf.o", "dry-run.bpf.o", "transit-mac-only.bpf.o", "transit.bpf.o"]
    assert [path.name for path in OBJECTS] == names


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_python_and_the_object_agree(path: Path) -> None:
    check(path)


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_names_fit_into_what_the_kernel_keeps(path: Path) -> None:
    with ObjectSpec.open(path, name="transit") as spec:
        assert all(len(name) <= 15 for name in [*spec.programs, *spec.maps])


def test_an_unchanged_copy_agrees(tmp_path: Path) -> None:
    check(compile_copy(tmp_path, []))


@pytest.mark.parametrize(
    ("struct", "difference", "change"),
    [
        ("mzn_endpoint", "mac.bytes", ("\tstruct mzn_mac mac; /* local */", "\t__u32 new;\n\tstruct mzn_mac mac;")),
        ("mzn_sender", "flags", ("\t__u32 flags; /* enum mzn_sender_flag */\n\tstruct mzn_own_address",
                                    "\t__u64 flags;\n\tstruct mzn_own_address")),
        ("mzn_peer_key", "size", ("\t__u32 prefix_length; /* in bits, counted over family and address */",
                                  "\t__u32 prefix_length;\n\t__u32 more;")),
        ("mzn_meta", "port", ("\t__u32 port;\n", "\t__u32 gate;\n")),
        ("mzn_verdict", "MZN_DROP_HAIRPIN", ("MZN_DROP_HAIRPIN = 82", "MZN_DROP_HAIRPIN = 92")),
        ("mzn_verdict", "MZN_DROP_NEW", ("MZN_DROP_BAD_ND = 92,", "MZN_DROP_BAD_ND = 92, MZN_DROP_NEW = 99,")),
        ("mzn_limit", "MZN_LIMIT_SCHEMA", (SCHEMA, f"{SCHEMA}0")),
    ],
)  # fmt: skip
def test_a_change_on_one_side_is_named(
    tmp_path: Path, struct: str, difference: str, change: tuple[str, str]
) -> None:
    with pytest.raises(LayoutError) as caught:
        check(compile_copy(tmp_path, [change]))
    assert caught.value.struct == struct
    assert any(line.startswith(difference) for line in caught.value.differences)


def test_a_wrong_object_is_not_loaded(tmp_path: Path) -> None:
    path = compile_copy(tmp_path, [(SCHEMA, f"{SCHEMA}0")])
    with pytest.raises(LayoutError):
        loader.load(b"", loader.Capacity(max_endpoints=1, max_local=1), path=path)


def test_what_is_generated_is_up_to_date() -> None:
    done = run(sys.executable, "tools/gen_abi.py", "--check")
    assert done.returncode == 0, done.stderr


def generate(tmp_path: Path, old: str, new: str) -> subprocess.CompletedProcess[str]:
    """What the check says when the header was changed and nothing was generated since."""
    for file in (*GENERATOR, "csrc/include/mizarnet/abi.h", *GENERATED):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    header = tmp_path / "csrc/include/mizarnet/abi.h"
    text = header.read_text()
    assert text.count(old) == 1, old
    header.write_text(text.replace(old, new))
    return run(sys.executable, "tools/gen_abi.py", "--check", cwd=tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("mizarnet/_model/enumerations.py", "MZN_DROP_HAIRPIN = 82", "MZN_DROP_HAIRPIN = 99"),
        ("mizarnet/_model/layouts.py", "\t__u32 port;\n", "\t__u64 port;\n"),
        ("mizarnet/_model/layouts.py", "\t__u64 netns_inode;\n", "\t__u64 netns_inode;\n\t__u64 new;\n"),
    ],
)
def test_what_is_out_of_date_is_found(tmp_path: Path, file: str, old: str, new: str) -> None:
    done = generate(tmp_path, old, new)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{file} is out of date")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("MZN_DROP_HAIRPIN = 82", "MZN_HAIRPIN = 82", "MZN_HAIRPIN does not begin with its group"),
        ("MZN_DROP_HAIRPIN = 82", "MZN_PASS_HAIRPIN = 82", "MZN_PASS_HAIRPIN = 82 is not in 0..63"),
        ("MZN_PASS_COPIED = 14", "MZN_DROP_COPIED = 14", "MZN_DROP_COPIED = 14 is not in 64..255"),
        ("MZN_DROP_HAIRPIN = 82, /*", "MZN_DROP_HAIRPIN = 82,\n\t/*", "a member of Verdict is not"),
        ("* chatter: An endpoint", "* An endpoint", "in front of MZN_DROP_OWN_ADDRESS_ASKED"),
        ("* chatter: An endpoint", "* noise: An endpoint", "in front of MZN_DROP_OWN_ADDRESS_ASKED"),
        ("* chatter: An endpoint", "* passed: An endpoint", "MZN_DROP_OWN_ADDRESS_ASKED is of the wrong"),
        ("as each stack does. Remedy:\n\t * None needed.", "", "in front of MZN_DROP_OWN_ADDRESS_ASKED"),
        ("\t__u64 netns_inode;\n", "\t__u64 netns_inode : 4;\n", "mzn_record: one member on a line"),
        ("\t__u64 netns_inode;\n", "\t__u128 netns_inode;\n", "mzn_record: one member on a line"),
    ],
)
def test_what_cannot_be_generated_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    done = generate(tmp_path, old, new)
    assert done.returncode == 1
    assert done.stderr.startswith(said)


def c_view() -> dict[str, int]:
    """Sizes, offsets and numbers as Python has them, under expressions that C understands."""
    view = {f"sizeof(struct {name})": layout.size for name, layout in LAYOUTS.items()}
    for name, layout in LAYOUTS.items():
        for leaf in layout.leaves():
            view[f"offsetof(struct {name}, {leaf.path})"] = leaf.offset
            view[f"sizeof(((struct {name} *)0)->{leaf.path})"] = leaf.size
    for members in enumerations.ENUMERATIONS.values():
        view |= {name: int(number) for name, number in members.items()}
    return view


def test_the_hosts_compiler_sees_the_same(tmp_path: Path) -> None:
    view = c_view()
    lines = [f'\tprintf("%ld\\n", (long)({expression}));' for expression in view]
    source = tmp_path / "view.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <mizarnet/abi.h>\nint main(void)\n{\n"
        + "\n".join(lines)
        + "\n\treturn 0;\n}\n"
    )
    done = run("gcc", "-I", SOURCES / "include", source, "-o", tmp_path / "view", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    values = run(tmp_path / "view").stdout.split()
    assert dict(zip(view, map(int, values), strict=True)) == view
