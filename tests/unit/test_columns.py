# SPDX-License-Identifier: Apache-2.0
"""Columns say the same as entries, and refuse what could be none."""

from __future__ import annotations

import ctypes
import pickle
import sys
from array import array
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mizarnet as mz
from mizarnet._model import codec, columns
from mizarnet._model.arguments import IPAddress
from mizarnet.errors import InvalidTypeError, InvalidValueError, LayoutError, MizarnetError

LOCAL = mz.Local(mz.MacAddress.parse("02:00:00:00:00:09"), 3, tap=True)


def mapped(ip: IPAddress) -> bytes:
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


def of(*entries: tuple[int, str, str]) -> mz.EndpointColumns:
    return mz.EndpointColumns(
        array("I", [vni for vni, _, _ in entries]),
        b"".join(mapped(ip_address(ip)) for _, ip, _ in entries),
        b"".join(mapped(ip_address(host)) for _, _, host in entries),
    )


def pack_remote(host: IPAddress) -> bytes:
    return codec.pack_endpoint(mz.Remote(host), feed=5)


def is_host(ip: IPAddress) -> bool:
    try:
        mz.Remote(ip)
    except MizarnetError:
        return False
    return not (ip.version == 6 and IPv6Address(ip).ipv4_mapped)


def released() -> memoryview:
    view = memoryview(bytes(16))
    view.release()
    return view


def swapped(number: int) -> ctypes.Array[Any]:
    """In the other byte order."""
    return (
        (ctypes.c_uint32.__ctype_be__ if sys.byteorder == "little" else ctypes.c_uint32.__ctype_le__) * 1
    )(number)


IPS = st.ip_addresses().filter(lambda ip: ip.version == 4 or IPv6Address(ip).ipv4_mapped is None)
ENTRIES = st.dictionaries(
    st.tuples(st.integers(1, (1 << 24) - 1), IPS), st.ip_addresses().filter(is_host), max_size=20
)


@given(ENTRIES)
def test_columns_and_entries_are_packed_alike(entries: dict[tuple[int, IPAddress], IPAddress]) -> None:
    packed = {
        codec.pack_endpoint_key(mz.EndpointKey(*key)): pack_remote(host) for key, host in entries.items()
    }
    read = columns.from_packed(b"".join(packed), b"".join(packed.values()))
    assert list(read.vnis) == [vni for vni, _ in entries]
    assert read.addresses == b"".join(mapped(ip) for _, ip in entries)
    assert read.hosts == b"".join(map(mapped, entries.values()))
    assert len(read) == len(entries)
    assert columns.pack(read, pack_remote) == packed


def test_an_entry_of_this_host_has_no_host() -> None:
    key = codec.pack_endpoint_key(mz.EndpointKey(7, IPv4Address("10.0.0.9")))
    read = columns.from_packed(key, codec.pack_endpoint(LOCAL, prefix_length=24))
    assert read.hosts == bytes(16)
    with pytest.raises(InvalidValueError, match="row of zeros"):
        columns.pack(read, pack_remote)


def test_an_unknown_place_is_told() -> None:
    key = codec.pack_endpoint_key(mz.EndpointKey(7, IPv4Address("10.0.0.9")))
    with pytest.raises(LayoutError, match="place 9"):
        columns.from_packed(key, b"\x09" + pack_remote(ip_address("192.0.2.1"))[1:])


def test_of_two_rows_with_one_key_the_last_counts() -> None:
    both = of((7, "10.0.0.9", "192.0.2.1"), (7, "10.0.0.9", "192.0.2.2"))
    assert [*columns.pack(both, pack_remote).values()] == [pack_remote(ip_address("192.0.2.2"))]


def test_whatever_has_the_bytes_will_do() -> None:
    addresses = memoryview(bytes(range(64)))[::2]  # every other byte
    made = mz.EndpointColumns(
        (ctypes.c_uint32 * 2)(7, 8), addresses, memoryview(bytes(32)).cast("B", (2, 16))
    )
    assert (list(made.vnis), made.addresses, made.hosts) == ([7, 8], bytes(range(0, 64, 2)), bytes(32))


def test_columns_are_lists_for_json() -> None:
    made = of((7, "10.0.0.9", "192.0.2.1"), (8, "fd00::9", "::"))
    lists = {"vnis": [7, 8], "addresses": ["10.0.0.9", "fd00::9"], "hosts": ["192.0.2.1", None]}
    assert made.to_dict() == lists
    assert "<td>fd00::9</td><td></td>" in made._repr_html_()


def test_there_may_be_no_rows() -> None:
    assert len(of()) == 0
    assert columns.pack(of(), pack_remote) == {}
    assert len(columns.from_packed(b"", b"")) == 0


def test_columns_are_copies_that_nobody_can_change() -> None:
    vnis, addresses = array("I", [7]), bytearray(16)
    made = mz.EndpointColumns(vnis, addresses, bytes(16))
    vnis[0], addresses[0] = 0, 1
    assert (list(made.vnis), made.addresses) == ([7], bytes(16))
    with pytest.raises(TypeError):
        made.vnis[0] = 0
    made.vnis.release()
    again = pickle.loads(pickle.dumps(made))
    assert (list(made.vnis), list(again.vnis)) == ([7], [7])
    assert repr(made) == "<EndpointColumns of 1 entries>"


@pytest.mark.parametrize(
    ("given", "error", "argument"),
    [
        (([7], bytes(16), bytes(16)), InvalidTypeError, "vnis"),
        (("7", bytes(16), bytes(16)), InvalidTypeError, "vnis"),
        ((b"7777", bytes(16), bytes(16)), InvalidTypeError, "vnis"),
        ((array("Q", [7]), bytes(16), bytes(16)), InvalidTypeError, "vnis"),
        ((array("f", [7]), bytes(16), bytes(16)), InvalidTypeError, "vnis"),
        ((array("I", [0]), bytes(16), bytes(16)), InvalidValueError, "vnis"),
        ((array("I", [1 << 24]), bytes(16), bytes(16)), InvalidValueError, "vnis"),
        ((array("i", [-1]), bytes(16), bytes(16)), InvalidValueError, "vnis"),
        ((swapped(7), bytes(16), bytes(16)), InvalidTypeError, "vnis"),
        ((released(), bytes(16), bytes(16)), InvalidTypeError, "vnis"),
        ((array("I", [7]), released(), bytes(16)), InvalidTypeError, "addresses"),
        ((array("I", [7]), "10.0.0.9", bytes(16)), InvalidTypeError, "addresses"),
        ((array("I", [7]), bytes(4), bytes(16)), InvalidValueError, "addresses"),
        ((array("I", [7]), bytes(32), bytes(16)), InvalidValueError, "addresses"),
        ((array("I", [7]), bytes(16), [ip_address("192.0.2.1")]), InvalidTypeError, "hosts"),
        ((array("I", [7]), bytes(16), bytes(17)), InvalidValueError, "hosts"),
        ((array("I", [7]), bytes(16), b""), InvalidValueError, "hosts"),
    ],
)
def test_what_can_be_no_columns_is_refused(
    given: tuple[Any, Any, Any], error: type[InvalidTypeError | InvalidValueError], argument: str
) -> None:
    with pytest.raises(error) as caught:
        mz.EndpointColumns(*given)
    assert caught.value.argument == argument
