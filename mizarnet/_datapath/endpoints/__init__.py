# SPDX-License-Identifier: Apache-2.0
"""The endpoints of this host on one data path: making, finding and removing them.

Each endpoint is a set of map entries and one device, made and removed in an order in which no frame passes unchecked
(``entries``, ``device``). The kernel deletes devices with their namespaces: a record tells that an
endpoint was made, and its device whether it still exists.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import attrs

from mizarnet._datapath import private_netns
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import comparison, configuration, device, entries
from mizarnet._datapath.host import Host
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.bpf import UpdateMode
from mizarnet._kernel.netlink import SAME_NAMESPACE, delete_link, delete_netns, get_link
from mizarnet._model import codec
from mizarnet._model.arguments import SMALLEST_IPV6_MTU, IPAddress
from mizarnet._model.codec import NO_SLOT, Record
from mizarnet._model.enumerations import State
from mizarnet._model.finding import Finding, FindingKind, Subject
from mizarnet._model.log import log
from mizarnet._model.specs import EndpointKey, EndpointSpec, Kind, MacAddress
from mizarnet.errors import CapacityError, ExistsError, InUseError, MtuError

ABANDONED = 60
"""Time in seconds after which an unfinished endpoint counts as abandoned, whatever lock its maker holds."""


@attrs.frozen
class LocalEndpoints:
    """The endpoints of this host on one data path. A caller that changes them holds the host's lock.

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
        return self._record(codec.record_key(name))

    def at(self, vni: int, ip: IPAddress) -> Record | None:
        """Record of the endpoint with that address; None if there is none."""
        claim = self.maps.addresses.lookup(codec.pack_endpoint_key(EndpointKey(vni, ip)))
        return None if claim is None else self._record(codec.claimant(claim))

    def with_mac(self, mac: MacAddress) -> Record | None:
        """Record of the endpoint with that MAC; None if there is none."""
        sender = self.maps.senders.lookup(codec.mac_key(mac))
        return None if sender is None else self._record(codec.record_of(sender))

    def _record(self, key: bytes) -> Record | None:
        data = self.maps.records.lookup(key)
        return None if data is None else Record.unpack(data)

    def recorded(self) -> list[Record]:
        """All records, sorted by name, whether their devices exist or not."""
        found = [Record.unpack(data) for _, data in self.maps.records.items()]
        return sorted(found, key=lambda record: record.spec.name)

    def present(self) -> list[Record]:
        """Records of the finished endpoints whose device exists, sorted by name."""
        return [record for record in self.recorded() if self.is_present(record)]

    def is_present(self, record: Record) -> bool:
        """Whether an endpoint is finished and its device exists."""
        return not self.losses(record)

    def losses(self, record: Record) -> list[Finding]:
        """Findings for which an endpoint counts as absent; none if it is finished and its device exists."""
        subject = Subject("endpoint", record.spec.name)
        if record.ifindex == 0:
            text = "it is being made, or the process that did it died"
            return [Finding(FindingKind.UNFINISHED, subject, State.LIVE.name, record.state.name, text)]
        if device.find(record, self.datapath.hooks) is None:
            where = record.spec.netns or "the host's namespace"
            text = f"its device {record.spec.ifname} is gone from {where}, or has another MAC"
            return [Finding(FindingKind.DEVICE_GONE, subject, str(record.mac), None, text)]
        return []

    def is_being_made(self, record: Record) -> bool:
        """Whether another process may be making an endpoint now, for a caller that holds the host's lock.

        If an unfinished endpoint was begun under the caller's lock file, its maker has died. A process with a ``/run``
        of its own holds another lock file, and may be alive.
        """
        if record.state is not State.MAKING or record.maker == self.host.lock_id:
            return False
        return time.clock_gettime(time.CLOCK_BOOTTIME) - record.changed / 1e9 < ABANDONED

    def refuse_other_maker(self, record: Record) -> None:
        """Raises ``ExistsError`` if another process may be making an endpoint now."""
        if self.is_being_made(record):
            raise ExistsError(
                f"endpoint {record.spec.name!r} is being made by a process that has a /run of its own",
                holder=record.spec.name,
                hint=f"wait for it, or {ABANDONED} s if it died",
            )

    def refuse_in_use(self) -> None:
        """Raises ``InUseError`` if there are endpoints."""
        # If the tunnel was moved to another namespace, records do not lead to devices there: each device may exist.
        moved = self.maps.read_meta().head.netns_cookie != self.host.cookie
        refuse_users(
            self.datapath.name,
            [record.spec.name for record in (self.recorded() if moved else self.present())],
        )

    # -- made

    def find_or_make(self, spec: EndpointSpec) -> tuple[Record, bool]:
        """Make an endpoint, or find the existing one and write entries that it lacks.

        Returns:
            Record of the endpoint, and whether this call made it.

        Raises:
            ExistsError: The endpoint exists and is not as specified; other errors as for :meth:`make`.
        """
        existing = self.named(spec.name)
        if existing is not None:
            if self.is_present(existing) and comparison.is_its_namespace(spec, existing):
                comparison.refuse_other(spec, existing)
                entries.complete(self.maps, existing)
                return existing, False
            self.refuse_other_maker(existing)
            self.remove(existing)
        try:
            return self.make(spec), True
        except CapacityError:
            if not self.remove_dead():
                raise
        return self.make(spec), True

    def complete_device(self, record: Record, spec: EndpointSpec) -> None:
        """Give the device of an existing endpoint back what it lost in its namespace; without the host's lock.

        Raises:
            NetnsNotFoundError: Something is missing, and no name that is known leads to the namespace.
            ExistsError: Another device took the MAC while this one was down.
            KernelError: The kernel refused it.
        """
        link = device.find(record, self.datapath.hooks)
        if link is not None:  # else it went since the look, and the next call makes the endpoint again
            configuration.complete(record, link, self.datapath.hooks, netns=spec.netns)

    def make(self, spec: EndpointSpec) -> Record:
        """Make the endpoint ``spec``, whose name is free. On any error nothing is left behind.

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
        wanted = self._filled_in(spec)
        self._check_free(wanted)
        private = spec.kind is Kind.MACVTAP and spec.netns is None
        instance = secrets.randbits(64)
        if private:
            wanted = attrs.evolve(wanted, netns=private_netns.name_of(instance))
        with ExitStack() as undo:
            # The record is written first: it leads to everything else that was made.
            record = entries.claim_name(self.maps, self._new_record(wanted, instance, private=private), undo)
            if private:
                name = wanted.netns or ""
                private_netns.make(name, self.host.cookie, self.datapath.hooks.ifindex)
                undo.callback(delete_netns, name)
            target = undo.enter_context(device.open_namespace(wanted, self.host))
            nsid = device.nsid_from(self.host, target)
            record = attrs.evolve(record, netns_cookie=target.cookie, netns_id=target.identity, nsid=nsid)
            record = entries.claim(self.maps, record, undo)
            given = spec.gateway is not None
            ifindex, routed = target.run(
                device.make, self.datapath.hooks, target, record, undo, gateways_given=given
            )
            record = attrs.evolve(record, ifindex=ifindex, routed=routed, state=State.LIVE)
            entries.publish(self.maps, record)
            # A process that detaches the agent writes so into meta before it looks for endpoints.
            self.datapath.refuse_detached()
            undo.pop_all()
            target.close()
        log.info("endpoint %r created: %s", wanted.name, _text(wanted))
        return record

    def _new_record(self, spec: EndpointSpec, instance: int, *, private: bool) -> Record:
        return Record(
            spec=spec,
            instance=instance,
            slot=NO_SLOT,
            ifindex=0,
            netns_cookie=0,
            netns_id=(0, 0),
            nsid=SAME_NAMESPACE,
            maker=self.host.lock_id,
            state=State.MAKING,
            private=private,
        )

    def _filled_in(self, spec: EndpointSpec) -> EndpointSpec:
        """The specification with MAC, MTU and gateways filled in."""
        largest = self._largest_mtu()
        mtu = largest if spec.mtu is None else spec.mtu
        if mtu > largest:
            raise MtuError(
                f"mtu {mtu} is larger than the tunnel's {largest}",
                argument="mtu",
                value=mtu,
                hint=f"give at most {largest}",
            )
        if mtu < SMALLEST_IPV6_MTU and spec.ip[-1].version == 6:
            raise MtuError(
                f"{spec.ip[-1]}: IPv6 needs an MTU of {SMALLEST_IPV6_MTU}, the tunnel's is {mtu}",
                argument="mtu",
                value=mtu,
                hint="use IPv4 only, or a tunnel with a larger mtu=",
            )
        mac = spec.mac or MacAddress.derive(spec.vni, spec.ip[0].ip)
        gateways = self._gateways(spec) if spec.gateway is None else spec.gateway
        return attrs.evolve(spec, mtu=mtu, mac=mac, gateway=list(gateways))

    def _largest_mtu(self) -> int:
        """What the agent lets out, and no more than the tunnel's device takes now."""
        link = get_link(self.host, ifindex=self.datapath.hooks.ifindex)
        agreed = self.maps.read_meta().mtu
        return agreed if link is None else min(agreed, link.mtu)

    def _gateways(self, spec: EndpointSpec) -> Iterator[IPAddress]:
        """Gateways of the networks that the endpoint's addresses are in."""
        for address in spec.ip:
            data = self.maps.networks.lookup(codec.pack_host_key(spec.vni, address.ip))
            gateway = None if data is None else codec.unpack_network(data).gateway
            if gateway is not None and gateway in address.network and gateway != address.ip:
                yield gateway

    def _check_free(self, spec: EndpointSpec) -> None:
        """Raises ``ExistsError`` if an address or the MAC is taken; removes endpoints without a device that have it."""
        for address in spec.ip:
            entries.drop_orphan(self.maps, codec.pack_endpoint_key(EndpointKey(spec.vni, address.ip)))
            self.evict(self.at(spec.vni, address.ip), f"({spec.vni}, {address.ip})")
        if spec.mac is not None:
            self.evict(self.with_mac(spec.mac), f"MAC {spec.mac}")

    # -- gone

    def evict(self, holder: Record | None, what: str) -> None:
        """Remove an endpoint that holds ``what`` and has no device; raises ``ExistsError`` if its device exists."""
        if holder is None:
            return
        if self.is_present(holder):
            raise ExistsError(
                f"{what} belongs to endpoint {holder.spec.name!r}",
                holder=holder.spec.name,
                hint="delete that endpoint first, or give another one",
            )
        self.refuse_other_maker(holder)
        self.remove(holder)

    def release(self, key: EndpointKey) -> bool:
        """Whether an address is free for another host; an endpoint that has it and lost its device is removed."""
        holder = self.at(key.vni, key.ip)
        if holder is None:
            return True
        if self.is_present(holder) or self.is_being_made(holder):
            return False
        self.remove(holder)
        return True

    def remove_dead(self) -> int:
        """Remove the endpoints that lost their devices, as when containers end without a word; how many."""
        if self.maps.read_meta().head.netns_cookie != self.host.cookie:
            return 0  # the tunnel was moved to another namespace, where records do not lead to devices
        dead = [
            each for each in self.recorded() if not self.is_present(each) and not self.is_being_made(each)
        ]
        for record in dead:
            self.remove(record)
        return len(dead)

    def remove(self, record: Record) -> None:
        """Remove an endpoint whose record was just read; parts that are gone already are no error.

        The endpoint is made unreachable first, then unable to send. Its record is removed last, so that it leads to
        the rest if this process dies. A maker that does not see the caller's lock also writes the record last: if
        it did so meanwhile, there is more to remove.
        """
        left: Record | None = record
        while left is not None:
            left = self._remove(left)

    def _remove(self, record: Record) -> Record | None:
        """Remove an endpoint once; its record if another process changed that meanwhile, else None."""
        entries.silence(self.maps, record)
        link = device.find(record, self.datapath.hooks)
        if link is not None:
            delete_link(self.host, link.ifindex, nsid=record.nsid)
        if record.private:
            delete_netns(record.spec.netns or "")
        entries.give_up_claims(self.maps, record)
        taken = entries.take_record(self.maps, record)
        if taken is not None:
            log.info("endpoint %r deleted: %s", record.spec.name, _text(record.spec))
        if taken is None or Record.unpack(taken).changed == record.changed:
            return None
        with suppress(ExistsError):
            self.maps.records.update(codec.record_key(record.spec.name), taken, mode=UpdateMode.NOEXIST)
        return Record.unpack(taken)


def _text(spec: EndpointSpec) -> str:
    addresses = ", ".join(map(str, spec.ip))
    return f"{addresses} of VNI {spec.vni} in {spec.netns or 'the namespace of the host'}"


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
