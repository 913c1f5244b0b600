# SPDX-License-Identifier: Apache-2.0
"""How an endpoint comes into being and goes: map entries and one device, in an order that never leaves a hole.

Making: the sender's record first, so that the device may send from its first moment; the device with addresses
and routes; last the entry that makes others reach it. Removing: the reverse. The caller holds the host's lock.
"""

from __future__ import annotations

import errno
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import blake2b

import attrs

from mizarnet.abi import records
from mizarnet.abi.layouts import INTERFACE
from mizarnet.abi.records import Record
from mizarnet.checks import SMALLEST_IPV6_MTU, IPAddress
from mizarnet.errors import (
    CapacityError,
    ExistsError,
    InvalidValueError,
    MtuError,
    NetlinkError,
    UntrustedNamespaceError,
)
from mizarnet.netlink import (
    SAME_NAMESPACE,
    Link,
    NetnsHandle,
    Session,
    add_address,
    add_default_route,
    create_macvlan,
    create_netns,
    delete_link,
    delete_netns,
    nsid_of,
    owner_is_initial,
    resolve,
    silence,
    wait_for_address,
)
from mizarnet.presence import endpoint_keys, is_present, remove, silence_records
from mizarnet.store import Maps, Store
from mizarnet.tunnel import Tunnel
from mizarnet.values import EndpointSpec, Kind, Local, MacAddress


def make(store: Store, maps: Maps, tunnel: Tunnel, spec: EndpointSpec) -> Record:
    """Create the endpoint ``spec``, whose name is free. On any error nothing is left behind.

    Raises:
        ExistsError: Its address, its MAC, the device's name or the default route is taken.
        CapacityError: A table is full.
        MtuError: Its MTU is larger than the tunnel's, or that is too small for IPv6.
        NetnsNotFoundError: There is no such namespace.
        UntrustedNamespaceError: It belongs to another user namespace.
    """
    wanted = _complete(maps, tunnel, spec)
    _check_free(store, maps, tunnel.session, wanted)
    with ExitStack() as undo:
        private = spec.kind is Kind.MACVTAP and spec.netns is None
        if private:
            wanted = attrs.evolve(wanted, netns=_make_namespace(tunnel, spec, undo))
        target = undo.enter_context(_namespace(wanted, tunnel.session))
        record = attrs.evolve(_new_record(maps, tunnel.session, target, wanted), private=private)
        undo.callback(_forget, maps, record)
        _write(maps, record)
        optional = spec.gateway is None
        ifindex = target.run(_make_device, tunnel, target, record, undo, optional_routes=optional)
        record = attrs.evolve(record, ifindex=ifindex)
        complete(maps, record)
        undo.pop_all()
        target.close()
    return record


def complete(maps: Maps, record: Record) -> None:
    """Write every entry of an endpoint whose device exists; also after somebody died halfway through."""
    _write(maps, record)
    value = records.pack_endpoint(Local(record.mac, record.interface))
    maps.endpoints.update_many([(key, value) for key in endpoint_keys(record)])


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
        key = records.pack_host_key(spec.vni, address.ip)
        data = maps.networks.lookup(key)
        gateway = None if data is None else records.unpack_network(data).gateway
        if gateway is not None and gateway in address.network and gateway != address.ip:
            yield gateway


def _check_free(store: Store, maps: Maps, host: Session, spec: EndpointSpec) -> None:
    """Addresses and MAC must be free; whoever held them and lost its device has gone."""
    for address in spec.ip:
        _evict(maps, host, store.record_at(spec.vni, address.ip), f"({spec.vni}, {address.ip})")
    if spec.mac is not None:
        _evict(maps, host, store.record_of(spec.mac), f"MAC {spec.mac}")


def _evict(maps: Maps, host: Session, holder: Record | None, what: str) -> None:
    if holder is None:
        return
    if is_present(holder, host):
        raise ExistsError(f"{what} belongs to endpoint {holder.spec.name!r}", holder=holder.spec.name)
    remove(maps, host, holder)


# -- records -----------------------------------------------------------------------------------------------

_INTERFACE_WORD = INTERFACE.offset("interface") // 4


def _new_record(maps: Maps, host: Session, target: Session, spec: EndpointSpec) -> Record:
    return Record(
        spec=spec,
        instance=secrets.randbits(64),
        interface=_free_interface(maps),
        ifindex=0,
        netns_cookie=target.cookie,
        netns_id=target.identity,
        nsid=_nsid(host, target),
    )


def _nsid(host: Session, target: Session) -> int:
    if host.identity == target.identity:
        return SAME_NAMESPACE
    with target.open_netns() as handle:
        return nsid_of(host, handle)


def _free_interface(maps: Maps) -> int:
    """The lowest index into ``traffic`` that no endpoint has."""
    _, values, count = maps.interfaces.lookup_all()
    if count >= maps.interfaces.max_entries:
        raise CapacityError(
            f"this host has {count} endpoints, and room for no more",
            table="interfaces",
            capacity=maps.interfaces.max_entries,
            used=count,
            hint="attach the agent with a larger max_local",
        )
    used = set(memoryview(values).cast("I")[_INTERFACE_WORD :: INTERFACE.size // 4])
    return next(index for index in range(count + 1) if index not in used)


def _write(maps: Maps, record: Record) -> None:
    """The cold half, then the hot half, by which the endpoint may send."""
    if not record.ifindex:
        maps.traffic.update(records.u32(record.interface), bytes(maps.traffic.slot_size))
    maps.records.update(records.record_key(record.spec.name), record.pack())
    maps.interfaces.update(records.mac_key(record.mac), record.pack_interface())


def _forget(maps: Maps, record: Record) -> None:
    silence_records(maps, record)
    maps.records.delete(records.record_key(record.spec.name))


# -- the namespace ------------------------------------------------------------------------------------------


def _make_namespace(tunnel: Tunnel, spec: EndpointSpec, undo: ExitStack) -> str:
    """A namespace for a MACVTAP alone: what no VMM reads, an IP stack would get. Its name."""
    key = f"{tunnel.session.cookie:x}/{tunnel.name}/{spec.name}"
    name = "mizarnet-" + blake2b(key.encode(), digest_size=8).hexdigest()
    delete_netns(name)  # no endpoint of that name exists: it is what a process that died has left
    create_netns(name)
    undo.callback(delete_netns, name)
    return name


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
