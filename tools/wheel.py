# SPDX-License-Identifier: Apache-2.0
"""Makes what is handed out, in ``dist``: the sdist, and from it the wheel, with libbpf and libelf inside.

``python tools/wheel.py`` unpacks the sdist in two directories and builds a wheel in each. They must be the same to the
last byte, so whoever builds the commit with the same packages of Debian gets the same file. Every time in them is that
of the commit, or ``SOURCE_DATE_EPOCH``. The checks are those of check-manifest, auditwheel and abi3audit. With
``--smoke`` the wheel is then tried out, which takes root: see ``wheel_smoke.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import wheel_smoke

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"

# Debian's packages of the libraries that auditwheel puts into the wheel. zlib is not among them: it is one of the
# libraries that every manylinux system has (PEP 600).
BUNDLED = ("libbpf1", "libelf1")
COMMON_LICENCE = re.compile(r"/usr/share/common-licenses/([\w.+-]*\w)")


def main() -> int:
    """Make both files; zero if every check passes."""
    parser = argparse.ArgumentParser(description="Make sdist and wheel, in dist.")
    parser.add_argument("--smoke", action="store_true", help="try the wheel out on a minimal Debian (root)")
    smoke = parser.parse_args().smoke
    os.umask(0o022)  # the files' modes are in the archives
    environment = _environment()
    with TemporaryDirectory(prefix="mizarnet-") as name:
        work = Path(name)
        sdist = _sdist(work, environment)
        wheel, again = (_wheel(sdist, work / each, environment) for each in ("first", "built-once-more"))
        if wheel.read_bytes() != again.read_bytes():
            differing = ", ".join(_differing(wheel, again)) or "only their order or attributes"
            raise SystemExit(f"Two builds of {sdist.name} differ: {differing}")
        inside = _inside(wheel)
        if sorted(inside) != sorted(BUNDLED):
            raise SystemExit(
                f"The wheel has libraries of {', '.join(inside)}, and licences of {', '.join(BUNDLED)}"
            )
        print(_run(environment, work, "abi3audit", "--strict", "--summary", wheel).strip())
        shutil.rmtree(DIST, ignore_errors=True)
        DIST.mkdir()
        print("built twice, byte for byte the same; inside:", ", ".join(map(" ".join, inside.items())))
        for made in (sdist, wheel):
            shutil.copy(made, DIST)
            data = made.read_bytes()
            print(
                f"dist/{made.name}: {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()}",
                flush=True,
            )
    return wheel_smoke.smoke() if smoke else 0


def _environment() -> dict[str, str]:
    # The clone may be another user's than the one who builds as root.
    git = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": str(ROOT)}
    tools = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, **git, "PATH": tools}
    if "SOURCE_DATE_EPOCH" not in environment:
        environment["SOURCE_DATE_EPOCH"] = _epoch(environment)
    return environment


def _epoch(environment: Mapping[str, str]) -> str:
    if (ROOT / ".git").exists():
        return _run(environment, ROOT, "git", "log", "-1", "--format=%ct").strip()
    return str(int((ROOT / "PKG-INFO").stat().st_mtime))  # of an unpacked sdist


def _sdist(work: Path, environment: Mapping[str, str]) -> Path:
    """Make the sdist of all files that git knows; packed anew, since setuptools gives it times and owners of here."""
    if (ROOT / ".git").exists():
        _run(environment, ROOT, "check-manifest", "--no-build-isolation")
    shutil.rmtree(ROOT / "mizarnet.egg-info", ignore_errors=True)  # it may list files of yesterday
    _run(environment, work, *_build("--sdist"), "--outdir", work / "loose", ROOT)
    (loose,) = (work / "loose").iterdir()
    name = loose.name.removesuffix(".tar.gz")
    _run(environment, work, "tar", "-xzf", loose)
    _run(
        environment,
        work,
        *("tar", "--create", "--file", loose.name, "--use-compress-program", "gzip -9n", "--format=ustar"),
        *("--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"),
        *(f"--mtime=@{environment['SOURCE_DATE_EPOCH']}", name),
    )
    return work / loose.name


def _wheel(sdist: Path, directory: Path, environment: Mapping[str, str]) -> Path:
    """Build the wheel in a directory, and put the libraries into it that it needs."""
    directory.mkdir()
    _run(environment, directory, "tar", "-xzf", sdist)
    source = directory / sdist.name.removesuffix(".tar.gz")
    _add_licences(source / "LICENSES")
    _run(environment, directory, *_build("--wheel"), "--outdir", directory / "loose", source)
    (loose,) = (directory / "loose").iterdir()
    _run(environment, directory, "auditwheel", "repair", "--strip", "--wheel-dir", directory, loose)
    (wheel,) = directory.glob("*.whl")
    return wheel


def _build(what: str) -> tuple[str, ...]:
    return sys.executable, "-m", "build", "--no-isolation", what


def _add_licences(licences: Path) -> None:
    """Add what Debian says about each library that comes into the wheel, and the texts that this names."""
    named: set[str] = set()
    for package in BUNDLED:
        text = Path("/usr/share/doc", package, "copyright").read_text()
        (licences / f"bundled-{package}.txt").write_text(text)
        named.update(COMMON_LICENCE.findall(text))
    for licence in named:
        shutil.copyfile(f"/usr/share/common-licenses/{licence}", licences / f"bundled-{licence}.txt")


def _inside(wheel: Path) -> dict[str, str]:
    """Debian's packages, and their versions, that auditwheel lists as sources of the libraries inside."""
    with ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("/sboms/auditwheel.cdx.json"))
        _self, *libraries = json.loads(archive.read(name))["components"]
    return {library["name"]: library["version"] for library in libraries}


def _differing(*wheels: Path) -> list[str]:
    first, second = ({info.filename: info.CRC for info in ZipFile(wheel).infolist()} for wheel in wheels)
    return sorted({name for name, _crc in first.items() ^ second.items()})


def _run(environment: Mapping[str, str], cwd: Path, *command: str | Path) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise SystemExit(f"{shlex.join(map(str, command))}: exit status {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
