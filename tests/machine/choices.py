# SPDX-License-Identifier: Apache-2.0
"""What is chosen from: so little of everything that all of it clashes."""

from __future__ import annotations

import errno
import signal
from ipaddress import ip_network
from typing import Any

from hypothesis import strategies as st

import mizarnet as mz
from mizarnet import EndpointKey, EndpointSpec, Kind, NetworkKey
from tests.machine import deeds
from tests.machine.deeds import Writer
from tests.machine.ground import SPACES
from tests.support.injector import Fault

VNIS = (7, 8)
NAMES = ("a", "b", "c")
IPS = (
    ("10.0.0.1/24",),
    ("10.0.0.2/24",),
    ("10.0.0.3/24",),
    ("10.0.0.1/24", "fd00::1/64"),
    ("10.0.0.3/24", "fd00::2/64"),
    ("fd00::1/64",),
    ("10.0.0.2/24", "10.0.0.1/24"),
    ("10.0.0.1/24", "10.0.0.3/24", "fd00::1/64", "fd00::2/64"),
)
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
FEEDS = ("", "directory", "plan:web")
_MOST = 3

names = st.sampled_from(NAMES)
addresses = st.sampled_from(IPS)
several_names = st.lists(names, min_size=1, max_size=_MOST, unique=True)
spaces = st.sampled_from(SPACES)


def _spec(
    name: str, vni: int, ip: tuple[str, ...], place: tuple[Kind, str | None], **more: Any
) -> EndpointSpec:
    kind, netns = place
    return EndpointSpec(name=name, vni=vni, ip=ip, kind=kind, netns=netns, gateway=(), **more)


specs = st.builds(
    _spec,
    name=names,
    vni=st.sampled_from((7, 7, 8)),
    ip=st.sampled_from(IPS),
    place=st.sampled_from([*((Kind.MACVLAN, each) for each in (*SPACES, None)), (Kind.MACVTAP, None)]),
    ifname=st.sampled_from(("eth0", "eth1")),
    mac=st.sampled_from((None, None, *MACS)),
    mtu=st.sampled_from((None, None, 1400)),
    forwarding=st.booleans(),
)
several_specs = st.lists(specs, min_size=1, max_size=_MOST, unique_by=lambda spec: spec.name)

# -- entries

_addresses = [EndpointKey.parse((vni, ip.partition("/")[0])) for vni in VNIS for each in IPS for ip in each]
_addresses.append(EndpointKey.parse((7, "10.0.0.9")))
_KEYS: dict[str, list[Any]] = {
    "endpoints": [*dict.fromkeys(_addresses)],
    "networks": [NetworkKey.parse((vni, f"10.0.0.0/{length}")) for vni in VNIS for length in (23, 24)],
    "peers": [ip_network(f"198.51.{number}.0/24") for number in range(4)],
}
_VALUES: dict[str, list[Any]] = {
    "endpoints": [mz.Remote("192.0.2.77"), mz.Remote("192.0.2.78")],
    "networks": [mz.Network(), mz.Network(switches=["192.0.2.77"])],
    "peers": [None],
}
_tables = st.sampled_from(["endpoints", "endpoints", "networks", "peers"])
_writers = st.builds(Writer, table=_tables, feed=st.sampled_from(FEEDS), take=st.booleans())


def _key(table: str) -> st.SearchStrategy[Any]:
    return st.sampled_from(_KEYS[table])


def _put(table: str, vni: int | None = None) -> st.SearchStrategy[dict[Any, Any]]:
    keys = [key for key in _KEYS[table] if vni is None or key.vni == vni]
    return st.dictionaries(st.sampled_from(keys), st.sampled_from(_VALUES[table]), max_size=_MOST)


def _setting(table: str) -> st.SearchStrategy[deeds.Deed]:
    value = st.sampled_from(_VALUES[table])
    return st.builds(lambda key, value: deeds.set_entry(table, key, value), _key(table), value)


def _deleting(table: str) -> st.SearchStrategy[deeds.Deed]:
    return _key(table).map(lambda key: deeds.delete_entry(table, key))


def _updating(writer: Writer) -> st.SearchStrategy[deeds.Deed]:
    return _put(writer.table).map(lambda put: deeds.update(writer, put))


def _applying(writer: Writer) -> st.SearchStrategy[deeds.Deed]:
    def some(put: dict[Any, Any]) -> st.SearchStrategy[deeds.Deed]:
        rest = [key for key in _KEYS[writer.table] if key not in put]
        gone = st.lists(st.sampled_from(rest), max_size=_MOST, unique=True)
        return gone.map(lambda each: deeds.apply(writer, put, each))

    return _put(writer.table).flatmap(some)


def _syncing(writer: Writer) -> st.SearchStrategy[deeds.Deed]:
    if writer.table == "peers":
        # Nobody takes away the prefix that the other host is in.
        own = {ip_network("192.0.2.0/24"): None} if not writer.feed else {}
        return _put("peers").map(lambda put: deeds.sync(writer, own | put, None))

    def within(vni: int | None) -> st.SearchStrategy[deeds.Deed]:
        return _put(writer.table, vni).map(lambda put: deeds.sync(writer, put, vni))

    return st.sampled_from((None, *VNIS)).flatmap(within)


table_writes = st.one_of(
    _tables.flatmap(_setting),
    _tables.flatmap(_deleting),
    _writers.flatmap(_updating),
    _writers.flatmap(_applying),
    _writers.flatmap(_syncing),
)

attachments = st.sampled_from((deeds.attach_again(), deeds.attach_switch(), deeds.detach_switch()))
ends = st.sampled_from((deeds.detach(), deeds.delete_tunnel()))

# -- what happens to a call

_points = st.integers(1, 40)
_numbers = st.sampled_from((errno.ENOMEM, errno.EPERM))
faults = st.one_of(
    st.builds(Fault, point=_points, signal=st.sampled_from((signal.SIGKILL, signal.SIGKILL, signal.SIGINT))),
    st.builds(Fault, point=_points, errno=_numbers),
)
