# SPDX-License-Identifier: Apache-2.0
"""Entries of tables belong to the feed that wrote them: no other feed changes or removes them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import attrs
import pytest

import mizarnet as mz
from mizarnet import EndpointKey, Network, NetworkKey, Remote
from mizarnet._datapath.feeds import Feed, register
from mizarnet._model import codec
from mizarnet._model.codec import FIRST
from tests.support.depth import SEED, depth
from tests.support.map_calls import watched
from tests.support.tables import unchanged
from tests.world import Host, World

HOSTS = [Remote(f"192.0.2.{number}") for number in range(2, 5)]
LOCAL = [EndpointKey(7, ip_address("10.0.0.1")), EndpointKey(7, ip_address("fd00::1"))]
KEY, OTHER = (7, "10.0.0.9"), (7, "10.0.0.10")
TABLES = ("endpoints", "networks", "peers")
WRITERS = ("", "directory", "plan:web")
TWINS = ("feed24453", "feed89984")
"""Names with one number."""


@pytest.fixture(scope="module")
def module_host() -> Iterator[Host]:
    """A host with one local endpoint."""
    with World("vxlan", hosts=1, max_endpoints=64, max_local=4) as world:
        host, namespace = world.hosts[0], world.namespace("local")
        ip = [f"{LOCAL[0].ip}/24", f"{LOCAL[1].ip}/64"]
        mz.Endpoint.create(host.agent, name="web", vni=7, ip=ip, netns=namespace.name)
        yield host


@pytest.fixture
def agent(module_host: Host) -> Iterator[mz.TransitAgent]:
    """The agent of that host, with no other entries and no names of feeds."""
    agent = module_host.agent
    _clear(agent)
    yield agent
    _clear(agent)


def _clear(agent: mz.TransitAgent) -> None:
    for name in TABLES:
        table = getattr(agent, name)
        table.apply([], list(table), take=True)
    _name(agent)


def _name(agent: mz.TransitAgent, *names: str) -> None:
    """Write the names of feeds, all of them, into ``meta``."""
    maps = agent._datapath.maps
    maps.meta.update(FIRST, attrs.evolve(maps.read_meta(), feeds=names).pack())


def names_of(agent: mz.TransitAgent) -> tuple[str, ...]:
    return agent._datapath.maps.read_meta().feeds


# -- against a model ---------------------------------------------------------------------------------------


class Ground:
    """What may stand in a table, and how its calls take it."""

    def __init__(self, agent: mz.TransitAgent, name: str) -> None:
        """One of the three tables."""
        self.table: Any = getattr(agent, name)
        self.name = name
        numbers = range(6)
        if name == "endpoints":
            # Of the two VNIs, one has a local endpoint at two addresses.
            self.keys: list[Any] = [
                EndpointKey(vni, ip_address(f"10.0.0.{n + 5}")) for vni in (7, 8) for n in numbers
            ]
            self.keys += LOCAL
            self.values: list[Any] = [*HOSTS]
        elif name == "networks":
            self.keys = [NetworkKey(vni, ip_network(f"10.0.0.0/{24 - n}")) for vni in (7, 8) for n in numbers]
            self.values = [Network(), Network(switches=["192.0.2.9"]), Network(gateway="10.0.0.254")]
        else:
            self.keys = [ip_network(f"10.{n}.0.0/{16 + n}") for n in range(12)]
            self.values = [None]

    def given(self, put: Mapping[Any, Any]) -> Any:
        """Entries as the table takes them."""
        return list(put) if self.name == "peers" else put

    def found(self) -> dict[Any, tuple[Any, str]]:
        """Value and feed of each entry that is no local endpoint's."""
        if self.name == "peers":
            return {key: (None, self.table.feed_of(key)) for key in self.table}
        snapshot = self.table.snapshot()
        return {
            key: (value, self.table.feed_of(key))
            for key, value in snapshot.items()
            if not isinstance(value, mz.Local)
        }


@attrs.define
class Model:
    """A table as a dictionary: value and feed by key."""

    ground: Ground
    entries: dict[Any, tuple[Any, str]] = attrs.Factory(dict)

    def local(self, keys: Any) -> list[Any]:
        return [key for key in keys if key in LOCAL]

    def foreign(self, keys: Any, feed: str) -> dict[Any, str]:
        return {key: self.entries[key][1] for key in keys if self.entries.get(key, (None, feed))[1] != feed}

    def change(self, put: Mapping[Any, Any], gone: Any, feed: str) -> tuple[int, int, int]:
        """Write and remove; how many were added, changed and removed."""
        new = {key: (value, feed) for key, value in put.items()}
        added = [key for key in new if key not in self.entries]
        changed = [key for key in new if key in self.entries and self.entries[key] != new[key]]
        removed = [key for key in gone if self.entries.pop(key, None)]
        self.entries.update(new)
        return len(added), len(changed), len(removed)

    def apply(self, put: dict[Any, Any], gone: list[Any], feed: str, *, take: bool) -> None:
        named = [*put, *gone]
        local, refused = self.local(named), {} if take else self.foreign(named, feed)
        left = {*local, *refused}
        counts = self.change(
            {key: value for key, value in put.items() if key not in left},
            [key for key in gone if key not in left],
            feed,
        )
        changes = self.ground.table.apply(self.ground.given(put), gone, feed=feed, take=take)
        assert (changes.added, changes.changed, changes.removed) == counts
        assert {*changes.local} == {*local}
        assert changes.refused == refused

    def sync(self, put: dict[Any, Any], feed: str, *, take: bool, vni: int | None) -> str:
        """How it ended."""
        within = {} if vni is None else {"vni": vni}
        call = lambda: self.ground.table.sync(self.ground.given(put), feed=feed, take=take, **within)  # noqa: E731
        foreign = {} if take else self.foreign(put, feed)
        if foreign or self.local(put):
            with pytest.raises((mz.ForeignEntryError, mz.LocalEndpointError)) as caught:
                call()
            assert isinstance(caught.value, mz.ForeignEntryError) == bool(foreign)
            return "refused"
        own = [key for key, (_, owner) in self.entries.items() if owner == feed and vni in (None, key[0])]
        counts = self.change(put, [key for key in own if key not in put], feed)
        changes = call()
        assert (changes.added, changes.changed, changes.removed, changes.local, changes.refused) == (
            *counts,
            (),
            {},
        )
        return "done"


@pytest.mark.parametrize("name", TABLES)
def test_no_feed_changes_what_is_anothers(agent: mz.TransitAgent, name: str) -> None:
    """Two feeds and a script write at random, beside local endpoints; the table is as a dictionary says."""
    chance, ground = random.Random(SEED), Ground(agent, name)
    model, ended = Model(ground), Counter[str]()

    def some(keys: list[Any], most: int) -> list[Any]:
        return chance.sample(keys, chance.randint(0, min(most, len(keys))))

    for _ in range(depth(100, 2000)):
        for feed in WRITERS:
            take = chance.random() < 0.1
            keys = some(ground.keys, 6)
            half = chance.randint(0, len(keys))
            put = {key: chance.choice(ground.values) for key in keys[:half]}
            model.apply(put, keys[half:], feed, take=take)
            free = [key for key in ground.keys if key not in {*model.foreign(ground.keys, feed), *LOCAL}]
            put = {
                key: chance.choice(ground.values)
                for key in some(free if chance.random() < 0.7 else ground.keys, 4)
            }
            vni = None if name == "peers" else chance.choice([None, 7, 8])
            wanted = {key: value for key, value in put.items() if vni in (None, key[0])}
            ended[model.sync(wanted, feed, take=take, vni=vni)] += 1
        assert ground.found() == model.entries, f"seed {SEED}"
        owners = Counter(owner for _, owner in model.entries.values())
        assert ground.table.feeds() == owners
    assert min(ended["done"], ended["refused"]) > 10
    if name == "endpoints":
        assert all(isinstance(agent.endpoints[key], mz.Local) for key in LOCAL)
        assert {agent.endpoints.feed_of(key) for key in LOCAL} == {""}


# -- whose an entry is -------------------------------------------------------------------------------------


@attrs.frozen
class Case:
    """The calls of one table that write or remove one entry, another of which belongs to a feed, too."""

    table: str
    keys: tuple[Any, Any]
    entries: Callable[[list[Any]], Any]
    by_hand: list[Callable[[Any, Any], object]]


CASES = [
    Case(
        "endpoints",
        (KEY, OTHER),
        lambda keys: dict.fromkeys(keys, HOSTS[1]),
        [lambda t, k: t.__setitem__(k, HOSTS[1]), lambda t, k: t.__delitem__(k)],
    ),
    Case(
        "networks",
        ((7, "10.0.0.0/24"), (7, "10.0.0.0/8")),
        lambda keys: dict.fromkeys(keys, Network()),
        [lambda t, k: t.__setitem__(k, Network()), lambda t, k: t.__delitem__(k)],
    ),
    Case(
        "peers",
        ("198.51.100.0/24", "198.51.0.0/16"),
        lambda keys: keys,
        [lambda t, k: t.add(k), lambda t, k: t.discard(k)],
    ),
]
each_table = pytest.mark.parametrize("case", CASES, ids=lambda case: case.table)


@each_table
def test_to_write_over_an_entry_of_a_feed_is_an_error(agent: mz.TransitAgent, case: Case) -> None:
    table = getattr(agent, case.table)
    key, other = case.keys
    table.update(case.entries([key]), feed="directory")
    calls: list[Callable[[], object]] = [
        *(lambda call=call: call(table, key) for call in case.by_hand),  # type: ignore[misc]
        lambda: table.update(case.entries([other, key])),
        lambda: table.update(case.entries([other, key]), feed="plan:web"),
        lambda: table.sync(case.entries([other, key]), feed="plan:web"),
    ]
    for call in calls:
        with unchanged(agent), pytest.raises(mz.ForeignEntryError) as caught:
            call()
        assert caught.value.feed == "directory"
        assert table.feed_of(caught.value.key) == "directory"
        assert "take=True" in caught.value.hint
    table.update(case.entries([other]))
    with unchanged(agent), pytest.raises(mz.ForeignEntryError, match="was written by hand") as caught:
        table.update(case.entries([key, other]), feed="directory")
    assert caught.value.feed == ""


@each_table
def test_what_is_taken_is_what_is_named(agent: mz.TransitAgent, case: Case) -> None:
    table = getattr(agent, case.table)
    key, other = case.keys
    ways: list[Callable[[], object]] = [
        lambda: table.update(case.entries([key]), feed="plan:web", take=True),
        lambda: table.sync(case.entries([key]), feed="plan:web", take=True),
        lambda: table.apply(case.entries([key]), feed="plan:web", take=True),
    ]
    for way in ways:
        table.sync(case.entries([key, other]), feed="directory", take=True)
        way()
        assert (table.feed_of(key), table.feed_of(other)) == ("plan:web", "directory")
        table.sync([], feed="directory")
        assert table.feeds() == {"plan:web": 1}
    table.update(case.entries([other]), feed="directory")
    changes = table.apply([], [key, other], take=True)
    assert changes == mz.Changes(added=0, changed=0, removed=2)
    assert len(table.feeds()) == 0


@each_table
def test_what_belongs_to_nobody_has_no_feed(agent: mz.TransitAgent, case: Case) -> None:
    table = getattr(agent, case.table)
    with pytest.raises(mz.EntryNotFoundError):
        table.feed_of(case.keys[0])
    with unchanged(agent):
        assert table.apply([], case.keys, feed="directory") == mz.Changes(added=0, changed=0, removed=0)
    assert names_of(agent) == ()


@each_table
def test_a_key_is_put_or_gone(agent: mz.TransitAgent, case: Case) -> None:
    table = getattr(agent, case.table)
    with unchanged(agent), pytest.raises(mz.InvalidValueError) as caught:
        table.apply(case.entries([*case.keys]), [case.keys[1]])
    assert caught.value.argument == "gone"


def test_peers_that_attach_was_given_were_added_by_hand(host: Host) -> None:
    assert host.agent.peers.feeds() == {"": 1}
    host.agent.peers.add("198.51.100.0/24")
    host.agent.peers.update(["203.0.113.0/24"], feed="directory")
    with pytest.raises(mz.ExistsError, match="peers is"):
        mz.TransitAgent.attach(host.tunnel, peers=["192.0.2.0/24", "198.51.100.0/24"])
    everyone = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"]
    mz.TransitAgent.attach(host.tunnel, peers=everyone).close()


# -- endpoints of this host --------------------------------------------------------------------------------


def test_a_local_endpoint_beats_every_feed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, namespace = world.hosts[0].agent, world.namespace("c")
    agent.endpoints.update({KEY: HOSTS[0]}, feed="directory")
    endpoint = mz.Endpoint.create(agent, name="c", vni=7, ip="10.0.0.9/24", netns=namespace.name)
    calls = watched(monkeypatch)
    for take in (False, True):
        with unchanged(agent):
            changes = agent.endpoints.apply({KEY: HOSTS[0]}, feed="directory", take=take)
            assert changes.local == (EndpointKey.parse(KEY),)
            assert agent.endpoints.apply({}, [KEY], feed="directory", take=take).local == changes.local
        for call in (agent.endpoints.update, agent.endpoints.sync):
            with unchanged(agent), pytest.raises(mz.LocalEndpointError):
                call({OTHER: HOSTS[0], KEY: HOSTS[0]}, feed="directory", take=take)
    # Not even for a moment.
    assert calls["endpoints.update"] == calls["endpoints.update_many"] == calls["endpoints.delete_many"] == 0
    assert agent.endpoints.feeds() == {}
    endpoint.delete()
    assert KEY not in agent.endpoints
    assert agent.endpoints.apply({KEY: HOSTS[0]}, feed="directory").added == 1
    assert agent.endpoints.feed_of(KEY) == "directory"


def test_a_feed_takes_the_address_of_a_container_that_ended(world: World) -> None:
    agent, namespace = world.hosts[0].agent, world.namespace("c")
    mz.Endpoint.create(agent, name="c", vni=7, ip="10.0.0.9/24", netns=namespace.name)
    namespace.run("ip", "link", "del", "eth0")
    assert agent.endpoints.apply({KEY: HOSTS[0]}, feed="directory") == mz.Changes(1, 0, 0)
    assert agent.endpoints.feed_of(KEY) == "directory"


def test_an_endpoint_that_is_made_meanwhile_has_its_address_back(
    agent: mz.TransitAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process that does not see the lock."""
    maps = agent._datapath.maps
    key = codec.pack_endpoint_key(LOCAL[0])
    claim, entry = maps.addresses.take(key), maps.endpoints.take(key)
    assert claim is not None
    assert entry is not None
    update_many = maps.endpoints.update_many

    def claimed(entries: Any) -> int:
        maps.addresses.update(key, claim)
        return update_many(entries)

    monkeypatch.setattr(maps.endpoints, "update_many", claimed)
    changes = agent.endpoints.apply({LOCAL[0]: HOSTS[0], KEY: HOSTS[0]}, feed="directory")
    assert changes == mz.Changes(1, 0, 0, local=(LOCAL[0],))
    assert maps.endpoints.lookup(key) == entry


# -- room --------------------------------------------------------------------------------------------------


def test_a_full_table_leaves_entries_and_owners(agent: mz.TransitAgent) -> None:
    agent.endpoints.update({(8, f"10.0.0.{n}"): HOSTS[0] for n in range(40)}, feed="directory")
    agent.endpoints.update({(9, f"10.0.0.{n}"): HOSTS[0] for n in range(22)}, feed="plan:web")
    more = {(8, f"10.0.0.{n}"): HOSTS[1] for n in range(38, 44)}
    calls: list[Callable[[], object]] = [
        lambda: agent.endpoints.apply(more, feed="directory"),
        lambda: agent.endpoints.apply(more, [(8, "10.0.0.1"), (9, "10.0.0.1")], feed="directory"),
        lambda: agent.endpoints.apply(more, feed="plan:web", take=True),
        lambda: agent.endpoints.update(more, feed="plan:web", take=True),
        lambda: agent.endpoints.sync(
            more | {(10, f"10.0.0.{n}"): HOSTS[0] for n in range(20)}, feed="plan:web", take=True
        ),
    ]
    for call in calls:
        with unchanged(agent), pytest.raises(mz.CapacityError):
            call()
    gone = [(8, f"10.0.0.{n}") for n in range(4)]
    assert agent.endpoints.apply(more, gone, feed="directory") == mz.Changes(added=4, changed=2, removed=4)


@pytest.mark.parametrize("name", ["networks", "peers"])
def test_a_full_table_of_prefixes_leaves_entries_and_owners(agent: mz.TransitAgent, name: str) -> None:
    table, ground = getattr(agent, name), Ground(agent, name)
    room = getattr(agent._datapath.maps, name).max_entries

    def some(numbers: range) -> Any:
        prefixes = [f"10.{n >> 8}.{n & 255}.0/24" for n in numbers]
        return ground.given(
            dict.fromkeys(prefixes if name == "peers" else [(7, each) for each in prefixes], Network())
        )

    table.update(some(range(room - 1)), feed="directory")
    table.update(some(range(room - 1, room)), feed="plan:web")
    with unchanged(agent), pytest.raises(mz.CapacityError):
        table.apply(some(range(room - 3, room + 1)), feed="directory", take=True)
    changes = table.apply(some(range(room, room + 2)), list(some(range(2))), feed="directory")
    assert changes == mz.Changes(added=2, changed=0, removed=2)
    assert table.feeds() == {"directory": room - 1, "plan:web": 1}


def test_there_is_room_for_sixteen_names(agent: mz.TransitAgent) -> None:
    """A name whose feed has no entry, in any table, gives way."""
    feeds = [f"plan:{number}" for number in range(16)]
    agent.networks.update({(7, "10.0.0.0/24"): Network()}, feed=feeds[0])
    agent.peers.update(["198.51.100.0/24"], feed=feeds[1])
    for number, feed in enumerate(feeds[2:]):
        agent.endpoints.update({(8, f"10.0.0.{number}"): HOSTS[0]}, feed=feed)
    assert names_of(agent) == tuple(feeds)
    for call in (agent.endpoints.update, agent.endpoints.sync, agent.endpoints.apply):
        with unchanged(agent), pytest.raises(mz.CapacityError, match="'plan:9'") as caught:
            call({KEY: HOSTS[0]}, feed="one more")
        assert (caught.value.table, caught.value.capacity, caught.value.used) == ("feeds", 16, 16)
    agent.endpoints.sync({(8, "10.0.1.1"): HOSTS[0]}, feed="plan:5")
    agent.networks.sync({}, feed="plan:0")
    agent.endpoints.sync({}, feed="plan:7")
    agent.endpoints.update({KEY: HOSTS[0]}, feed="one more")
    assert names_of(agent) == (*(feed for feed in feeds if feed not in ("plan:0", "plan:7")), "one more")
    assert agent.endpoints.feeds() == dict.fromkeys([*feeds[2:7], *feeds[8:], "one more"], 1)
    assert agent.peers.feeds() == {"plan:1": 1}


def test_names_with_one_number_are_told_apart(agent: mz.TransitAgent) -> None:
    first, second = TWINS
    assert codec.feed_number(first) == codec.feed_number(second)
    agent.endpoints.update({KEY: HOSTS[0]}, feed=first)
    for call in (agent.endpoints.update, agent.endpoints.sync, agent.endpoints.apply):
        for entries in ({}, {KEY: HOSTS[1]}):
            with unchanged(agent), pytest.raises(mz.InvalidValueError) as caught:
                call(entries, feed=second)
            assert caught.value.argument == "feed"


# -- names -------------------------------------------------------------------------------------------------


def test_what_else_is_written_into_meta_keeps_the_names(agent: mz.TransitAgent, module_host: Host) -> None:
    agent.endpoints.update({KEY: HOSTS[0]}, feed="directory")
    agent._datapath.maps.count_replacement()
    with pytest.raises(mz.InUseError):
        agent.detach()
    mz.TransitAgent.attach(module_host.tunnel).close()
    assert names_of(agent) == ("directory",)


def test_a_feed_whose_name_was_lost_keeps_its_entries(agent: mz.TransitAgent) -> None:
    agent.endpoints.update({KEY: HOSTS[0], OTHER: HOSTS[0]}, feed="directory")
    _name(agent)
    unknown = f"?{codec.feed_number('directory'):08x}"
    assert agent.endpoints.feed_of(KEY) == unknown
    assert agent.endpoints.feeds() == {unknown: 2}
    with pytest.raises(mz.ForeignEntryError, match=r"belongs to feed '\?") as caught:
        agent.endpoints[KEY] = HOSTS[1]
    assert caught.value.feed == unknown
    with pytest.raises(mz.InvalidValueError):
        agent.endpoints.update({}, feed=unknown)
    assert agent.endpoints.sync({KEY: HOSTS[0]}, feed="directory") == mz.Changes(0, 0, 1)
    assert agent.endpoints.feeds() == {"directory": 1}


def test_two_names_at_one_moment(agent: mz.TransitAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes that do not see each other's lock, one name is lost, and no entry changes hands."""
    maps = agent._datapath.maps
    with mz.TransitAgent.open(agent.tunnel) as other:
        theirs, write = other._datapath.maps, maps.meta.update

        def overtaken(*args: Any) -> None:
            register(theirs, Feed.of("plan:web"))
            write(*args)

        monkeypatch.setattr(maps.meta, "update", overtaken)
        agent.endpoints.update({KEY: HOSTS[0]}, feed="directory")
        monkeypatch.undo()
        packed = codec.pack_endpoint(HOSTS[1], feed=codec.feed_number("plan:web"))
        theirs.endpoints.update(codec.pack_endpoint_key(EndpointKey.parse(OTHER)), packed)
        assert names_of(agent) == ("directory",)
        for feed, key in (("directory", OTHER), ("plan:web", KEY)):
            with pytest.raises(mz.ForeignEntryError):
                agent.endpoints.update({key: HOSTS[2]}, feed=feed)
        agent.endpoints.sync({KEY: HOSTS[0]}, feed="directory")
        other.endpoints.sync({OTHER: HOSTS[1]}, feed="plan:web")
    assert agent.endpoints.feeds() == {"directory": 1, "plan:web": 1}


# -- cost --------------------------------------------------------------------------------------------------


def test_a_change_costs_the_same_in_any_table(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of the maps are counted; what is foreign or unchanged is not written."""
    table, calls = host.agent.endpoints, watched(monkeypatch)
    few = {(7, f"10.0.0.{n}"): HOSTS[0] for n in range(8)}
    foreign = {(8, f"10.0.0.{n}"): HOSTS[0] for n in range(8)}
    counted: list[list[Counter[str]]] = []
    table.update({(9, "10.0.0.1"): HOSTS[0]}, feed="plan:web")
    for size in (1, 6000):
        table.sync({(9, f"10.0.{n >> 8}.{n & 255}"): HOSTS[0] for n in range(size)}, feed="plan:web")
        table.sync(few, feed="directory")
        table.sync(foreign)
        counted.append([])
        for host_of in HOSTS[1:]:
            calls.clear()
            table.apply(dict.fromkeys([*few, *foreign], host_of), [(9, "10.0.0.0")], feed="directory")
            counted[-1].append(Counter(calls))
            calls.clear()
            table.update(dict.fromkeys(few, host_of), feed="directory")
            table[next(iter(foreign))] = host_of
            counted[-1].append(Counter(calls))
    assert counted[0] == counted[1]
    for each in counted[1]:
        assert each["endpoints.read"] == each["meta.update"] == 0
    apply, update = counted[1][:2]
    assert apply["endpoints.update_many"] == 8
    assert apply["endpoints.lookup"] == 17  # whose each is
    assert update["endpoints.update_many"] == 1


@pytest.mark.parametrize("size", [1, 3000])
@pytest.mark.parametrize("name", ["networks", "peers"])
def test_a_change_of_prefixes_costs_the_same_in_any_table(
    agent: mz.TransitAgent, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    """All are read only to see whether there is room, where a prefix is new."""
    table, given = getattr(agent, name), Ground(agent, name).given

    def key(text: str) -> Any:
        return ip_network(text) if name == "peers" else NetworkKey(9, ip_network(text))

    table.update(
        given({key(f"11.{n >> 8}.{n & 255}.0/24"): Network() for n in range(size)}), feed="directory"
    )
    few = given({key(f"12.0.{n}.0/24"): Network() for n in range(8)})
    table.update(given({key("0.0.0.0/0"): Network()}))
    table.update(few, feed="plan:web")
    new, calls = key("12.0.8.0/24"), watched(monkeypatch)

    def cost(call: Callable[[], object]) -> dict[str, int]:
        calls.clear()
        call()
        counts = {each.partition(".")[2]: calls[each] for each in calls if each.startswith(f"{name}.")}
        return {each: count for each, count in counts.items() if count}

    # The kernel finds 0.0.0.0/0 for a prefix that is not there.
    assert cost(lambda: new in table) == {"lookup": 1}
    assert cost(lambda: table.feed_of(next(iter(few)))) == {"lookup": 1}
    # Whose each is.
    assert cost(lambda: table.apply(few, feed="directory")) == {"lookup": 8}
    assert cost(lambda: table.apply(few, feed="directory", take=True)) == {"lookup": 8, "update_many": 8}
    assert cost(lambda: table.update(few, feed="directory")) == {"lookup": 8}
    assert cost(lambda: table.apply([], [new])) == {"lookup": 1}
    assert cost(lambda: table.update(given({new: Network()}))) == {"lookup": 1, "read": 1, "update_many": 1}
    if name == "peers":
        assert cost(lambda: table.discard(new)) == {"lookup": 1, "delete_many": 1}
    else:
        assert cost(lambda: table.__delitem__(new)) == {"lookup": 1, "delete_many": 1}
    assert cost(lambda: table.apply([], few, feed="directory")) == {"lookup": 8, "delete_many": 8}
    assert cost(lambda: table.sync([], feed="plan:web"))["read"] == 1


def test_a_name_is_written_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = watched(monkeypatch)
    for number in range(3):
        host.agent.endpoints.update({(7, f"10.0.0.{number}"): HOSTS[0]}, feed="directory")
        host.agent.endpoints.sync({(7, f"10.0.0.{number}"): HOSTS[0]}, feed="directory")
        host.agent.peers.update(["198.51.100.0/24"], feed="directory")
    assert calls["meta.update"] == 1
