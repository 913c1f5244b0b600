# SPDX-License-Identifier: Apache-2.0
"""The agent's tables as Python collections."""

from __future__ import annotations

import itertools
import threading
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, cast

import pytest

import mizarnet as mz
from mizarnet import Changes, EndpointKey, Network, NetworkKey, Remote
from mizarnet._datapath import lock
from mizarnet._datapath.maps import FEW, find
from mizarnet._kernel.bpf import _batch
from mizarnet._model import codec
from mizarnet.errors import LayoutError
from tests.support.tables import contents, unchanged
from tests.world import World

HOST2, HOST3 = Remote("192.0.2.2"), Remote("192.0.2.3")


@pytest.fixture(scope="module")
def module_agent() -> Iterator[mz.TransitAgent]:
    with World("vxlan", hosts=1, max_endpoints=64, max_local=4) as world:
        host, namespace = world.hosts[0], world.namespace("local")
        mz.Endpoint.create(host.agent, vni=7, ip=["10.0.0.1/24", "fd00::1/64"], netns=namespace.name)
        yield host.agent


@pytest.fixture
def agent(module_agent: mz.TransitAgent) -> Iterator[mz.TransitAgent]:
    """An agent with one local endpoint and no other entries."""
    yield module_agent
    module_agent.endpoints.sync({})
    module_agent.networks.apply({}, list(module_agent.networks), take=True)
    module_agent.peers.apply([], list(module_agent.peers), take=True)


# -- endpoints ---------------------------------------------------------------------------------------------


def test_an_entry_of_an_unknown_place_is_neither_read_nor_replaced(agent: mz.TransitAgent) -> None:
    """As another version may write it."""
    table, key = (
        agent._datapath.maps.endpoints,
        codec.pack_endpoint_key(EndpointKey(7, ip_address("10.0.0.9"))),
    )
    unknown = codec.u32(3) + codec.pack_endpoint(HOST2)[4:]
    table.update(key, unknown)
    calls: list[Callable[[], object]] = [
        lambda: agent.endpoints[7, "10.0.0.9"],
        lambda: dict(agent.endpoints),
        agent.endpoints.columns,
        lambda: agent.endpoints.update({(7, "10.0.0.9"): HOST2}),
        lambda: agent.endpoints.sync({}),
        lambda: agent.endpoints.__delitem__((7, "10.0.0.9")),
    ]
    try:
        for call in calls:
            with pytest.raises(LayoutError, match="place 3"):
                call()
        assert table.lookup(key) == unknown
    finally:
        table.delete(key)


@pytest.mark.parametrize("few", [FEW, 0], ids=["looked-up", "all-read"])
def test_an_entry_of_an_unknown_place_hinders_no_change_of_others(
    agent: mz.TransitAgent, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr("mizarnet._datapath.maps.FEW", few)
    table, key = (
        agent._datapath.maps.endpoints,
        codec.pack_endpoint_key(EndpointKey(7, ip_address("10.0.0.9"))),
    )
    table.update(key, codec.u32(3) + codec.pack_endpoint(HOST2)[4:])
    try:
        agent.endpoints.update({(7, "10.0.0.8"): HOST2}, feed="directory")
        assert agent.endpoints.apply({}, [(7, "10.0.0.8")], feed="directory") == Changes(0, 0, 1)
        assert key in table
    finally:
        table.delete(key)


def test_what_is_written_is_read(agent: mz.TransitAgent) -> None:
    agent.endpoints[7, "10.0.0.9"] = HOST2
    assert agent.endpoints[7, "10.0.0.9"] == HOST2
    assert agent.endpoints[7, ip_address("10.0.0.9")] == HOST2
    assert (7, "10.0.0.9") in agent.endpoints
    assert (8, "10.0.0.9") not in agent.endpoints
    assert cast("Any", agent.endpoints).get((8, "10.0.0.9")) is None


def test_an_entry_is_replaced(agent: mz.TransitAgent) -> None:
    agent.endpoints[7, "10.0.0.9"] = HOST2
    agent.endpoints[7, "10.0.0.9"] = HOST3
    assert agent.endpoints[7, "10.0.0.9"] == HOST3


def test_the_laws_of_a_mapping(agent: mz.TransitAgent) -> None:
    entries = {(vni, f"10.0.{n}.9"): HOST2 for vni in (7, 8) for n in range(10)} | {(7, "fd00::9"): HOST3}
    agent.endpoints.update(entries)
    table = agent.endpoints
    assert len(table) == len(list(table)) == len(table.keys()) == len(entries) + 2
    assert dict(table.items()) == {key: table[key] for key in table} == table.snapshot()
    assert {key for key, value in table.items() if value == HOST3} == {EndpointKey(7, ip_address("fd00::9"))}
    assert set(map(type, table)) == {EndpointKey}


def test_local_endpoints_are_seen(agent: mz.TransitAgent) -> None:
    endpoint = mz.Endpoint.open(agent, "7/10.0.0.1")
    assert (
        agent.endpoints[7, "10.0.0.1"]
        == agent.endpoints[7, "fd00::1"]
        == mz.Local(endpoint.mac, endpoint._record.slot)
    )


def test_a_missing_key_is_a_key_error(agent: mz.TransitAgent) -> None:
    with pytest.raises(KeyError):
        agent.endpoints[7, "10.0.0.9"]
    with pytest.raises(mz.EntryNotFoundError):
        del agent.endpoints[7, "10.0.0.9"]


def test_what_can_be_no_key_is_not_taken_for_a_missing_one(agent: mz.TransitAgent) -> None:
    for table in (agent.endpoints, agent.networks):
        with pytest.raises(mz.InvalidValueError):
            table.__contains__((7, "10.0.0.9/24"))


@pytest.mark.parametrize("ip", ["10.0.0.1", "fd00::1"])
def test_the_keys_of_local_endpoints_are_theirs(agent: mz.TransitAgent, ip: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: agent.endpoints.__setitem__((7, ip), HOST2),
        lambda: agent.endpoints.__delitem__((7, ip)),
        lambda: agent.endpoints.update({(7, "10.0.0.9"): HOST2, (7, ip): HOST2}),
        lambda: agent.endpoints.sync({(7, "10.0.0.9"): HOST2, (7, ip): HOST2}),
    ]
    for call in calls:
        with unchanged(agent), pytest.raises(mz.LocalEndpointError):
            call()


@pytest.mark.parametrize(
    ("error", "key", "value"),
    [
        (mz.InvalidValueError, (0, "10.0.0.9"), HOST2),
        (mz.InvalidValueError, (1 << 24, "10.0.0.9"), HOST2),
        (mz.InvalidTypeError, (True, "10.0.0.9"), HOST2),
        (mz.InvalidTypeError, "10.0.0.9", HOST2),
        (mz.InvalidValueError, (7, "10.0.0.9/24"), HOST2),
        (mz.InvalidValueError, (7, "::ffff:10.0.0.9"), HOST2),
        (mz.InvalidTypeError, (7, 9), HOST2),
        (mz.InvalidTypeError, (7, "10.0.0.9"), "192.0.2.2"),
        (mz.InvalidTypeError, (7, "10.0.0.9"), None),
        (mz.InvalidTypeError, (7, "10.0.0.9"), mz.Local(mz.MacAddress(bytes(6)), 0)),
        (mz.InvalidValueError, (7, "10.0.0.9"), Remote("2001:db8::2")),
        (mz.InvalidValueError, (7, "10.0.0.9"), Remote("192.0.2.1")),
    ],
)
def test_a_bad_entry_is_refused_with_all_others(
    agent: mz.TransitAgent, error: type[Exception], key: Any, value: Any
) -> None:
    for call in (agent.endpoints.update, agent.endpoints.sync):
        with unchanged(agent), pytest.raises(error):
            call([((7, "10.0.0.8"), HOST2), (key, value)])
    with unchanged(agent), pytest.raises(error):
        agent.endpoints[key] = value


def test_what_does_not_fit_is_not_begun(agent: mz.TransitAgent) -> None:
    agent.endpoints[7, "10.0.0.9"] = HOST3
    entries = {(7, f"10.1.0.{n}"): HOST2 for n in range(62)}
    with unchanged(agent), pytest.raises(mz.CapacityError) as caught:
        agent.endpoints.update(entries)
    assert (caught.value.table, caught.value.capacity, caught.value.used) == ("endpoints", 64, 3)


def test_what_does_not_fit_leaves_what_it_would_have_changed(agent: mz.TransitAgent) -> None:
    agent.endpoints.update({(7, f"10.1.0.{n}"): HOST2 for n in range(60)})
    with unchanged(agent), pytest.raises(mz.CapacityError) as caught:
        agent.endpoints.update({(7, f"10.1.0.{n}"): HOST3 for n in range(63)})
    assert (caught.value.used, caught.value.capacity) == (62, 64)


def test_a_place_that_another_writer_takes_meanwhile_is_told(
    agent: mz.TransitAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not see the lock. What it wrote stays, what had to leave for the new entries comes back."""
    maps = agent._datapath.maps
    agent.endpoints.update({(7, f"10.1.0.{n}"): HOST2 for n in range(62)})
    before = dict(maps.endpoints.items())
    key = codec.pack_endpoint_key(EndpointKey(9, ip_address("10.9.0.1")))
    rival = codec.pack_endpoint(HOST3)
    delete_many = maps.endpoints.delete_many

    def taken(keys: Any) -> int:
        removed = delete_many(keys)
        if removed:
            maps.endpoints.update(key, rival)
        return removed

    monkeypatch.setattr(maps.endpoints, "delete_many", taken)
    with pytest.raises(mz.CapacityError):
        agent.endpoints.sync({(8, f"10.1.0.{n}"): HOST3 for n in range(62)})
    after = dict(maps.endpoints.items())
    monkeypatch.undo()
    maps.endpoints.delete(key)
    assert after.pop(key) == rival
    assert len(before.items() - after.items()) == 1
    assert after.items() <= before.items()


def test_a_few_changes_do_not_read_the_table(agent: mz.TransitAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their cost is that of the changes, however many entries there are."""
    agent.endpoints.update({(7, f"10.1.0.{n}"): HOST2 for n in range(40)})
    read, walked = _batch.read, []

    def watched(shape: _batch.Shape) -> Iterator[_batch.Chunk]:
        walked.append(shape.name)
        return read(shape)

    monkeypatch.setattr(_batch, "read", watched)
    agent.endpoints.update({(7, f"10.1.0.{n}"): HOST3 for n in range(30, 50)})
    agent.endpoints[7, "10.1.0.1"] = HOST3
    del agent.endpoints[7, "10.1.0.2"]
    assert "endpoints" not in walked
    agent.endpoints.snapshot()
    assert "endpoints" in walked


def test_what_just_fits_is_written(agent: mz.TransitAgent) -> None:
    entries = {(7, f"10.1.0.{n}"): HOST2 for n in range(62)}
    agent.endpoints.update(entries)
    assert len(agent.endpoints) == 64
    agent.endpoints.update(entries)
    with pytest.raises(mz.CapacityError):
        agent.endpoints[7, "10.2.0.1"] = HOST2
    agent.endpoints[7, "10.1.0.1"] = HOST3


def test_sync_makes_it_so_and_says_what_it_did(agent: mz.TransitAgent) -> None:
    agent.endpoints.update({(7, "10.0.0.8"): HOST2, (7, "10.0.0.9"): HOST2, (8, "10.0.0.8"): HOST2})
    changes = agent.endpoints.sync({(7, "10.0.0.9"): HOST3, (7, "10.0.0.10"): HOST3}, vni=7)
    assert changes == Changes(added=1, changed=1, removed=1)
    remotes = {
        tuple(map(str, key)): value for key, value in agent.endpoints.items() if isinstance(value, Remote)
    }
    assert remotes == {("7", "10.0.0.9"): HOST3, ("7", "10.0.0.10"): HOST3, ("8", "10.0.0.8"): HOST2}


def test_sync_renews_a_full_table(agent: mz.TransitAgent) -> None:
    agent.endpoints.update({(7, f"10.1.0.{n}"): HOST2 for n in range(62)})
    renewed = {(7, f"10.1.0.{n}"): HOST3 for n in range(61, 123)}
    assert agent.endpoints.sync(renewed) == Changes(added=61, changed=1, removed=61)
    remotes = [value for value in agent.endpoints.values() if isinstance(value, Remote)]
    assert remotes == [HOST3] * 62


def test_sync_that_does_not_fit_changes_nothing(agent: mz.TransitAgent) -> None:
    agent.endpoints.update({(7, f"10.1.0.{n}"): HOST2 for n in range(62)})
    with unchanged(agent), pytest.raises(mz.CapacityError) as caught:
        agent.endpoints.sync({(7, f"10.2.0.{n}"): HOST3 for n in range(63)})
    assert (caught.value.used, caught.value.capacity) == (2, 64)


def test_sync_again_does_nothing(agent: mz.TransitAgent) -> None:
    wanted = {(7, "10.0.0.9"): HOST2}
    agent.endpoints.sync(wanted)
    with unchanged(agent):
        assert agent.endpoints.sync(wanted) == Changes(added=0, changed=0, removed=0)


def test_sync_of_one_vni_refuses_another(agent: mz.TransitAgent) -> None:
    with unchanged(agent), pytest.raises(mz.InvalidValueError):
        agent.endpoints.sync({(8, "10.0.0.9"): HOST2}, vni=7)


def test_sync_with_nothing_keeps_what_is_local(agent: mz.TransitAgent) -> None:
    agent.endpoints[8, "10.0.0.9"] = HOST2
    agent.endpoints.sync({})
    assert {type(value) for value in agent.endpoints.values()} == {mz.Local}


# -- columns -----------------------------------------------------------------------------------------------


def columns_of(entries: Mapping[tuple[int, str], str]) -> mz.EndpointColumns:
    """Columns of VNI, address and host, with IPv4 addresses mapped."""

    def rows(texts: Iterable[str]) -> bytes:
        return b"".join(IPv6Address(text if ":" in text else f"::ffff:{text}").packed for text in texts)

    return mz.EndpointColumns(
        array("I", [vni for vni, _ in entries]), rows(ip for _, ip in entries), rows(entries.values())
    )


def test_columns_and_mappings_are_written_alike(agent: mz.TransitAgent) -> None:
    hosts = {(7, "10.0.0.8"): "192.0.2.2", (8, "10.0.0.8"): "192.0.2.3", (7, "fd00::8"): "192.0.2.3"}
    remotes = {key: Remote(host) for key, host in hosts.items()}
    agent.endpoints.update(remotes, feed="directory")
    written = agent.endpoints.snapshot()
    with unchanged(agent):
        assert agent.endpoints.sync(columns_of(hosts), feed="directory") == Changes(0, 0, 0)
    agent.endpoints.sync({}, feed="directory")
    agent.endpoints.update(columns_of(hosts), feed="directory")
    assert agent.endpoints.snapshot() == written
    assert agent.endpoints.feeds()["directory"] == 3
    moved = columns_of({(7, "10.0.0.8"): "192.0.2.3", (7, "10.0.0.1"): "192.0.2.2"})
    changes = agent.endpoints.apply(moved, [(8, "10.0.0.8")], feed="directory")
    assert changes == Changes(0, 1, 1, local=(EndpointKey(7, ip_address("10.0.0.1")),))
    agent.endpoints.sync({}, feed="directory")


def test_columns_are_read_as_they_were_written(agent: mz.TransitAgent) -> None:
    hosts = {(7, f"10.1.0.{n}"): f"192.0.2.{2 + n % 2}" for n in range(50)} | {(9, "fd00::8"): "192.0.2.3"}
    agent.endpoints.update(columns_of(hosts))
    read = agent.endpoints.columns()
    rows = {
        (vni, read.addresses[16 * n :][:16]): read.hosts[16 * n :][:16] for n, vni in enumerate(read.vnis)
    }
    wanted = columns_of(hosts | {(7, "10.0.0.1"): "::", (7, "fd00::1"): "::"})
    assert len(read) == len(wanted)
    assert rows == {
        (vni, wanted.addresses[16 * n :][:16]): wanted.hosts[16 * n :][:16]
        for n, vni in enumerate(wanted.vnis)
    }


@pytest.mark.parametrize(
    ("error", "entry"),
    [
        (mz.LocalEndpointError, {(7, "10.0.0.1"): "192.0.2.2"}),
        (mz.ForeignEntryError, {(7, "10.0.0.7"): "192.0.2.2"}),
        (mz.InvalidValueError, {(7, "10.0.0.9"): "::"}),
        (mz.InvalidValueError, {(7, "10.0.0.9"): "0.0.0.0"}),
        (mz.InvalidValueError, {(7, "10.0.0.9"): "224.0.0.1"}),
        (mz.InvalidValueError, {(7, "10.0.0.9"): "2001:db8::2"}),
        (mz.InvalidValueError, {(7, "10.0.0.9"): "192.0.2.1"}),
    ],
)
def test_bad_columns_are_refused_with_all_that_is_in_them(
    agent: mz.TransitAgent, error: type[Exception], entry: dict[tuple[int, str], str]
) -> None:
    agent.endpoints.update({(7, "10.0.0.7"): HOST3}, feed="directory")
    try:
        for call in (agent.endpoints.update, agent.endpoints.sync):
            with unchanged(agent), pytest.raises(error):
                call(columns_of({(7, "10.0.0.8"): "192.0.2.2", **entry}))
    finally:
        agent.endpoints.sync({}, feed="directory")


def test_columns_of_another_vni_are_refused(agent: mz.TransitAgent) -> None:
    with unchanged(agent), pytest.raises(mz.InvalidValueError):
        agent.endpoints.sync(columns_of({(8, "10.0.0.9"): "192.0.2.2"}), vni=7)


# -- networks ----------------------------------------------------------------------------------------------


def test_a_network_is_looked_up_by_its_very_prefix(agent: mz.TransitAgent) -> None:
    wide, narrow = Network(switches=["192.0.2.9"]), Network(gateway="10.0.0.254")
    agent.networks[7, "10.0.0.0/8"] = wide
    agent.networks[7, "10.0.0.0/24"] = narrow
    assert agent.networks[7, "10.0.0.0/8"] == wide
    assert agent.networks[7, ip_network("10.0.0.0/24")] == narrow
    for missing in ("10.0.0.0/16", "10.0.0.0/25", "10.0.0.0/32", "0.0.0.0/0"):
        assert (7, missing) not in agent.networks
    assert set(agent.networks) == {NetworkKey.parse((7, "10.0.0.0/8")), NetworkKey.parse((7, "10.0.0.0/24"))}
    del agent.networks[7, "10.0.0.0/8"]
    with pytest.raises(KeyError):
        agent.networks[7, "10.0.0.0/8"]
    assert agent.networks[7, "10.0.0.0/24"] == narrow


# A prefix and what it is taken for: prefixes around it that are there, and others that are not.
AROUND = [
    (
        "10.0.0.0/24",
        ["10.0.0.0/16", "10.0.0.0/32", "10.0.0.0/8"],
        ["10.0.0.0/17", "10.0.0.0/31", "0.0.0.0/0"],
    ),
    ("fd00::/64", ["fd00::/48", "fd00::/128", "::/0"], ["fd00::/63", "fd00::/127", "0.0.0.0/0"]),
    ("0.0.0.0/0", ["::/0", "0.0.0.0/1"], ["0.0.0.0/2", "::/1"]),
]


@pytest.mark.vm
@pytest.mark.parametrize("name", ["networks", "peers"])
@pytest.mark.parametrize(("asked", "there", "others"), AROUND)
def test_a_prefix_is_not_taken_for_another(
    agent: mz.TransitAgent, name: str, asked: str, there: list[str], others: list[str]
) -> None:
    """The kernel's look-up finds the longest prefix that contains the one that is asked for."""
    table: Any = getattr(agent, name)
    key = (lambda prefix: prefix) if name == "peers" else (lambda prefix: (7, prefix))
    given = (lambda keys: keys) if name == "peers" else (lambda keys: dict.fromkeys(keys, Network()))
    keys = list(map(key, there))
    table.update(given(keys[:1]), feed="directory")
    table.update(given(keys[1:]))
    for missing in map(key, [asked, *others]):
        with unchanged(agent):
            assert missing not in table
            assert table.apply([], [missing], take=True) == Changes(0, 0, 0)
            with pytest.raises(mz.EntryNotFoundError):
                table.feed_of(missing)
    if name == "networks":
        with unchanged(agent), pytest.raises(mz.EntryNotFoundError):
            del agent.networks[7, asked]
    else:
        with unchanged(agent):
            agent.peers.discard(asked)
    # It is new, although an entry of another feed contains it.
    assert table.apply(given([key(asked)])) == Changes(added=1, changed=0, removed=0)
    assert [table.feed_of(each) for each in (key(asked), *keys)] == ["", "directory", *[""] * len(keys[1:])]
    assert table.apply([], [key(asked)]) == Changes(added=0, changed=0, removed=1)
    assert all(each in table for each in keys)
    assert key(asked) not in table


@pytest.mark.parametrize("name", ["networks", "peers"])
def test_one_prefix_is_read_while_another_caller_writes(
    agent: mz.TransitAgent, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """All of them are not: a walk could miss an entry."""
    agent.networks[7, "10.0.0.0/24"] = Network()
    agent.peers.add("10.0.0.0/24")
    table: Any = getattr(agent, name)
    key = "10.0.0.0/24" if name == "peers" else (7, "10.0.0.0/24")
    monkeypatch.setattr(lock, "TIMEOUT", 0.05)
    with agent._datapath.host.locked(*lock.TABLE_WRITER):
        assert key in table
        assert table.feed_of(key) == ""
        assert agent.networks[7, "10.0.0.0/24"] == agent.networks.find(7, "10.0.0.9") == Network()
        assert agent.peers.covers("10.0.0.9")
        for call in (lambda: list(table), lambda: len(table), table.feeds, table.to_dict):
            with pytest.raises(mz.LockTimeoutError):
                call()


def test_a_network_that_stays_is_found_while_others_come_and_go(agent: mz.TransitAgent) -> None:
    staying = {(8, f"10.{number}.0.0/16"): Network() for number in range(0, 200, 2)}
    agent.networks.update(staying)

    def disturb() -> None:
        agent.networks.update({(8, f"10.{number}.0.0/16"): Network() for number in range(1, 200, 2)})
        for number in range(1, 200, 2):
            del agent.networks[8, f"10.{number}.0.0/16"]

    with repeated(disturb) as looks:
        for _ in looks:
            assert (8, "10.100.0.0/16") in agent.networks
            assert sum(key.prefix.network_address.packed[1] % 2 == 0 for key in agent.networks) == 100


@pytest.mark.vm
def test_a_look_up_needs_no_lock(agent: mz.TransitAgent) -> None:
    """Whatever becomes of the nodes around an entry: 20,000 look-ups find it, beside a writer."""
    table = agent._datapath.maps.networks

    def packed(prefixes: Iterable[str]) -> dict[bytes, bytes]:
        keys = [NetworkKey.parse((8, prefix)) for prefix in prefixes]
        return {codec.pack_network_key(key): codec.pack_network(key, Network()) for key in keys}

    staying = packed(f"10.{number}.0.0/16" for number in range(0, 200, 2))
    # Beside them, above and below: nodes are put between others, replaced and removed.
    coming = packed(f"10.{number}.0.0/16" for number in range(1, 200, 2))
    coming |= packed(f"10.{number}.0.0/{number.bit_length() + 8}" for number in (64, 96, 100))
    coming |= packed(f"10.{number}.{number}.0/24" for number in range(0, 200, 2))
    table.update_many(staying | coming)

    def disturb() -> None:
        table.delete_many(coming)
        table.update_many(coming)

    with repeated(disturb) as looks:
        for _ in looks:
            assert [key for key, value in staying.items() if find(table, key) != value] == []


@contextmanager
def repeated(call: Callable[[], object]) -> Generator[Iterator[int], None, None]:
    """Make a call again and again on another thread: for 100 looks at least, and twice as the least."""
    stop, times = threading.Event(), [0]

    def looks() -> Iterator[int]:
        for number in itertools.count():
            if number >= 100 and (times[0] > 1 or not thread.is_alive()):
                return
            yield number

    def repeat() -> None:
        while not stop.is_set():
            call()
            times[0] += 1

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield looks()
    finally:
        stop.set()
        thread.join()
    assert times[0] > 1


def test_an_address_finds_the_longest_prefix_of_its_vni(agent: mz.TransitAgent) -> None:
    wide, narrow = Network(switches=["192.0.2.9"]), Network(gateway="10.0.0.254")
    agent.networks.update({(7, "0.0.0.0/0"): wide, (7, "10.0.0.0/24"): narrow})
    assert agent.networks.find(7, "10.0.0.9") == narrow
    assert agent.networks.find(7, "10.0.1.9") == wide
    assert agent.networks.find(8, "10.0.0.9") is None


def test_no_prefix_of_one_family_holds_the_other(agent: mz.TransitAgent) -> None:
    agent.networks[7, "::/0"] = Network(switches=["192.0.2.9"])
    assert agent.networks.find(7, "10.0.0.9") is None
    assert agent.networks.find(7, "fd00::9") is not None


@pytest.mark.parametrize(
    ("error", "key", "value"),
    [
        (mz.InvalidValueError, (0, "10.0.0.0/24"), Network()),
        (mz.InvalidValueError, (7, "10.0.0.1/24"), Network()),
        (mz.InvalidValueError, (7, "10.0.0.0/24"), Network(gateway="10.0.1.1")),
        (mz.InvalidValueError, (7, "10.0.0.0/24"), Network(gateway="fd00::1")),
        (mz.InvalidValueError, (7, "10.0.0.0/24"), Network(switches=["2001:db8::9"])),
        (mz.InvalidValueError, (7, "10.0.0.0/24"), Network(via="fd00::1")),
        (mz.InvalidValueError, (7, "::/0"), Network(via="10.0.0.1")),
        (mz.InvalidValueError, (7, "10.0.0.0/24"), Network(via="10.0.0.1")),
        (mz.InvalidValueError, (7, "0.0.0.0/1"), Network(via="10.0.0.1")),
        (mz.InvalidTypeError, (7, "10.0.0.0/24"), "10.0.0.1"),
        (mz.InvalidTypeError, "10.0.0.0/24", Network()),
    ],
)
def test_a_bad_network_is_refused(
    agent: mz.TransitAgent, error: type[Exception], key: Any, value: Any
) -> None:
    with unchanged(agent), pytest.raises(error):
        agent.networks[key] = value


# -- peers -------------------------------------------------------------------------------------------------


def test_peers_are_a_set(agent: mz.TransitAgent) -> None:
    agent.peers.update(["192.0.2.0/24", "198.51.100.7/32"])
    agent.peers.add("192.0.2.0/24")
    assert len(agent.peers) == 2
    assert "192.0.2.0/24" in agent.peers
    assert ip_network("192.0.2.0/25") not in agent.peers
    assert agent.peers | {ip_network("203.0.113.0/24")} == {*agent.peers, ip_network("203.0.113.0/24")}
    agent.peers.discard("192.0.2.0/25")
    agent.peers.discard("192.0.2.0/24")
    assert set(agent.peers) == {ip_network("198.51.100.7/32")}


def test_peers_cover_addresses(agent: mz.TransitAgent) -> None:
    agent.peers.update(["192.0.2.0/24", "::/0"])
    assert agent.peers.covers("192.0.2.200")
    assert not agent.peers.covers("192.0.3.1")
    assert agent.peers.covers("2001:db8::1")


@pytest.mark.parametrize(
    ("error", "prefix"),
    [
        (mz.InvalidValueError, "192.0.2.1/24"),
        (mz.InvalidValueError, "everyone"),
        (mz.InvalidTypeError, 5),
        (mz.InvalidTypeError, None),
    ],
)
def test_a_bad_peer_is_refused_with_all_others(
    agent: mz.TransitAgent, error: type[Exception], prefix: Any
) -> None:
    with unchanged(agent), pytest.raises(error):
        agent.peers.update(["203.0.113.0/24", prefix])
    for call in (agent.peers.discard, agent.peers.__contains__):
        with pytest.raises(error):
            call(prefix)


@pytest.mark.parametrize("name", ["networks", "peers"])
def test_a_few_more_prefixes_than_there_is_room_for(agent: mz.TransitAgent, name: str) -> None:
    """A prefix that is not accepted must not stay: from that of a peer, tunnel packets would be accepted."""
    maps, view = agent._datapath.maps, cast("Any", getattr(agent, name))
    room = getattr(maps, name).max_entries - getattr(maps, name).count()
    prefixes = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(room + 3)]
    entries: Any = prefixes if name == "peers" else {(7, prefix): Network() for prefix in prefixes}
    first, more = (list(entries)[:-6], list(entries)[-6:])
    pick = (lambda keys: keys) if name == "peers" else (lambda keys: {key: entries[key] for key in keys})
    view.update(pick(first))
    with unchanged(agent), pytest.raises(mz.CapacityError):
        view.update(pick(more))


def test_more_peers_than_there_is_room_for(agent: mz.TransitAgent) -> None:
    prefixes = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(4097)]
    with unchanged(agent), pytest.raises(mz.CapacityError):
        agent.peers.update(prefixes)


# -- what they say -----------------------------------------------------------------------------------------


def test_tables_have_a_text_of_one_line(agent: mz.TransitAgent) -> None:
    for table in (agent.endpoints, agent.networks, agent.peers):
        assert "\n" not in repr(table)
    assert "<table" in agent.endpoints._repr_html_()
    assert contents(agent)["networks"] == {}
    assert cast("Any", agent.networks)._repr_html_()
