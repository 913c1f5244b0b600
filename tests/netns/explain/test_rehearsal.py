# SPDX-License-Identifier: Apache-2.0
"""Dry runs on the tables of an agent in use."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._datapath.dry_run import LONGEST, Context, DryRun, Outcome
from mizarnet._datapath.dry_run.facts import Facts, Key, Origin
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.walk.flow import Flow
from mizarnet._datapath.walk.programs import Sender
from mizarnet._kernel.bpf import Map
from mizarnet._model.codec import Record
from mizarnet._model.enumerations import Program
from mizarnet._model.layouts import Config
from mizarnet._model.question import Upper
from mizarnet._model.specs import VIRTUAL_MAC
from mizarnet.agent import datapath_of
from tests.frames import datagram
from tests.support import digest
from tests.support.traffic import assert_ping
from tests.support.wait import wait_until
from tests.world import TUNNEL, Container, World

AF_INET, SOCK_RAW = 2, 3


def _record(container: Container) -> Record:
    data = next(value for _, value in datapath_of(container.host.agent).maps.records.items())
    return Record.unpack(data)


def _facts(record: Record) -> Facts:
    return Facts(
        origin=Origin.DEVICE, origin_ifindex=record.ifindex, origin_cookie=record.netns_cookie, hash=1
    )


def _sent(web: Container, to: str, *, length: int = 100, **context: int) -> Outcome:
    record = _record(web)
    frame = datagram(web.mac, web.ip, to, destination_mac=VIRTUAL_MAC.packed).ljust(length, b"\0")
    datapath = datapath_of(web.host.agent)
    return datapath.rehearse(Program.AGENT, frame, Context(**context), _facts(record))


@pytest.mark.vm
def test_rehearsing_changes_nothing_and_says_what_traffic_meets(world: World, web: Container) -> None:
    db = world.container(world.hosts[1], 7, "10.0.0.2/24", name="db")
    assert_ping(web.namespace, db.ip)
    agent = web.host.agent
    before, counted = digest.of_agent(agent), agent.stats()
    there = _sent(web, db.ip)
    assert (there.verdict, there.asked.key.vni) == (Verdict.ENCAPSULATED, 7)
    assert there.asked.key.remote[-4:] == bytes([192, 0, 2, 2])
    assert _sent(web, "10.0.0.9").verdict is Verdict.NO_DESTINATION
    assert _sent(web, web.ip).verdict is Verdict.HAIRPIN
    assert digest.of_agent(agent) == before
    assert agent.stats() == counted
    assert set(before) >= {"endpoints", "verdicts", "traffic", "drops", "meta", "changes", ".rodata.config"}


def test_what_a_frame_is_beyond_a_page_is_told(web: Container) -> None:
    assert _sent(web, "10.0.0.9", length=LONGEST).verdict is Verdict.OVERSIZED
    assert _sent(web, "10.0.0.9", length=1464).verdict is Verdict.NO_DESTINATION
    assert _sent(web, "10.0.0.9", length=1465).verdict is Verdict.OVERSIZED
    assert _sent(web, "10.0.0.9", length=3000, gso_size=1400).verdict is Verdict.NO_DESTINATION
    with pytest.raises(mz.BpfError, match=f"on a frame of {LONGEST * 2} bytes"):
        _sent(web, "10.0.0.9", length=LONGEST * 2)


def test_whether_a_sender_was_told_lately_is_not_known_and_not_changed(web: Container) -> None:
    record, datapath, before = _record(web), datapath_of(web.host.agent), digest.of_agent(web.host.agent)
    flow = Flow(7, ip_address(web.ip), ip_address("10.0.0.9"), Upper.UDP, 9, 1451)
    frame = bytearray(flow.frame(by=web.mac, to=VIRTUAL_MAC.packed))
    frame[20] |= 0x40  # may not be fragmented
    told = {
        datapath.rehearse(
            Program.AGENT, bytes(frame), Context(), Sender(record, web.mac, record.ifindex).facts
        ).verdict
        for _ in range(300)
    }
    assert told == {Verdict.OVERSIZED_ANSWERED}
    assert digest.of_agent(web.host.agent) == before


def test_the_guard_is_rehearsed_and_no_copy_is_sent(world: World, web: Container) -> None:
    datapath = datapath_of(web.host.agent)
    frame = datagram(b"\2\0\0\0\0\7", "10.0.0.2", web.ip, destination_mac=web.mac)
    key = Key(
        family=4,
        vni=7,
        ttl=64,
        remote=bytes(12) + bytes([192, 0, 2, 2]),
        local=bytes(12) + bytes([192, 0, 2, 1]),
    )
    assert datapath.rehearse(Program.GUARD, frame, Context(), Facts(key=key)).verdict is Verdict.ACCEPTED
    mark = Config.unpack(datapath.maps.config.lookup(bytes(4)) or b"").mark_local
    before = digest.of_agent(web.host.agent)
    told = Facts(socket_family=AF_INET, socket_type=SOCK_RAW)
    copied = datapath.rehearse(Program.GUARD, frame, Context(mark=mark), told)
    assert (copied.verdict, copied.asked.copies) == (Verdict.COPIED, 1)
    refused = datapath.rehearse(Program.GUARD, frame, Context(mark=mark), told._replace(copy_result=-1))
    assert (refused.verdict, refused.asked.copies) == (Verdict.ACCEPTED_LOCALLY, 1)
    assert digest.of_agent(web.host.agent) == before


def test_the_programs_are_loaded_once_and_let_go_with_the_tables(
    web: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Maps] = []
    load = DryRun.beside
    monkeypatch.setattr(DryRun, "beside", lambda maps: loads.append(maps) or load(maps))
    assert [_sent(web, ip).verdict for ip in ("10.0.0.8", "10.0.0.9")] == [Verdict.NO_DESTINATION] * 2
    assert len(loads) == 1
    table = datapath_of(web.host.agent).maps.endpoints.id
    with mz.Tunnel.open(TUNNEL, netns=web.host.namespace.name) as other:
        other.delete(force=True)
    with pytest.raises(mz.StaleHandleError):
        _ = datapath_of(web.host.agent).maps
    wait_until(lambda: not _is_there(table), "the kernel lets the table go")


def test_what_a_changed_tunnel_carries_is_asked_anew(web: Container) -> None:
    assert _sent(web, "10.0.0.9", length=1414).verdict is Verdict.NO_DESTINATION
    web.host.tunnel.update(mtu=1399)
    assert _sent(web, "10.0.0.9", length=1414).verdict is Verdict.OVERSIZED


def _is_there(number: int) -> bool:
    found = Map.open_id(number)
    if found is not None:
        found.close()
    return found is not None
