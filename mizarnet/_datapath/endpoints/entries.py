# SPDX-License-Identifier: Apache-2.0
"""The entries of one endpoint in the maps: claiming, publishing, completing and removing them.

Making writes the claims first, so that the kernel refuses the second of two endpoints. The sender's entry follows, so
that the device may send from its first moment, then the entries by which others reach it, and last the finished record.
Removing is the reverse. Another process, with a ``/run`` of its own, may hold another lock: so entries are removed only
if they are the endpoint's own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress

import attrs

from mizarnet._datapath.endpoints import items
from mizarnet._datapath.maps import Maps, full, take_own
from mizarnet._kernel.bpf import Map, UpdateMode
from mizarnet._model import codec
from mizarnet._model.codec import NO_SLOT, Record
from mizarnet._model.enumerations import State
from mizarnet._model.finding import Finding, FindingKind, Subject, messages
from mizarnet._model.log import log
from mizarnet._model.specs import MacAddress
from mizarnet.errors import CapacityError, EndpointNotFoundError, EntryNotFoundError, ExistsError

_GUESSES = 20


def publish(maps: Maps, record: Record) -> None:
    """The last step of making: others can reach the endpoint, and its record says that it is finished.

    The record is written last: a process that is removing the endpoint, and does not see the lock, finds by it that
    there is more to remove.

    Raises:
        EndpointNotFoundError: Another process removed the endpoint meanwhile.
    """
    key = codec.record_key(record.spec.name)
    with _unless_deleted(record):
        _refuse_replaced(maps, record)
        # From here on the entry has the device's index, by which the agent recognises the device.
        maps.senders.update(codec.mac_key(record.mac), record.pack_sender(), mode=UpdateMode.EXIST)
        write_endpoints(maps, record)
        maps.records.update(key, record.pack(), mode=UpdateMode.EXIST)


def write_endpoints(maps: Maps, record: Record) -> None:
    """Let others reach the endpoint at all of its addresses; raises ``CapacityError``."""
    try:
        maps.endpoints.update_many(record.pack_endpoints())
    except CapacityError as refused:
        text = (
            f"there is no room for endpoint {record.spec.name!r} among {refused.used} of this host and others"
        )
        raise full(maps.endpoints, refused.used, text) from None


@attrs.frozen
class _Entry:
    """An entry that an endpoint needs.

    Attributes:
        table: Map that the entry belongs to.
        key: Packed key of the entry.
        value: Packed value that the entry must have.
        holder: Finds in a value the key of its endpoint in ``records``; None: another's entry would be overwritten.
    """

    table: Map
    key: bytes
    value: bytes
    holder: Callable[[bytes], bytes] | None


def _needed(maps: Maps, record: Record) -> Iterator[_Entry]:
    """All entries of an endpoint except its record, in the order in which they are written."""
    claims = record.pack_addresses()
    yield _Entry(maps.slots, codec.u32(record.slot), record.pack_slot(), codec.slot_holder)
    for key, claim in claims.items():
        yield _Entry(maps.addresses, key, claim, codec.claimant)
    yield _Entry(maps.senders, codec.mac_key(record.mac), record.pack_sender(), codec.record_of)
    for key, entry in record.pack_endpoints().items():
        yield _Entry(maps.endpoints, key, entry, None)


def findings(
    maps: Maps, record: Record, *, tunnel: str, read: Callable[[Map, bytes], bytes | None] = Map.lookup
) -> list[Finding]:
    """Findings for the entries of an endpoint that are missing, or not as its record says.

    Args:
        maps: Maps of the data path.
        record: Record of the endpoint.
        tunnel: Name of the tunnel that it is on.
        read: Finds the value of a key in a map: of many endpoints, in what was read of the whole map.
    """
    found = [(entry, read(entry.table, entry.key)) for entry in _needed(maps, record)]
    return [
        Finding(
            FindingKind.ENTRY_DIFFERS,
            Subject("endpoint", record.spec.name),
            f"{entry.table.name}[{entry.key.hex()}] = {entry.value.hex()}",
            None if there is None else there.hex(),
            f"its entry of {entry.table.name} {'is missing' if there is None else 'differs'}",
            tunnel=tunnel,
            instance=record.instance,
        )
        for entry, there in found
        if there != entry.value
    ]


def complete(maps: Maps, record: Record) -> None:
    """Write the missing entries of an endpoint whose device exists.

    Raises:
        ExistsError: Another endpoint has one of the entries.
        EndpointNotFoundError: Another process deleted the endpoint meanwhile.
    """
    lost = findings(maps, record, tunnel="")
    if not lost:
        return
    own = codec.record_key(record.spec.name)
    for entry in _needed(maps, record):
        found = entry.table.lookup(entry.key)
        if entry.holder is None or found == entry.value:
            continue
        with _unless_deleted(record):
            _refuse_other_life(maps, record)
        mode = UpdateMode.ANY if found is not None and entry.holder(found) == own else UpdateMode.NOEXIST
        with _explained(
            f"an entry of endpoint {record.spec.name!r} belongs to another endpoint", record.spec.name
        ):
            entry.table.update(entry.key, entry.value, mode=mode)
        if entry.table is maps.slots and not _is_counted(maps, record):
            _begin_counting(maps, record)  # another endpoint had the index meanwhile
    try:
        publish(maps, record)
    except EndpointNotFoundError:
        give_up_addresses(maps, record)
        give_up_slot(maps, record)
        raise
    log.info("endpoint %r completed: %s", record.spec.name, messages(lost))


@contextmanager
def _unless_deleted(record: Record) -> Generator[None, None, None]:
    try:
        yield
    except (EndpointNotFoundError, EntryNotFoundError):
        raise EndpointNotFoundError(
            f"endpoint {record.spec.name!r} was deleted by another process while it was being made"
        ) from None


def _refuse_replaced(maps: Maps, record: Record) -> None:
    """Raises ``EndpointNotFoundError`` unless record, slot, MAC and all addresses are still this endpoint's."""
    _refuse_other_life(maps, record)
    sender = maps.senders.lookup(codec.mac_key(record.mac))
    own = (
        maps.slots.lookup(codec.u32(record.slot)) == record.pack_slot()
        and all(maps.addresses.lookup(key) == claim for key, claim in record.pack_addresses().items())
        and sender is not None
        and record.is_sender(sender)
    )
    if not own:
        raise EndpointNotFoundError(record.spec.name)


def _refuse_other_life(maps: Maps, record: Record) -> None:
    """Raises ``EndpointNotFoundError`` if the record is gone, or is of a later endpoint of the same name."""
    if not _has_record(maps, codec.record_key(record.spec.name), record.instance):
        raise EndpointNotFoundError(record.spec.name)


# -- claims ----------------------------------------------------------------------------------------------


def claim_name(maps: Maps, record: Record) -> None:
    """Claim the name by writing the record; raises ``ExistsError`` or ``CapacityError`` with nothing written."""
    key = codec.record_key(record.spec.name)
    with _explained(f"endpoint {record.spec.name!r} exists", record.spec.name):
        try:
            maps.records.update(key, record.pack(), mode=UpdateMode.NOEXIST)
        except CapacityError as full:
            raise _no_room(maps, full.used) from None


def claim_slot(maps: Maps, record: Record) -> Record:
    """Claim an index into ``traffic``; returns the record with it, which was written again."""
    record = attrs.evolve(record, slot=_claim_slot(maps, record))
    try:
        rewrite(maps, record)
        _begin_counting(maps, record)
    except BaseException:
        take_own(maps.slots, codec.u32(record.slot), record.pack_slot().__eq__)
        raise
    return record


def _begin_counting(maps: Maps, record: Record) -> None:
    """Set the counters of an endpoint to zero, on each CPU, and let its drop reasons be counted for its instance."""
    cpus = maps.traffic.slot_size // maps.traffic.value_size
    maps.traffic.update(codec.u32(record.slot), cpus * codec.no_traffic(record.instance))


def write_sender(maps: Maps, record: Record, value: bytes) -> None:
    """Write what the agent lets a live endpoint send; raises ``EndpointNotFoundError`` if it was deleted meanwhile."""
    with _unless_deleted(record):
        _refuse_other_life(maps, record)
        maps.senders.update(codec.mac_key(record.mac), value, mode=UpdateMode.EXIST)


def refuse_unfit(maps: Maps, record: Record, keys: Iterable[bytes], numbers: Collection[int]) -> None:
    """Raises ``CapacityError`` unless there is room for more addresses and items of an endpoint.

    Args:
        maps: Maps of the data path.
        record: Record of the endpoint.
        keys: Keys of addresses that it shall get.
        numbers: Numbers of items that it shall get.
    """
    own = [*keys]
    mine = [codec.item_key(record.instance, number) for number in numbers]
    for table, wanted in ((maps.addresses, own), (maps.endpoints, own), (maps.items, mine)):
        new = sum(key not in table for key in wanted)
        used = table.count() if new else 0
        if used + new > table.max_entries:
            needed = f"endpoint {record.spec.name!r} needs {new} entries of {table.name}"
            raise full(table, used, f"{needed}: {used} of {table.max_entries} are used")


def _is_counted(maps: Maps, record: Record) -> bool:
    """Whether the counters at an endpoint's index are its own."""
    counters = maps.traffic.lookup(codec.u32(record.slot))
    return counters is not None and codec.instance_counted(counters) == record.instance


def claim(maps: Maps, record: Record) -> Record:
    """Claim addresses and MAC, which no two endpoints may share, then note the namespace; returns the record.

    The MAC is claimed last, since its entry lets the device send. The kernel refuses each step if another endpoint has
    the key.
    """
    for address, claim in record.pack_addresses().items():
        claim_address(maps, address, claim)
    with _explained(f"MAC {record.mac} belongs to another endpoint", str(record.mac)):
        maps.senders.update(codec.mac_key(record.mac), record.pack_sender(), mode=UpdateMode.NOEXIST)
    rewrite(maps, record)
    return record


def claim_address(maps: Maps, key: bytes, claim: bytes) -> None:
    """Claim an address; raises ``ExistsError`` if another endpoint has it, or ``CapacityError``."""
    found = codec.unpack_endpoint_key(key)
    with _explained(f"({found.vni}, {found.ip}) belongs to another endpoint", str(found.ip)):
        try:
            maps.addresses.update(key, claim, mode=UpdateMode.NOEXIST)
        except CapacityError as refused:
            text = f"the endpoints of this host have {refused.used} addresses, and room for no more"
            raise full(maps.addresses, refused.used, text) from None


def rewrite(maps: Maps, record: Record) -> None:
    """Write the record again; raises ``EndpointNotFoundError`` if another process deletes the endpoint meanwhile."""
    with _unless_deleted(record):
        _refuse_other_life(maps, record)
        maps.records.update(codec.record_key(record.spec.name), record.pack(), mode=UpdateMode.EXIST)


@contextmanager
def _explained(what: str, holder: str) -> Generator[None, None, None]:
    """Raise an ``ExistsError`` that names what is taken: another process took it after the check."""
    try:
        yield
    except ExistsError:
        raise ExistsError(f"{what}: another process made it just now", holder=holder) from None


def _claim_slot(maps: Maps, record: Record) -> int:
    """Claim an index into ``traffic`` that no endpoint has, and return it.

    Guesses among twice as many each time keep the indices small, and find one without reading the claims; only in a
    table that is nearly full all of them are read.
    """
    room, claim = maps.slots.max_entries, record.pack_slot()
    for doubled in range(_GUESSES):
        guess = random.randrange(min(1 << doubled, room))
        if _claimed(maps, guess, claim):
            return guess
    while True:
        used = set(memoryview(maps.slots.lookup_all()[0]).cast("I"))
        free = next((index for index in range(room) if index not in used), None)
        if free is None:
            raise _no_room(maps, len(used))
        if _claimed(maps, free, claim):
            return free


def _claimed(maps: Maps, index: int, claim: bytes) -> bool:
    try:
        return maps.slots.add(codec.u32(index), claim)
    except CapacityError as full:
        raise _no_room(maps, full.used) from None


def _no_room(maps: Maps, count: int) -> CapacityError:
    return full(maps.senders, count, f"this host has {count} endpoints, and room for no more")


def drop_orphan(maps: Maps, address: bytes) -> None:
    """Remove the entries of an address whose record is gone: it was lost, or a maker died after it was removed."""
    claim = maps.addresses.lookup(address)
    if claim is None or _has_record(maps, codec.claimant(claim), codec.instance_claiming(claim)):
        return
    if take_own(maps.addresses, address, claim.__eq__) is not None:
        take_own(maps.endpoints, address, codec.is_local)
        maps.restore_local(address)  # another process may have claimed it in between


def drop_orphan_sender(maps: Maps, mac: MacAddress) -> None:
    """Remove the entries of an endpoint without a record, which its entry in ``senders`` leads to, and that entry."""
    key = codec.mac_key(mac)
    sender = maps.senders.lookup(key)
    if sender is None:
        return
    index = codec.u32(codec.slot_of(sender))
    slot = maps.slots.lookup(index)
    if slot is not None and _has_record(maps, codec.record_of(sender), codec.instance_in_slot(slot)):
        return
    take_own(maps.senders, key, sender.__eq__)
    for address in codec.addresses_of(sender):
        drop_orphan(maps, address)
    if slot is not None and not _has_record(maps, codec.slot_holder(slot), codec.instance_in_slot(slot)):
        take_own(maps.slots, index, slot.__eq__)


def is_left(maps: Maps, table: str, key: bytes) -> bool:
    """Whether a table of local endpoints has an entry of that key that belongs to no endpoint.

    The claim to an address may be lost while its endpoint lives on: the records say whose address it is.

    Args:
        maps: Maps of the data path.
        table: Name of the map.
        key: Packed key of the entry.
    """
    value = getattr(maps, table).lookup(key)
    if value is None:
        return False
    if table == "slots":
        return not _has_record(maps, codec.slot_holder(value), codec.instance_in_slot(value))
    if table == "addresses":
        return not _has_record(maps, codec.claimant(value), codec.instance_claiming(value))
    if table == "senders":
        return maps.records.lookup(codec.record_of(value)) is None
    if table == "items":
        instance = codec.instance_of_item(key)
        return all(codec.instance_of(data) != instance for _, data in maps.records.items())
    return (
        codec.is_local(value)
        and maps.addresses.lookup(key) is None
        and not any(key in items.of(maps, data).pack_addresses() for _, data in maps.records.items())
    )


def drop_left(maps: Maps, table: str, key: bytes) -> None:
    """Remove an entry of a table of local endpoints if it belongs to none that exists; arguments as above."""
    if not is_left(maps, table, key):
        return
    if table == "addresses":
        drop_orphan(maps, key)
    elif table == "items":
        maps.items.delete_many([key])
    elif table == "senders":
        drop_orphan_sender(maps, codec.mac_from(key))
    elif table == "slots":
        claim = maps.slots.lookup(key)
        take_own(maps.slots, key, lambda found: found == claim)
    else:
        take_own(maps.endpoints, key, codec.is_local)
        maps.restore_local(key)  # another process may have claimed it in between


def with_mac(maps: Maps, mac: MacAddress) -> Record | None:
    """Record of the endpoint that a MAC belongs to; None: nobody's."""
    sender = maps.senders.lookup(codec.mac_key(mac))
    return None if sender is None else items.read(maps, codec.record_of(sender))


def owner_of(maps: Maps, mac: MacAddress) -> int | None:
    """Instance of the endpoint that a MAC belongs to; None: nobody's."""
    sender = maps.senders.lookup(codec.mac_key(mac))
    slot = None if sender is None else maps.slots.lookup(codec.u32(codec.slot_of(sender)))
    return None if slot is None else codec.instance_in_slot(slot)


def drop_orphan_slots(maps: Maps) -> int:
    """Remove the claims to indices whose records are gone; how many."""
    orphans = [
        (key, claim)
        for key, claim in maps.slots.items()
        if not _has_record(maps, codec.slot_holder(claim), codec.instance_in_slot(claim))
    ]
    return sum(take_own(maps.slots, key, claim.__eq__) is not None for key, claim in orphans)


def _has_record(maps: Maps, key: bytes, instance: int) -> bool:
    found = maps.records.lookup(key)
    return found is not None and codec.instance_of(found) == instance


# -- removing --------------------------------------------------------------------------------------------


def silence(maps: Maps, record: Record) -> None:
    """Remove the entries by which others reach the endpoint, and the one by which it may send."""
    for key in record.address_keys():
        take_own(maps.endpoints, key, record.is_endpoint)
        claim = maps.addresses.lookup(key)
        if claim is None or not record.is_claim(claim):
            # Another endpoint has the address: its entry was equal to this one's, or overwritten by it.
            maps.restore_local(key)
    _take_sender(maps, record)


def _take_sender(maps: Maps, record: Record) -> None:
    """Remove the sender's entry if it is this endpoint's.

    It holds name and index, which a later endpoint of the same name may have too: the claim in ``slots`` decides. If an
    endpoint of another name has the index by now, the entry is left of this one.
    """
    key, slot = codec.mac_key(record.mac), codec.u32(record.slot)
    own, claim = codec.record_key(record.spec.name), record.pack_slot()
    taken = take_own(maps.senders, key, record.is_sender)
    while taken is not None:
        holder = maps.slots.lookup(slot)
        if holder is None or holder == claim or codec.slot_holder(holder) != own:
            return
        with suppress(ExistsError):
            maps.senders.update(key, taken, mode=UpdateMode.NOEXIST)
        if maps.slots.lookup(slot) == holder:
            return
        taken = take_own(maps.senders, key, record.is_sender)


def begin_deletion(maps: Maps, record: Record, maker: int) -> Record:
    """Write into the record that the endpoint's end has begun, before the first step; returns the record.

    Args:
        maps: Maps of the data path.
        record: Record that was just read.
        maker: Identity of the lock that the caller holds.
    """
    doomed = attrs.evolve(record, state=State.DELETING, maker=maker, changed=codec.boot_time())
    with suppress(EndpointNotFoundError, EntryNotFoundError):  # another process was faster
        _refuse_other_life(maps, record)
        maps.records.update(codec.record_key(record.spec.name), doomed.pack(), mode=UpdateMode.EXIST)
    return doomed


def give_up_addresses(maps: Maps, record: Record) -> None:
    """Make the endpoint unreachable and unable to send, and remove its claims to addresses, which are free then.

    The claims go before the entries are looked at again, since no process restores an entry without a claim.
    """
    silence(maps, record)
    for key in record.address_keys():
        take_own(maps.addresses, key, record.is_claim)
    silence(maps, record)


def give_up_slot(maps: Maps, record: Record) -> None:
    """Remove the items, which lead to the claims of addresses, and the claim to the index.

    That one is the last, since by it the endpoint's own entries are recognised.
    """
    items.remove(maps, record, record.items)
    for key in _slots_of(maps, record):
        take_own(maps.slots, key, record.pack_slot().__eq__)


def take_record(maps: Maps, record: Record) -> bytes | None:
    """Remove the record if it is this endpoint's; returns its packed value, or None if nothing was removed."""
    key = codec.record_key(record.spec.name)
    return take_own(maps.records, key, lambda value: codec.instance_of(value) == record.instance)


def _slots_of(maps: Maps, record: Record) -> list[bytes]:
    """Keys of the endpoint in ``slots``: searched for if its maker died before it noted the index in the record."""
    if record.slot != NO_SLOT:
        return [codec.u32(record.slot)]
    return [key for key, value in maps.slots.items() if value == record.pack_slot()]
