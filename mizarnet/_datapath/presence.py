# SPDX-License-Identifier: Apache-2.0
"""Is a recorded endpoint still there? And taking away what is left of one.

The kernel deletes devices with their namespaces, unasked. Entries are taken away only if they are the endpoint's own:
another process that does not see the caller's lock may have made the next of that name.
"""

from __future__ import annotations

import time
from contextlib import suppress

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.lock import identity as lock_identity
from mizarnet._datapath.maps import Maps, take_own
from mizarnet._kernel.bpf import UpdateMode
from mizarnet._kernel.netlink import UNNAMED, Link, Session, delete_link, delete_netns, dump_links, get_link
from mizarnet._model import codec
from mizarnet._model.codec import NO_SLOT, Record
from mizarnet._model.enumerations import State
from mizarnet.errors import ExistsError

ABANDONED = 60
"""Seconds after which an endpoint that is not whole counts as abandoned, whatever lock its maker holds."""


def device_of(record: Record, host: Session) -> Link | None:
    """The endpoint's device, looked at from the host's namespace; None when it is gone.

    The id of a namespace that ended may be given to another: the MAC tells. A record without an index is of a
    device that was being made when its maker died, and may not have its name yet.
    """
    if record.ifindex:
        link = get_link(host, ifindex=record.ifindex, nsid=record.nsid)
        return link if link is not None and link.mac == str(record.mac) else None
    links = dump_links(host, kind=record.spec.kind.value, nsid=record.nsid)
    # The MAC alone is no proof: an endpoint of another tunnel, of the same VNI and address, has it too.
    named = [link for link in links if link.name == record.spec.ifname or link.name.startswith(UNNAMED)]
    return next((link for link in named if link.mac == str(record.mac)), None)


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
    """Remove an endpoint whose record was just read; what is gone already is no error.

    Unreachable first, then silent; the record goes last, so that whoever dies in between leaves a trace. A maker that
    does not see the caller's lock writes the record last, too: if that happened meanwhile, there is more to remove.
    """
    left: Record | None = record
    while left is not None:
        left = _remove(maps, host, left)


def _remove(maps: Maps, host: Session, record: Record) -> Record | None:
    """None when it is gone; else its record as somebody has changed it meanwhile."""
    silence_records(maps, record)
    device = device_of(record, host)
    if device is not None:
        delete_link(host, device.ifindex, nsid=record.nsid)
    if record.private:
        delete_netns(record.spec.netns or "")
    _give_up_claims(maps, record)
    key = codec.record_key(record.spec.name)
    taken = _take_record(maps, record)
    if taken is None or Record.unpack(taken).changed == record.changed:
        return None
    with suppress(ExistsError):
        maps.records.update(key, taken, mode=UpdateMode.NOEXIST)
    return Record.unpack(taken)


def silence_records(maps: Maps, record: Record) -> None:
    """Take away the entries by which others reach the endpoint, and by which it may send."""
    own = record.pack_endpoint()
    for key, claim in record.pack_addresses().items():
        take_own(maps.endpoints, key, own.__eq__)
        if maps.addresses.lookup(key) != claim:
            maps.restore_local(
                key
            )  # of another endpoint, if it looked like this one's or was written over by it
    _take_interface(maps, record)


def _take_interface(maps: Maps, record: Record) -> None:
    """Name and index do not tell one life of a name from the next; who has claimed the index does."""
    key, slot = codec.mac_key(record.mac), codec.u32(record.interface)
    taken = take_own(maps.interfaces, key, record.is_interface)
    while taken is not None:
        holder = maps.slots.lookup(slot)
        if holder is None or holder == record.pack_slot():
            return
        with suppress(ExistsError):
            maps.interfaces.update(key, taken, mode=UpdateMode.NOEXIST)
        if maps.slots.lookup(slot) == holder:
            return
        taken = take_own(maps.interfaces, key, record.is_interface)


def forget(maps: Maps, record: Record) -> None:
    """Take away the claims, and then the record, by which they are found."""
    _give_up_claims(maps, record)
    _take_record(maps, record)


def _give_up_claims(maps: Maps, record: Record) -> None:
    """Addresses first: without its claim nobody writes an entry for one. The index last: it tells what is our own."""
    for key, claim in record.pack_addresses().items():
        take_own(maps.addresses, key, claim.__eq__)
    silence_records(maps, record)
    for key in _slots_of(maps, record):
        take_own(maps.slots, key, record.pack_slot().__eq__)


def _take_record(maps: Maps, record: Record) -> bytes | None:
    key = codec.record_key(record.spec.name)
    return take_own(maps.records, key, lambda value: codec.instance_of(value) == record.instance)


def _slots_of(maps: Maps, record: Record) -> list[bytes]:
    """The key of its index; of an endpoint whose maker died before noting it, what can be found."""
    if record.interface != NO_SLOT:
        return [codec.u32(record.interface)]
    return [key for key, value in maps.slots.items() if value == record.pack_slot()]
