# SPDX-License-Identifier: Apache-2.0
"""Who may touch the pins: nobody but their owner, and nothing that somebody else left under their names is used."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import mizarnet as mz
from mizarnet import bpf
from mizarnet.abi import layouts
from mizarnet.bpf import MapType
from mizarnet.bpf._lib import lib
from mizarnet.bpf.fd import Fd
from mizarnet.bpf.pin import pin
from mizarnet.store import ROOT
from tests.support.calls import BPF_SYSCALL
from tests.support.process import in_child
from tests.support.tables import unchanged
from tests.support.topology import TUNNEL, Host
from tests.support.user import CAPABILITIES, NOBODY, become_nobody_with

MAP_CREATE = 0  # enum bpf_cmd
LEVELS = ("all hosts", "the host", "the tunnel")


def level(host: Host, which: str) -> Path:
    """The directory of the pins, or one above it."""
    pins = host.agent.store.directory
    return dict(zip(LEVELS, (ROOT, pins.parent, pins), strict=True))[which]


def new_map(name: str, kind: MapType, key: int, value: int, entries: int) -> int:
    """A descriptor of a map that no agent made."""
    flags = 1 if kind is MapType.LPM_TRIE else 0  # BPF_F_NO_PREALLOC
    facts = struct.pack("=IIIIIII16s", kind, key, value, entries, flags, 0, 0, name.encode())
    libc = ctypes.CDLL(None, use_errno=True)
    made: int = libc.syscall(BPF_SYSCALL[os.uname().machine], MAP_CREATE, facts, len(facts))
    assert made >= 0, os.strerror(ctypes.get_errno())
    return made


def pin_map(path: Path, *facts: int, name: str | None = None, kind: MapType = MapType.HASH) -> None:
    """Pin a strange map."""
    descriptor = new_map(name or path.name, kind, *facts)
    try:
        pin(descriptor, str(path))
    finally:
        os.close(descriptor)


@contextmanager
def instead(path: Path, squat: Callable[[Path], object]) -> Iterator[Path]:
    """Something else has the name ``path`` as long as the block lasts; what belongs there has another meanwhile."""
    aside = path.with_name(path.name + "-aside")
    path.rename(aside)
    try:
        squat(path)
        yield aside
    finally:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            path.rmdir()
        else:
            path.unlink()
        aside.rename(path)


# -- whose they are ----------------------------------------------------------------------------------------


@pytest.mark.vm
def test_directories_and_pins_are_for_root_alone(host: Host) -> None:
    mz.TransitSwitch.attach(host.agent, mode="generic")
    for which in LEVELS:
        found = os.lstat(level(host, which))
        assert (found.st_uid, stat.S_IFMT(found.st_mode), found.st_mode & 0o7777) == (0, stat.S_IFDIR, 0o700)
    pins = list(level(host, "the tunnel").iterdir())
    assert {"meta", "endpoints", "transit_agent", "transit_guard", "link_switch"} <= {
        each.name for each in pins
    }
    for each in pins:
        found = os.lstat(each)
        assert (found.st_uid, stat.S_IFMT(found.st_mode), found.st_mode & 0o7777) == (0, stat.S_IFREG, 0o600)


@pytest.mark.vm
def test_a_user_without_privileges_reaches_none_of_them(host: Host) -> None:
    """With the kernel's own calls; even were a pin readable by all, the directories are not."""
    pins = host.agent.store.directory
    (pins / "endpoints").chmod(0o644)

    def attempts() -> None:
        become_nobody_with()
        for which in LEVELS:
            with pytest.raises(PermissionError):
                os.listdir(level(host, which))
        for name in ("endpoints", "meta", "transit_agent"):
            assert lib.bpf_obj_get(os.fsencode(pins / name)) == -errno.EACCES
        with pytest.raises(PermissionError):
            (pins / "mine").mkdir()
        with pytest.raises(mz.PrivilegeError):
            bpf.Map.open_pinned(str(pins / "meta"))

    in_child(attempts)
    (pins / "endpoints").chmod(0o600)


def test_a_user_who_is_not_root_is_told_to_be(host: Host) -> None:
    """Not to remove what root made; also with every capability that root needs."""

    def attempts(why: str, *capabilities: str) -> None:
        become_nobody_with(*capabilities)
        calls: list[Callable[[], object]] = [
            lambda: bpf.Map.open_pinned(str(host.agent.store.directory / "meta"))
        ]
        if capabilities:  # without, it cannot even enter the host's namespace
            calls.append(lambda: mz.TransitAgent.open(TUNNEL, netns=host.namespace.name))
            calls.append(lambda: mz.Tunnel.open(TUNNEL, netns=host.namespace.name).delete())
        for call in calls:
            with pytest.raises(mz.PrivilegeError, match=rf"^{ROOT} {why}; run as root$"):
                call()

    mode = stat.S_IMODE(ROOT.parent.stat().st_mode)
    try:
        for root, why in (
            (0o700, "is in a directory of somebody else"),
            (0o755, "belongs to root, as it should"),
        ):
            ROOT.parent.chmod(root)
            for capabilities in ((), CAPABILITIES):
                in_child(partial(attempts, why, *capabilities))
    finally:
        ROOT.parent.chmod(mode)
    assert host.agent.state().up


def test_a_file_system_that_the_library_mounts_is_for_root_alone(tmp_path: Path) -> None:
    def attempts() -> None:
        become_nobody_with()
        with pytest.raises(PermissionError):
            (tmp_path / "mizarnet").mkdir()

    bpf.ensure_bpffs(str(tmp_path))
    try:
        for above in (tmp_path.parent, tmp_path.parent.parent):
            above.chmod(0o755)  # not these are to stop the user
        assert os.stat(tmp_path).st_mode & 0o777 == 0o700
        in_child(attempts)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# -- who was there first -----------------------------------------------------------------------------------


def foreign(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)


def open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)


def symbolic_link(path: Path) -> None:
    path.symlink_to(path.name + "-aside")


def dangling_link(path: Path) -> None:
    path.symlink_to("nothing")


def file_in_the_way(path: Path) -> None:
    pin_map(path, 4, 4, 1, name="squatter")


@pytest.mark.parametrize("which", LEVELS)
@pytest.mark.parametrize(
    ("squat", "error", "why"),
    [
        (foreign, mz.PrivilegeError, "belongs to user 65534"),
        (open_to_all, mz.PrivilegeError, "with mode 755"),
        (symbolic_link, mz.ExistsError, "is a symbolic link"),
        (dangling_link, mz.ExistsError, "is a symbolic link"),
        (file_in_the_way, mz.ExistsError, "is a file"),
    ],
)
def test_a_name_that_was_taken_first_is_refused(
    host: Host, which: str, squat: Callable[[Path], object], error: type[Exception], why: str
) -> None:
    with unchanged(host.agent):
        path, programs = level(host, which), host.agent.state().programs
        with instead(path, squat):
            for call in (mz.TransitAgent.open, mz.TransitAgent.attach, partial(mz.Tunnel.delete, force=True)):
                with pytest.raises(error, match=f"{path} .*{why}.*find out who made it, and remove it"):
                    call(host.tunnel)
        with mz.TransitAgent.attach(host.tunnel) as again:
            assert (again.created, again.state().programs) == (False, programs)


def as_nobody(squat: Callable[[Path], object], path: Path) -> None:
    become_nobody_with()
    squat(path)


@pytest.mark.vm
@pytest.mark.parametrize("squat", [Path.mkdir, dangling_link])
def test_a_name_that_any_user_made_first_is_refused(host: Host, squat: Callable[[Path], object]) -> None:
    """Where the file system was mounted for all to write in, as the kernel does by default."""
    ROOT.parent.chmod(0o1777)
    made_by_nobody = instead(ROOT, lambda path: in_child(partial(as_nobody, squat, path)))
    with made_by_nobody, pytest.raises(mz.MizarnetError, match="remove it"):
        mz.TransitAgent.attach(host.tunnel)


@pytest.mark.vm
def test_what_a_link_leads_to_is_not_deleted(host: Host) -> None:
    """Deleting removes every pin of the tunnel's directory: it must not be led to another's."""
    others = ROOT.parent / "others"
    others.mkdir(mode=0o700)
    pin_map(others / "precious", 4, 4, 1)
    try:
        with instead(level(host, "the tunnel"), lambda path: path.symlink_to(others)):
            for call in (lambda: mz.TransitAgent.attach(host.tunnel), lambda: host.tunnel.delete(force=True)):
                with pytest.raises(mz.ExistsError, match="is a symbolic link"):
                    call()
            host.agent.detach(force=True)  # of what is not to be found any more: nothing happens
        assert [each.name for each in others.iterdir()] == ["precious"]
        host.agent.detach(force=True)
        assert not level(host, "the tunnel").exists()
    finally:
        (others / "precious").unlink(missing_ok=True)
        others.rmdir()


# -- what lies under the name of a pin ---------------------------------------------------------------------


def another_pin(name: str) -> Callable[[Path], None]:
    """Another pin of the agent, under this name as well."""
    return lambda path: os.link(path.with_name(name), path)


def strange(*facts: int, kind: MapType = MapType.HASH) -> Callable[[Path], None]:
    """A map of the right name: bytes of a key and of a value, entries, type."""
    return lambda path: pin_map(path, *facts, kind=kind)


KEY, PLACE = layouts.ENDPOINT_KEY.size, layouts.ENDPOINT.size


@pytest.mark.parametrize(
    ("name", "squat", "why"),
    [
        ("endpoints", symbolic_link, "is a symbolic link"),
        ("endpoints", Path.mkdir, "is a directory"),
        ("endpoints", another_pin("transit_agent"), "is a bpf-prog, not a map"),
        ("endpoints", another_pin("networks"), "holds map 'networks'"),
        ("endpoints", strange(4, PLACE, 8, kind=MapType.ARRAY), "holds a ARRAY that is not the agent's"),
        ("endpoints", strange(KEY - 4, PLACE, 8), "holds a HASH that is not the agent's"),
        ("endpoints", strange(KEY, PLACE + 4, 8), "holds a HASH that is not the agent's"),
        ("peers", strange(layouts.PEER_KEY.size, 8, 8, kind=MapType.LPM_TRIE), "holds a LPM_TRIE that"),
        ("records", strange(layouts.RECORD_KEY.size, layouts.RECORD.size, 1), "holds a HASH that"),
        ("verdicts", strange(4, layouts.COUNTER.size, 64, kind=MapType.PERCPU_ARRAY), "holds a PERCPU_ARRAY"),
        ("meta", strange(4, layouts.META.size, 1), "is no transit agent's"),
        ("meta", symbolic_link, "is a symbolic link"),
        ("meta", another_pin("transit_agent"), "is a bpf-prog, not a map"),
        ("transit_agent", another_pin("meta"), "is a bpf-map, not a program"),
        ("transit_agent", another_pin("transit_guard"), "holds program 'transit_guard'"),
    ],
)
def test_what_is_pinned_must_be_what_the_agent_pins(
    host: Host, name: str, squat: Callable[[Path], object], why: str
) -> None:
    path = host.agent.store.directory / name
    with unchanged(host.agent):
        with instead(path, squat):
            for call in (mz.TransitAgent.open, mz.TransitAgent.attach):
                with pytest.raises(mz.MizarnetError, match=f"{name}.*{why}.*, and remove it"):
                    call(host.tunnel)
        mz.TransitAgent.open(host.tunnel).close()


def test_a_pin_that_somebody_else_owns_or_may_write_is_refused(host: Host) -> None:
    path = host.agent.store.directory / "meta"
    for owner, mode in ((NOBODY, 0o600), (0, 0o666)):
        os.chown(path, owner, owner)
        path.chmod(mode)
        with pytest.raises(mz.PrivilegeError, match=f"{path} belongs to user {owner} with mode {mode:o}"):
            mz.TransitAgent.open(host.tunnel)
    os.chown(path, 0, 0)
    path.chmod(0o600)
    mz.TransitAgent.open(host.tunnel).close()


def test_maps_of_another_version_are_said_to_be_that(host: Host) -> None:
    """Their sizes differ, too: which is not what the user needs to know."""
    path = host.agent.store.directory / "meta"

    def newer(path: Path) -> None:
        with bpf.Map(Fd(new_map("meta", MapType.ARRAY, 4, 8, 1), what="a map")) as meta:
            meta.update(bytes(4), (99).to_bytes(8, sys.byteorder))
            meta.pin(str(path))

    with instead(path, newer):
        for call in (mz.TransitAgent.open, mz.TransitAgent.attach):
            with pytest.raises(mz.LayoutError, match="another version of mizarnet"):
                call(host.tunnel)
