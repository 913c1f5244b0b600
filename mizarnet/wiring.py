# SPDX-License-Identifier: Apache-2.0
"""How an endpoint comes into being and goes: map entries and one device, in an order that never leaves a hole.

Making: the sender's record first, so that the device may send from its first moment; the device with addresses
and routes; last the entry that makes others reach it. Removing: the reverse. The caller holds the host's lock.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import blake2b

import attrs

from mizarnet.abi import records
from mizarnet.abi.records import INTERFACE, Record
from mizarnet.checks import IPAddress
from mizarnet.errors import CapacityError, ExistsError, InvalidValueError, MtuError, NetlinkError
from mizarnet.netlink import (
    SAME_NAMESPACE,
    NetnsHandle,
    Session,
    add_address,
    add_default_route,
    create_macvlan,
    create_netns,
    delete_link,
    delete_netns,
    nsid_of,
    resolve,
    silence,
)
from mizarnet.presence import device_of
from mizarnet.store import Maps, Store
from mizarnet.tunnel import Tunnel
from mizarnet.values import EndpointKey, EndpointSpec, Kind, Local, MacAddress


def make(store: Store, maps: Maps, tunnel: Tunnel, spec: EndpointSpec) -> Record:
    """Create the endpoint ``spec``, whose name is free. On any error nothing is left behind.

    Raises:
        ExistsError: Its address, its MAC or the device's name in the namespace is taken.
        CapacityError: A table is full.
        MtuError: Its MTU is larger than the tunnel's.
        NetnsNotFoundError: There is no such namespace.
    """
    spec = _complete(maps, tunnel, spec)
    _check_free(store, maps, tunnel.session, spec)
    with ExitStack() as undo:
        if spec.kind is Kind.MACVTAP:
            spec = _with_namespace(tunnel, spec, undo)
        target = undo.enter_context(_namespace(spec, tunnel.session))
        record = _new_record(maps, tunnel.session, target, spec)
        undo.callback(_forget, maps, record)
        _write(maps, record)
        ifindex = _make_device(tunnel, target, record, undo)
        record = attrs.evolve(record, ifindex=ifindex)
        _write(maps, record)
        _announce(maps, record)
        undo.pop_all()
        target.close()
    return record


def remove(maps: Maps, host: Session, record: Record) -> None:
    """Remove an endpoint; what is gone already is no error."""
    device = device_of(record, host)
    _forget(maps, record)
    if device is not None:
        delete_link(host, record.ifindex, nsid=record.nsid)
    if is_private(record.spec):
        delete_netns(record.spec.netns or "")


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
    mac = spec.mac or MacAddress.derive(spec.vni, spec.ip[0].ip)
    return attrs.evolve(spec, mtu=mtu, mac=mac, gateway=spec.gateway or list(_gateways(maps, spec)))


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
    if device_of(holder, host) is not None:
        raise ExistsError(f"{what} belongs to endpoint {holder.spec.name!r}", holder=holder.spec.name)
    _forget(maps, holder)


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
        maps.traffic.update(record.interface.to_bytes(4, "little"), bytes(maps.traffic.slot_size))
    maps.records.update(records.record_key(record.spec.name), record.pack())
    maps.interfaces.update(records.mac_key(record.mac), record.pack_interface())


def _announce(maps: Maps, record: Record) -> None:
    """The entries by which others reach the endpoint."""
    value = records.pack_endpoint(Local(record.mac, record.interface))
    maps.endpoints.update_many([(key, value) for key in _keys(record)])


def _forget(maps: Maps, record: Record) -> None:
    """Every entry of the endpoint: unreachable first, then silent, then unknown."""
    for key in _keys(record):
        value = maps.endpoints.lookup(key)
        found = None if value is None else records.unpack_endpoint(value)
        if isinstance(found, Local) and found.mac == record.mac:
            maps.endpoints.delete(key)
    maps.interfaces.delete(records.mac_key(record.mac))
    maps.records.delete(records.record_key(record.spec.name))


def _keys(record: Record) -> list[bytes]:
    return [records.pack_endpoint_key(EndpointKey(record.spec.vni, address.ip)) for address in record.spec.ip]


# -- the namespace of a VM's device ------------------------------------------------------------------------

_PRIVATE = "mizarnet-"


def is_private(spec: EndpointSpec) -> bool:
    """Whether the endpoint's namespace was made for it and ends with it."""
    return spec.kind is Kind.MACVTAP and (spec.netns or "").startswith(_PRIVATE)


def _with_namespace(tunnel: Tunnel, spec: EndpointSpec, undo: ExitStack) -> EndpointSpec:
    """A MACVTAP lives in a namespace of its own, never in the host's: what no VMM reads, an IP stack would get."""
    if spec.netns is not None:
        with resolve(spec.netns) as given:
            if given.netns.identity == tunnel.session.identity:
                raise InvalidValueError(
                    "a MACVTAP endpoint cannot live in the host's namespace",
                    argument="netns",
                    value=spec.netns,
                    hint="leave netns= out: a private namespace is made for it",
                )
        return spec
    key = f"{tunnel.session.cookie:x}/{tunnel.name}/{spec.name}"
    name = _PRIVATE + blake2b(key.encode(), digest_size=8).hexdigest()
    delete_netns(name)  # no endpoint of that name exists: it is what a process that died has left
    create_netns(name)
    undo.callback(delete_netns, name)
    return attrs.evolve(spec, netns=name)


# -- the device --------------------------------------------------------------------------------------------


def _namespace(spec: EndpointSpec, host: Session) -> Session:
    where: NetnsHandle = host.open_netns() if spec.netns is None else resolve(spec.netns)
    with where:
        return Session.open(where)


def _make_device(tunnel: Tunnel, target: Session, record: Record, undo: ExitStack) -> int:
    """The device, finished, with addresses and routes; its index in the namespace."""
    return target.run(_make_device_inside, tunnel, target, record, undo)


def _make_device_inside(tunnel: Tunnel, target: Session, record: Record, undo: ExitStack) -> int:
    spec = record.spec
    try:
        link = create_macvlan(
            target,
            spec.ifname,
            parent_ifindex=tunnel.ifindex,
            parent_nsid=_parent_nsid(tunnel.session, target),
            mac=str(record.mac),
            mtu=spec.mtu or tunnel.mtu,
            kind=spec.kind.value,
            up=spec.kind is Kind.MACVLAN,
        )
    except NetlinkError as refused:
        raise _explain(refused, record) from None
    undo.callback(delete_link, target, link.ifindex)
    if spec.kind is Kind.MACVTAP:
        silence(target, link)  # its addresses are the VM's; it goes up with the first descriptor
        return link.ifindex
    for address in spec.ip:
        add_address(target, link.ifindex, address, dad=False)
    for gateway in spec.gateway:
        add_default_route(target, gateway, ifindex=link.ifindex)
    return link.ifindex


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
        return ExistsError(f"MAC {record.mac} is taken on the tunnel", holder=str(record.mac))
    return refused
