# SPDX-License-Identifier: Apache-2.0
"""Does the device of a recorded endpoint still exist? The kernel deletes devices with their namespaces, unasked."""

from __future__ import annotations

from mizarnet.abi.records import Record
from mizarnet.netlink import Link, Session, get_link
from mizarnet.store import Store


def device_of(record: Record, session: Session) -> Link | None:
    """The endpoint's device, looked at from the host's namespace; None when it is gone.

    The number of a namespace that ended may be given to another: the MAC tells.
    """
    if not record.ifindex:
        return None
    link = get_link(session, ifindex=record.ifindex, nsid=record.nsid)
    return link if link is not None and link.mac == str(record.mac) else None


def present(store: Store, session: Session) -> list[Record]:
    """The recorded endpoints whose device exists, by name."""
    return [record for record in store.all_records() if device_of(record, session) is not None]
