# SPDX-License-Identifier: Apache-2.0
"""Is a recorded endpoint still there? And taking away what is left of one.

The kernel deletes devices with their namespaces, unasked. Entries are taken away only if they are the endpoint's own:
another process that does not see the caller's lock may have made the next of that name.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mizarnet.abi import records
from mizarnet.abi.records import NO_SLOT, Record
from mizarnet.bpf import Map, UpdateMode
from mizarnet.datapath import DataPath
from mizarnet.errors import ExistsError
from mizarnet.lock import identity as lock_identity
from mizarnet.maps import Maps
from mizarnet.netlink import Link, Session, delete_link, delete_netns, get_link
from mizarnet.numbers import State

ABANDONED = 60
"""Seconds after which an endpoint that is not whole counts as abandoned, whatever lock its maker holds."""


def device_of(record: Record, host: Session) -> Link | None:
    """The endpoint's device, looked at from the host's namespace; None when it is gone.

    The id of a namespace that ended may be given to another: the MAC tells. A record without an index is of a
    device that was being made when its maker died: its name finds it.
    """
    if record.ifindex:
        link = get_link(host, ifindex=record.ifindex, nsid=record.nsid)
    else:
        link = get_link(host, record.spec.ifname, nsid=record.nsid)
    return link if link is not None and link.mac == str(record.mac) else None


def is_present(record: Record, host: Session) -> bool:
    """Whether the endpoint was made to the end and its device exists."""
    return record.ifindex != 0 and device_of(record, host) is not None


def is_being_made(record: Record, host: Session) -> bool:
    """Whether another process may be at work on an endpoint, for a caller that holds the host's lock.

    Whoever began under the lock that the caller holds is dead. One with a ``/run`` of its own holds another.
    """
    if record.state is not State.MAKING or record.maker == lock_identity(host.cookie):
        return False
    return time.clock_gettime(time.CLOCK_BOOTTIME) - record.changed / 1e9 < ABANDONED


def present(datapath: DataPath) -> list[Record]:
    """The recorded endpoints that are present, by name."""
    return [record for record in datapath.all_records() if is_present(record, datapath.session)]


def remove(maps: Maps, host: Session, record: Record) -> None:
    """Remove an endpoint; what is gone already is no error.

    Unreachable first, then silent; the record goes last, so that whoever dies in between leaves a trace.
    """
    silence_records(maps, record)
    device = device_of(record, host)
    if device is not None:
        delete_link(host, device.ifindex, nsid=record.nsid)
    if record.private:
        delete_netns(record.spec.netns or "")
    forget(maps, record)


def silence_records(maps: Maps, record: Record) -> None:
    """Take away the entries by which others reach the endpoint, and by which it may send."""
    own = record.pack_endpoint()
    for key in record.pack_addresses():
        _take_own(maps.endpoints, key, own.__eq__)
    _take_own(maps.interfaces, records.mac_key(record.mac), record.is_interface)


def forget(maps: Maps, record: Record) -> None:
    """Take away the claims, and then the record, by which they are found."""
    for key, claim in record.pack_addresses().items():
        _take_own(maps.addresses, key, claim.__eq__)
    for key in _slots_of(maps, record):
        _take_own(maps.slots, key, record.pack_slot().__eq__)
    _take_own(
        maps.records,
        records.record_key(record.spec.name),
        lambda value: records.instance_of(value) == record.instance,
    )


def _slots_of(maps: Maps, record: Record) -> list[bytes]:
    """The key of its index; of an endpoint whose maker died before noting it, what can be found."""
    if record.interface != NO_SLOT:
        return [records.u32(record.interface)]
    return [key for key, value in maps.slots.items() if value == record.pack_slot()]


def _take_own(table: Map, key: bytes, is_own: Callable[[bytes], bool]) -> None:
    """Delete an entry if it is the endpoint's own. The kernel has no compare-and-delete: what was not is put back."""
    value = table.lookup(key)
    if value is None or not is_own(value):
        return
    taken = table.take(key)
    if taken is not None and not is_own(taken):
        try:
            table.update(key, taken, mode=UpdateMode.NOEXIST)
        except ExistsError:
            return  # its owner wrote it again
