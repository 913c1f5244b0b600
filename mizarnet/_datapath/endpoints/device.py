# SPDX-License-Identifier: Apache-2.0
"""The device of one endpoint: finding it, and making it in the endpoint's namespace with addresses and routes."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from mizarnet._datapath.datapath import CREATE_AGAIN
from mizarnet._datapath.endpoints.configuration import (
    give_addresses,
    give_default_route,
    give_link_local,
    give_route,
    in_order_of_making,
    needs_link_local,
)
from mizarnet._datapath.host import Host
from mizarnet._datapath.tunnel_hooks import TunnelHooks
from mizarnet._kernel.netlink import (
    DEFAULTS,
    SAME_NAMESPACE,
    UNNAMED,
    Link,
    NetnsHandle,
    Session,
    create_macvlan,
    delete_link,
    dump_links,
    get_link,
    list_addresses,
    nsid_of,
    owner_is_initial,
    read_links,
    resolve,
    set_link,
    silence,
    upper_links,
)
from mizarnet._model.arguments import IPAddress, IPNetwork
from mizarnet._model.codec import Record
from mizarnet._model.log import log
from mizarnet._model.specs import DefaultRoute, EndpointSpec, Kind, MacAddress
from mizarnet.errors import (
    ExistsError,
    InvalidValueError,
    NetlinkError,
    StaleHandleError,
    UntrustedNamespaceError,
)

OwnerOf = Callable[[MacAddress], int | None]
"""Finds the instance of the endpoint that a MAC on the tunnel belongs to; None: nobody's."""
KINDS = {kind.value for kind in Kind}
"""Kinds of devices, as the kernel calls them, that endpoints have: only these have a MAC for sure."""
_TEARDOWN = 2.0
"""Time in seconds that the kernel may take to delete the devices of a namespace that ended."""


def find(record: Record, tunnel: TunnelHooks, owner_of: OwnerOf) -> Link | None:
    """The endpoint's device, looked at from the host's namespace; None when it is gone.

    A record without an index is of a device that was being made when its maker died, and may not have its name yet. It
    does not have the endpoint's MAC any more if that belongs to another one by now.
    """
    if record.ifindex:
        link = get_link(tunnel.host, ifindex=record.ifindex, nsid=record.nsid)
        return link if link is not None and is_of(link, record, tunnel) else None
    if not record.may_have_device or owner_of(record.mac) not in (None, record.instance):
        return None
    links = dump_links(tunnel.host, kind=record.spec.kind.value, nsid=record.nsid)
    named = [link for link in links if link.name == record.spec.ifname or link.name.startswith(UNNAMED)]
    return next((link for link in named if is_of(link, record, tunnel)), None)


def find_all(records: Iterable[Record], tunnel: TunnelHooks, owner_of: OwnerOf) -> dict[int, Link]:
    """The devices of endpoints that have one, by the endpoint's instance, from few messages to the kernel."""
    given = list(records)
    places = [(record.nsid, record.ifindex) for record in given if record.ifindex]
    links = read_links(tunnel.host, places) if places else {}
    found: dict[int, Link] = {}
    for record in given:
        if not record.ifindex:
            link = find(record, tunnel, owner_of)
        else:
            link = links.get((record.nsid, record.ifindex))
            link = link if link is not None and is_of(link, record, tunnel) else None
        if link is not None:
            found[record.instance] = link
    return found


def is_of(link: Link, record: Record, tunnel: TunnelHooks) -> bool:
    """Whether a device is the one of a record.

    The id of a namespace that ended may be given to another, and an endpoint of another tunnel may have the same MAC:
    kind, MAC and the device below tell. The alias does not: whoever may change the device may write into it.
    """
    return link.mac == str(record.mac) and is_above(link, record, tunnel)


def is_above(link: Link, record: Record, tunnel: TunnelHooks) -> bool:
    """Whether a device that is where a record says is of its kind, and on its tunnel, whatever its MAC is."""
    parent_nsid = None if record.nsid == SAME_NAMESPACE else tunnel.host.own_nsid
    wanted = (record.spec.kind.value, tunnel.ifindex, parent_nsid)
    return (link.kind, link.parent_ifindex, link.parent_nsid) == wanted


def open_namespace(spec: EndpointSpec, host: Host) -> Session:
    """A session of the namespace that an endpoint shall live in.

    Raises:
        NetnsNotFoundError: There is no such namespace.
        UntrustedNamespaceError: The namespace belongs to another user namespace.
        InvalidValueError: A MACVTAP shall live in the host's namespace.
    """
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


def nsid_from(host: Host, target: Session) -> int:
    """Id of the endpoint's namespace as the host's namespace knows it."""
    if host.identity == target.identity:
        return SAME_NAMESPACE
    with target.open_netns() as handle:
        return nsid_of(host, handle)


def make(
    tunnel: TunnelHooks, target: Session, record: Record, owner_of: OwnerOf, *, gateways_given: bool
) -> tuple[int, frozenset[int]]:
    """Make the device with addresses and routes; runs inside the endpoint's namespace.

    Whatever is left after an error is found by the record.

    Args:
        tunnel: Hooks of the tunnel that the device is made on.
        target: Session of the endpoint's namespace.
        record: Record of the endpoint, with MAC, MTU and gateways.
        owner_of: Finds the instance of the endpoint that a MAC belongs to.
        gateways_given: Whether the caller gave the gateways of the record; else they are the networks', and existing
            default routes are kept.

    Returns:
        Index of the device in the namespace, and the IP versions whose default route was added.

    Raises:
        ExistsError: The device's name, its MAC or the default route is taken.
    """
    spec = record.spec
    link = _create(tunnel, target, record, owner_of)
    if spec.kind is Kind.MACVTAP:
        silence(
            target, link, alias=mark(record)
        )  # the VM has the addresses; opening a descriptor brings it up
        return link.ifindex, frozenset()
    give_addresses(target, link, spec.ip)
    for route in in_order_of_making(spec.routes):
        with explained_route(target, route.prefix, route.gateway):
            give_route(target, link, spec, route)
    # The host's own default route leads to the underlay, so one through the endpoint is added only if asked for.
    on_host = target.identity == tunnel.host.identity
    if spec.default_route is DefaultRoute.NEVER or (on_host and not gateways_given):
        return link.ifindex, frozenset()
    optional = spec.default_route is DefaultRoute.IF_NONE or not gateways_given
    given = spec.gateway or ()
    added = [each.version for each in given if add_default_route(target, link, spec, each, optional=optional)]
    return link.ifindex, frozenset(added)


def mark(record: Record) -> str:
    """The alias of an endpoint's device, which tells people and sweeps whose it is; nothing is decided by it."""
    return f"mizarnet endpoint={record.instance:016x}"


def _create(tunnel: TunnelHooks, target: Session, record: Record, owner_of: OwnerOf) -> Link:
    parent_nsid = _parent_nsid(tunnel.host, target)
    deadline = time.monotonic() + _TEARDOWN
    while True:
        try:
            return _made(tunnel, target, record, parent_nsid)
        except NetlinkError as refused:
            if time.monotonic() > deadline:
                raise _explain(refused, record, tunnel) from None
            if not _removed_orphans(refused, tunnel, target, record, owner_of):
                # A namespace that ended loses its id before its devices are deleted: the MAC is free in a moment.
                if refused.errno != errno.EADDRINUSE:
                    raise _explain(refused, record, tunnel) from None
                time.sleep(0.01)


def _made(tunnel: TunnelHooks, target: Session, record: Record, parent_nsid: int | None) -> Link:
    spec, prepared = record.spec, needs_link_local(record)
    link = create_macvlan(
        target,
        spec.ifname,
        parent_ifindex=tunnel.ifindex,
        parent_nsid=parent_nsid,
        mac=str(record.mac),
        mtu=record.mtu,
        kind=spec.kind.value,
        up=spec.kind is Kind.MACVLAN and not prepared,
        alias=mark(record),
    )
    if spec.kind is Kind.MACVLAN and prepared:
        give_link_local(target, link, record.mac)
        set_link(target, link.ifindex, up=True)
    return link


def _removed_orphans(
    refused: NetlinkError, tunnel: TunnelHooks, target: Session, record: Record, owner_of: OwnerOf
) -> bool:
    """Whether a device of our tunnel that is no endpoint's was in the way, and was removed.

    Its record was lost, or somebody else put it there. A name belongs to whoever has it unless its device is such a
    one; a MAC on the tunnel belongs to the endpoint that claimed it, which is the one being made.
    """
    if refused.errno == errno.EEXIST:
        link = get_link(target, record.spec.ifname)
        if link is None or not _is_on(tunnel, target, link):
            return False
        if owner_of(MacAddress.parse(link.mac or "")) not in (None, record.instance):
            return False
        log.warning("%s removed: a device of %s that is no endpoint's", link.name, tunnel.name)
        return delete_link(target, link.ifindex)
    removed = False
    if refused.errno in (errno.EADDRINUSE, errno.EBUSY):
        for nsid, link in upper_links(tunnel.host, tunnel.ifindex):
            # Unless another process, which does not see the lock, has removed this endpoint meanwhile.
            if link.mac == str(record.mac) and owner_of(record.mac) == record.instance:
                log.warning("%s removed: a device of %s that is no endpoint's", link.name, tunnel.name)
                removed |= delete_link(tunnel.host, link.ifindex, nsid=nsid)
    return removed


def refuse_foreign(
    link: Link, target: Session, owner_of: OwnerOf, tunnel: TunnelHooks, spec: EndpointSpec
) -> None:
    """Raises ``ExistsError`` for a device with the name of an endpoint's, unless :func:`make` removes it."""
    if not _is_on(tunnel, target, link) or owner_of(MacAddress.parse(link.mac or "")) is not None:
        raise _name_taken(spec)


def _is_on(tunnel: TunnelHooks, target: Session, link: Link) -> bool:
    """Whether a device of a namespace is of an endpoint's kind, and on our tunnel."""
    parent = (link.parent_ifindex, link.parent_nsid)
    return link.kind in KINDS and parent == (tunnel.ifindex, _parent_nsid(tunnel.host, target))


def add_default_route(
    target: Session, link: Link, spec: EndpointSpec, gateway: IPAddress, *, optional: bool
) -> bool:
    """Whether a default route was added; False: it is optional, and the namespace has one.

    Raises:
        ExistsError: The gateway is the namespace's own, or there is a default route, which is not optional.
    """
    with explained_route(target, DEFAULTS[gateway.version], gateway):
        added = give_default_route(target, link, spec, gateway)
    if not added and not optional:
        raise ExistsError(
            f"the namespace has a default route of IPv{gateway.version}",
            holder=f"default route of IPv{gateway.version}",
            hint='give default_route="if-none" to keep it, or gateway=() for an endpoint without one',
        )
    return added


@contextmanager
def explained_route(
    target: Session, prefix: IPNetwork, gateway: IPAddress | None
) -> Generator[None, None, None]:
    """Raise an ``ExistsError`` that names what is in the way of a route."""
    try:
        yield
    except NetlinkError as refused:
        if refused.errno == errno.EEXIST:
            raise ExistsError(
                f"the namespace has a route to {prefix}",
                holder=str(prefix),
                hint="take it away, or leave it out",
            ) from None
        if refused.errno != errno.EINVAL or not _has_address(target, gateway):
            raise
        raise ExistsError(
            f"gateway {gateway} is an address of the namespace itself",
            holder=str(gateway),
            hint="give another gateway=, or take the address off the device that has it",
        ) from None


def _has_address(target: Session, ip: IPAddress | None) -> bool:
    return ip is not None and ip.packed in {each.packed for each in list_addresses(target)}


def _parent_nsid(host: Host, target: Session) -> int | None:
    if host.identity == target.identity:
        return None
    with host.open_netns() as handle:
        return nsid_of(target, handle)


def _name_taken(spec: EndpointSpec) -> ExistsError:
    where = f"namespace {spec.netns}" if spec.netns else "the host's namespace"
    return ExistsError(f"{where} has a device {spec.ifname}", holder=spec.ifname, hint="give another ifname=")


def _explain(refused: NetlinkError, record: Record, tunnel: TunnelHooks) -> Exception:
    if refused.errno == errno.EEXIST:
        return _name_taken(record.spec)
    if refused.errno == errno.ENODEV and get_link(tunnel.host, ifindex=tunnel.ifindex) is None:
        return StaleHandleError(f"tunnel {tunnel.name} is gone", hint=CREATE_AGAIN)
    if refused.errno in (errno.EBUSY, errno.EINVAL) and (taken := _taken_whole(tunnel)):
        return taken
    if refused.errno in (errno.EADDRINUSE, errno.EBUSY):
        return ExistsError(
            f"MAC {record.mac} is taken on the tunnel",
            holder=str(record.mac),
            hint="the tunnel itself has it, or a device that is not to be seen from here: give another mac=",
        )
    return refused


def _taken_whole(tunnel: TunnelHooks) -> ExistsError | None:
    """The error for a tunnel that another device has for itself: a bridge or bond, or a MACVLAN in passthru mode."""
    link = get_link(tunnel.host, ifindex=tunnel.ifindex)
    master = None if link is None else link.master_ifindex
    if master is not None:
        holder, hint = get_link(tunnel.host, ifindex=master), f"ip link set {tunnel.name} nomaster"
    else:
        uppers = upper_links(tunnel.host, tunnel.ifindex)
        holder = next((upper for _, upper in uppers if upper.mode == "passthru"), None)
        hint = f"ip link delete {holder.name if holder else ''}"
    if holder is None:
        return None
    return ExistsError(
        f"device {holder.name} has {tunnel.name} for itself, which then takes no endpoints",
        holder=holder.name,
        hint=f"take it off: {hint}",
    )
