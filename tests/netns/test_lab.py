# SPDX-License-Identifier: Apache-2.0
"""Labs come whole and go without a trace, however they end. The leak fixtures judge what is left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import mizarnet as mz
from mizarnet import lab_netns
from mizarnet._datapath import lock
from mizarnet._datapath.leftovers import sweep
from mizarnet._kernel.bpf import program_name
from mizarnet._kernel.netlink import Session, create_netns, delete_netns, dump_links
from tests.support.process import finish, in_child, run_python, start_python
from tests.support.user import CAPABILITIES, become_nobody_with
from tests.support.wait import wait_until

ROOT = Path(__file__).resolve().parents[2]
NAME = f"t{os.getpid()}"
OWNER = """
import sys, mizarnet as mz
lab = mz.Lab(hosts=1, name=sys.argv[1])
mz.Endpoint.create(lab.hosts[0].agent, vni=7, ip="10.0.0.1/24", netns=lab.container("c1"))
print("ready", flush=True)
sys.stdin.read()
"""


def _netns() -> list[str]:
    return sorted(name for name in os.listdir("/run/netns") if name.startswith(NAME))


def _add(lab: mz.Lab, number: int, *, host: int, vni: int = 7, name: str | None = None) -> mz.Endpoint:
    netns = lab.container(name or f"c{number}")
    return mz.Endpoint.create(lab.hosts[host].agent, vni=vni, ip=f"10.0.0.{number}/24", netns=netns)


def _ping(lab: mz.Lab, container: str, address: str) -> bool:
    return lab.run(container, "ping", "-c1", "-W2", "-n", address, check=False).returncode == 0


@contextmanager
def _killed_owner() -> Iterator[int]:
    """Another process holds a lab; killed when the block is entered, its lab's leftovers are there."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    )
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        with pytest.raises(mz.InUseError, match=NAME):
            mz.Lab(name=NAME)
        yield owner.pid
    finally:
        owner.kill()
        owner.communicate()


# -- whole -------------------------------------------------------------------------------------------------


@pytest.mark.vm
def test_hosts_reach_each_other() -> None:
    with mz.Lab(name=NAME) as lab:
        assert _netns() == [f"{NAME}-fabric", f"{NAME}-h1", f"{NAME}-h2"]
        assert [(host.name, str(host.address)) for host in lab.hosts] == [
            ("h1", "198.51.100.1"),
            ("h2", "198.51.100.2"),
        ]
        _add(lab, 1, host=0)
        _add(lab, 2, host=1)
        _add(lab, 3, host=0)
        # Not from c1: its kernel would wait for this answer for a while, and not ask again.
        assert not _ping(lab, "c3", "10.0.0.2")
        lab.publish()
        assert _ping(lab, "c1", "10.0.0.2")


def test_seven_hosts() -> None:
    with mz.Lab(hosts=7, name=NAME) as lab:
        for number in range(1, 8):
            _add(lab, number, host=number - 1)
        lab.publish()
        assert all(_ping(lab, f"c{number}", f"10.0.0.{number % 7 + 1}") for number in range(1, 8))
        assert all(len(host.agent.endpoints) == 7 for host in lab.hosts)


def test_ipv6_underlay_with_jumbo_frames() -> None:
    with mz.Lab(mtu=9000, ipv6=True, name=NAME) as lab:
        assert [str(host.address) for host in lab.hosts] == ["fd00:6d7a::1", "fd00:6d7a::2"]
        assert lab.hosts[0].tunnel.mtu == 9000 - 70
        _add(lab, 1, host=0)
        _add(lab, 2, host=1)
        lab.publish()
        size = str(9000 - 70 - 28)
        lab.run("c1", "ping", "-c1", "-W2", "-M", "do", "-s", size, "10.0.0.2")


def test_encapsulation_is_chosen_and_explained() -> None:
    geneve = mz.probe().geneve
    with mz.Lab(hosts=1, name=NAME) as lab:
        assert lab.encap is (mz.Encap.GENEVE if geneve else mz.Encap.VXLAN)
        assert "geneve" in lab.encap_reason
        assert lab.hosts[0].tunnel.encap is lab.encap
    with mz.Lab(hosts=1, name=NAME, encap="vxlan") as lab:
        assert (lab.encap, lab.encap_reason) == (mz.Encap.VXLAN, "vxlan was asked for")


def test_agents_are_attached_as_asked_for() -> None:
    with mz.Lab(hosts=1, name=NAME, max_endpoints=64, max_local=8, hook="clsact") as lab:
        agent = lab.hosts[0].agent
        assert (agent.capacity, agent.hook) == (mz.Capacity(64, 8), mz.Hook.CLSACT)


def test_publish_follows_what_is_there() -> None:
    with mz.Lab(name=NAME) as lab:
        first, _ = _add(lab, 1, host=0), _add(lab, 2, host=1)
        lab.publish()
        agent = lab.hosts[1].agent
        assert agent.endpoints[7, "10.0.0.1"] == mz.Remote("198.51.100.1")
        first.delete()
        lab.publish()
        assert (7, "10.0.0.1") not in agent.endpoints


def test_publish_leaves_the_entries_of_feeds() -> None:
    with mz.Lab(name=NAME) as lab:
        _add(lab, 1, host=0)
        agent, remote = lab.hosts[1].agent, mz.Remote("198.51.100.9")
        agent.endpoints.update({(7, "10.0.0.8"): remote}, feed="others")
        agent.endpoints[7, "10.0.0.9"] = remote
        lab.publish()
        assert {str(key.ip) for key in agent.endpoints} == {"10.0.0.1", "10.0.0.8"}
        agent.endpoints.apply({(7, "10.0.0.1"): remote}, feed="others", take=True)
        with pytest.raises(mz.ForeignEntryError):
            lab.publish()


def test_publish_refuses_an_address_on_two_hosts() -> None:
    with mz.Lab(name=NAME) as lab:
        _add(lab, 1, host=0)
        _add(lab, 1, host=1, name="other")
        with pytest.raises(mz.LocalEndpointError):
            lab.publish()


def test_own_namespace_is_left_alone() -> None:
    with Session.open() as session:
        before = dump_links(session)
        with mz.Lab(name=NAME):
            assert {link.name for link in dump_links(session)} == {link.name for link in before}


# -- gone --------------------------------------------------------------------------------------------------


@pytest.mark.vm
def test_delete_removes_programs_too() -> None:
    lab = mz.Lab(name=NAME)
    _add(lab, 1, host=0)
    programs = [number for host in lab.hosts for number in host.agent.state().programs.values()]
    assert all(program_name(number) for number in programs)
    lab.delete()
    lab.delete()
    wait_until(lambda: not any(program_name(number) for number in programs), "programs stay")
    assert _netns() == []


def test_a_host_whose_tunnel_cannot_be_deleted_goes_with_its_namespace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kernel that is slow to delete a tunnel leaves nothing either: the namespace takes the device along."""
    lab = mz.Lab(name=NAME)
    _add(lab, 1, host=0)

    def refused(host: Session, ifindex: int) -> None:
        raise mz.NetlinkError("delete the tunnel", errno=errno.ETIMEDOUT)

    monkeypatch.setattr(lab_netns, "delete_link", refused)
    with pytest.raises(mz.NetlinkError):
        lab.delete()
    assert _netns() == []


def test_deleted_lab_says_so() -> None:
    with mz.Lab(hosts=1, name=NAME) as lab:
        pass
    for call in (lab.publish, lambda: lab.container("a"), lambda: lab.run("h1", "true")):
        with pytest.raises(mz.ClosedError):
            call()
    assert repr(lab).endswith("deleted>")


def test_nobody_comes_between_the_fabric_and_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    make = lab_netns.make
    monkeypatch.setattr(lock, "TIMEOUT", 0.1)

    def make_while_another_comes(name: str, part: str) -> str:
        monkeypatch.setattr(lab_netns, "make", make)
        made = make(name, part)
        with pytest.raises(mz.LockTimeoutError):
            lab_netns.claim(name)
        return made

    monkeypatch.setattr(lab_netns, "make", make_while_another_comes)
    with mz.Lab(hosts=1, name=NAME) as lab:
        assert lab.hosts[0].agent.state().up
        with pytest.raises(mz.InUseError):
            mz.Lab(hosts=1, name=NAME)
        assert lab.hosts[0].agent.state().up


def test_late_delete_spares_the_next_lab() -> None:
    earlier = mz.Lab(hosts=1, name=NAME)
    earlier.delete()
    with mz.Lab(hosts=1, name=NAME) as lab:
        earlier.delete()
        assert lab.hosts[0].agent.state().up


def test_no_lock_file_is_left_of_its_hosts() -> None:
    with mz.Lab(hosts=2, name=NAME) as lab:
        lab.container("web")
        cookies = [host.tunnel._host.cookie for host in lab.hosts]
        assert all(map(lock.identity, cookies))
    assert not any(map(lock.identity, cookies))


def test_a_lock_file_that_is_held_stays() -> None:
    with mz.Lab(hosts=1, name=NAME) as lab:
        cookie = lab.hosts[0].tunnel._host.cookie
        for section in (lock.HOST, lock.SHARED_TABLES, lock.READERS, lock.of_name("web")):
            with lock.locked(cookie, section):
                lock.forget(cookie)
                assert lock.identity(cookie)
        assert lab.hosts[0].agent.state().up


def test_error_inside_the_block_deletes() -> None:
    with pytest.raises(KeyboardInterrupt), mz.Lab(hosts=1, name=NAME):
        raise KeyboardInterrupt
    assert _netns() == []


def test_failure_half_way_leaves_nothing() -> None:
    create_netns(f"{NAME}-h2")  # somebody else's
    try:
        with pytest.raises(mz.ExistsError, match=f"{NAME}-h2"):
            mz.Lab(name=NAME)
        assert _netns() == [f"{NAME}-h2"]
    finally:
        delete_netns(f"{NAME}-h2")


def test_lab_of_a_killed_process_is_replaced() -> None:
    with _killed_owner() as pid:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: f"({pid})" not in _state(pid), "it does not die")
        assert f"{NAME}-c1" in _netns()
    with mz.Lab(hosts=2, name=NAME) as lab:
        assert f"{NAME}-c1" not in _netns()
        assert mz.Endpoint.list(lab.hosts[0].agent) == []


def _state(pid: int) -> str:
    """``(pid)`` while the process runs; a zombie waits for its parent to look."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return "" if stat.rpartition(")")[2].split()[0] == "Z" else f"({pid})"


# Each kills the process at one point of making or deleting a namespace, in the call whose last path ends so.
POINTS = {
    "after taking the name": "_claim",
    "after mounting it": "mount",
    "after unmounting it": "unmount",
}
DYING = """
from mizarnet._kernel.netlink import named
name, call, end = sys.argv[1:]
original = getattr(named, call)
def die(*arguments):
    original(*arguments)
    if any(str(each).endswith(end) for each in arguments):
        os.kill(os.getpid(), signal.SIGKILL)
setattr(named, call, die)
mz.Lab(hosts=1, name=name).delete()
"""


@pytest.mark.parametrize("end", ["fabric", "h1"])
@pytest.mark.parametrize("point", POINTS)
def test_a_lab_can_be_made_whenever_its_maker_was_killed(point: str, end: str) -> None:
    assert finish(start_python(DYING, NAME, POINTS[point], f"-{end}")) == (-signal.SIGKILL, "")
    assert f"{NAME}-{end}" in _netns()
    with mz.Lab(hosts=1, name=NAME) as lab:
        assert lab.hosts[0].agent.state().up
    assert _netns() == []


def test_a_file_that_is_no_namespace_is_left_alone() -> None:
    path = Path(f"/run/netns/{NAME}-h1")
    path.write_text("precious")
    try:
        with pytest.raises(mz.ExistsError, match=f"{NAME}-h1"):
            mz.Lab(hosts=1, name=NAME)
        assert path.read_text() == "precious"
    finally:
        path.unlink()


def test_names_that_begin_alike_are_not_mixed_up() -> None:
    with mz.Lab(hosts=1, name=f"{NAME}-a") as other:
        with mz.Lab(hosts=1, name=NAME):
            pass
        assert other.hosts[0].agent.state().up


# -- sweep -------------------------------------------------------------------------------------------------


def test_what_was_made_for_a_vm_of_an_ended_host_is_swept() -> None:
    """All else of a host ends with its namespace."""
    with mz.Lab(hosts=1, name=NAME) as lab:
        vm = mz.Endpoint.create(lab.hosts[0].agent, vni=7, ip="10.0.0.9/24", kind="macvtap")
        assert sweep() == []
        assert vm.netns in os.listdir("/run/netns")
    program = """
        lab = mz.Lab(hosts=1, name=sys.argv[1])
        print(mz.Endpoint.create(lab.hosts[0].agent, vni=7, ip="10.0.0.9/24", kind="macvtap").netns)
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    status, made = finish(start_python(program, NAME))
    assert status == -signal.SIGKILL
    for name in _netns():
        delete_netns(name)
    swept: list[str] = []
    wait_until(lambda: swept or swept.extend(sweep()), "nothing was swept")
    assert swept == [made.strip()]


def test_the_vm_of_a_host_that_only_other_processes_see_lives_on() -> None:
    """Here the host's namespace has no name, and in that process's view of /proc no thread either."""
    with mz.Lab(hosts=1, name=NAME) as lab:
        vm = mz.Endpoint.create(lab.hosts[0].agent, vni=7, ip="10.0.0.9/24", kind="macvtap")
        delete_netns(lab.hosts[0].netns)
        alone = ("unshare", "--pid", "--fork", "--mount-proc")
        assert (
            run_python("from mizarnet._datapath.leftovers import sweep\nprint(sweep())", by=alone) == "[]\n"
        )
        assert vm.state().mtu == 1450
        vm.delete()
        assert vm.netns not in os.listdir("/run/netns")


# -- containers and commands -------------------------------------------------------------------------------


def test_container_again_is_the_same() -> None:
    with mz.Lab(hosts=1, name=NAME) as lab:
        assert lab.container("web") == lab.container("web") == f"{NAME}-web"
        assert "UP" in lab.run("web", "ip", "-br", "link", "show", "lo").stdout


def test_threads_that_ask_for_one_container_get_the_same() -> None:
    with mz.Lab(hosts=1, name=NAME) as lab, ThreadPoolExecutor(8) as pool:
        for round in range(4):
            assert {*pool.map(lab.container, [f"c{round}"] * 8)} == {f"{NAME}-c{round}"}


def test_container_of_somebody_else_is_refused() -> None:
    create_netns(f"{NAME}-web")
    try:
        with mz.Lab(hosts=1, name=NAME) as lab, pytest.raises(mz.ExistsError):
            lab.container("web")
        assert _netns() == [f"{NAME}-web"]
    finally:
        delete_netns(f"{NAME}-web")


def test_run() -> None:
    with mz.Lab(hosts=1, name=NAME) as lab:
        assert "198.51.100.1" in lab.run("h1", "ip", "-br", "address").stdout
        assert lab.run("h1", "false", check=False).returncode == 1
        with pytest.raises(subprocess.CalledProcessError) as caught:
            lab.run("h1", "sh", "-c", "echo why >&2; exit 3")
        assert (caught.value.returncode, caught.value.__notes__) == (3, ["why"])
        with pytest.raises(mz.NetnsNotFoundError):
            lab.run("nobody", "true")
        with pytest.raises(mz.InvalidValueError) as refused:
            lab.run("bad name", "true")
        assert refused.value.argument == "where"
        with pytest.raises(FileNotFoundError):
            lab.run("h1", "/no/such/command")
        with pytest.raises(PermissionError):
            lab.run("h1", "/etc/passwd")
        assert lab.run("h1", "printf", r"a\377b").stdout == "a\ufffdb"


def test_run_enters_no_namespace_of_somebody_else() -> None:
    create_netns(f"{NAME}-web")
    try:
        with mz.Lab(hosts=1, name=NAME) as lab, pytest.raises(mz.NetnsNotFoundError):
            lab.run("web", "true")
    finally:
        delete_netns(f"{NAME}-web")


@pytest.mark.parametrize("argv", [(), (5,), ("true", None), ("a\0b",), ("true", "\ud800")], ids=repr)
def test_what_is_no_command_is_not_run(argv: tuple[Any, ...]) -> None:
    with (
        mz.Lab(hosts=1, name=NAME) as lab,
        pytest.raises((mz.InvalidTypeError, mz.InvalidValueError)) as caught,
    ):
        lab.run("h1", *argv)
    assert caught.value.argument == "argv"


def test_run_waits_for_no_child_that_left() -> None:
    """It has the pipes, and is out of reach."""
    with mz.Lab(hosts=1, name=NAME) as lab:
        lab.run("h1", "mkfifo", fifo := f"/tmp/{NAME}")
        try:
            left = f"setsid -f sh -c 'echo $$ > {fifo}; exec sleep 60'; read pid < {fifo}; echo $pid; exec sleep 60"
            with pytest.raises(subprocess.TimeoutExpired) as caught:
                lab.run("h1", "sh", "-c", left, timeout=1)
            assert caught.value.output is not None
            child = int(caught.value.output)
            assert Path(f"/proc/{child}/exe").exists()  # a program that ended has none
            os.kill(child, signal.SIGKILL)
        finally:
            os.unlink(fifo)


def test_run_kills_what_takes_too_long() -> None:
    with mz.Lab(hosts=1, name=NAME) as lab:
        started = time.monotonic()
        with pytest.raises(subprocess.TimeoutExpired):
            lab.run("h1", "sh", "-c", "sleep 100 & sleep 100", timeout=0.2)
        assert time.monotonic() - started < 10


def test_another_user_with_the_capabilities_is_told_to_be_root() -> None:
    def attempt() -> None:
        become_nobody_with(*CAPABILITIES)
        for call in (lambda: mz.Lab(hosts=1, name=f"{NAME}-other"), lab.delete):
            with pytest.raises(mz.PrivilegeError, match="; run as root"):
                call()

    with mz.Lab(hosts=1, name=NAME) as lab:
        in_child(attempt)
        assert lab.hosts[0].agent.state().up


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"hosts": 0}, mz.InvalidValueError),
        ({"hosts": 65}, mz.InvalidValueError),
        ({"hosts": True}, mz.InvalidTypeError),
        ({"hosts": "2"}, mz.InvalidTypeError),
        ({"mtu": 1349}, mz.InvalidValueError),
        ({"mtu": 65536}, mz.InvalidValueError),
        ({"encap": "gre"}, mz.InvalidValueError),
        ({"encap": 7}, mz.InvalidTypeError),
        ({"ipv6": 1}, mz.InvalidTypeError),
        ({"hook": "xdp"}, mz.InvalidValueError),
        ({"max_local": 0}, mz.InvalidValueError),
        ({"name": ""}, mz.InvalidValueError),
        ({"name": "Lab"}, mz.InvalidValueError),
        ({"name": "a/b"}, mz.InvalidValueError),
        ({"name": "a" * 21}, mz.InvalidValueError),
        ({"name": "lab\n"}, mz.InvalidValueError),
        ({"name": None}, mz.InvalidTypeError),
    ],
    ids=str,
)
def test_bad_arguments(arguments: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        mz.Lab(**{"name": NAME, **arguments})  # type: ignore[arg-type]  # that is the point


def test_bad_container_names() -> None:
    with mz.Lab(hosts=1, name=NAME) as lab:
        for name in ("h1", "h64", "fabric", "", "a-b", "A", "a.b", "../x", "a" * 33):
            with pytest.raises(mz.InvalidValueError):
                lab.container(name)
