# SPDX-License-Identifier: Apache-2.0
"""Runs a command as root under another kernel, on the files of this machine.

For example::

    python3 tests/vm/run.py --kernel 6.1 -- python3 -m pytest tests/netns

The kernel is Debian's, in an emulated machine without a network device.  The command sees this machine's
whole file system, apart from /dev, /proc, /run and /sys, and may write anywhere: the changes stay in the
guest's memory.  Only what it writes to `/mnt/out` comes back, in the directory given with `--out`.

The exit status is the command's (128 + number when a signal ended it), or

* 124: the command did not end within `--timeout`; the kernel's view of blocked tasks is printed,
* 125: the machine could not be started, the kernel panicked, or it no longer reacted.

Needs root and Debian 12 with `qemu-system-x86`, `qemu-system-common`, `busybox-static` and `kmod`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from kernels import METAPACKAGES, Kernel, SetupError, kernel, require, write_initramfs

Process = subprocess.Popen[bytes]

TIMED_OUT = 124
FAILED = 125

BOOT_LIMIT = 120.0
"""Seconds until the command must have started; five on an idle machine."""
GRACE = 20.0
"""Seconds the guest has to report, after the command's time is over, before it counts as hung."""

POLL = 0.05
TAIL_LINES = 60
VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")

CPU = "Nehalem,+rdrand"
"""Newer vector instructions are slow to emulate; without rdrand the first random number takes a second."""

KERNEL_OPTIONS = "console=ttyS0 panic=-1 oops=panic mitigations=off tsc=reliable no_timer_check"
"""The kernel mistrusts an emulated time stamp counter now and then, and reading any other clock is slow. On a busy host
it also mistrusts the timer, and panics ("IO-APIC + timer doesn't work")."""

INSTRUCTION_CLOCK = ("-accel", "tcg,thread=single", "-icount", "shift=0,sleep=on")
"""The clock goes on by a nanosecond for each instruction, and with the host's while the guest waits for a file."""

SERVE_READ_ONLY = r"""
while read -r _ target _; do
    mount -o remount,bind,ro "$(printf %b "$target")" || exit
done </proc/self/mounts
exec "$@"
"""
"""Makes every mount read-only, in its own mount namespace alone, before it serves them: the guest's mount
options do not keep the guest's root from writing.  (printf decodes the octal escapes of the list.)"""


@dataclass(frozen=True)
class Job:
    """What to run and how."""

    kernel: Kernel
    command: Sequence[str]
    cwd: str
    environment: Mapping[str, str]
    cpus: int
    possible_cpus: int
    memory: str
    timeout: int
    out: Path | None
    log: Path | None
    count_instructions: bool


class Exchange:
    """The writable directory shared with the guest: the command goes in, output and status come out."""

    def __init__(self, directory: Path, streams: Sequence[tuple[IO[bytes], IO[bytes]]]) -> None:
        """Takes a filled directory and its output files, each with the stream it goes to."""
        self._directory = directory
        self._streams = streams

    @classmethod
    @contextmanager
    def open(cls, directory: Path, job: Job) -> Generator[Exchange, None, None]:
        """Makes and fills the directory for a job."""
        (directory / "out").mkdir(parents=True)
        (directory / "command").write_text(_script(job))
        settings = f"VM_MODULES={shlex.quote(str(job.kernel.modules))} VM_TIMEOUT={job.timeout}\n"
        (directory / "settings").write_text(settings)
        # "x" makes the file; the guest only appends to it.
        with (directory / "stdout").open("xb+") as stdout, (directory / "stderr").open("xb+") as stderr:
            yield cls(directory, [(stdout, sys.stdout.buffer), (stderr, sys.stderr.buffer)])

    @property
    def started(self) -> bool:
        """Whether the guest has started the command."""
        return (self._directory / "started").exists()

    @property
    def status(self) -> str | None:
        """The exit status, or `timeout`; None while the command runs."""
        path = self._directory / "status"
        return path.read_text().strip() if path.exists() else None

    def relay(self) -> None:
        """Passes on what the command has written since the last call."""
        for source, target in self._streams:
            shutil.copyfileobj(source, target)
            target.flush()


def _script(job: Job) -> str:
    """The shell script that becomes the command."""
    settings = [f"{name}={value}" for name, value in job.environment.items()]
    return f"cd {shlex.quote(job.cwd)} && exec env {shlex.join([*settings, *job.command])}\n"


@contextmanager
def child(*command: str, log: Path, pass_fds: Sequence[int] = ()) -> Generator[Process, None, None]:
    """A process that lasts as long as the block, and not longer than this process even if that is killed."""
    guarded = [require("setpriv", "util-linux"), "--pdeathsig", "KILL", *command]
    with log.open("ab") as output:
        process = Process(guarded, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=pass_fds)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def share(stack: ExitStack, work: Path, tag: str, source: Path, *, prepare: str, cache: str) -> list[str]:
    """Serves a directory by virtiofs while `stack` is open and returns the machine's options for it.

    `prepare` is a shell script that arranges the mounts of the server's own namespace and runs its arguments.
    """
    path = work / f"{tag}.sock"
    namespace = ["unshare", "--mount", "--propagation", "private", "sh", "-c", prepare, "sh"]
    # Closed here once the server has it: QEMU then notices when the server dies before it answers.
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        serve = [str(VIRTIOFSD), f"--fd={listener.fileno()}"]
        serve += ["-o", f"source={source},cache={cache},sandbox=chroot,log_level=warn"]
        stack.enter_context(child(*namespace, *serve, log=work / "log", pass_fds=[listener.fileno()]))
    device = f"vhost-user-fs-pci,chardev={tag},tag={tag},queue-size=1024"
    return ["-chardev", f"socket,id={tag},path={path}", "-device", device]


def machine(job: Job, work: Path) -> list[str]:
    """QEMU's command line, without the shares."""
    write_initramfs(work / "initramfs", job.kernel, Path(__file__).with_name("init.sh"))
    return [
        require("qemu-system-x86_64", "qemu-system-x86"),
        *("-machine", "q35", "-cpu", CPU),
        *(INSTRUCTION_CLOCK if job.count_instructions else ("-accel", "tcg,thread=multi")),
        *("-smp", str(job.cpus), "-m", job.memory),
        # virtiofs reads and writes the guest's memory from another process.
        *("-object", f"memory-backend-memfd,id=memory,size={job.memory},share=on"),
        *("-numa", "node,memdev=memory"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-serial", f"file:{work / 'kernel.log'}"),
        *("-kernel", str(job.kernel.image), "-initrd", str(work / "initramfs")),
        *("-append", f"{KERNEL_OPTIONS} possible_cpus={job.possible_cpus}"),
    ]


def run(job: Job) -> int:
    """Runs a job in a machine of its own and returns the exit status for it.

    Raises:
        SetupError: something needed is missing.
    """
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mizarnet-vm-")))
        (work / "kernel.log").touch()
        if job.log is not None:
            stack.callback(shutil.copyfile, work / "kernel.log", job.log)
        exchange = stack.enter_context(Exchange.open(work / "exchange", job))
        shares = share(stack, work, "host", Path("/"), prepare=SERVE_READ_ONLY, cache="always")
        prepare = _bind_out(job.out, work / "exchange" / "out")
        shares += share(stack, work, "exchange", work / "exchange", prepare=prepare, cache="auto")
        qemu = stack.enter_context(child(*machine(job, work), *shares, log=work / "log"))
        return conclude(watch(qemu, exchange, job.timeout), work)


def _check_host() -> None:
    if os.geteuid() != 0:
        raise SetupError("only root may share the file system with the guest")
    if not VIRTIOFSD.exists():
        raise SetupError(f"{VIRTIOFSD} is missing: apt-get install qemu-system-common")


def _bind_out(out: Path | None, target: Path) -> str:
    if out is None:
        return 'exec "$@"'
    out.mkdir(parents=True, exist_ok=True)
    return f'{shlex.join(["mount", "--bind", str(out), str(target)])} && exec "$@"'


def watch(qemu: Process, exchange: Exchange, timeout: int) -> str:
    """Relays the command's output until it ends; returns its status, or a word for what went wrong."""
    deadline = time.monotonic() + BOOT_LIMIT
    booting = True
    while (status := exchange.status) is None and qemu.poll() is None:
        if booting and exchange.started:
            booting = False
            deadline = time.monotonic() + timeout + GRACE
        if time.monotonic() > deadline:
            return "hang"
        exchange.relay()
        time.sleep(POLL)
    exchange.relay()
    return status or exchange.status or "end"


def conclude(status: str, work: Path) -> int:
    """Turns the status into an exit status and shows the kernel's last lines when the machine is at fault."""
    log = work / "kernel.log"
    if status.isdecimal():
        for warning in _warnings(log):
            print(f"vm: the kernel warned (see --log): {warning}", file=sys.stderr)
        return int(status)
    messages = {
        "timeout": "the command did not end in time",
        "hang": "the machine did not react in time",
        "end": "the machine ended before the command did",
    }
    sys.stderr.write(_tail(work / "log") + _tail(log))
    print(f"vm: {messages[status]}; the kernel's last lines stand above", file=sys.stderr)
    return TIMED_OUT if status == "timeout" else FAILED


def _warnings(log: Path) -> Iterator[str]:
    """What each of the kernel's warnings begins with."""
    _, *found = log.read_text(errors="replace").split("[ cut here ]")
    for each in found:
        yield " ".join(each.splitlines()[1:3])


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").replace("\r\n", "\n").splitlines(keepends=True)
    return "".join(lines[-TAIL_LINES:])


def parse(arguments: Sequence[str]) -> Job:
    """Reads the command line and fetches the kernel it names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernel", choices=METAPACKAGES, required=True)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--possible-cpus", type=int, metavar="N", help="room for CPUs that may come later")
    parser.add_argument("--memory", default="3G")
    parser.add_argument("--timeout", type=int, default=600, metavar="SECONDS")
    parser.add_argument("--cwd", default=str(Path.cwd()), metavar="DIR")
    parser.add_argument("--env", type=_setting, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, metavar="DIR", help="writable, /mnt/out in the guest")
    parser.add_argument(
        "--count-instructions", action="store_true", help="a nanosecond of the guest's time for each; slow"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the kernel's messages")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    _check_host()
    return Job(
        kernel=kernel(options.kernel),
        command=options.command,
        cwd=options.cwd,
        environment=dict(options.env),
        cpus=options.cpus,
        possible_cpus=options.possible_cpus or options.cpus,
        memory=options.memory,
        timeout=options.timeout,
        out=options.out and options.out.resolve(),
        log=options.log,
        count_instructions=options.count_instructions,
    )


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def main() -> int:
    """Runs the command line's job; signals end it with everything cleaned up."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    try:
        return run(parse(sys.argv[1:]))
    except SetupError as error:
        print(f"vm: {error}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
