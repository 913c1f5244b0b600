# SPDX-License-Identifier: Apache-2.0
"""Values: equal by content, frozen, and normal forms of what was given."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

import mizarnet as mz
from mizarnet import EndpointKey, EndpointSpec, MacAddress, Network, NetworkKey, Remote


def test_text_and_objects_mean_the_same() -> None:
    by_text = EndpointSpec(
        vni=7, ip="10.0.0.5/24", netns="/run/netns/web", mac="02:00:00:00:00:01", kind="macvlan"
    )
    by_object = EndpointSpec(
        vni=7,
        ip=ip_interface("10.0.0.5/24"),
        netns=Path("/run/netns/web"),
        mac=bytes.fromhex("020000000001"),
        kind=mz.Kind.MACVLAN,
    )
    assert by_text == by_object
    assert hash(by_text) == hash(by_object)


def test_an_endpoint_is_named_after_its_address() -> None:
    assert EndpointSpec(vni=7, ip="10.0.0.5/24").name == "7/10.0.0.5"


def test_addresses_are_ordered_by_family() -> None:
    spec = EndpointSpec(vni=7, ip=["fd00::5/64", "10.0.0.5/24"])
    assert [str(address) for address in spec.ip] == ["10.0.0.5/24", "fd00::5/64"]


def test_an_address_without_prefix_is_alone() -> None:
    assert EndpointSpec(vni=7, ip="10.0.0.5").ip == (ip_interface("10.0.0.5/32"),)


def test_a_specification_survives_evolution() -> None:
    spec = EndpointSpec(vni=7, ip="10.0.0.5/24", gateway="10.0.0.1")
    assert attrs.evolve(spec, mtu=1400).gateway == (ip_address("10.0.0.1"),)


@pytest.mark.parametrize(
    "value", [Remote("192.0.2.1"), Network(), MacAddress(bytes(6)), EndpointSpec(vni=7, ip="10.0.0.5")]
)
def test_values_are_frozen(value: Any) -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, attrs.fields(type(value))[0].name, None)


def test_a_derived_mac_is_unicast_local_and_always_the_same() -> None:
    mac = MacAddress.derive(7, IPv4Address("10.0.0.5"))
    assert mac == MacAddress.derive(7, IPv4Address("10.0.0.5"))
    assert mac.packed[0] & 0x03 == 0x02


def test_derived_macs_differ_by_vni_and_address() -> None:
    macs = {
        MacAddress.derive(vni, ip_address(ip)) for vni in (7, 8) for ip in ("10.0.0.5", "10.0.0.6", "::a00:5")
    }
    assert len(macs) == 6


def test_a_mac_prints_as_it_is_written() -> None:
    assert str(MacAddress.parse("02:00:00:00:00:AB")) == "02:00:00:00:00:ab"


def test_keys_are_plain_pairs() -> None:
    assert EndpointKey.parse((7, "10.0.0.5")) == (7, ip_address("10.0.0.5"))
    assert NetworkKey.parse((7, "10.0.0.0/24")) == (7, ip_network("10.0.0.0/24"))


@pytest.mark.parametrize(
    ("encap", "version", "overhead"),
    [("vxlan", 4, 50), ("vxlan", 6, 70), ("geneve", 4, 50), ("geneve", 6, 70)],
)
def test_the_overhead_of_a_tunnel(encap: str, version: int, overhead: int) -> None:
    assert mz.Encap(encap).overhead(version) == overhead


def test_the_first_drop_reason_is_a_drop_and_what_passes_is_none() -> None:
    assert mz.Verdict.TRUNCATED.dropped
    assert not mz.Verdict.PASSED.dropped


def test_switches_may_be_any_iterable() -> None:
    assert Network(switches=cast("Any", iter(["192.0.2.9"]))).switches == (ip_address("192.0.2.9"),)
