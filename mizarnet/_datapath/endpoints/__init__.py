# SPDX-License-Identifier: Apache-2.0
"""The endpoints of this host on one data path: making, finding and removing them.

Each endpoint is a record, a set of map entries and one device. The record is written before the first of them and
removed after the last, and says how far the endpoint has come: whoever dies halfway leaves a name, by which the next
call finds the rest. The kernel deletes devices with their namespaces: a record tells that an endpoint was made, and its
device whether it still exists.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import attrs

from mizarnet._datapath import age, next_hops
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import company, comparison, configuration, device, entries, items
from mizarnet._datapath.endpoints.making import Making, gateways_of_networks
from mizarnet._datapath.endpoints.options import OPTIONS, Options
from mizarnet._datapath.endpoints.removal import Removal, text_of
from mizarnet._datapath.endpoints.updating import Updating
from mizarnet._datapath.feeds import Edit
from mizarnet._datapath.host import Host
from mizarnet._datapath.lock import of_name
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.netlink import Link, get_link
from mizarnet._model import codec
from mizarnet._model.arguments import IPAddress
from mizarnet._model.codec import Record
from mizarnet._model.enumerations import State
from mizarnet._model.finding import Finding, FindingKind, Subject
from mizarnet._model.log import log
from mizarnet._model.specs import EndpointKey, EndpointSpec, Life, MacAddress
from mizarnet.errors import CapacityError, ExistsError, InUseError, LockTimeoutError, MizarnetError

_OTHER_NAME = 2.0
"""Time in seconds to wait for whoever makes or deletes an endpoint of another name."""


@attrs.frozen
class LocalEndpoints:
    """The endpoints of this host on one data path. A caller that changes one holds the lock of its name.

    Attributes:
        datapath: Data path that the endpoints are on.
        maps: Maps of the data path.
    """

    datapath: DataPath
    maps: Maps

    @classmethod
    def of(cls, datapath: DataPath) -> LocalEndpoints:
        """The endpoints of a data path, for reading; raises as :attr:`DataPath.maps` does."""
        return cls(datapath, datapath.maps)

    @property
    def host(self) -> Host:
        """Host of the data path."""
        return self.datapath.host

    # -- found

    def named(self, name: str) -> Record | None:
        """Record of the endpoint of that name; None if there is none."""
        return items.read(self.maps, codec.record_key(name))

    def at(self, vni: int, ip: IPAddress) -> Record | None:
        """Record of the endpoint with that address; None if there is none."""
        claim = self.maps.addresses.lookup(codec.pack_endpoint_key(EndpointKey(vni, ip)))
        return None if claim is None else items.read(self.maps, codec.claimant(claim))

    def with_mac(self, mac: MacAddress) -> Record | None:
        """Record of the endpoint with that MAC; None if there is none."""
        return entries.with_mac(self.maps, mac)

    def recorded(self) -> list[Record]:
        """All records, sorted by name, whether their devices exist or not."""
        found = (
            items.read(self.maps, key) if codec.items_below(data) else Record.unpack(data)
            for key, data in self.maps.records.items()
        )
        return sorted((record for record in found if record is not None), key=lambda record: record.spec.name)

    def lives(self, records: Iterable[Record]) -> Iterator[tuple[Record, Life]]:
        """Endpoints with how far each has come, from few messages to the kernel."""
        given = list(records)
        links = self.devices(given)
        for record in given:
            yield record, life_of(record, links.get(record.instance))

    def is_present(self, record: Record) -> bool:
        """Whether an endpoint is finished and its device exists."""
        return life_of(record, self.device(record)) is Life.LIVE

    def device(self, record: Record) -> Link | None:
        """The endpoint's device; None if it is gone."""
        return device.find(record, self.datapath.hooks, partial(entries.owner_of, self.maps))

    def devices(self, records: Iterable[Record]) -> dict[int, Link]:
        """The devices of endpoints that have one, by the endpoint's instance."""
        return device.find_all(records, self.datapath.hooks, partial(entries.owner_of, self.maps))

    def losses(self, record: Record) -> list[Finding]:
        """Findings for which an endpoint counts as absent; none if it is finished and its device exists."""
        if record.state is not State.LIVE:
            return [self.unfinished(record)]
        if self.device(record) is not None:
            return []
        where = record.spec.netns or "the host's namespace"
        text = f"its device {record.spec.ifname} is gone from {where}, or has another MAC"
        return [self.finding(record, FindingKind.DEVICE_GONE, str(record.mac), None, text)]

    def unfinished(self, record: Record) -> Finding:
        """The finding for an endpoint that was begun, or whose end was."""
        making = record.state is State.MAKING
        kind = FindingKind.UNFINISHED if making else FindingKind.ENDING
        text = f"it is being {'made' if making else 'deleted'}, or the process that did it died"
        remedy = "Endpoint.create() makes it again" if making else "Endpoint.delete_many() goes on"
        return self.finding(record, kind, State.LIVE.name, record.state.name, text, remedy)

    def finding(
        self, record: Record, kind: FindingKind, wanted: object, found: object, text: str, remedy: str = ""
    ) -> Finding:
        """A finding about an endpoint."""
        subject = Subject("endpoint", record.spec.name)
        return Finding(
            kind, subject, wanted, found, text, remedy, self.datapath.name, instance=record.instance
        )

    def is_in_other_hands(self, record: Record) -> bool:
        """Whether another process may be making or deleting an endpoint now, for a caller with the lock of its name.

        If that was begun under the caller's lock file, the process that did it has died. A process with a ``/run`` of
        its own holds another lock file, and may be alive.
        """
        return record.maker != self.host.lock_id and age.is_young(record.state, record.changed)

    def refuse_other_hands(self, record: Record) -> None:
        """Raises ``ExistsError`` if another process may be making or deleting an endpoint now."""
        if self.is_in_other_hands(record):
            doing = "made" if record.state is State.MAKING else "deleted"
            raise ExistsError(
                f"endpoint {record.spec.name!r} is being {doing} by a process that has a /run of its own",
                holder=record.spec.name,
                hint=f"wait for it, or {age.ABANDONED:.0f} s if it died",
            )

    def refuse_in_use(self) -> None:
        """Raises ``InUseError`` if there are endpoints."""
        # If the tunnel was moved to another namespace, records do not lead to devices there: each device may exist.
        records = self.recorded()
        if not self._is_moved():
            records = [record for record, found in self.lives(records) if found is Life.LIVE]
        refuse_users(self.datapath.name, [record.spec.name for record in records])

    def _is_moved(self) -> bool:
        return self.maps.read_meta().head.netns_cookie != self.host.cookie

    # -- made

    def find_or_make(self, spec: EndpointSpec) -> tuple[Record, bool]:
        """Make an endpoint, or find the existing one and write entries that it lacks.

        Returns:
            Record of the endpoint, and whether this call made it.

        Raises:
            ExistsError: The endpoint exists and is not as specified; other errors as for :meth:`make`.
        """
        existing = self.named(spec.name)
        if existing is not None and self.is_present(existing):
            if not comparison.is_its_namespace(spec, existing):
                return self.replace(existing, spec), True
            existing = self.settle(existing)
            comparison.refuse_other(spec, existing)
            entries.complete(self.maps, existing)
            return existing, False
        if existing is not None:
            self.refuse_other_hands(existing)
            self.remove([existing])
        return self.make(spec), True

    def complete_device(self, record: Record, *, netns: str | None = None) -> None:
        """Give the device of an existing endpoint back what it lost in its namespace; the caller holds no lock.

        The look takes none either. What is given follows the record as it is then, under the lock of the endpoint's
        name alone: another call may have changed the endpoint since ``record`` was read.

        Args:
            record: Record of the endpoint.
            netns: A name of its namespace; None: the one in the record.

        Raises:
            NetnsNotFoundError: Something is missing, and no name that is known leads to the namespace.
            ExistsError: Another device took the MAC while this one was down.
            KernelError: The kernel refused it.
            LockTimeoutError: Another call for that name held the lock for 10 s.
        """
        link, hooks = self.device(record), self.datapath.hooks
        if link is None or not configuration.lacks(record, link, hooks, netns=netns):
            return  # without a device, the next call makes the endpoint again
        with self.host.locked(of_name(record.spec.name)):
            now = self.named(record.spec.name)
            if now is None or now.instance != record.instance or now.state is not State.LIVE:
                return
            link = self.device(now)
            if link is not None:
                configuration.complete(now, link, hooks, netns=netns)

    def make(self, spec: EndpointSpec, *, private: bool = False) -> Record:
        """Make the endpoint ``spec``, whose name is free. On any error nothing is left behind.

        Args:
            spec: The specification.
            private: Whether its namespace is made for it, and ends with it.

        Raises:
            ExistsError: The name, an address, the MAC, the device's name or the default route is taken.
            CapacityError: A table is full.
            MtuError: The MTU is larger than the tunnel's, or too small for IPv6.
            NetnsNotFoundError: There is no such namespace.
            UntrustedNamespaceError: The namespace belongs to another user namespace.
            InvalidValueError: A MACVTAP shall live in the host's namespace.
            EndpointNotFoundError: Another process, which does not see the lock, deleted the endpoint meanwhile.
            AgentNotFoundError: Another process, which does not see the lock, detached the agent meanwhile.
        """
        try:
            return self._make(spec, private)
        except CapacityError:
            if not self.remove_dead():
                raise
        return self._make(spec, private)

    def _make(self, spec: EndpointSpec, private: bool) -> Record:
        making = Making.of(spec, self.datapath, self.maps, private=private)
        self._check_free(making.record.spec)
        if making.record.items:  # many may be refused halfway, and then there is the device, too
            entries.refuse_unfit(
                self.maps, making.record, making.record.pack_addresses(), making.record.items
            )
        entries.claim_name(self.maps, making.record)
        try:
            making.run()
        except BaseException as error:
            self._undo(making.record, error)
            raise
        log.info("endpoint %r created: %s", spec.name, text_of(making.record.spec))
        return making.record

    def replace(self, existing: Record, spec: EndpointSpec) -> Record:
        """Make an endpoint anew. What forbids it is met, as far as one can look ahead, before the existing one goes.

        Args:
            existing: Its record, which was just read.
            spec: What it shall be.

        Raises:
            MizarnetError: As for :meth:`make`; the existing endpoint is there still, or again.
        """
        self._refuse_unfit(spec, existing)
        self.remove([existing])
        return self.make_instead(existing, spec)

    def make_instead(self, existing: Record, spec: EndpointSpec) -> Record:
        """Make an endpoint in the place of one that was removed, or else that one again; raises as :meth:`make`."""
        try:
            return self.make(spec)
        except BaseException as error:
            self._bring_back(existing, error)
            raise

    def _refuse_unfit(self, spec: EndpointSpec, existing: Record) -> None:
        wanted = Making.of(spec, self.datapath, self.maps).record
        self._check_free(wanted.spec, of=existing)
        if wanted.private:
            return
        with device.open_namespace(spec, self.host) as target:
            itself = attrs.evolve(wanted, instance=existing.instance)
            company.refuse_same_subnet(self.maps, target, itself, spec.ip)
            link, own = get_link(target, spec.ifname), self.device(existing)
            at_home = own is not None and target.identity == existing.netns_id
            if link is not None and not (at_home and own is not None and own.ifindex == link.ifindex):
                device.refuse_foreign(
                    link, target, partial(entries.owner_of, self.maps), self.datapath.hooks, spec
                )

    def _bring_back(self, existing: Record, error: BaseException) -> None:
        """Make an endpoint again that went for one that cannot be made; what fails becomes a note of the error."""
        spec = attrs.evolve(existing.spec, mtu=existing.mtu if existing.own_mtu else None)
        if existing.private:
            spec = attrs.evolve(spec, netns=None)
        try:
            self.make(spec, private=existing.private)
        except MizarnetError as left:
            error.add_note(f"Endpoint {existing.spec.name!r} is gone, and could not be made again: {left}")

    def _undo(self, record: Record, error: BaseException) -> None:
        """Remove what was made of an endpoint, as the next call would if this process died.

        The error that was met first is the one to raise; what cannot be removed keeps its record, and a note tells it.
        """
        for left in self.remove_many([record]).values():
            error.add_note(
                f"What was made of endpoint {record.spec.name!r} is still there, until the next create() or "
                f"delete_many() of that name: {left}"
            )

    def _check_free(self, spec: EndpointSpec, *, of: Record | None = None) -> None:
        """Raises ``ExistsError`` if an address or the MAC is taken; removes endpoints without a device that have it."""
        self._check_addresses(spec, of=of)
        mac = MacAddress.parse(spec.mac or b"")
        entries.drop_orphan_sender(self.maps, mac)
        holder = self.with_mac(mac)
        if holder is None or of is None or holder.instance != of.instance:
            self.evict(holder, f"MAC {mac}")

    def _check_addresses(self, spec: EndpointSpec, *, of: Record | None = None) -> None:
        own = () if of is None or of.spec.vni != spec.vni else {address.ip for address in of.spec.ip}
        for ip in (address.ip for address in spec.ip if address.ip not in own):
            entries.drop_orphan(self.maps, codec.pack_endpoint_key(EndpointKey(spec.vni, ip)))
            self.evict(self._holder(spec.vni, ip, wait=_OTHER_NAME), f"({spec.vni}, {ip})")

    def _holder(self, vni: int, ip: IPAddress, *, wait: float) -> Record | None:
        """Record of the endpoint that has an address, after a change of it that was cut off was settled."""
        holder = self.at(vni, ip)
        if holder is None or ip in {address.ip for address in holder.spec.ip}:
            return holder
        with self._name_of(holder, wait=wait) as still:
            if still is not None and self.is_present(still):
                self.settle(still)
        return self.at(vni, ip)

    # -- changed

    def settle(self, record: Record) -> Record:
        """Finish or take back what a change of a live endpoint left, whose process died; the record as it is then.

        Raises:
            NetnsNotFoundError: Something is to be taken from the device, and no name that is known leads to it.
        """
        link = self.device(record)
        return record if link is None else Updating(self.datapath.hooks, self.maps, link).settle(record)

    def update(self, record: Record, given: Mapping[str, Any]) -> tuple[Record, tuple[str, ...]]:
        """Change a live endpoint; after an error it is as it was, or as it shall be, in each of the two parts.

        Args:
            record: Record that was just read.
            given: New values, as of an ``EndpointSpec``; what is left out stays.

        Returns:
            The record as it is now, and the names of what changed.

        Raises:
            InvalidValueError: The values do not fit together, or not to the endpoint.
            ExistsError: Another endpoint has one of the addresses, or something else has a route.
            CapacityError: A table is full.
            NetnsNotFoundError: No name that is known leads to the endpoint's namespace.
        """
        try:
            return self._update(record, given)
        except CapacityError:
            if not self.remove_dead():
                raise
        return self._update(self.named(record.spec.name) or record, given)

    def _update(self, record: Record, given: Mapping[str, Any]) -> tuple[Record, tuple[str, ...]]:
        record = before = self.settle(record)
        link = self.device(record)
        if link is None:
            return record, ()
        ways = {name: value for name, value in given.items() if name not in OPTIONS}
        options = {name: value for name, value in given.items() if name in OPTIONS}
        change = Options(self.datapath, self.maps, link, options)
        change.refuse_unfit(record, ways)
        # IPv6 addresses need a large MTU: one that grows comes before them, one that shrinks after they have left.
        if ways and change.mtu(record) > record.mtu:
            larger = attrs.evolve(change, given={"mtu": options.pop("mtu")})
            record = larger.apply(record)
            try:
                record = self._change_ways(record, link, ways)
            except BaseException as error:
                self._take_back(larger, before, error)
                raise
            record = attrs.evolve(change, given=options).apply(record)
        else:
            record = change.apply(self._change_ways(record, link, ways))
        return record, tuple(name for name in given if _differs(name, record, before))

    def _take_back(self, larger: Options, before: Record, error: BaseException) -> None:
        """Give an endpoint its smaller MTU back; what fails becomes a note of the error that was met first."""
        try:
            record = self.named(before.spec.name)
            if record is not None and record.generation == before.generation:
                larger.take_back(record, before)
        except MizarnetError as left:
            error.add_note(f"The MTU of endpoint {before.spec.name!r} has changed: {left}")

    def _change_ways(self, record: Record, link: Link, given: Mapping[str, Any]) -> Record:
        """Give an endpoint other addresses, gateways and routes; its record as it is now."""
        wanted = attrs.evolve(record.spec, **given)
        if wanted.gateway is None:
            wanted = attrs.evolve(wanted, gateway=gateways_of_networks(self.maps, wanted))
        if wanted == record.spec:
            return record
        self._check_addresses(wanted, of=record)
        updating = Updating(self.datapath.hooks, self.maps, link)
        return updating.run(record, wanted, gateways_given=given.get("gateway") is not None)

    def hand_over(self, heirs: Mapping[bytes, bytes]) -> None:
        """Let addresses of endpoints that are about to leave them lead elsewhere, with no moment without an entry.

        The caller holds the tables' lock. What the endpoint gives up afterwards is its own entries only.

        Args:
            heirs: Packed entries of ``endpoints`` for these addresses.
        """
        edit = Edit(put=heirs)
        to_renew = next_hops.begin_endpoints(self.maps, edit)
        self.maps.endpoints.update_many(heirs)
        if to_renew:
            next_hops.renew(self.maps)

    # -- gone

    def delete(self, name: str, *, instance: int | None = None) -> bool:
        """Remove the endpoint of a name, however far it has come; whether there was one.

        Args:
            name: Name of the endpoint.
            instance: The one to remove; None: any.
        """
        record = self.named(name)
        if record is None or instance not in (None, record.instance):
            return False
        self.remove([record])
        return True

    def evict(self, holder: Record | None, what: str, *, wait: float = _OTHER_NAME) -> None:
        """Remove an endpoint that holds ``what`` and is not live; raises ``ExistsError`` if it is, or may become so."""
        if holder is None:
            return
        if not self.is_present(holder):
            with self._name_of(holder, wait=wait) as still:
                if still is None:
                    return
                if not self.is_present(still):
                    self.refuse_other_hands(still)
                    self.remove([still])
                    return
        raise ExistsError(
            f"{what} belongs to endpoint {holder.spec.name!r}",
            holder=holder.spec.name,
            hint="delete that endpoint first, or give another one",
        )

    @contextmanager
    def _name_of(self, record: Record, *, wait: float) -> Generator[Record | None, None, None]:
        """Hold the lock of another endpoint's name; its record then, None if it is gone.

        Two callers may hold each the name that the other one wants, so the wait is short.
        """
        with ExitStack() as held:
            try:
                held.enter_context(self.host.locked(of_name(record.spec.name), timeout=wait))
            except LockTimeoutError as busy:
                raise ExistsError(
                    f"endpoint {record.spec.name!r} is being made or deleted: {busy.message}",
                    holder=record.spec.name,
                    hint="wait for that call",
                ) from None
            found = self.named(record.spec.name)
            yield found if found is not None and found.instance == record.instance else None

    def release(self, key: EndpointKey) -> bool:
        """Whether an address is free for another host; an endpoint that has it and lost its device is removed."""
        try:
            # Other writers of tables wait for this one.
            self.evict(self._holder(key.vni, key.ip, wait=0), "the address", wait=0)
        except ExistsError:
            return False
        return True

    def remove_dead(self) -> int:
        """Remove the endpoints that lost their devices, as when containers end without a word; how many."""
        if self._is_moved():
            return 0  # records do not lead to devices in another namespace
        count = entries.drop_orphan_slots(self.maps) + items.drop_orphans(self.maps)
        for record, found in self.lives(self.recorded()):
            if found is not Life.LIVE:
                with suppress(ExistsError), self._name_of(record, wait=0) as still:
                    if still is not None and not self.is_present(still):
                        self.refuse_other_hands(still)
                        self.remove([still])
                        count += 1
        return count

    def remove(self, records: Iterable[Record]) -> None:
        """Remove endpoints whose records were just read; parts that are gone already are no error.

        Raises:
            MizarnetError: The first of those that were met; the endpoints concerned keep their records.
        """
        for error in self.remove_many(records).values():
            raise error

    def remove_many(self, records: Iterable[Record]) -> dict[str, MizarnetError]:
        """Remove endpoints whose records were just read; the errors, by name, of those that keep their records."""
        removal = Removal(self.datapath.hooks, self.maps)
        removal.run(list(records))
        return removal.failed


def _differs(name: str, record: Record, before: Record) -> bool:
    if name == "mtu" and record.own_mtu != before.own_mtu:
        return True
    return bool(getattr(record.spec, name) != getattr(before.spec, name))


def life_of(record: Record, link: Link | None) -> Life:
    """How far an endpoint has come, from its record and its device."""
    if record.state is State.LIVE:
        return Life.DEAD if link is None else Life.LIVE
    return Life.MAKING if record.state is State.MAKING else Life.DELETING


def refuse_users(tunnel: str, users: list[str]) -> None:
    """Raises ``InUseError`` if a tunnel has users.

    Args:
        tunnel: Name of the tunnel.
        users: Names of the endpoints or devices that use it.
    """
    if users:
        raise InUseError(
            f"{len(users)} endpoints use {tunnel}, such as {users[0]!r}",
            users=users,
            hint="delete them first, or give force=True",
        )
