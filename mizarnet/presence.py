# SPDX-License-Identifier: Apache-2.0
"""Is a recorded endpoint still there? And taking away what is left of one.

The kernel deletes devices with their namespaces, unasked. The caller of what writes holds the host's lock.
"""

from __future__ import annotations

from mizarnet.abi import records
from mizarnet.abi.records import Record
from mizarnet.netlink import Link, Session, delete_link, delete_netns, get_link
from mizarnet.store import Maps, Store
from mizarnet.values import EndpointKey, Local


def device_of(record: Record, host: Session) -> Link | None:
    """The endpoint's device, looked at from the host's namespace; None when it is gone.

    The number of a namespace that ended may be given to another: the MAC tells. A record without an index is of a
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


def present(store: Store, host: Session) -> list[Record]:
    """The recorded endpoints that are present, by name."""
    return [record for record in store.all_records() if is_present(record, host)]


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
    maps.records.delete(records.record_key(record.spec.name))


def silence_records(maps: Maps, record: Record) -> None:
    """Take away the entries by which others reach the endpoint, and by which it may send."""
    own = records.pack_endpoint(Local(record.mac, record.interface))
    for key in endpoint_keys(record):
        if maps.endpoints.lookup(key) == own:
            maps.endpoints.delete(key)
    maps.interfaces.delete(records.mac_key(record.mac))


def endpoint_keys(record: Record) -> list[bytes]:
    """The endpoint's keys in ``endpoints``, packed."""
    return [records.pack_endpoint_key(EndpointKey(record.spec.vni, address.ip)) for address in record.spec.ip]
