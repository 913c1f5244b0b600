# SPDX-License-Identifier: Apache-2.0
"""Runs the unit and bpf tests with the binding under gcc's address and undefined behaviour sanitizers.

``python tools/sanitized.py [pytest arguments]`` builds the package with a sanitized extension into
``build/sanitized`` and runs the tests on that copy. Any report ends the process it is about and fails the run.

What is watched: the code of the extension; what it and libbpf hand to functions of the C library; and, by
``tests/support/sanitized/bpf_calls.c``, all memory that bpf(2) is given. libbpf's own code is not. Before all other
tests, ``tests/support/sanitized/faults.py`` makes errors on purpose and must see them reported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPORT = ROOT / "tests/support/sanitized"
BUILD = ROOT / "build/sanitized"
PACKAGE = BUILD / "lib"
WATCH = BUILD / "bpf_calls.so"
REPORTS = BUILD / "report"

COMMON = ("-fno-omit-frame-pointer", "-g", "-O1")
EXTENSION = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    *COMMON,
    *("-include", str(SUPPORT / "faults.h")),
)


def build() -> None:
    """Make the copy of the package and the watch over bpf(2), from nothing: a file left over would be tested too."""
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    flags = " ".join(EXTENSION)
    setup = ("setup.py", "--quiet", "build", "--build-base", "build/sanitized", "--build-lib", str(PACKAGE))
    # One compiler for all three: another one's sanitizers would not fit.
    compiler = os.environ | {"CC": "gcc", "CFLAGS": flags, "LDFLAGS": flags}
    subprocess.run([sys.executable, *setup], cwd=ROOT, env=compiler, check=True)
    watch = (
        *("gcc", "-Wall", "-Wextra", "-Werror", "-fsanitize=address", *COMMON, "-fPIC", "-shared"),
        *(str(SUPPORT / "bpf_calls.c"), "-o", str(WATCH)),
    )
    subprocess.run(watch, check=True)


def environment() -> dict[str, str]:
    """That of the tests and of every process they start."""
    return os.environ | {
        "LD_PRELOAD": f"{runtime('libasan.so')}:{WATCH}",
        # The interpreter itself leaves much to the end of the process, which would be reported as leaks.
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={REPORTS}",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "MIZARNET_REPORTS": str(REPORTS),
        # One allocation for each object, so that each has a border; Python's own allocator has none.
        "PYTHONMALLOC": "malloc",
        # This copy in all processes, not the one in the directory they are started in.
        "PYTHONPATH": f"{PACKAGE}:{ROOT}",
        "PYTHONSAFEPATH": "1",
    }


def runtime(name: str) -> str:
    """Where gcc has a library of its own."""
    found = subprocess.run(["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    return os.path.realpath(found.stdout.strip())


def run(arguments: Sequence[str]) -> int:
    """Run the tests; zero if all passed and no process had anything reported."""
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    paths = ["-o", f"pythonpath={PACKAGE} .", str(SUPPORT / "faults.py")]
    status = subprocess.run(
        [*pytest, *paths, *arguments], cwd=ROOT, env=environment(), check=False
    ).returncode
    reports = sorted(BUILD.glob("report.*"))
    for report in reports:
        print(f"--- {report.relative_to(ROOT)}", report.read_text(errors="replace"), sep="\n")
    return status or int(bool(reports))


if __name__ == "__main__":
    build()
    sys.exit(run(sys.argv[1:] or ["tests/unit", "tests/bpf"]))
