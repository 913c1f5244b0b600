# SPDX-License-Identifier: Apache-2.0
"""Namespaces: what a ``netns`` argument may be, and named ones beside ``ip netns``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mizarnet._kernel.netlink import (
    Session,
    anonymous_netns,
    create_netns,
    delete_netns,
    delete_unmounted,
    get_link,
    is_current,
    netns_path,
    nsid_of,
    owner_is_initial,
    resolve,
)
from mizarnet._kernel.rtnetlink import Answer, Request, Rtm, Rtnl
from mizarnet._model.arguments import check_netns
from mizarnet.errors import (
    ClosedError,
    ExistsError,
    InvalidTypeError,
    InvalidValueError,
    NetnsNotFoundError,
)
from tests.support.process import UNPRIVILEGED


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout


def test_a_word_is_a_name_and_anything_else_a_path() -> None:
    assert netns_path("ns1") == "/run/netns/ns1"
    assert netns_path("/proc/1/ns/net") == "/proc/1/ns/net"
    assert netns_path(Path("/proc/1/ns/net")) == "/proc/1/ns/net"


@pytest.mark.parametrize("value", ["", ".", "..", "a\0b", "x" * 300])
def test_what_can_be_no_name_is_refused(value: str) -> None:
    with pytest.raises(InvalidValueError):
        resolve(value)


@pytest.mark.parametrize("value", [7, b"ns1", True])
def test_wrong_types_are_refused(value: object) -> None:
    with pytest.raises(InvalidTypeError):
        resolve(value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the point of the test


@pytest.mark.parametrize(
    ("given", "checked", "path"),
    [
        ("/run/netns/web", "web", "/run/netns/web"),
        ("/var/run/netns/web", "web", "/run/netns/web"),
        ("/run/netns//web", "web", "/run/netns/web"),
        ("//run/./netns/web", "web", "/run/netns/web"),
        ("./web", "web", "/run/netns/web"),
        ("sub/web", "/run/netns/sub/web", "/run/netns/sub/web"),
        ("/run/netns/sub/web", "/run/netns/sub/web", "/run/netns/sub/web"),
        ("/run/netns/../web", "/run/netns/../web", "/run/netns/../web"),
    ],
)
def test_a_path_is_the_same_wherever_it_is_read_later(
    monkeypatch: pytest.MonkeyPatch, given: str, checked: str, path: str
) -> None:
    with monkeypatch.context() as there:
        there.chdir("/run/netns")
        assert check_netns(given) == checked
    assert netns_path(checked) == path


def test_a_path_from_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        (tmp_path / "gone").mkdir()
        there.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        with pytest.raises(InvalidValueError, match="working directory that is gone"):
            check_netns("./web")


@pytest.mark.parametrize(
    "value", ["mzl-none", "/nowhere/at/all", "/etc/hostname", "/proc/self/ns/mnt", "/dev/tty"]
)
def test_what_is_no_network_namespace_is_not_found(value: str) -> None:
    with pytest.raises(NetnsNotFoundError):
        resolve(value)


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NetnsNotFoundError):
        resolve(tmp_path / "fifo")


def test_none_is_the_calling_threads_own() -> None:
    with resolve(None) as handle:
        assert is_current(handle.netns)
        assert handle.netns.path is None
        assert not os.get_inheritable(handle.fileno())
        assert owner_is_initial(handle.fileno())
    with pytest.raises(ClosedError):
        handle.fileno()


def test_a_created_namespace_is_one_for_ip_netns_too(new_name: Callable[[], str]) -> None:
    name = new_name()
    netns = create_netns(name)
    assert netns.path == f"/run/netns/{name}"
    assert not is_current(netns)
    assert name in run("ip", "netns", "list").split()
    assert run("ip", "netns", "exec", name, "readlink", "/proc/self/ns/net").strip() == f"net:[{netns.inode}]"
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    assert "shared:" in [line for line in mounts if " /run/netns " in line][-1]  # the uppermost


def test_ip_netns_and_the_library_delete_each_others(new_name: Callable[[], str]) -> None:
    ours, theirs = new_name(), new_name()
    create_netns(ours)
    run("ip", "netns", "add", theirs)
    run("ip", "netns", "del", ours)
    with Session.open(theirs):
        pass
    assert delete_netns(theirs)
    assert not delete_netns(theirs)
    assert not delete_netns(ours)


def test_lo_is_up(session: Session) -> None:
    lo = get_link(session, "lo")
    assert lo is not None
    assert lo.up
    assert lo.ifindex == 1


def test_a_taken_name_is_left_alone(new_name: Callable[[], str]) -> None:
    name = new_name()
    before = create_netns(name)
    with pytest.raises(ExistsError) as caught:
        create_netns(name)
    assert caught.value.holder == f"/run/netns/{name}"
    with resolve(name) as handle:
        assert handle.netns == before


def test_create_does_not_move_the_caller(new_name: Callable[[], str]) -> None:
    before = os.stat("/proc/thread-self/ns/net").st_ino
    assert create_netns(new_name()).inode != before
    assert os.stat("/proc/thread-self/ns/net").st_ino == before


@pytest.mark.parametrize("verb", [create_netns, delete_netns])
def test_only_names_are_created_and_deleted(verb: Callable[[str], object]) -> None:
    with pytest.raises(InvalidValueError):
        verb("/proc/self/ns/net")


def test_a_namespace_of_another_user_namespace_is_told_apart() -> None:
    argv = ["unshare", "--user", "--net", "sh", "-c", "echo ready; read line"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            with resolve(f"/proc/{process.pid}/ns/net") as handle:
                assert not owner_is_initial(handle.fileno())
        finally:
            process.communicate("\n", timeout=10)


def test_what_is_refused_names_the_capability(new_name: Callable[[], str], session: Session) -> None:
    name = new_name()
    create_netns(name)
    code = (
        "import sys\n"
        "from mizarnet.errors import PrivilegeError\n"
        "from mizarnet._kernel.netlink import *\n"
        "name = sys.argv[1]\n"
        "calls = (lambda: create_netns('mzl-none'), lambda: delete_netns(name))\n"
        "s = Session.open()\n"
        "for call in (*calls, lambda: Session.open(name), lambda: set_link(s, 1, mtu=1500)):\n"
        "    try: call()\n"
        "    except PrivilegeError as error: print(error)\n"
        "s.close()\n"
    )
    argv = [*UNPRIVILEGED, sys.executable, "-c", code, name]
    done = session.run(subprocess.run, argv, capture_output=True, text=True, timeout=30)
    said = "not permitted, missing {}; run as root, or grant it"
    assert done.stdout.splitlines() == [
        "make a network namespace: " + said.format("CAP_SYS_ADMIN"),
        f"unmount /run/netns/{name}: " + said.format("CAP_SYS_ADMIN"),
        "enter the network namespace: " + said.format("CAP_SYS_ADMIN"),
        "change link 1: " + said.format("CAP_NET_ADMIN"),
    ]


def test_a_name_without_a_namespace_is_deleted(new_name: Callable[[], str]) -> None:
    name = new_name()
    path = Path("/run/netns") / name
    path.touch(mode=0)
    assert delete_unmounted(name)
    assert not delete_unmounted(name)
    create_netns(name)
    assert not delete_unmounted(name)
    assert delete_netns(name)
    for strange in (lambda: path.touch(mode=0o644), lambda: path.symlink_to("nothing"), lambda: path.mkdir()):
        strange()
        assert not delete_unmounted(name)
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_new_namespace_is_marked_by_one_message(
    new_name: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, together, sent = new_name(), Rtnl.request_together, list[list[Rtm]]()

    def noted(rtnl: Rtnl, operation: str, *requests: Request) -> list[Answer]:
        sent.append([each.kind for each in requests])
        return together(rtnl, operation, *requests)

    monkeypatch.setattr(Rtnl, "request_together", noted)
    create_netns(name, alias="a mark")
    assert sent == [[Rtm.SETLINK, Rtm.GETLINK]]
    with Session.open(name) as session:
        lo = get_link(session, "lo")
    assert lo is not None
    assert (lo.alias, lo.up) == ("a mark", True)


def test_an_anonymous_namespace_lives_by_its_handle(session: Session) -> None:
    with anonymous_netns() as handle:
        nsid = nsid_of(session, handle)
        assert not is_current(handle.netns)
        with Session.open(handle) as inner:
            assert inner.identity == handle.netns.identity
            assert get_link(session, "lo", nsid=nsid) is not None
    end = time.monotonic() + 5  # the kernel ends namespaces in the background
    while get_link(session, "lo", nsid=nsid) is not None and time.monotonic() < end:
        time.sleep(0.01)
    assert get_link(session, "lo", nsid=nsid) is None
