# SPDX-License-Identifier: Apache-2.0
"""Links: born finished in the right namespace, changed in one message, and told apart from none."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from mizarnet._kernel.netlink import (
    Link,
    Session,
    create_macvlan,
    create_tunnel,
    create_veth,
    delete_link,
    dump_links,
    get_link,
    nsid_of,
    read_sysctl,
    set_link,
    silence,
)
from mizarnet._kernel.rtnetlink import Rtm
from mizarnet.errors import KernelError, NetlinkError, UnsupportedError
from tests.netns.netlink.datagrams import counted
from tests.support.process import UNPRIVILEGED

OpenNew = Callable[[], Session]


def ip_link(session: Session, name: str) -> dict[str, Any]:
    """Return what iproute2 says of a link."""
    argv = ["ip", "-d", "-j", "link", "show", "dev", name]
    out = session.run(subprocess.run, argv, check=True, capture_output=True, text=True, timeout=30).stdout
    (link,) = json.loads(out)
    return dict(link)


def tunnel_in(session: Session, *, mtu: int = 1450) -> Link:
    link = create_tunnel(session, "tunnel0", kind="vxlan", port=4789, mtu=mtu, alias="mizarnet test")
    set_link(session, link.ifindex, up=True)
    return link


def macvlan_in(target: Session, name: str, host: Session, parent: Link, *, mac: str, mtu: int = 1400) -> Link:
    nsid = nsid_between(target, host)
    return create_macvlan(target, name, parent_ifindex=parent.ifindex, parent_nsid=nsid, mac=mac, mtu=mtu)


def nsid_between(target: Session, host: Session) -> int:
    with host.open_netns() as handle:
        return nsid_of(target, handle)


def test_a_tunnel_is_external_silent_and_down(session: Session) -> None:
    link = create_tunnel(session, "tunnel0", kind="vxlan", port=4789, mtu=8950, alias="mizarnet test")
    assert (link.kind, link.port, link.external, link.vni) == ("vxlan", 4789, True, None)
    assert (link.mtu, link.alias, link.num_tx_queues, link.up) == (8950, "mizarnet test", 1, False)
    assert (link.parent_ifindex, link.parent_nsid, link.mode) == (None, None, None)
    assert link == get_link(session, "tunnel0") == get_link(session, ifindex=link.ifindex)
    seen = ip_link(session, "tunnel0")
    data = seen["linkinfo"]["info_data"]
    assert data["external"] is True
    assert data["learning"] is False
    assert data["udp_zero_csum6_rx"] is True
    assert set(seen["flags"]) == {"BROADCAST", "NOARP"}
    assert seen["inet6_addr_gen_mode"] == "none"
    assert (seen["num_tx_queues"], seen["num_rx_queues"]) == (1, 1)
    assert read_sysctl(session, "ipv6/conf/tunnel0/disable_ipv6") == "1"


def test_an_up_tunnel_has_no_queue_and_says_nothing(session: Session) -> None:
    link = tunnel_in(session)
    now = get_link(session, "tunnel0")
    assert now is not None
    assert now.up
    assert now.qdisc == "noqueue"
    shown = session.run(
        subprocess.run, ["ip", "-j", "-s", "link", "show", "dev", "tunnel0"], capture_output=True
    )
    stats = json.loads(shown.stdout)[0]["stats64"]["tx"]
    assert (stats["packets"], stats["dropped"], stats["errors"]) == (0, 0, 0)
    assert link.mac == now.mac


def test_a_tunnel_that_fails_in_the_middle_leaves_nothing(session: Session) -> None:
    with pytest.raises(NetlinkError) as caught:
        create_tunnel(session, "tunnel0", kind="vxlan", port=4789, mtu=70_000)
    assert caught.value.errno == errno.EINVAL
    assert [link.name for link in dump_links(session)] == ["lo"]
    assert get_link(session, "tunnel0") is None


def test_the_kernels_own_words_are_in_the_error(session: Session) -> None:
    tunnel_in(session)
    with pytest.raises(NetlinkError) as caught:
        create_tunnel(session, "tunnel1", kind="vxlan", port=4789, mtu=1450)
    assert caught.value.errno == errno.EEXIST
    assert caught.value.operation == "create vxlan 'tunnel1'"
    assert "already exists" in caught.value.kernel_message
    assert get_link(session, "tunnel1") is None


def test_geneve_works_or_is_said_to_be_missing(session: Session) -> None:
    try:
        link = create_tunnel(session, "tunnel0", kind="geneve", port=6081, mtu=1430)
    except UnsupportedError as error:
        assert error.feature == "geneve"
        assert [found.name for found in dump_links(session)] == ["lo"]
    else:
        assert (link.kind, link.port, link.external, link.vni) == ("geneve", 6081, True, None)
        assert set(ip_link(session, "tunnel0")["flags"]) == {"BROADCAST", "NOARP"}


def test_a_macvlan_is_born_finished_in_the_target(open_new: OpenNew) -> None:
    host, target = open_new(), open_new()
    tunnel = tunnel_in(host)
    nsid = nsid_between(target, host)
    link = create_macvlan(
        target,
        "eth0",
        parent_ifindex=tunnel.ifindex,
        parent_nsid=nsid,
        mac="02:00:00:00:00:05",
        mtu=1400,
    )
    assert (link.kind, link.mode, link.mac) == ("macvlan", "private", "02:00:00:00:00:05")
    assert (link.name, link.mtu, link.up) == ("eth0", 1400, True)
    assert (link.parent_ifindex, link.parent_nsid) == (tunnel.ifindex, nsid)
    seen = ip_link(target, "eth0")
    assert seen["linkinfo"]["info_data"]["mode"] == "private"
    assert "UP" in seen["flags"]
    assert [found.name for found in dump_links(host)] == ["lo", "tunnel0"]


@pytest.mark.vm
@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("alias", ["", "mizarnet höst=1"])
def test_a_macvlan_may_have_an_alias(open_new: OpenNew, alias: str, up: bool) -> None:
    host, target = open_new(), open_new()
    tunnel = tunnel_in(host)
    nsid = nsid_between(target, host)

    def create(mac: str, name: str) -> Link:
        parent = {"parent_ifindex": tunnel.ifindex, "parent_nsid": nsid}
        return create_macvlan(target, name, **parent, mac=mac, mtu=1400, up=up, alias=alias)

    with counted(target) as datagrams:
        link = create("02:00:00:00:00:05", "eth0")
    assert link == get_link(target, "eth0")
    assert (link.name, link.alias, link.up) == ("eth0", alias, up)
    creation = [Rtm.NEWLINK, Rtm.GETLINK]
    assert datagrams.requests[:2] == creation
    assert datagrams.requests[2:] in ([], [Rtm.SETLINK, Rtm.GETLINK])  # kernels < 6.15 need them always
    assert alias == "" or datagrams.requests[2:]
    create_veth(host, "eth1", peer="eth2")
    elsewhere = create("02:00:00:00:00:06", "eth1")  # kernels < 6.15 give it another name first
    assert (elsewhere.name, elsewhere.alias, elsewhere.up) == ("eth1", alias, up)


def test_a_macvlan_with_an_alias_too_long_leaves_nothing(session: Session) -> None:
    tunnel = tunnel_in(session)
    with pytest.raises(NetlinkError) as caught:
        create_macvlan(
            session,
            "ep0",
            parent_ifindex=tunnel.ifindex,
            mac="02:00:00:00:00:05",
            mtu=1450,
            alias="x" * 256,
        )
    assert caught.value.errno == errno.ERANGE
    assert [link.name for link in dump_links(session)] == ["lo", "tunnel0"]


def test_names_are_looked_up_in_the_target_alone(open_new: OpenNew) -> None:
    host, target = open_new(), open_new()
    tunnel = tunnel_in(host)
    create_veth(host, "eth0", peer="eth1")
    before = get_link(host, "eth0")
    macvlan_in(target, "eth0", host, tunnel, mac="02:00:00:00:00:05")
    assert get_link(host, "eth0") == before
    with pytest.raises(NetlinkError) as caught:
        macvlan_in(target, "eth0", host, tunnel, mac="02:00:00:00:00:06")
    assert caught.value.errno == errno.EEXIST
    kept = get_link(target, "eth0")
    assert kept is not None
    assert kept.mac == "02:00:00:00:00:05"


def test_a_macvlan_that_is_refused_leaves_nothing(open_new: OpenNew) -> None:
    host, target = open_new(), open_new()
    tunnel = tunnel_in(host)
    macvlan_in(target, "eth0", host, tunnel, mac="02:00:00:00:00:05")
    with pytest.raises(NetlinkError) as taken:
        macvlan_in(target, "eth1", host, tunnel, mac="02:00:00:00:00:05")
    assert taken.value.errno == errno.EADDRINUSE
    with pytest.raises(NetlinkError) as large:
        macvlan_in(target, "eth1", host, tunnel, mac="02:00:00:00:00:06", mtu=1451)
    assert large.value.errno == errno.EINVAL
    assert [link.name for link in dump_links(target)] == ["lo", "eth0"]


def test_a_macvlan_beside_its_parent(session: Session) -> None:
    tunnel = tunnel_in(session)
    link = create_macvlan(session, "ep0", parent_ifindex=tunnel.ifindex, mac="02:00:00:00:00:05", mtu=1450)
    assert (link.parent_ifindex, link.parent_nsid) == (tunnel.ifindex, None)


def test_a_macvtap_is_made_down_and_silenced(open_new: OpenNew) -> None:
    host, target = open_new(), open_new()
    tunnel = tunnel_in(host)
    link = create_macvlan(
        target,
        "tap0",
        parent_ifindex=tunnel.ifindex,
        parent_nsid=nsid_between(target, host),
        mac="02:00:00:00:00:07",
        mtu=1450,
        kind="macvtap",
        up=False,
    )
    assert (link.kind, link.mode, link.up) == ("macvtap", "private", False)
    silence(target, link)
    assert set(ip_link(target, "tap0")["flags"]) == {"BROADCAST", "NOARP"}
    assert read_sysctl(target, "ipv6/conf/tap0/disable_ipv6") == "1"


def test_veth_ends_meet_across_namespaces(open_new: OpenNew) -> None:
    left, right = open_new(), open_new()
    with right.open_netns() as handle:
        near = create_veth(
            left,
            "eth0",
            peer="eth1",
            peer_netns=handle,
            mtu=9000,
            mac="02:00:00:00:01:01",
            peer_mac="02:00:00:00:01:02",
        )
    far = get_link(right, "eth1")
    assert far is not None
    assert (near.kind, near.mtu, near.mac, near.up) == ("veth", 9000, "02:00:00:00:01:01", False)
    assert (far.kind, far.mtu, far.mac, far.parent_ifindex) == (
        "veth",
        9000,
        "02:00:00:00:01:02",
        near.ifindex,
    )
    assert get_link(left, "eth1") is None
    assert delete_link(left, near.ifindex)
    assert get_link(right, "eth1") is None


def test_changes_are_the_given_ones(session: Session) -> None:
    before = create_veth(session, "v0", peer="v1")
    set_link(session, before.ifindex, mtu=1400, mac="02:00:00:00:00:09", alias="höst", name="w0")
    after = get_link(session, ifindex=before.ifindex)
    assert after is not None
    assert (after.name, after.mtu, after.mac, after.alias) == ("w0", 1400, "02:00:00:00:00:09", "höst")
    assert after.flags == before.flags
    set_link(session, before.ifindex, up=True, arp=False)
    set_link(session, before.ifindex, arp=True, alias="")
    last = get_link(session, "w0")
    assert last is not None
    assert (last.up, last.alias, last.flags & 0x80) == (True, "", 0)


def test_absence_is_none_and_false(session: Session) -> None:
    assert get_link(session, "nothing") is None
    assert get_link(session, ifindex=999) is None
    assert not delete_link(session, 999)
    with pytest.raises(NetlinkError) as caught:
        set_link(session, 999, up=True)
    assert caught.value.errno == errno.ENODEV


def test_dump_by_kind(session: Session) -> None:
    tunnel_in(session)
    create_veth(session, "v0", peer="v1")
    assert sorted(link.name for link in dump_links(session, kind="veth")) == ["v0", "v1"]
    assert [link.name for link in dump_links(session, kind="vxlan")] == ["tunnel0"]
    assert dump_links(session, kind="nosuchkind") == []


def test_many_links_fit_a_dump(session: Session) -> None:
    def many() -> None:
        for number in range(100):
            create_veth(session, f"v{number}", peer=f"w{number}")

    session.run(many)
    assert len(dump_links(session)) == 201


def test_nsids_are_stable_and_per_namespace(open_new: OpenNew) -> None:
    first, second, third = open_new(), open_new(), open_new()
    assert nsid_between(first, second) == nsid_between(first, second)
    assert nsid_between(first, second) != nsid_between(first, third)


def test_a_link_is_seen_and_deleted_from_another_namespace(open_new: OpenNew) -> None:
    host, target = open_new(), open_new()
    link = macvlan_in(target, "eth0", host, tunnel_in(host), mac="02:00:00:00:00:05")
    nsid = nsid_between(host, target)
    seen = get_link(host, ifindex=link.ifindex, nsid=nsid)
    assert seen is not None
    assert (seen.name, seen.mac) == ("eth0", "02:00:00:00:00:05")
    assert get_link(host, "eth0") is None
    assert get_link(host, ifindex=link.ifindex, nsid=nsid + 100) is None
    assert not delete_link(host, link.ifindex, nsid=nsid + 100)
    assert get_link(host, "tunnel0") is not None  # the same ifindex, in the host's own namespace
    assert delete_link(host, link.ifindex, nsid=nsid)
    assert not delete_link(host, link.ifindex, nsid=nsid)
    assert get_link(target, "eth0") is None
    assert get_link(host, "tunnel0") is not None


def test_a_missing_capability_is_named(session: Session) -> None:
    code = (
        "from mizarnet.errors import PrivilegeError\n"
        "from mizarnet._kernel.netlink import *\n"
        "s = Session.open()\n"
        "assert get_link(s, 'lo')\n"
        "try: set_link(s, 1, mtu=1500)\n"
        "except PrivilegeError as error: print(*error.missing)\n"
        "s.close()\n"
    )
    argv = [*UNPRIVILEGED, sys.executable, "-c", code]
    done = session.run(subprocess.run, argv, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("CAP_NET_ADMIN\n", "")


def test_unknown_settings_are_not_made(session: Session) -> None:
    with pytest.raises(KernelError) as caught:
        read_sysctl(session, "ipv4/nothing")
    assert caught.value.errno == errno.ENOENT
