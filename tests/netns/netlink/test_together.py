# SPDX-License-Identifier: Apache-2.0
"""Requests that are sent together: carried out in their order, answered one by one, whatever becomes of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from mizarnet._kernel.netlink import Session, create_macvlan, create_veth, get_link, nsid_of, set_link
from mizarnet._kernel.rtnetlink import Rtm
from mizarnet.errors import NetlinkError
from tests.netns.netlink.datagrams import counted

OpenNew = Callable[[], Session]


def test_an_id_is_given_and_read_in_one_datagram(open_new: OpenNew) -> None:
    host, target = open_new(), open_new()
    with target.open_netns() as there, counted(host) as datagrams:
        given = nsid_of(host, there)
        assert nsid_of(host, there) == given
    assert datagrams.sent == [[Rtm.NEWNSID, Rtm.GETNSID]] * 2


def test_a_macvlan_is_made_and_finished_by_two_datagrams(session: Session) -> None:
    parent = create_veth(session, "v0", peer="v1")
    with counted(session) as datagrams:
        link = create_macvlan(
            session, "eth0", parent_ifindex=parent.ifindex, mac="02:00:00:00:00:05", mtu=1400, alias="a mark"
        )
    assert datagrams.sent == [[Rtm.NEWLINK, Rtm.GETLINK], [Rtm.SETLINK, Rtm.GETLINK]]
    assert link == get_link(session, "eth0")
    assert (link.alias, link.up) == ("a mark", True)


def test_a_name_that_is_taken_is_refused_and_left_as_it_was(session: Session) -> None:
    near = create_veth(session, "v0", peer="v1")
    with pytest.raises(NetlinkError, match="create macvlan 'v0'"):
        create_macvlan(session, "v0", parent_ifindex=near.ifindex, mac="02:00:00:00:00:05", mtu=1400)
    assert get_link(session, "v0") == near


def test_a_link_that_is_gone_is_refused(session: Session) -> None:
    with pytest.raises(NetlinkError, match="change link 999"):
        set_link(session, 999, up=True)


def test_a_handle_of_a_namespace_is_opened_without_its_thread(open_new: OpenNew) -> None:
    session = open_new()
    with counted(session) as datagrams, session.open_netns() as handle:
        assert handle.netns.identity == session.identity
    assert not datagrams.sent


def test_a_handle_is_of_the_session_whatever_number_its_thread_has(
    open_new: OpenNew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where ``/proc`` is of another pid namespace: another thread of the process may have that number there."""
    session = open_new()
    for number in (threading.get_native_id(), 1 << 30):
        monkeypatch.setattr(session._worker._thread, "_native_id", number)
        with session.open_netns() as handle:
            assert handle.netns.identity == session.identity
