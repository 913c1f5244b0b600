# SPDX-License-Identifier: Apache-2.0
"""The quick way to a packed key says what the careful one says, or leaves it to that."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mizarnet._model.codec import pack_endpoint_key, pack_usual_key, unpack_endpoint_key
from mizarnet._model.specs import EndpointKey
from mizarnet.errors import MizarnetError

ADDRESSES = st.one_of(st.ip_addresses(), st.ip_addresses().map(str), st.text("0123456789.:af%é", max_size=12))
VNIS = st.one_of(st.integers(-1, 1 << 25), st.booleans(), st.just("7"))


@given(VNIS, ADDRESSES)
def test_both_ways_agree(vni: object, ip: object) -> None:
    quick = pack_usual_key((vni, ip))
    try:
        key = EndpointKey.parse((vni, ip))
    except MizarnetError:
        assert quick is None
        return
    assert quick in (None, pack_endpoint_key(key))
    assert unpack_endpoint_key(pack_endpoint_key(key)) == key


@pytest.mark.parametrize("ip", ["10.0.0.9", IPv4Address("10.0.0.9"), IPv6Address("fd00::9")])
def test_the_usual_is_quick(ip: str | IPv4Address | IPv6Address) -> None:
    assert pack_usual_key((7, ip)) == pack_endpoint_key(EndpointKey(7, ip_address(ip)))
    assert pack_usual_key(EndpointKey(7, ip_address(ip))) is not None


@pytest.mark.parametrize(
    "key",
    [
        (7, "010.0.0.9"),
        (7, "10.0.0"),
        (7, "10.0.0.9\0"),
        (7, "::ffff:10.0.0.9"),
        (7, IPv6Address("::ffff:10.0.0.9")),
        (7, IPv6Address("fe80::1%eth0")),
        (7, IPv4Interface("10.0.0.9/24")),
        (0, "10.0.0.9"),
        (1 << 24, "10.0.0.9"),
        (True, "10.0.0.9"),
        (7, "10.0.0.9", 1),
        [7, "10.0.0.9"],
        None,
    ],
)
def test_what_is_odd_is_left_to_the_careful_way(key: object) -> None:
    assert pack_usual_key(key) is None
