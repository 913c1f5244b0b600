# SPDX-License-Identifier: Apache-2.0
"""Reading links: what is decoded here is what pyroute2 decodes, and many links are read in few datagrams."""

from __future__ import annotations

import errno
import importlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from mizarnet._kernel.netlink import (
    LOOPBACK_IFINDEX,
    SAME_NAMESPACE,
    Link,
    Session,
    create_bridge,
    create_macvlan,
    create_tunnel,
    create_veth,
    delete_link,
    dump_links,
    get_link,
    nsid_of,
    read_links,
    set_link,
)
from mizarnet._kernel.netlink.link import decode_link
from mizarnet._kernel.netlink.nsid import list_nsids, own_nsid
from mizarnet._kernel.rtnetlink import Rtm
from mizarnet._model.specs import XdpMode
from mizarnet.errors import NetlinkError
from tests.netns.netlink.datagrams import counted
from tests.support.native_xdp import attached, let_pass
from tests.support.process import UNPRIVILEGED

OpenNew = Callable[[], Session]
WINDOW = 32


def ip(session: Session, *argv: str) -> None:
    session.run(subprocess.run, ["ip", *argv], check=True, capture_output=True, timeout=30)


def messages(session: Session, nsid: int = SAME_NAMESPACE) -> list[bytes]:
    """What the kernel says of all links, as bytes, with the statistics that the library does without."""
    target = b"" if nsid == SAME_NAMESPACE else struct.pack("=HHi", 8, 46, nsid)
    return session.request_all("list links", Rtm.GETLINK, bytes(16) + target)


def as_pyroute2_says(data: bytes) -> Link:
    message = importlib.import_module("pyroute2.netlink.rtnl.ifinfmsg").ifinfmsg(data)
    message.decode()
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else ""
    inside = info.get_attr("IFLA_INFO_DATA") if info else None
    tunnel, macvlan = kind in ("vxlan", "geneve"), kind in ("macvlan", "macvtap")
    external = tunnel and bool(inside.get_attr(f"IFLA_{kind.upper()}_COLLECT_METADATA"))
    xdp = message.get_attr("IFLA_XDP")
    programs = [xdp.get_attr(f"IFLA_XDP_{mode}PROG_ID") for mode in ("", "DRV_", "SKB_", "HW_")]
    return Link(
        ifindex=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=kind,
        mtu=message.get_attr("IFLA_MTU"),
        mac=message.get_attr("IFLA_ADDRESS"),
        flags=message["flags"],
        alias=message.get_attr("IFLA_IFALIAS") or "",
        parent_ifindex=message.get_attr("IFLA_LINK"),
        parent_nsid=message.get_attr("IFLA_LINK_NETNSID"),
        num_tx_queues=message.get_attr("IFLA_NUM_TX_QUEUES"),
        qdisc=message.get_attr("IFLA_QDISC"),
        port=inside.get_attr(f"IFLA_{kind.upper()}_PORT") if tunnel else None,
        external=external,
        vni=inside.get_attr(f"IFLA_{kind.upper()}_ID") if tunnel and not external else None,
        mode=inside.get_attr(f"IFLA_{kind.upper()}_MODE") if macvlan else None,
        xdp_ids=tuple(sorted({each for each in programs if each})),
        master_ifindex=message.get_attr("IFLA_MASTER"),
        group=message.get_attr("IFLA_GROUP"),
    )


def nsid_between(session: Session, other: Session) -> int:
    with other.open_netns() as handle:
        return nsid_of(session, handle)


def furnish(host: Session, target: Session) -> None:
    """Devices of every kind that the library meets, in two namespaces."""
    tunnel = create_tunnel(host, "tunnel0", kind="vxlan", port=4789, mtu=1450, alias="mizarnet höst")
    ip(host, "link", "add", "fixed", "type", "vxlan", "id", "70000", "dstport", "8472", "dev", "tunnel0")
    bridge = create_bridge(host, "br0")
    port = create_veth(host, "v0", peer="v1")
    set_link(host, port.ifindex, up=True, master=bridge.ifindex)
    ip(host, "link", "set", "v1", "group", "2000000000")
    ip(host, "tuntap", "add", "no-mac", "mode", "tun")
    ip(host, "link", "add", "n\u00e4me", "numtxqueues", "3", "type", "veth")
    for number, mode in enumerate(("private", "vepa", "bridge", "source")):
        ip(host, "link", "add", f"m{number}", "link", "v1", "type", "macvlan", "mode", mode)
    ip(host, "link", "add", "p0", "link", "br0", "type", "macvtap", "mode", "passthru")
    parent_nsid = nsid_between(target, host)
    for number, kind in enumerate(("macvlan", "macvtap")):
        create_macvlan(
            target,
            f"eth{number}",
            parent_ifindex=tunnel.ifindex,
            parent_nsid=parent_nsid,
            mac=f"02:00:00:00:00:0{number}",
            mtu=1400,
            kind="macvlan" if kind == "macvlan" else "macvtap",
        )


def test_every_field_is_as_pyroute2_says(open_new: OpenNew, tmp_path: Path) -> None:
    host, target = open_new(), open_new()
    furnish(host, target)
    assert host.netns.path is not None
    with let_pass(tmp_path) as program, attached(program, host.netns.path, "v0", XdpMode.GENERIC):
        said = messages(host) + messages(host, nsid_between(host, target)) + messages(target)
    links = list(map(decode_link, said))
    assert links == list(map(as_pyroute2_says, said))
    assert {link.kind for link in links} == {"", "bridge", "macvlan", "macvtap", "tun", "veth", "vxlan"}
    assert {link.mode for link in links} == {None, "private", "vepa", "bridge", "source", "passthru"}
    assert {link.xdp_ids for link in links} == {(), (program.id,)}
    assert {(link.port, link.external, link.vni) for link in links} == {
        (None, False, None),
        (4789, True, None),
        (8472, False, 70000),
    }
    assert {link.group for link in links} == {0, 2000000000}
    assert {link.mac is None for link in links} == {True, False}
    assert {link.parent_nsid is None for link in links} == {True, False}
    assert {link.master_ifindex is None for link in links} == {True, False}
    assert "mizarnet höst" in {link.alias for link in links}


def test_a_parent_without_an_id_is_as_pyroute2_says(session: Session) -> None:
    (message,) = messages(session)
    orphan = message + struct.pack("=HHi", 8, 37, -1)
    orphan = struct.pack("=I", len(orphan)) + orphan[4:]
    assert decode_link(orphan).parent_nsid == -1
    assert attrs.evolve(as_pyroute2_says(orphan), parent_nsid=None) == decode_link(message)
    assert as_pyroute2_says(orphan) == decode_link(orphan)


def test_names_and_aliases_may_be_any_bytes(session: Session) -> None:
    name, alias = b"v\xff0", b"an \xff alias"
    create_veth(session, "v0", peer="v1")
    session.run(subprocess.run, [b"ip", b"link", b"set", b"v0", b"alias", alias], check=True, timeout=30)
    session.run(subprocess.run, [b"ip", b"link", b"set", b"v0", b"name", name], check=True, timeout=30)
    (link,) = [link for link in dump_links(session) if link.alias]
    assert os.fsencode(link.alias) == alias
    assert get_link(session, link.name) == link


@pytest.mark.vm
def test_a_place_without_a_link_is_left_out(open_new: OpenNew) -> None:
    host, target = open_new(), open_new()
    furnish(host, target)
    nsid = nsid_between(host, target)
    eth0 = get_link(target, "eth0")
    assert eth0 is not None
    gone = (nsid, 999), (nsid + 100, eth0.ifindex), (SAME_NAMESPACE, 999), (nsid, 0)
    there = (nsid, eth0.ifindex), (SAME_NAMESPACE, LOOPBACK_IFINDEX), (nsid, LOOPBACK_IFINDEX)
    found = read_links(host, [*there[:2], *gone, *there[2:], *there])
    assert list(found) == list(there)
    for (where, ifindex), link in found.items():
        assert link == get_link(host, ifindex=ifindex, nsid=where)
    assert found[nsid, eth0.ifindex].mac == "02:00:00:00:00:00"
    assert read_links(host, []) == {}


def test_many_links_are_read_in_few_datagrams(session: Session) -> None:
    for number in range(50):
        create_veth(session, f"v{number}", peer=f"w{number}")
    every = {(SAME_NAMESPACE, link.ifindex): link for link in dump_links(session)}
    with counted(session) as datagrams:
        assert read_links(session, every) == every
    assert [len(each) for each in datagrams.sent] == [WINDOW, WINDOW, WINDOW, len(every) - 3 * WINDOW]
    with counted(session) as datagrams:
        assert get_link(session, "v7") in every.values()
    assert datagrams.sent == [[Rtm.GETLINK]]


def test_answers_that_were_lost_are_asked_for_again(session: Session) -> None:
    for number in range(30):
        create_veth(session, f"v{number}", peer=f"w{number}")
    every = {(SAME_NAMESPACE, link.ifindex): link for link in dump_links(session)}
    with counted(session) as datagrams:
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        assert read_links(session, every) == every
        assert len(datagrams.sent[0]) == WINDOW > len(datagrams.sent[-1])
        assert len(datagrams.requests) > len(every)
        assert get_link(session, "v7") in every.values()


def test_sequence_numbers_begin_anew(session: Session) -> None:
    place = (SAME_NAMESPACE, LOOPBACK_IFINDEX)
    session._worker.rtnl._sequence = (1 << 32) - 3
    for _ in range(4):
        assert list(read_links(session, [place, (SAME_NAMESPACE, 999)])) == [place]
        assert [link.name for link in dump_links(session)] == ["lo"]


def test_a_refusal_is_raised(open_new: OpenNew) -> None:
    host, target = open_new(), open_new()
    nsid = nsid_between(host, target)
    code = (
        "import sys\n"
        "from mizarnet.errors import NetlinkError\n"
        "from mizarnet._kernel.netlink import *\n"
        "with Session.open() as s:\n"
        "    try: read_links(s, [(-1, 1), (int(sys.argv[1]), 1)])\n"
        "    except NetlinkError as error: print(error.errno, error.operation)\n"
    )
    argv = [*UNPRIVILEGED, sys.executable, "-c", code, str(nsid)]
    done = host.run(subprocess.run, argv, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == (f"{errno.EACCES} read links\n", "")
    with pytest.raises(NetlinkError) as caught:
        read_links(host, [(SAME_NAMESPACE, LOOPBACK_IFINDEX), (SAME_NAMESPACE, 0)])
    assert caught.value.errno == errno.EINVAL
    assert [link.name for link in dump_links(host)] == ["lo"]  # nothing of it is left in the socket


def test_a_namespace_that_ended_is_no_error(open_new: OpenNew, new_name: Callable[[], str]) -> None:
    host, target = open_new(), open_new()
    furnish(host, target)
    nsid = nsid_between(host, target)
    eth0 = get_link(target, "eth0")
    assert eth0 is not None
    assert list(read_links(host, [(nsid, eth0.ifindex)])) == [(nsid, eth0.ifindex)]
    assert delete_link(target, eth0.ifindex)
    assert read_links(host, [(nsid, eth0.ifindex)]) == {}


def test_a_host_knows_itself_by_a_low_id_from_its_tunnel_on(open_new: OpenNew) -> None:
    host, target = open_new(), open_new()
    create_tunnel(host, "tunnel0", kind="vxlan", port=4789, mtu=1450)
    assert list_nsids(host) == [0]
    assert own_nsid(host) == 0
    assert nsid_between(host, target) == 1
    assert own_nsid(host) == 0
