# SPDX-License-Identifier: Apache-2.0
"""Notes and rules of gateways: what is written is read again, and what is said of ports holds for each tunnel."""

from __future__ import annotations

import re

import attrs
import pytest

import mizarnet as mz
from mizarnet._datapath.gateway_notes import MOST, Note, Whole
from mizarnet._datapath.gateways import ruleset
from mizarnet._datapath.gateways.ruleset import EVERY, Closed, Way
from mizarnet._model.enumerations import State
from mizarnet._model.gateways import GatewaySpec

NOTE = Note(
    tunnel=12,
    vni=(1 << 24) - 1,
    state=State.MAKING,
    egress=3,
    port=4789,
    nat=True,
    host_access=False,
    forwarding=1 << 16,
    number=7,
    key=bytes(range(16)),
    instance=(1 << 64) - 1,
)
LARGEST = attrs.evolve(
    NOTE, tunnel=0xFFFFF, egress=(1 << 31) - 1, port=65535, forwarding=(1 << 32) - 1, number=MOST - 1
)
PORTS = (
    mz.Publish("tcp", 80, "10.0.0.5", 8080),
    mz.Publish("udp", 65535, "fd00:1234:5678:9abc:def0:1234:5678:9abc", 65535),
)


@pytest.mark.parametrize(
    "note",
    [
        NOTE,
        LARGEST,
        attrs.evolve(NOTE, nat=False, host_access=True),
        attrs.evolve(NOTE, whole=Whole()),
        attrs.evolve(LARGEST, whole=Whole(frozenset({2, 13}), frozenset({0, 3, 17}))),
    ],
)
def test_a_note_is_read_as_it_was_written(note: Note) -> None:
    assert Note.parse(note.text()) == note
    assert len(note.text()) < 255
    assert len(note.device) <= 15


def test_a_note_has_room_for_so_many_devices() -> None:
    whole = Whole(frozenset(range(10, 20)), frozenset(range(10)))
    assert attrs.evolve(NOTE, whole=whole).fits
    assert not attrs.evolve(NOTE, whole=Whole(frozenset(range(100)))).fits
    assert len(attrs.evolve(LARGEST, whole=Whole()).text()) < 255


@pytest.mark.parametrize("alias", ["", "eth0", NOTE.text() + " ", NOTE.text().replace("state=1", "state=x")])
def test_no_note_is_read_where_there_is_none(alias: str) -> None:
    assert Note.parse(alias) is None


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "tunnel": [0, 1 << 31, 1 << 64],
        "vni": [0, 1 << 24],
        "state": [0, 4],
        "egress": [0, 1 << 31, 1 << 64],
        "port": [0, 1 << 16],
        "forward": [1 << 32],
        "number": [MOST, 1 << 40],
        "changed": [1 << 64],
        "space": ["f" * 17],
    }.items(),
)
def test_a_note_of_what_cannot_be_is_none(name: str, values: list[object]) -> None:
    for value in values:
        text = re.sub(rf"\b{name}=\w+", f"{name}={value}", NOTE.text())
        assert Note.parse(text) is None, text


@pytest.mark.parametrize("note", [NOTE, LARGEST])
@pytest.mark.parametrize("version", [4, 6])
def test_the_addresses_between_host_and_gateway_are_a_pair(note: Note, version: int) -> None:
    host, gateway = (note.address(version, inside=inside) for inside in (False, True))
    assert host.network == gateway.network
    assert {host.ip, gateway.ip} == {*host.network}


@pytest.mark.parametrize("others", [(), (5555, 32768, 50000, 60999)], ids=["one tunnel", "several"])
@pytest.mark.parametrize("port", [1, 4789, 6081, 32768, 32769, 40000, 50000, 60998, 60999, 65535])
def test_nothing_is_translated_to_the_port_of_a_tunnel(port: int, others: tuple[int, ...]) -> None:
    note = attrs.evolve(NOTE, port=port)
    rules = ruleset.of_host([Way(note, ())], (), others) + ruleset.of_gateway(note, (), others)
    ranges = [(int(low), int(high)) for low, high in re.findall(r"masquerade to :(\d+)-(\d+)", rules)]
    assert len(ranges) == 3  # the gateway's of both families, and the host's of each
    for low, high in ranges:
        assert 32768 <= low <= high <= 60999
        assert high - low > 9_000
        assert not [each for each in (port, *others) if low <= each <= high]
    closed = {
        frozenset(map(int, each.split(","))) for each in re.findall(r"udp [ds]port \{([^}]*)\} drop", rules)
    }
    assert closed == {frozenset({4789, 6081, port, *others})}


@pytest.mark.parametrize(
    ("ip", "named"),
    [
        (["fe80::1/64"], "link-local"),
        (["169.254.1.1/16"], "link-local"),
        (["10.0.0.1/0"], "10.0.0.1/0"),
        (["fd00::1/0"], "fd00::1/0"),
        (["10.0.0.1/24", "fd00::1/64", "10.0.0.2/24"], "second of IPv4"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused(ip: list[str], named: str) -> None:
    with pytest.raises(mz.InvalidValueError, match=re.escape(named)) as refused:
        GatewaySpec(vni=7, egress="eth0", ip=ip)
    assert refused.value.argument == "ip"


def test_published_ports_are_read_from_the_comments_of_their_rules() -> None:
    rules = ruleset.of_gateway(NOTE, PORTS, ())
    comments = re.findall(r'comment "([^"]*)"', rules)
    assert tuple(ruleset.published_of(each) for each in comments) == PORTS
    assert all(len(each) <= 128 for each in comments)
    assert [ruleset.published_of(each) for each in ("of somebody else", " ", "publish tcp")] == [None] * 3


@pytest.mark.parametrize("note", [NOTE, LARGEST])
def test_the_table_of_the_host_tells_what_each_gateway_publishes(note: Note) -> None:
    other = attrs.evolve(note, vni=note.vni - 1)
    rules = ruleset.of_host([Way(note, PORTS), Way(other, PORTS[:1])], (), ())
    comments = re.findall(r'comment "([^"]*)"', rules)
    for each, ports in ((note, PORTS), (other, PORTS[:1]), (attrs.evolve(note, tunnel=1), ())):
        told = {ruleset.published_of(comment, device=each.device) for comment in comments}
        assert told - {None} == {*ports}
    assert {ruleset.published_of(comment) for comment in comments} == {None}
    assert all(len(each) <= 128 for each in comments)


def test_without_gateways_the_table_of_the_host_goes() -> None:
    assert "chain" not in ruleset.of_host([], [], ())
    for ways in ([Way(NOTE, PORTS)], []):  # one that has begun to end leaves no device open
        rules = ruleset.of_host(ways, [Closed(3, 4), EVERY], ())
        assert "iif 3 meta nfproto ipv4 drop" in rules
        assert "    meta nfproto ipv6 drop" in rules
        closed = [ruleset.closed_of(each) for each in re.findall(r'comment "([^"]*)"', rules)]
        assert [each for each in closed if each] == [EVERY, Closed(3, 4)]
