# SPDX-License-Identifier: Apache-2.0
"""Sessions: one thread per namespace, for any caller, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mizarnet._kernel.netlink import Session, create_netns, delete_netns, get_link, read_sysctl, write_sysctl
from mizarnet.errors import ClosedError, ForkedError, LockTimeoutError, NetlinkError
from tests.support.process import in_child
from tests.support.steps import each_step


def inode() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mizarnet-netns-")]


def test_calls_run_inside_the_namespace(session: Session) -> None:
    assert session.run(inode) == session.netns.inode != inode()


def test_none_is_the_calling_threads_namespace(session: Session) -> None:
    def inner_inode() -> int:
        with Session.open() as inner:
            assert inner.identity == session.identity
            return inner.run(inode)

    assert session.run(inner_inode) == session.netns.inode
    with Session.open() as outer:
        assert outer.run(inode) == inode()


def test_sessions_to_one_namespace_share_a_thread(session: Session) -> None:
    with Session.open(session.netns.path) as other:
        assert len(workers()) == 1
        assert other.run(threading.get_ident) == session.run(threading.get_ident)
    assert session.run(inode) == session.netns.inode


def test_cookies_tell_namespaces_apart(open_new: Callable[[], Session]) -> None:
    first, second = open_new(), open_new()
    assert 0 < first.cookie != second.cookie
    with Session.open(first.netns.path) as again:
        assert again.cookie == first.cookie


def test_errors_come_back_to_the_caller(session: Session) -> None:
    with pytest.raises(ZeroDivisionError):
        session.run(divmod, 1, 0)
    with pytest.raises(LockTimeoutError):
        session.run(_raise_timeout)
    assert session.run(inode) == session.netns.inode


def _raise_timeout() -> None:
    raise LockTimeoutError("the caller's own", timeout=1.0)


def test_inside_a_running_event_loop(session: Session) -> None:
    async def main() -> bool:
        return get_link(session, "lo") is not None

    assert asyncio.run(main())


def test_from_eight_threads_at_once(session: Session) -> None:
    def work(_: int) -> set[int]:
        found: set[int] = set()
        for _ in range(20):
            link = get_link(session, "lo")
            assert link is not None
            with Session.open(session.netns.path) as own:
                found.add(own.run(inode))
        return found

    with ThreadPoolExecutor(8) as pool:
        assert set().union(*pool.map(work, range(8))) == {session.netns.inode}


def test_eight_threads_open_and_close_the_only_session(new_name: Callable[[], str]) -> None:
    name = new_name()
    netns = create_netns(name)

    def work(_: int) -> None:
        for _ in range(25):
            with Session.open(name) as own:
                assert own.run(inode) == netns.inode

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert not workers()


def test_two_hundred_sessions_leave_nothing(new_name: Callable[[], str]) -> None:
    name = new_name()
    create_netns(name)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        with Session.open(name) as session:
            assert get_link(session, "lo")
    assert not workers()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_session_outlives_the_namespaces_name(new_name: Callable[[], str]) -> None:
    name = new_name()
    create_netns(name)
    with Session.open(name) as session:
        delete_netns(name)
        assert get_link(session, "lo")
        create_netns(name)
        with Session.open(name) as newer:
            assert newer.cookie != session.cookie
            assert newer.identity != session.identity


def test_a_closed_session_refuses(session: Session) -> None:
    other = Session.open(session.netns.path)
    other.close()
    other.close()
    assert other.closed
    with pytest.raises(ClosedError):
        other.run(inode)


def test_closing_from_inside(new_name: Callable[[], str]) -> None:
    name = new_name()
    create_netns(name)
    session = Session.open(name)
    session.run(session.close)
    _until(lambda: not workers())


def test_a_forgotten_session_warns_and_its_thread_ends(new_name: Callable[[], str]) -> None:
    name = new_name()
    create_netns(name)
    with pytest.warns(ResourceWarning, match="unclosed <Session"):
        Session.open(name)
        gc.collect()
    _until(lambda: not workers())


def test_a_failed_call_does_not_keep_a_session_alive(new_name: Callable[[], str]) -> None:
    name = new_name()
    create_netns(name)
    gc.collect()
    gc.disable()
    try:
        with pytest.warns(ResourceWarning):
            session = Session.open(name)
            with pytest.raises(NetlinkError):
                get_link(session, ifindex=-1)
            del session
    finally:
        gc.enable()
    _until(lambda: not workers())


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_a_call_that_takes_too_long(new_name: Callable[[], str]) -> None:
    name = new_name()
    create_netns(name)
    release, started = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        release.wait(5)

    with Session.open(name, timeout=0.05) as session:
        with pytest.raises(NetlinkError, match="rtnl lock") as caught:
            session.run(block)
        assert started.is_set()
        with pytest.raises(LockTimeoutError) as refused:
            session.run(inode)  # never starts: the other call still runs
        release.set()
    assert pickle.loads(pickle.dumps(caught.value)).errno == caught.value.errno
    assert refused.value.timeout == 0.05


def test_an_interrupt_at_any_step_of_a_call_leaves_the_thread_to_others(session: Session) -> None:
    for _ in each_step(lambda: session.run(inode)):
        assert session.run(inode) == session.netns.inode


def test_an_interrupt_at_any_step_of_opening_leaves_a_namespace_that_others_open(session: Session) -> None:
    def check() -> None:
        for _ in each_step(lambda: Session.open(session.netns.path).close()):
            with Session.open(session.netns.path) as other:
                assert other.run(inode) == session.netns.inode

    in_child(check)


FORK = """
import os, sys
from mizarnet.errors import ForkedError
from mizarnet._kernel.netlink import Session, get_link
session = Session.open(sys.argv[1])
assert get_link(session, "lo")
sockets = len(os.listdir("/proc/self/fd"))
child = os.fork()
if child == 0:
    try:
        session.run(int)
    except ForkedError:
        assert len(os.listdir("/proc/self/fd")) == sockets - 1
        with Session.open(sys.argv[1]) as own:
            assert get_link(own, "lo")
        session.close()
        os._exit(7)
    os._exit(1)
_, status = os.waitpid(child, 0)
assert get_link(session, "lo")
session.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_must_open_its_own(session: Session) -> None:
    path = session.netns.path
    assert path is not None
    argv = [sys.executable, "-W", "error", "-c", FORK, path]
    done = subprocess.run(argv, timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (7, "")


def test_fork_is_noticed_by_every_call(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid + 1)
        with pytest.raises(ForkedError):
            session.run(inode)


def test_settings_are_those_of_the_namespace(session: Session) -> None:
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    write_sysctl(session, "ipv4/ip_forward", "1")
    assert read_sysctl(session, "ipv4/ip_forward") == "1"
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before
