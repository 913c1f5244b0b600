# SPDX-License-Identifier: Apache-2.0
"""How an endpoint comes into being and goes: map entries and one device, in an order that never leaves a hole.

Making: the sender's record first, so that the device may send from its first moment; the device with addresses and
routes; then the entry that makes others reach it, and last the word that it is whole. Removing: the reverse. The caller
holds the host's lock. Another process may hold another one, with a ``/run`` of its own: so what two endpoints must not
share is claimed in the kernel, and whoever comes second notices.
"""

from __future__ import annotations

import errno
import secrets
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress

import attrs

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.lock import identity as lock_identity
from mizarnet._datapath.maps import Maps, take_own
from mizarnet._datapath.presence import ABANDONED, forget, is_being_made, is_present, remove, silence_records
from mizarnet._datapath.private_netns import make as make_private
from mizarnet._datapath.private_netns import name_of
from mizarnet._kernel.bpf import UpdateMode
from mizarnet._kernel.netlink import (
    SAME_NAMESPACE,
    Link,
    NetnsHandle,
    Session,
    add_address,
    add_default_route,
    create_macvlan,
    delete_link,
    delete_netns,
    nsid_of,
    owner_is_initial,
    resolve,
    silence,
    wait_for_address,
)
from mizarnet._model import codec
from mizarnet._model.arguments import SMALLEST_IPV6_MTU, IPAddress
from mizarnet._model.codec import NO_SLOT, Record
from mizarnet._model.enumerations import State
from mizarnet._model.specs import EndpointKey, EndpointSpec, Kind, MacAddress
from mizarnet.errors import (
    CapacityError,
    EndpointNotFoundError,
    ExistsError,
    InvalidValueError,
    MtuError,
    NetlinkError,
    UntrustedNamespaceError,
)
from mizarnet.tunnel import Tunnel


def make(datapath: DataPath, maps: Maps, tunnel: Tunnel, spec: EndpointSpec) -> Record:
    """Create the endpoint ``spec``, whose name is free. On any error nothing is left behind.

    Raises:
        ExistsError: Its name, its address, its MAC, the device's name or the default route is taken.
        CapacityError: A table is full.
        MtuError: Its MTU is larger than the tunnel's, or that is too small for IPv6.
        NetnsNotFoundError: There is no such namespace.
        UntrustedNamespaceError: It belongs to another user namespace.
        EndpointNotFoundError: Another process, which does not see the lock, deleted it meanwhile.
        AgentNotFoundError: It detached the agent meanwhile.
    """
    wanted = _complete(maps, tunnel, spec)
    _check_free(datapath, maps, wanted)
    host, private = tunnel.session, spec.kind is Kind.MACVTAP and spec.netns is None
    instance = secrets.randbits(64)
    if private:
        wanted = attrs.evolve(wanted, netns=name_of(instance))
    with ExitStack() as undo:
        # The record is the first thing that there is: whoever finds it finds what else was made.
        record = _claim_name(maps, _new_record(host, wanted, instance, private=private), undo)
        if private:
            name = wanted.netns or ""
            make_private(name, host.cookie, tunnel.ifindex)
            undo.callback(delete_netns, name)
        target = undo.enter_context(_namespace(wanted, host))
        record = _claim(maps, _located(record, host, target), undo)
        optional = spec.gateway is None
        ifindex = target.run(_make_device, tunnel, target, record, undo, optional_routes=optional)
        record = attrs.evolve(record, ifindex=ifindex, state=State.LIVE)
        publish(maps, record)
        datapath.refuse_unfinished(maps.read_meta())  # whoever detaches says so before he looks for endpoints
        undo.pop_all()
        target.close()
    return record


def publish(maps: Maps, record: Record) -> None:
    """The last step: others reach the endpoint, and its record says that it is whole.

    The record goes last: another process that is removing the endpoint, and does not see the lock, sees by it that
    there is more to remove; and one that has removed it is noticed here.
    """
    key = codec.record_key(record.spec.name)
    with _unless_deleted(record):
        _refuse_replaced(maps, record)
        # From here on with the device's index, by which the agent knows it.
        maps.interfaces.update(codec.mac_key(record.mac), record.pack_interface(), mode=UpdateMode.EXIST)
        maps.endpoints.update_many([(key, record.pack_endpoint()) for key in record.pack_addresses()])
        maps.records.update(key, record.pack(), mode=UpdateMode.EXIST)


def complete(maps: Maps, record: Record) -> None:
    """Write what is missing of the entries of an endpoint whose device exists.

    Raises:
        ExistsError: Another endpoint has one of them.
        EndpointNotFoundError: Another process deleted it meanwhile.
    """
    own = codec.record_key(record.spec.name)
    entries = [
        (maps.slots, codec.u32(record.interface), record.pack_slot(), codec.slot_holder),
        *((maps.addresses, key, claim, codec.claimant) for key, claim in record.pack_addresses().items()),
        (maps.interfaces, codec.mac_key(record.mac), record.pack_interface(), codec.record_of),
    ]
    missing = False
    for table, key, wanted, holder in entries:
        found = table.lookup(key)
        if found == wanted:
            continue
        missing = True
        with _unless_deleted(record):
            _refuse_other_life(maps, record)
        mode = UpdateMode.ANY if found is not None and holder(found) == own else UpdateMode.NOEXIST
        with _explained(f"an entry of endpoint {record.spec.name!r} is another's", record.spec.name):
            table.update(key, wanted, mode=mode)
    reachable = [maps.endpoints.lookup(key) for key in record.pack_addresses()]
    if missing or any(found != record.pack_endpoint() for found in reachable):
        try:
            publish(maps, record)
        except EndpointNotFoundError:
            _forget(maps, record)
            raise


@contextmanager
def _unless_deleted(record: Record) -> Generator[None, None, None]:
    try:
        yield
    except EndpointNotFoundError:
        raise EndpointNotFoundError(
            f"endpoint {record.spec.name!r} was deleted by another process while it was being made"
        ) from None


def _refuse_replaced(maps: Maps, record: Record) -> None:
    """Raises ``EndpointNotFoundError`` unless the record, the index and all addresses are still this endpoint's."""
    _refuse_other_life(maps, record)
    interface = maps.interfaces.lookup(codec.mac_key(record.mac))
    own = (
        maps.slots.lookup(codec.u32(record.interface)) == record.pack_slot()
        and all(maps.addresses.lookup(key) == claim for key, claim in record.pack_addresses().items())
        and interface is not None
        and record.is_interface(interface)
    )
    if not own:
        raise EndpointNotFoundError(record.spec.name)


def _refuse_other_life(maps: Maps, record: Record) -> None:
    """Raises ``EndpointNotFoundError`` unless the record is still there, and not of a later life of the name."""
    found = maps.records.lookup(codec.record_key(record.spec.name))
    if found is None or codec.instance_of(found) != record.instance:
        raise EndpointNotFoundError(record.spec.name)


# -- before anything is made -------------------------------------------------------------------------------


def _complete(maps: Maps, tunnel: Tunnel, spec: EndpointSpec) -> EndpointSpec:
    """The specification with MAC, MTU and gateways filled in."""
    mtu = tunnel.mtu if spec.mtu is None else spec.mtu
    if mtu > tunnel.mtu:
        raise MtuError(
            f"mtu {mtu} is larger than the tunnel's {tunnel.mtu}",
            argument="mtu",
            value=mtu,
            hint=f"give at most {tunnel.mtu}",
        )
    if mtu < SMALLEST_IPV6_MTU and spec.ip[-1].version == 6:
        raise MtuError(
            f"{spec.ip[-1]}: IPv6 needs an MTU of {SMALLEST_IPV6_MTU}, the tunnel's is {mtu}",
            argument="mtu",
            value=mtu,
            hint="use IPv4 only, or a tunnel with a larger mtu=",
        )
    mac = spec.mac or MacAddress.derive(spec.vni, spec.ip[0].ip)
    gateways = _gateways(maps, spec) if spec.gateway is None else spec.gateway
    return attrs.evolve(spec, mtu=mtu, mac=mac, gateway=list(gateways))


def _gateways(maps: Maps, spec: EndpointSpec) -> Iterator[IPAddress]:
    """Those of the networks that the endpoint's addresses are in."""
    for address in spec.ip:
        key = codec.pack_host_key(spec.vni, address.ip)
        data = maps.networks.lookup(key)
        gateway = None if data is None else codec.unpack_network(data).gateway
        if gateway is not None and gateway in address.network and gateway != address.ip:
            yield gateway


def _check_free(datapath: DataPath, maps: Maps, spec: EndpointSpec) -> None:
    """Addresses and MAC must be free; whoever held them and lost its device has gone."""
    for address in spec.ip:
        _drop_orphan(maps, codec.pack_endpoint_key(EndpointKey(spec.vni, address.ip)))
        evict(datapath, maps, datapath.record_at(spec.vni, address.ip), f"({spec.vni}, {address.ip})")
    if spec.mac is not None:
        evict(datapath, maps, datapath.record_of(spec.mac), f"MAC {spec.mac}")


def _drop_orphan(maps: Maps, address: bytes) -> None:
    """Take away the claim to an address that a maker wrote, and died, after somebody else had removed its record."""
    claim = maps.addresses.lookup(address)
    if claim is not None:
        record = maps.records.lookup(codec.claimant(claim))
        if record is None or codec.instance_of(record) != codec.instance_claiming(claim):
            take_own(maps.addresses, address, claim.__eq__)


def evict(datapath: DataPath, maps: Maps, holder: Record | None, what: str) -> None:
    """Remove an endpoint that holds ``what`` and lost its device; raises ``ExistsError`` if it did not."""
    if holder is None:
        return
    if is_present(holder, datapath.session):
        raise ExistsError(f"{what} belongs to endpoint {holder.spec.name!r}", holder=holder.spec.name)
    refuse_other_maker(datapath.session, holder)
    remove(maps, datapath.session, holder)


def refuse_other_maker(host: Session, record: Record) -> None:
    """Raises ``ExistsError`` if an endpoint may be in the making."""
    if is_being_made(record, host):
        raise ExistsError(
            f"endpoint {record.spec.name!r} is being made by a process that has a /run of its own",
            holder=record.spec.name,
            hint=f"wait for it, or {ABANDONED} s if it died",
        )


# -- records and claims ------------------------------------------------------------------------------------


def _new_record(host: Session, spec: EndpointSpec, instance: int, *, private: bool) -> Record:
    return Record(
        spec=spec,
        instance=instance,
        interface=NO_SLOT,
        ifindex=0,
        netns_cookie=0,
        netns_id=(0, 0),
        nsid=SAME_NAMESPACE,
        maker=lock_identity(host.cookie),
        state=State.MAKING,
        private=private,
    )


def _located(record: Record, host: Session, target: Session) -> Record:
    """The record with what is known of the namespace."""
    return attrs.evolve(
        record, netns_cookie=target.cookie, netns_id=target.identity, nsid=_nsid(host, target)
    )


def _nsid(host: Session, target: Session) -> int:
    if host.identity == target.identity:
        return SAME_NAMESPACE
    with target.open_netns() as handle:
        return nsid_of(host, handle)


def _claim_name(maps: Maps, record: Record, undo: ExitStack) -> Record:
    key = codec.record_key(record.spec.name)
    with _explained(f"endpoint {record.spec.name!r} exists", record.spec.name):
        try:
            maps.records.update(key, record.pack(), mode=UpdateMode.NOEXIST)
        except CapacityError as full:
            raise _no_room(maps, full.used) from None
    undo.callback(_forget, maps, record)
    return record


def _claim(maps: Maps, record: Record, undo: ExitStack) -> Record:
    """All that two endpoints must not share, last the hot half of the record, by which the endpoint may send.

    Each step is refused by the kernel if somebody else has the key.
    """
    key, new = codec.record_key(record.spec.name), UpdateMode.NOEXIST
    record = attrs.evolve(record, interface=_claim_slot(maps, record))
    undo.callback(_forget, maps, record)
    maps.traffic.update(codec.u32(record.interface), bytes(maps.traffic.slot_size))
    with _unless_deleted(record):
        _refuse_other_life(maps, record)
        maps.records.update(key, record.pack(), mode=UpdateMode.EXIST)
    for address, claim in record.pack_addresses().items():
        found = codec.unpack_endpoint_key(address)
        with _explained(f"({found.vni}, {found.ip}) belongs to another endpoint", str(found.ip)):
            maps.addresses.update(address, claim, mode=new)
    with _explained(f"MAC {record.mac} belongs to another endpoint", str(record.mac)):
        maps.interfaces.update(codec.mac_key(record.mac), record.pack_interface(), mode=new)
    return record


@contextmanager
def _explained(what: str, holder: str) -> Generator[None, None, None]:
    """Say what is taken: whoever took it was faster than the look before."""
    try:
        yield
    except ExistsError:
        raise ExistsError(f"{what}: another process made it just now", holder=holder) from None


def _claim_slot(maps: Maps, record: Record) -> int:
    """The lowest index into ``traffic`` that no endpoint has, and now this one."""
    while True:
        keys, _, count = maps.slots.lookup_all()
        if count >= maps.slots.max_entries:
            raise _no_room(maps, count)
        used = set(memoryview(keys).cast("I"))
        index = next(index for index in range(count + 1) if index not in used)
        with suppress(ExistsError):  # another process was faster
            maps.slots.update(codec.u32(index), record.pack_slot(), mode=UpdateMode.NOEXIST)
            return index


def _no_room(maps: Maps, count: int) -> CapacityError:
    return CapacityError(
        f"this host has {count} endpoints, and room for no more",
        table="interfaces",
        capacity=maps.interfaces.max_entries,
        used=count,
        hint="attach the agent with a larger max_local",
    )


def _forget(maps: Maps, record: Record) -> None:
    silence_records(maps, record)
    forget(maps, record)


# -- the device --------------------------------------------------------------------------------------------

_TEARDOWN = 2.0  # seconds that the kernel may take to delete the devices of a namespace that ended


def _namespace(spec: EndpointSpec, host: Session) -> Session:
    where: NetnsHandle = host.open_netns() if spec.netns is None else resolve(spec.netns)
    with where:
        if where.netns.identity == host.identity:
            _refuse_vm_on_host(spec)
        elif not spec.trust_user_namespace and not owner_is_initial(where.fileno()):
            raise UntrustedNamespaceError(
                f"namespace {spec.netns} belongs to another user namespace, whose root may add devices to the tunnel "
                "and copy the frames of other tenants",
                netns=spec.netns or "",
                hint="give trust_user_namespace=True if that root is trusted",
            )
        return Session.open(where)


def _refuse_vm_on_host(spec: EndpointSpec) -> None:
    if spec.kind is Kind.MACVTAP:
        raise InvalidValueError(
            "a MACVTAP endpoint cannot live in the host's namespace",
            argument="netns",
            value=spec.netns,
            hint="leave netns= out: a private namespace is made for it",
        )


def _make_device(
    tunnel: Tunnel, target: Session, record: Record, undo: ExitStack, *, optional_routes: bool
) -> int:
    """The device, finished, with addresses and routes; its index in the namespace. Runs inside the namespace."""
    spec = record.spec
    link = _create_link(tunnel, target, record)
    undo.callback(delete_link, target, link.ifindex)
    if spec.kind is Kind.MACVTAP:
        silence(target, link)  # its addresses are the VM's; it goes up with the first descriptor
        return link.ifindex
    for address in spec.ip:
        add_address(target, link.ifindex, address, dad=False)
        if address.version == 6:
            wait_for_address(target, address)
    # The host's own default route leads to the underlay: it is not taken over without being asked for.
    if not (optional_routes and target.identity == tunnel.session.identity):
        for gateway in spec.gateway or ():
            _add_route(target, link, gateway, optional=optional_routes)
    return link.ifindex


def _create_link(tunnel: Tunnel, target: Session, record: Record) -> Link:
    parent_nsid = _parent_nsid(tunnel.session, target)
    deadline = time.monotonic() + _TEARDOWN
    while True:
        try:
            return create_macvlan(
                target,
                record.spec.ifname,
                parent_ifindex=tunnel.ifindex,
                parent_nsid=parent_nsid,
                mac=str(record.mac),
                mtu=record.spec.mtu or tunnel.mtu,
                kind=record.spec.kind.value,
                up=record.spec.kind is Kind.MACVLAN,
            )
        except NetlinkError as refused:
            # A namespace that ended loses its number before its devices go: the MAC is free in a moment.
            if refused.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise _explain(refused, record) from None
        time.sleep(0.01)


def _add_route(target: Session, link: Link, gateway: IPAddress, *, optional: bool) -> None:
    try:
        add_default_route(target, gateway, ifindex=link.ifindex)
    except NetlinkError as refused:
        if refused.errno != errno.EEXIST:
            raise
        if not optional:
            raise ExistsError(
                f"the namespace has a default route of IPv{gateway.version}",
                holder=f"default route of IPv{gateway.version}",
                hint="give gateway=() for an endpoint without one",
            ) from None


def _parent_nsid(host: Session, target: Session) -> int | None:
    if host.identity == target.identity:
        return None
    with host.open_netns() as handle:
        return nsid_of(target, handle)


def _explain(refused: NetlinkError, record: Record) -> Exception:
    spec = record.spec
    where = f"namespace {spec.netns}" if spec.netns else "the host's namespace"
    if refused.errno == errno.EEXIST:
        return ExistsError(
            f"{where} has a device {spec.ifname}", holder=spec.ifname, hint="give another ifname="
        )
    if refused.errno in (errno.EADDRINUSE, errno.EBUSY):
        return ExistsError(
            f"MAC {record.mac} is taken on the tunnel",
            holder=str(record.mac),
            hint="a device that is no endpoint's any more, or never was, has it: delete it, or give another mac=",
        )
    return refused
