# SPDX-License-Identifier: Apache-2.0
"""The lock: who excludes whom, what becomes of it when somebody dies or forks, and whom it refuses to trust."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

import mizarnet as mz
from mizarnet._datapath import lock
from mizarnet._datapath.lock import DIRECTORY, locked
from mizarnet._kernel.netlink import Session
from tests.support.leaks import descriptors
from tests.support.own_run import OWN_RUN, SHARED_RUN
from tests.support.process import heard, in_child, run_python, start_python, tell
from tests.world import UNDERLAY, Host, World, links

COOKIE = 0x6D7A
"""Of no namespace."""
PATH = DIRECTORY / f"{COOKIE:x}"

HOLDER = """
from mizarnet._datapath.lock import locked
with locked(int(sys.argv[1])):
    print(os.getpid(), flush=True)
    sys.stdin.readline()
print("let go", flush=True)
sys.stdin.readline()
"""


@contextmanager
def holder(cookie: int, *, by: tuple[str, ...] = ()) -> Iterator[Popen[str]]:
    """Another process that holds a lock until it is told to let go."""
    process = start_python(HOLDER, str(cookie), by=by, talk=True)
    try:
        assert heard(process) == str(process.pid)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_another_mount_namespace_with_the_same_run_is_excluded() -> None:
    with holder(COOKIE, by=SHARED_RUN) as other:
        with pytest.raises(mz.LockTimeoutError, match=f"process {other.pid} holds {PATH}") as caught:
            take(0.05)
        assert (caught.value.pid, caught.value.timeout) == (other.pid, 0.05)
        assert tell(other) == "let go"
        take(0)


def test_one_with_a_run_of_its_own_is_not() -> None:
    with holder(COOKIE, by=OWN_RUN):
        take(0)


def test_who_waits_gets_it_when_the_holder_dies() -> None:
    with holder(COOKIE) as other:
        killer = threading.Timer(0.1, other.kill)
        killer.start()
        take(5)
        killer.join()


def take(timeout: float) -> None:
    with locked(COOKIE, timeout=timeout):
        pass


def test_a_thread_of_this_process_is_not_called_another_process() -> None:
    with locked(COOKIE), pytest.raises(mz.LockTimeoutError, match="another thread of this process holds"):
        take(0.05)


def test_a_directory_that_is_open_to_others_is_no_lack_of_a_capability() -> None:
    DIRECTORY.chmod(0o755)
    try:
        with pytest.raises(mz.PrivilegeError, match="find out which program made it") as caught:
            take(0)
    finally:
        DIRECTORY.chmod(0o700)
    assert caught.value.missing == ()


CALLS: dict[str, Callable[[Host], object]] = {
    "a table": lambda host: host.agent.endpoints.update({(7, "10.0.0.9"): mz.Remote("192.0.2.2")}),
    "an endpoint": lambda host: mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.1/24", ifname="e0"),
    "attach": lambda host: mz.TransitAgent.attach(host.tunnel),
    "detach": lambda host: host.agent.detach(),
    "a tunnel": lambda host: host.tunnel.delete(),
    "a switch": lambda host: mz.TransitSwitch.attach(host.agent),
    "a switch's end": lambda host: mz.TransitSwitch.detach(UNDERLAY, netns=host.namespace.name),
}


def test_each_verb_names_the_process_it_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "TIMEOUT", 0.02)
    before, open_before = links(host.namespace), descriptors()
    with holder(host.agent._datapath.host.cookie) as other:
        for name, call in CALLS.items():
            with pytest.raises(mz.LockTimeoutError) as caught:
                call(host)
            assert caught.value.pid == other.pid, name
        assert host.agent.state().up, "reading does not wait"
    assert links(host.namespace) == before
    assert descriptors() == open_before
    assert host.agent.endpoints.snapshot() == {}


def test_a_fork_while_a_thread_holds_it_keeps_nothing(host: Host) -> None:
    """A child has a copy of the open file, and lives on."""
    inside, over = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(COOKIE):
            inside.set()
            over.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(10)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # until the parent lets it end
        os._exit(0)
    os.close(reading)
    over.set()
    thread.join()
    take(0)
    in_child(lambda: take(0))
    host.agent.peers.add("203.0.113.0/24")
    os.close(writing)
    os.waitpid(child, 0)


def test_a_child_of_a_killed_holder_keeps_nothing() -> None:
    program = """
        import threading
        from mizarnet._datapath.lock import locked
        inside = threading.Event()
        def hold():
            with locked(int(sys.argv[1])):
                inside.set()
                threading.Event().wait()
        threading.Thread(target=hold, daemon=True).start()
        inside.wait()
        child = os.fork()
        if child == 0:
            signal.pause()
        print(child, flush=True)
        signal.pause()
    """
    process = start_python(program, str(COOKIE), talk=True)
    child = int(heard(process))
    try:
        with pytest.raises(mz.LockTimeoutError) as caught:
            take(0.05)
        assert caught.value.pid == process.pid
        process.kill()
        process.wait()
        os.kill(child, 0)
        take(1)
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_a_lock_file_is_never_removed(host: Host) -> None:
    """Whoever removed it would let two hold it: one the old file, one the new."""
    path = DIRECTORY / f"{host.agent._datapath.host.cookie:x}"
    before = path.stat().st_ino
    mz.TransitSwitch.attach(host.agent).detach()
    host.agent.detach(force=True)
    mz.TransitAgent.attach(host.tunnel).close()
    host.tunnel.delete(force=True)
    assert path.stat().st_ino == before


def test_a_file_that_went_with_a_service_excludes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit's RuntimeDirectory is removed when it stops: who has the old file open begins again with the new one."""
    opened: list[int] = []

    def open_and_lose(path: Path) -> int:
        descriptor = really_open(path)
        opened.append(os.fstat(descriptor).st_ino)
        if len(opened) == 1:
            shutil.rmtree(path.parent, ignore_errors=True)
            path.unlink(missing_ok=True)
        return descriptor

    really_open = lock._open
    monkeypatch.setattr(lock, "_open", open_and_lose)
    with locked(COOKIE):
        assert len(opened) == 2
        assert PATH.stat().st_ino == opened[1]
        with pytest.raises(mz.LockTimeoutError):
            take(0)


# -- who is not trusted ------------------------------------------------------------------------------------

OWN = "mkdir -m 700 mizarnet"
LOCK = "mizarnet/$LOCK"
PLACES: dict[str, tuple[str, str, str]] = {
    # what is found in an empty /run, the error, and what it says of what
    "a read-only /run": ("mount -o remount,ro /run", "KernelError", "make the directory /run/mizarnet: "),
    "a full /run": (
        "mount -t tmpfs -o nr_inodes=1 tmpfs /run",
        "KernelError",
        "make the directory /run/mizarnet: ",
    ),
    "somebody else's": (f"{OWN} && chown 1 mizarnet", "PrivilegeError", "/run/mizarnet belongs to user 1 "),
    "open to others": (
        "mkdir -m 755 mizarnet",
        "PrivilegeError",
        "/run/mizarnet belongs to user 0 with mode 755",
    ),
    "a link": ("mkdir -m 700 x && ln -s x mizarnet", "ExistsError", "/run/mizarnet is a symbolic link"),
    "a link to nothing": ("ln -s x mizarnet", "ExistsError", "/run/mizarnet is a symbolic link"),
    "a file": ("touch mizarnet", "ExistsError", "/run/mizarnet is something else"),
    "a lock that is a link": (
        f"{OWN} && touch x && ln -s /run/x {LOCK}",
        "ExistsError",
        f"/run/{LOCK} is a symbolic link",
    ),
    "a lock that is a link to nothing": (
        f"{OWN} && ln -s /run/x {LOCK}",
        "ExistsError",
        f"/run/{LOCK} is a symbolic link",
    ),
    "a lock that is a directory": (f"{OWN} && mkdir {LOCK}", "ExistsError", f"/run/{LOCK} is something else"),
    "a lock that is a pipe": (
        f"{OWN} && mkfifo -m 600 {LOCK}",
        "ExistsError",
        f"/run/{LOCK} is something else",
    ),
    "somebody else's lock": (
        f"{OWN} && touch {LOCK} && chmod 600 {LOCK} && chown 1 {LOCK}",
        "PrivilegeError",
        f"/run/{LOCK} belongs to user 1 ",
    ),
    "a lock that others may take": (
        f"{OWN} && touch {LOCK} && chmod 644 {LOCK}",
        "PrivilegeError",
        f"/run/{LOCK} belongs to user 0 with mode 644",
    ),
}
TRY = """
import json, subprocess
def attempt():
    try:
        mz.Tunnel.create("tunnel0", encap="vxlan", underlay="lo")
        return "made"
    except mz.MizarnetError as error:
        return f"{type(error).__name__}: {error}"
told = {}
for what, commands in json.loads(sys.argv[1]).items():
    found = f"mount -t tmpfs tmpfs /run && cd /run && LOCK={sys.argv[2]} && {commands}"
    subprocess.run(["sh", "-c", found], check=True)
    attempt()
    before = os.listdir("/proc/self/fd")
    told[what] = attempt()
    assert os.listdir("/proc/self/fd") == before, what
print(json.dumps(told))
"""


def test_what_is_not_ours_is_refused_by_name(world: World) -> None:
    lonely = world.namespace("lonely")
    lonely.run("ip", "address", "add", "192.0.2.9/32", "dev", "lo")
    with Session.open(lonely.name) as session:
        cookie = f"{session.cookie:x}"
    commands = json.dumps({what: place[0] for what, place in PLACES.items()})
    by = ("nsenter", f"--net={lonely.path}", *SHARED_RUN)
    told = json.loads(run_python(TRY, commands, cookie, by=by))
    for what, (_, error, says) in PLACES.items():
        assert told[what].startswith(f"{error}: {says.replace('$LOCK', cookie)}"), f"{what}: {told[what]}"
    assert links(lonely) == ["lo"]
