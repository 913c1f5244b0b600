# SPDX-License-Identifier: Apache-2.0
"""Runs the unit and bpf tests with the binding under gcc's address and undefined behaviour sanitizers.

``python tools/sanitized.py [pytest arguments]`` builds the package with a sanitized extension into
``build/sanitized`` and runs the tests on that copy. A report ends the process that it is about, and fails the run.

The sanitizers check the code of the extension, and what it and libbpf pass to functions of the C library.
``tests/support/sanitized/bpf_calls.c`` checks all memory that is passed to bpf(2). libbpf's own code is not checked.
Before all other tests, ``tests/support/sanitized/faults.py`` makes errors on purpose and must see them reported.
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
    """Build the copy of the package and the check of bpf(2), from scratch: an old file would be tested too."""
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    flags = " ".join(EXTENSION)
    setup = ("setup.py", "--quiet", "build", "--build-base", "build/sanitized", "--build-lib", str(PACKAGE))
    # One compiler for all three: the sanitizers of another one do not fit.
    compiler = os.environ | {"CC": "gcc", "CFLAGS": flags, "LDFLAGS": flags}
    subprocess.run([sys.executable, *setup], cwd=ROOT, env=compiler, check=True)
    watch = (
        *("gcc", "-Wall", "-Wextra", "-Werror", "-fsanitize=address", *COMMON, "-fPIC", "-shared"),
        *(str(SUPPORT / "bpf_calls.c"), "-o", str(WATCH)),
    )
    subprocess.run(watch, check=True)


def environment() -> dict[str, str]:
    """The environment of the tests, and of every process that they start."""
    return os.environ | {
        "LD_PRELOAD": f"{runtime('libasan.so')}:{WATCH}",
        # The interpreter itself does not free everything before it exits, which would be reported as leaks.
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={REPORTS}",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "MIZARNET_REPORTS": str(REPORTS),
        # One allocation for each object, so that each has a guarded border; Python's own allocator has none.
        "PYTHONMALLOC": "malloc",
        # All processes import this copy, not the package in their working directory.
        "PYTHONPATH": f"{PACKAGE}:{ROOT}",
        "PYTHONSAFEPATH": "1",
    }


def runtime(name: str) -> str:
    """Path of one of gcc's own libraries."""
    found = subprocess.run(["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    return os.path.realpath(found.stdout.strip())


def run(arguments: Sequence[str]) -> int:
    """Run the tests; zero if all passed and there is no report about any process."""
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
