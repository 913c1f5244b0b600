# SPDX-License-Identifier: Apache-2.0
"""Installs the wheel in ``dist`` on a minimal Debian 12 without compiler and libbpf, and sends packets there.

mmdebstrap unpacks the system below ``build/``, where it is kept. It is entered in namespaces of its own, is read-only,
and all that a run writes is in memory. Network and package index are out of reach: the wheels of the dependencies are
fetched before.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
SYSTEM = ROOT / "build/minimal-debian"
SMOKE = ROOT / "tests/wheel/smoke.py"
# Unpacked, but not configured, which takes a third of the time. Not iproute2, which needs libbpf itself.
PACKAGES = "base-files,coreutils,dash,iputils-ping,mount,python3,python3-venv,util-linux"
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"

# Arguments: the system, the directory of wheels.
ENTER = """
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount -t proc proc "$1/proc"
mount -t sysfs sysfs "$1/sys"
mount -t tmpfs tmpfs "$1/run"
mount -t tmpfs tmpfs "$1/tmp"
mkdir "$1/tmp/wheels"
mount --bind "$2" "$1/tmp/wheels"
exec env -i PATH=/usr/sbin:/usr/bin chroot "$1" sh -euc "$3"
"""
INSTALL_AND_RUN = """
python3 -m venv /tmp/venv
/tmp/venv/bin/pip install --quiet --no-index --find-links /tmp/wheels --only-binary :all: mizarnet
cd /tmp
exec venv/bin/python -I -W error wheels/smoke.py
"""


def smoke() -> int:
    """Run the smoke test; zero if it passes."""
    (wheel,) = (ROOT / "dist").glob("*.whl")
    _make_system()
    with TemporaryDirectory(prefix="mizarnet-") as wheels:
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--dest", wheels)
        subprocess.run([*pip, "--only-binary", ":all:", "--python-version", "3.11", wheel], check=True)
        for file in (SMOKE, ROOT / "README.md"):
            shutil.copy(file, wheels)
        apart = ("unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child")
        shell = ("sh", "-euc", ENTER, "sh", SYSTEM, wheels, INSTALL_AND_RUN)
        return subprocess.run([*apart, *shell], check=False).returncode


def _make_system() -> None:
    """Make the system unless it is there. It appears under its name only when it is complete."""
    if SYSTEM.exists():
        return
    SYSTEM.parent.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="minimal-debian-", dir=SYSTEM.parent) as name:
        new = Path(name, "root")
        options = ("--quiet", "--variant=extract", f"--include={PACKAGES}", f"--hook-dir={MERGED_USR}")
        retries = "--aptopt=Acquire::Retries 3"
        command = ("mmdebstrap", *options, retries, "bookworm", new)
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stdout)
        new.rename(SYSTEM)


if __name__ == "__main__":
    sys.exit(smoke())
