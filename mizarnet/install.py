# SPDX-License-Identifier: Apache-2.0
"""How a data path comes onto a tunnel and goes: whole, or begun on a tunnel that is down.

Until the first program is attached a maker that dies leaves nothing. From then on the device holds everything, and
``meta`` says that it is being made: the next call completes it. The caller holds the host's lock, but nothing is wrong
without: of two makers the one that attaches first has made the data path, and the other completes it.
"""

from __future__ import annotations

import errno
import secrets
from contextlib import ExitStack, suppress

import attrs

from mizarnet._datapath import leftovers, loader
from mizarnet._datapath.attachment import put_back, take_off
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.hooks import Place, attach, wanted_places
from mizarnet._datapath.loader import AGENT, GUARD, Capacity
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.presence import remove as remove_endpoint
from mizarnet._datapath.survey import Survey, survey
from mizarnet._kernel.bpf import Object
from mizarnet._kernel.netlink import on_link_prefixes, set_link
from mizarnet._model.arguments import IPNetwork
from mizarnet._model.codec import FIRST, Config, Head, Meta, u32
from mizarnet._model.enumerations import Limit, State
from mizarnet._model.specs import VIRTUAL_MAC, MacAddress
from mizarnet.errors import (
    ExistsError,
    InUseError,
    KernelError,
    NetlinkError,
    NotFoundError,
    StaleHandleError,
    UnderlayNotFoundError,
)
from mizarnet.tables import write_peers
from mizarnet.tunnel import Tunnel, port_holders, refuse_in_use

# How often another maker may come between: each time one of the two gets further.
_ATTEMPTS = 16


def install(tunnel: Tunnel, layers: int, capacity: Capacity, peers: list[IPNetwork] | None) -> bool:
    """Make sure that a whole data path is on the tunnel, and that it is up; whether this call made or completed it.

    Raises:
        LayoutError: Another version of this package attached the one that is there.
        ExistsError: A filter of somebody else has a place, or the UDP port is taken.
    """
    for _ in range(_ATTEMPTS):
        found = DataPath.find(tunnel.session, tunnel.name, tunnel.ifindex)
        try:
            if found is not None:
                meta = found.maps.read_meta()
                if meta.state is not State.DELETING:
                    return _complete(tunnel, found, meta)
                remove(tunnel, found, force=True)
            else:
                leftovers.clear_host(tunnel.session)
                if _make(tunnel, layers, capacity, peers):
                    return True
        except StaleHandleError:
            continue  # whoever detached it has finished
        finally:
            if found is not None:
                found.close()
    raise StaleHandleError(f"the transit agent of {tunnel.name} was attached and detached all the time")


def _complete(tunnel: Tunnel, found: DataPath, meta: Meta) -> bool:
    begun = meta.state is State.MAKING
    if not begun:
        found.refuse_unfinished(meta)
    if found.maps.lifeline.lookup(FIRST) is None:  # the kernel emptied it when the device left this namespace
        _write_lifeline(tunnel, found.maps)
    put_back(tunnel.session, tunnel.ifindex, found.maps, meta.layers)
    link = tunnel.find_device()
    if link is None or not link.up:
        bring_up(tunnel)
        _refuse_overtaken(tunnel, found.maps)
    if begun:
        _set_state(found.maps, State.LIVE)
    return begun


def _make(tunnel: Tunnel, layers: int, capacity: Capacity, peers: list[IPNetwork] | None) -> bool:
    """False if somebody else's first program was faster: nothing of this call is left then."""
    with ExitStack() as stack:
        loaded = stack.enter_context(loader.load(_config(tunnel), capacity, [GUARD, AGENT]))
        maps = Maps.of(loaded)
        maps.meta.update(FIRST, _meta(tunnel, layers).pack())
        _write_lifeline(tunnel, maps)
        _fill_peers(maps, tunnel, peers)
        maps.stamp()
        before = tunnel.session.run(survey, tunnel.ifindex)
        first = wanted_places(layers)[0]
        if before.any is not None or not _attach_first(tunnel, first, loaded, before):
            return False
        with ExitStack() as on_failure:
            on_failure.callback(_undo, tunnel, maps)
            put_back(tunnel.session, tunnel.ifindex, maps, layers, loaded=loaded.programs)
            bring_up(tunnel)
            _refuse_overtaken(tunnel, maps)
            _set_state(maps, State.LIVE)
            on_failure.pop_all()
    return True


def _attach_first(tunnel: Tunnel, place: Place, loaded: Object, before: Survey) -> bool:
    """The step by which one maker wins: the kernel refuses it if the hook is not as it was seen empty of ours."""
    try:
        tunnel.session.run(attach, place, loaded.programs[place.program], before.hooks)
    except StaleHandleError:
        return False
    except ExistsError:
        if tunnel.session.run(survey, tunnel.ifindex).any is not None:
            return False
        raise
    return True


def _write_lifeline(tunnel: Tunnel, maps: Maps) -> None:
    # The kernel looks the index up in the namespace of the thread that writes it.
    tunnel.session.run(maps.lifeline.update, FIRST, u32(tunnel.ifindex))


def _undo(tunnel: Tunnel, maps: Maps) -> None:
    if maps.read_meta().state is not State.MAKING:
        return  # another maker has completed it, or somebody is detaching it
    try:
        take_down(tunnel)
    except KernelError:
        return  # it may be up, so the guard stays: the next call completes what was begun
    take_off(tunnel.session, tunnel.ifindex, maps.meta.id)


def _refuse_overtaken(tunnel: Tunnel, maps: Maps) -> None:
    """Raises ``StaleHandleError`` if the tunnel was brought up while somebody else detached, and takes it down again.

    Whoever detaches takes it down before the programs go and after: in any order it ends down, or guarded.
    """
    standing = tunnel.session.run(survey, tunnel.ifindex).any
    if standing is None or maps.read_meta().state is State.DELETING:
        take_down(tunnel)
    elif standing.meta_id == maps.meta.id:
        return
    raise StaleHandleError(f"the transit agent of {tunnel.name} was detached while it was being attached")


def remove(tunnel: Tunnel, found: DataPath, *, force: bool) -> None:
    """Remove all endpoints, take the tunnel down, then the data path off it.

    Whoever dies in between leaves one that says so. From that word on nobody makes an endpoint to its end.

    Raises:
        InUseError: Endpoints exist, and ``force`` is not given.
    """
    maps = found.maps
    if not force:
        refuse_in_use(tunnel.session, tunnel.name, tunnel.ifindex, found)
    _set_state(maps, State.DELETING)
    if not force:
        _look_again(tunnel, found)
    for record in found.all_records():
        remove_endpoint(maps, tunnel.session, record)
    leftovers.clear_switches(found)
    take_down(tunnel)
    take_off(tunnel.session, tunnel.ifindex, found.meta_id)
    with suppress(NotFoundError):
        if tunnel.session.run(survey, tunnel.ifindex).any is None:
            take_down(tunnel)


def _look_again(tunnel: Tunnel, found: DataPath) -> None:
    """An endpoint may have been made between the first look and the word: by whoever does not see the lock."""
    try:
        refuse_in_use(tunnel.session, tunnel.name, tunnel.ifindex, found)
    except InUseError:
        _set_state(found.maps, State.LIVE)
        raise


def take_down(tunnel: Tunnel) -> None:
    """Set the tunnel down; one that is gone is down."""
    try:
        if tunnel.find_device() is not None:
            set_link(tunnel.session, tunnel.ifindex, up=False)
    except NetlinkError as refused:
        if refused.errno != errno.ENODEV:
            raise


def _set_state(maps: Maps, state: State) -> None:
    maps.meta.update(FIRST, attrs.evolve(maps.read_meta(), state=state).pack())


def bring_up(tunnel: Tunnel) -> None:
    """Set the tunnel up; raises ``ExistsError`` if a device or a socket of this host has its UDP port."""
    try:
        set_link(tunnel.session, tunnel.ifindex, up=True)
    except KernelError as refused:
        if refused.errno != errno.EADDRINUSE:
            raise
        raise _taken_port(tunnel) from None


def _taken_port(tunnel: Tunnel) -> ExistsError:
    port = f"UDP port {tunnel.port}"
    for link in port_holders(tunnel.session, tunnel.port):
        if link.ifindex != tunnel.ifindex and link.up:
            return ExistsError(
                f"{link.kind} device {link.name} uses {port}",
                holder=link.name,
                hint="delete it, or create the tunnel with another port=",
            )
    return ExistsError(
        f"{port} is taken by another socket of this host",
        holder=port,
        hint="stop that service, or create the tunnel with another port=",
    )


def _config(tunnel: Tunnel) -> bytes:
    # Marks are the agent's and the guard's word to each other; bits at the top keep them apart from small numbers
    # that others use.
    local, bounced = (0x80000000 | secrets.randbits(31) for _ in range(2))
    return Config(
        mark_local=local,
        mark_bounced=bounced,
        token_bounced=secrets.token_bytes(12),
        local=tunnel.local,
        virtual_mac=VIRTUAL_MAC,
        tunnel_mac=MacAddress.parse(tunnel.state().mac),
        encap=tunnel.encap,
        port=tunnel.port,
        mtu=tunnel.mtu,
    ).pack()


def _meta(tunnel: Tunnel, layers: int) -> Meta:
    return Meta(
        head=Head(
            schema=Limit.SCHEMA,
            ifindex=tunnel.ifindex,
            netns_cookie=tunnel.session.cookie,
            instance=secrets.randbits(64),
            build=loader.installed_build(),
        ),
        state=State.MAKING,
        layers=layers,
        encap=tunnel.encap,
        port=tunnel.port,
        mtu=tunnel.mtu,
        local=tunnel.local,
        underlay_ifindex=tunnel.underlay_ifindex,
        tunnel=tunnel.name,
        underlay=tunnel.underlay,
    )


def _fill_peers(maps: Maps, tunnel: Tunnel, peers: list[IPNetwork] | None) -> None:
    if peers is None:
        underlay = tunnel.find_underlay()
        if underlay is None:
            raise UnderlayNotFoundError(f"the underlay {tunnel.underlay} is gone", hint="name the peers=")
        found = on_link_prefixes(tunnel.session, underlay.ifindex)
        peers = [prefix for prefix in found if prefix.version == tunnel.local.version]
    write_peers(maps, peers)
