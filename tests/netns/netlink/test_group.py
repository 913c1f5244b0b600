# SPDX-License-Identifier: Apache-2.0
"""Deleting many links as one group: those alone, in few messages, and none of another program's."""

from __future__ import annotations

import errno
import secrets
import subprocess
import sys
from collections.abc import Callable

import pytest

from mizarnet._kernel.netlink import (
    LOOPBACK_IFINDEX,
    Session,
    create_bridge,
    create_macvlan,
    delete_link,
    delete_links,
    dump_links,
    get_link,
    nsid_of,
    set_link,
)
from mizarnet._kernel.netlink import group as group_module
from mizarnet._kernel.rtnetlink import Rtm
from mizarnet.errors import NetlinkError
from tests.netns.netlink.datagrams import counted
from tests.support.process import UNPRIVILEGED

OpenNew = Callable[[], Session]


def macvlans(session: Session, count: int) -> list[int]:
    """So many devices on a bridge of the session's namespace."""
    parent = get_link(session, "br0") or create_bridge(session, "br0")
    return [
        create_macvlan(
            session, f"m{number}", parent_ifindex=parent.ifindex, mac=f"02:00:00:00:00:{number:02x}", mtu=1400
        ).ifindex
        for number in range(count)
    ]


def names(session: Session) -> list[str]:
    return [link.name for link in dump_links(session)]


def set_group(session: Session, name: str, group: int) -> None:
    argv = ["ip", "link", "set", name, "group", str(group)]
    session.run(subprocess.run, argv, check=True, timeout=30)


def draw(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Let chance be these numbers."""
    left = list(numbers)
    monkeypatch.setattr(secrets, "randbelow", lambda _: left.pop(0))


@pytest.mark.vm
def test_many_links_end_with_one_deletion(session: Session) -> None:
    ifindexes = macvlans(session, 40)
    with counted(session) as datagrams:
        assert delete_links(session, ifindexes[1:] + ifindexes[1:]) == set(ifindexes[1:])
    assert names(session) == ["lo", "br0", "m0"]
    assert datagrams.requests == [Rtm.GETLINK, *[Rtm.SETLINK] * 39, Rtm.DELLINK]
    assert len(datagrams.sent) == 4


def test_one_link_needs_no_group(session: Session) -> None:
    first, second = macvlans(session, 2)
    with counted(session) as datagrams:
        assert delete_links(session, [first]) == {first}
        assert delete_links(session, [first]) == delete_links(session, []) == set()
    assert datagrams.requests == [Rtm.DELLINK] * 2
    assert names(session) == ["lo", "br0", "m1"]
    assert delete_link(session, second)


def test_links_that_went_are_no_error(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = group_module._mark

    def first_goes_before(_: Session, wanted: list[int], group: int) -> set[int]:
        assert delete_link(session, wanted[0])
        return mark(session, wanted, group)

    def all_go_after(_: Session, wanted: list[int], group: int) -> set[int]:
        marked = mark(session, wanted, group)
        assert all(delete_link(session, ifindex) for ifindex in wanted)
        return marked

    for meanwhile, there in ((first_goes_before, slice(1, None)), (all_go_after, slice(None))):
        ifindexes = macvlans(session, 3)
        monkeypatch.setattr(group_module, "_mark", meanwhile)
        assert delete_links(session, ifindexes) == set(ifindexes[there])
        assert names(session) == ["lo", "br0"]
    with counted(session) as datagrams:
        assert delete_links(session, [998, 999]) == set()
    assert datagrams.requests == [Rtm.GETLINK]


def test_a_group_in_use_is_left_alone(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    ifindexes = macvlans(session, 4)
    set_group(session, "m0", 77)
    draw(monkeypatch, 77, 0, 78)
    assert delete_links(session, ifindexes[2:]) == set(ifindexes[2:])
    assert [(link.name, link.group) for link in dump_links(session)] == [
        ("lo", 0),
        ("br0", 0),
        ("m0", 77),
        ("m1", 0),
    ]


def test_only_the_sessions_namespace_is_meant(open_new: OpenNew) -> None:
    host, target = open_new(), open_new()
    ifindexes = macvlans(host, 3)
    assert macvlans(target, 3) == ifindexes
    with target.open_netns() as handle:
        nsid_of(host, handle)
    assert delete_links(target, ifindexes) == set(ifindexes)
    assert names(target) == ["lo", "br0"]
    assert names(host) == ["lo", "br0", "m0", "m1", "m2"]


def test_after_a_refusal_only_the_group_has_changed(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    ifindexes = macvlans(session, 2)
    set_link(session, ifindexes[0], alias="mine")
    before = dump_links(session)
    draw(monkeypatch, 77)
    with pytest.raises(NetlinkError) as caught:
        delete_links(session, [LOOPBACK_IFINDEX, *ifindexes])
    assert (caught.value.errno, caught.value.operation) == (errno.EOPNOTSUPP, "delete 3 links")
    after = dump_links(session)
    assert [link.group for link in after] == [77, 0, 77, 77]
    assert [str(link).replace("group=77", "group=0") for link in after] == list(map(str, before))
    monkeypatch.undo()
    assert delete_links(session, ifindexes) == set(ifindexes)


def test_a_missing_capability_is_named(session: Session) -> None:
    ifindexes = macvlans(session, 2)
    code = (
        "import sys\n"
        "from mizarnet.errors import PrivilegeError\n"
        "from mizarnet._kernel.netlink import *\n"
        "with Session.open() as s:\n"
        "    try: delete_links(s, map(int, sys.argv[1:]))\n"
        "    except PrivilegeError as error: print(*error.missing)\n"
    )
    argv = [*UNPRIVILEGED, sys.executable, "-c", code, *map(str, ifindexes)]
    done = session.run(subprocess.run, argv, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("CAP_NET_ADMIN\n", "")
    assert {link.group for link in dump_links(session)} == {0}
