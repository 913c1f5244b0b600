# SPDX-License-Identifier: Apache-2.0
"""Keys and values as bytes: what is packed comes back, and no two keys are alike."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

import pytest

from mizarnet._model import codec, layouts
from mizarnet._model.codec import Item, Meta, Record
from mizarnet._model.specs import (
    EndpointKey,
    EndpointSpec,
    Local,
    MacAddress,
    Network,
    NetworkKey,
    Remote,
    Route,
)
from mizarnet.errors import LayoutError
from tests.support import filled

MAC = MacAddress.parse("02:00:00:00:00:01")
ADDRESSES = ["10.0.0.5", "255.255.255.254", "fd00::5", "::1.2.3.4"]
NETWORK_KEY = NetworkKey(7, ip_network("10.0.0.0/24"))
PREFIXES = ["0.0.0.0/0", "10.0.0.0/24", "10.0.0.5/32", "::/0", "fd00::/64", "fd00::5/128"]


@pytest.mark.parametrize("ip", ADDRESSES)
@pytest.mark.parametrize("vni", [1, 0xFFFFFF])
def test_an_endpoint_key_comes_back(vni: int, ip: str) -> None:
    key = EndpointKey(vni, ip_address(ip))
    assert codec.unpack_endpoint_key(codec.pack_endpoint_key(key)) == key


@pytest.mark.parametrize("value", [Local(MAC, 4095), Remote("192.0.2.1"), Remote("2001:db8::1")])
def test_an_endpoint_comes_back(value: Local | Remote) -> None:
    assert codec.unpack_endpoint(codec.pack_endpoint(value)) == value


@pytest.mark.parametrize("place", [0, 3, 2**32 - 1])
def test_an_endpoint_of_an_unknown_place_is_nobodys(place: int) -> None:
    packed = codec.u32(place) + codec.pack_endpoint(Local(MAC, 1))[4:]
    for read in (codec.unpack_endpoint, codec.is_local):
        with pytest.raises(LayoutError, match=f"place {place}") as caught:
            read(packed)
        assert caught.value.struct == "mzn_endpoint"


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_network_key_comes_back(prefix: str) -> None:
    key = NetworkKey(7, ip_network(prefix))
    assert codec.unpack_network_key(codec.pack_network_key(key)) == key


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_peer_comes_back(prefix: str) -> None:
    assert codec.unpack_peer_key(codec.pack_peer_key(ip_network(prefix))) == ip_network(prefix)


def test_keys_of_different_networks_differ() -> None:
    packed = {
        codec.pack_network_key(NetworkKey(vni, ip_network(each))) for vni in (7, 8) for each in PREFIXES
    }
    assert len(packed) == 2 * len(PREFIXES)


@pytest.mark.parametrize(
    "network",
    [
        Network(),
        Network(gateway="10.0.0.1"),
        Network(gateway="fd00::1", switches=["192.0.2.9"]),
        Network(switches=[f"2001:db8::{n}" for n in range(1, 17)]),
        Network(via="10.0.0.1"),
        Network(via="fd00::1"),
    ],
)
def test_a_network_comes_back(network: Network) -> None:
    assert codec.unpack_network(codec.pack_network(NETWORK_KEY, network)) == network


@pytest.mark.parametrize("via", ["10.0.0.1", "fd00::1"])
def test_a_next_hop_is_a_key_of_endpoints(via: str) -> None:
    network_key = codec.pack_network_key(NetworkKey(7, ip_network("172.20.0.0/16")))
    packed = codec.pack_network(NetworkKey(7, ip_network("172.20.0.0/16")), Network(via=via))
    key = codec.pack_endpoint_key(EndpointKey(7, ip_address(via)))
    assert codec.next_hop(network_key, packed) == key
    assert codec.next_hop(network_key, codec.pack_network(NETWORK_KEY, Network(gateway=via))) is None


@pytest.mark.parametrize("count", range(7))
def test_the_next_hops_of_a_host_come_back_as_far_as_there_is_room(count: int) -> None:
    keys = [codec.pack_endpoint_key(EndpointKey(7, ip_address(f"10.0.0.{n}"))) for n in range(count)]
    host = codec.host_of(codec.pack_endpoint(Remote("192.0.2.9")))
    assert host is not None
    assert codec.unpack_router(codec.pack_router_key(7, host), codec.pack_router(keys)) == keys[:4]
    assert codec.host_of(codec.pack_endpoint(Local(MacAddress(bytes(6)), 5, True))) is None


@pytest.mark.parametrize("prefix", [*map(ip_network, PREFIXES)], ids=str)
def test_an_entry_of_a_prefix_tells_its_key_from_those_of_other_lengths(
    prefix: IPv4Network | IPv6Network,
) -> None:
    """As long as one of them contains the other: these are all that a look-up takes for one another."""
    network, peer = codec.pack_network(NetworkKey(7, prefix), Network()), codec.pack_peer(prefix)
    own = prefix.network_address
    for length in range(prefix.max_prefixlen + 1):
        other = ip_network((own, length), strict=False)
        is_own = length == prefix.prefixlen
        assert codec.is_network_of(codec.pack_network_key(NetworkKey(7, other)), network) is is_own
        assert codec.is_peer_of(codec.pack_peer_key(other), peer) is is_own


@pytest.mark.parametrize("name", ["", "plan:web", "directory", "ä" * 15 + "x"])
def test_an_entry_says_which_feed_wrote_it(name: str) -> None:
    number = codec.feed_number(name)
    packed = {
        codec.endpoint_feed: codec.pack_endpoint(Remote("192.0.2.1"), feed=number),
        codec.network_feed: codec.pack_network(NETWORK_KEY, Network(gateway="10.0.0.1"), feed=number),
        codec.peer_feed: codec.pack_peer(ip_network("192.0.2.0/24"), feed=number),
    }
    assert {owner(value) for owner, value in packed.items()} == {number}
    assert (number == 0) == (name == "")
    assert codec.feed_text(number, ["plan:web", name, "directory"]) == name
    assert codec.unpack_endpoint(packed[codec.endpoint_feed]) == Remote("192.0.2.1")
    assert codec.unpack_network(packed[codec.network_feed]) == Network(gateway="10.0.0.1")


def test_numbers_of_feeds_stay_the_same_and_differ() -> None:
    """They stand in maps that another version reads."""
    names = ["directory", "plan:web", "plan:db", *(f"plan:{number}" for number in range(1000))]
    assert [codec.feed_number(name) for name in names[:3]] == [1737452469, 480159314, 1120966717]
    assert len({*map(codec.feed_number, names)}) == len(names)


def test_a_feed_without_a_name_is_shown_with_its_number() -> None:
    assert codec.feed_text(0xAB, ["directory"]) == "?000000ab"


@pytest.mark.parametrize(
    "names", [(), ("directory",), tuple(f"{number:031}" for number in range(16)), ("ä" * 15,)]
)
def test_the_names_of_feeds_come_back(names: tuple[str, ...]) -> None:
    assert Meta.unpack(filled.meta(feeds=names).pack()).feeds == names


def test_half_a_name_is_no_error_and_no_feeds() -> None:
    """A process that does not see the lock reads while another writes."""
    packed = bytearray(filled.meta(feeds=("ä" * 15, "directory")).pack())
    start = layouts.META.offset("feeds")
    packed[start + 29 : start + 32] = b"x\xc3\xa4"
    found = Meta.unpack(bytes(packed))
    assert found.feeds[1] == "directory"
    assert codec.feed_text(codec.feed_number("ä" * 15), found.feeds).startswith("?")
    assert Meta.unpack(found.pack()).feeds == found.feeds


@pytest.mark.parametrize(
    "spec",
    [
        EndpointSpec(vni=7, ip="10.0.0.5/24", mac=MAC, mtu=1450, gateway=()),
        EndpointSpec(vni=7, ip="fd00::5/64", mac=MAC, mtu=1450, gateway="fd00::1"),
        EndpointSpec(
            name="é" * 95,
            vni=0xFFFFFF,
            ip=["10.0.0.5/24", "fd00::5/64"],
            netns="/" + "x" * 254,
            ifname="n" * 15,
            mac=MAC,
            kind="macvtap",
            gateway=["10.0.0.1", "fd00::1"],
            mtu=65535,
            forwarding=True,
            trust_user_namespace=True,
        ),
    ],
    ids=["IPv4", "IPv6", "everything"],
)
def test_a_record_comes_back(spec: EndpointSpec) -> None:
    record = Record(
        spec=spec,
        instance=2**64 - 1,
        slot=3,
        ifindex=4,
        netns_cookie=2**63,
        netns_id=(4, 2**32),
        nsid=-2,
        private=True,
    )
    assert Record.unpack(record.pack()) == record


def _with_items(**items: Item) -> Record:
    spec = EndpointSpec(
        vni=7,
        ip=["10.0.0.5/24", "10.0.0.9/24", "10.0.0.7/32", "fd00::5/64", "fd01::9/48"],
        mac=MAC,
        mtu=1450,
        gateway="fe80::1",
        routes=[Route("10.9.0.0/16", "10.0.0.1"), Route("fd09::/64")],
    )
    more = {100 + number: item for number, item in enumerate(items.values())}
    return filled.record(spec, generation=5, items=codec.items_of(spec) | more)


def _unpacked(record: Record) -> Record:
    return Record.unpack(record.pack(), {at: Item.unpack(each.pack()) for at, each in record.items.items()})


def test_further_addresses_and_routes_come_back() -> None:
    record = _with_items()
    assert [str(each.content) for each in record.items.values()][:3] == [
        "10.0.0.7/32",
        "10.0.0.9/24",
        "fd01::9/48",
    ]
    assert _unpacked(record) == record
    assert codec.items_below(record.pack()) == 5


def test_an_item_counts_from_its_first_generation_to_the_one_before_its_end() -> None:
    wanted = {(5, 0): True, (6, 0): False, (0, 5): False, (0, 6): True, (3, 5): False, (5, 6): True}
    for (since, until), counts in wanted.items():
        found = _unpacked(_with_items(one=Item(ip_interface("10.0.0.77/24"), since, until)))
        assert (ip_interface("10.0.0.77/24") in found.spec.ip) is counts


def test_what_does_not_count_is_still_led_to() -> None:
    left = Item(ip_interface("10.0.0.77/24"), 0, 5)
    found = _unpacked(_with_items(one=left))
    key = codec.pack_endpoint_key(EndpointKey(7, ip_address("10.0.0.77")))
    assert key in found.address_keys()
    assert key not in found.pack_addresses()
    assert codec.items_below(found.pack()) == 101


def test_a_default_route_among_the_items_is_no_route_of_the_endpoint() -> None:
    found = _unpacked(_with_items(one=Item(Route("::/0", "fe80::2"))))
    assert found.spec == _with_items().spec


def test_a_record_can_be_read_without_its_items() -> None:
    """A process that makes the endpoint writes them after it, and one that removes it takes them first."""
    found = Record.unpack(_with_items().pack())
    assert [str(each) for each in found.spec.ip] == ["10.0.0.5/24", "fd00::5/64"]
    assert found.spec.routes == ()


def test_a_path_that_is_too_long_is_refused_and_not_cut() -> None:
    with pytest.raises(ValueError, match="cannot be a namespace"):
        EndpointSpec(vni=7, ip="10.0.0.5", netns="/" + "x" * 255)


def test_names_that_differ_have_different_keys() -> None:
    assert codec.record_key("a") != codec.record_key("b")
    assert len(codec.record_key("a" * 191)) == 16
