# SPDX-License-Identifier: Apache-2.0
"""Debian kernels for the emulated machine: fetch and unpack them, and build an initial file system.

Run as a program it fetches the newest package of each series named (all of them when none is named)::

    python3 tests/vm/kernels.py 6.1 6.12
"""

from __future__ import annotations

import fcntl
import lzma
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

METAPACKAGES = {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"}
"""The package of each series whose dependency is the newest kernel of that series."""

BOOT_MODULES = ("virtio_pci", "virtiofs", "overlay")
"""What the guest needs before it has its root; the rest is loaded on demand from there."""

BUSYBOX = Path("/bin/busybox")


class SetupError(RuntimeError):
    """The machine cannot be built here; the message says what to do."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    directory: Path
    release: str

    @property
    def image(self) -> Path:
        """The bootable kernel."""
        return self.directory / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        """The directory that belongs at `/lib/modules/<release>`."""
        return self.directory / "lib" / "modules" / self.release


def cache_directory() -> Path:
    """Where unpacked kernels are kept: `$XDG_CACHE_HOME/mizarnet`, or `~/.cache/mizarnet`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mizarnet" / "kernels"


def kernel(series: str) -> Kernel:
    """The unpacked kernel of a series such as `6.1`, fetched first when the cache has none.

    Raises:
        SetupError: the package cannot be found or fetched.
    """
    with _locked_cache() as cache:
        package = _cached(cache, series) or fetch(cache, series)
    (image,) = (package / "boot").glob("vmlinuz-*")
    return Kernel(package, image.name.removeprefix("vmlinuz-"))


def fetch(cache: Path, series: str) -> Path:
    """Fetches and unpacks the newest kernel of a series unless it is there already."""
    # An old index names packages that the mirror no longer has. Without one, what apt knows has to do.
    subprocess.run(
        [require("apt-get", "apt"), "-qq", "update"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    package = _newest_package(series)
    target = cache / package
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache) as work:
            _unpack(package, Path(work)).rename(target)
    return target


def _cached(cache: Path, series: str) -> Path | None:
    found = sorted(cache.glob(f"linux-image-{series}.*"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def _newest_package(series: str) -> str:
    listing = _output("apt-cache", "depends", METAPACKAGES[series])
    names = [line.split()[-1] for line in listing.splitlines() if line.strip().startswith("Depends:")]
    for name in names:
        if name.startswith(f"linux-image-{series}."):
            return name
    raise SetupError(
        f"apt knows no cloud kernel {series}: run 'apt-get update' on Debian 12 with bookworm-security"
    )


def _unpack(package: str, work: Path) -> Path:
    """Downloads and unpacks a kernel package in `work`, and indexes its modules."""
    # The download directory belongs to root alone, so apt's own user could not write to it.
    _output("apt-get", "-o", "APT::Sandbox::User=root", "download", package, cwd=work)
    (archive,) = work.glob("*.deb")
    root = work / "root"
    _output("dpkg-deb", "-x", str(archive), str(root))
    (modules,) = (root / "lib" / "modules").iterdir()
    _output("depmod", "-b", str(root), modules.name)
    root.touch()
    return root


@contextmanager
def _locked_cache() -> Generator[Path, None, None]:
    """The cache directory while no other run changes it."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache


def require(program: str, package: str) -> str:
    """The path of a program.

    Raises:
        SetupError: it is missing; the message names the Debian package that has it.
    """
    path = shutil.which(program)
    if path is None:
        raise SetupError(f"{program} is missing: apt-get install {package}")
    return path


def _output(*command: str, cwd: Path | None = None) -> str:
    packages = {"apt-cache": "apt", "apt-get": "apt", "dpkg-deb": "dpkg"}
    program = require(command[0], packages.get(command[0], "kmod"))
    done = subprocess.run([program, *command[1:]], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"'{' '.join(command)}' failed: {done.stderr.strip()}")
    return done.stdout


def write_initramfs(
    target: Path, kernel: Kernel, init: Path, *, needed: Sequence[str] = BOOT_MODULES
) -> None:
    """Writes an uncompressed initial file system: busybox, the modules needed and theirs, and `init`.

    Raises:
        SetupError: busybox is missing.
    """
    if not BUSYBOX.exists():
        raise SetupError(f"{BUSYBOX} is missing: apt-get install busybox-static")
    modules = _boot_modules(kernel, needed)
    order = "\n".join(modules).encode()
    with target.open("wb") as out:
        for directory in ("bin", "modules"):
            out.write(_cpio_entry(directory, stat.S_IFDIR | 0o755, b""))
        out.write(_cpio_entry("init", stat.S_IFREG | 0o755, init.read_bytes()))
        out.write(_cpio_entry("bin/busybox", stat.S_IFREG | 0o755, BUSYBOX.read_bytes()))
        out.write(_cpio_entry("modules/order", stat.S_IFREG | 0o644, order))
        for name, content in modules.items():
            out.write(_cpio_entry(f"modules/{name}", stat.S_IFREG | 0o644, content))
        out.write(_cpio_entry("TRAILER!!!", 0, b""))


def _boot_modules(kernel: Kernel, needed: Sequence[str]) -> dict[str, bytes]:
    """The modules in loading order; those built into the kernel are left out."""
    root = ("-d", str(kernel.directory), "-S", kernel.release)
    listing = _output("modprobe", *root, "--show-depends", "--all", *needed)
    paths = [Path(line.split()[1]) for line in listing.splitlines() if line.startswith("insmod ")]
    return {path.name.removesuffix(".xz"): _module(path) for path in paths}


def _module(path: Path) -> bytes:
    """A module's content; busybox cannot load compressed ones."""
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def _cpio_entry(name: str, mode: int, content: bytes) -> bytes:
    """One entry in the "newc" format: thirteen numbers of eight hexadecimal digits, name, content."""
    encoded = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + "".join(f"{number:08x}" for number in numbers).encode()
    return _padded(header + encoded) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def main(series: list[str]) -> None:
    """Fetches the newest kernel of each series and prints where it is."""
    with _locked_cache() as cache:
        for name in series or list(METAPACKAGES):
            print(fetch(cache, name))


if __name__ == "__main__":
    main(sys.argv[1:])
