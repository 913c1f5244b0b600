# SPDX-License-Identifier: Apache-2.0
"""Installing a data path on a tunnel and removing it; an unfinished one only ever is on a tunnel that is down.

A process that dies before it attached the first program leaves nothing. From then on the device keeps everything, and
``meta`` says that the data path is being made: the next call completes it. The caller holds the host's lock, but
correctness does not depend on it: the process that attaches first has made the data path, and the other completes it.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack, closing, suppress

import attrs

from mizarnet._datapath import leftovers, loader, shortcuts, switches
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import LocalEndpoints
from mizarnet._datapath.gateways import Gateways
from mizarnet._datapath.hooks import choose_layers, deciding_hook, wanted_places
from mizarnet._datapath.loader import AGENT, GUARD, Capacity, capacity_of
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._kernel.netlink import on_link_prefixes
from mizarnet._model.arguments import IPNetwork
from mizarnet._model.codec import FIRST, Config, Head, Meta
from mizarnet._model.differences import refuse_differences
from mizarnet._model.enumerations import Limit, State
from mizarnet._model.finding import FindingKind
from mizarnet._model.specs import MAX_ENDPOINTS, MAX_LOCAL, VIRTUAL_MAC, AgentSpec, MacAddress, Shortcut
from mizarnet.errors import (
    InvalidValueError,
    KernelError,
    NotFoundError,
    StaleHandleError,
    UnderlayNotFoundError,
)

# Attempts, each of which fails if another process changes the data path meanwhile; one of the two then gets further.
_ATTEMPTS = 16


def install(tunnel: TunnelDevice, spec: AgentSpec) -> bool:
    """Make sure that a whole data path is on the tunnel, and that the tunnel is up.

    Returns:
        Whether this call made or completed the data path.

    Raises:
        UnsupportedError: This kernel does not have the hook.
        LayoutError: Another version of this package attached the existing data path.
        ExistsError: The existing data path is not as specified, a filter of another program has a place of ours, or
            the UDP port is taken.
        UnderlayNotFoundError: The underlay is gone, or this host no longer has the tunnel's address.
        MtuError: The underlay's MTU is too small for the tunnel by now.
    """
    layers = choose_layers(spec.hook)
    tunnel = tunnel.seen_from(tunnel.host)
    tunnel.refuse_unfit()
    for _ in range(_ATTEMPTS):
        found = DataPath.find(tunnel.hooks)
        try:
            if found is not None:
                if found.maps.read_meta().state is not State.DELETING:
                    _compare(found, spec)
                    return complete(tunnel, found)
                remove(tunnel, found, force=True)
            else:
                leftovers.clear_host(tunnel.host)
                if _make(tunnel, spec, layers):
                    return True
        except StaleHandleError:
            continue  # another process has detached it
        finally:
            if found is not None:
                found.close()
    raise StaleHandleError(f"other processes kept attaching and detaching the transit agent of {tunnel.name}")


def refuse_unfit(tunnel: TunnelDevice, spec: AgentSpec) -> None:
    """Raises as :func:`install` does for a data path that this kernel does not take; nothing of it stays."""
    choose_layers(spec.hook)
    capacity = Capacity(spec.max_endpoints or MAX_ENDPOINTS, spec.max_local or MAX_LOCAL)
    loader.load(_config(tunnel), capacity, [GUARD, AGENT]).close()


def stands(tunnel: TunnelDevice, spec: AgentSpec) -> bool:
    """Whether a whole data path as specified is on the tunnel, so that :func:`install` has nothing to do.

    Nothing is changed, so the caller may share the host. Raises as :func:`install` does for what it finds there.
    """
    choose_layers(spec.hook)
    tunnel = tunnel.seen_from(tunnel.host)
    tunnel.refuse_unfit()
    found = DataPath.find(tunnel.hooks)
    if found is None:
        return False
    with closing(found), suppress(StaleHandleError):  # a process that does not see the lock may detach it
        if found.maps.read_meta().state is State.LIVE:
            _compare(found, spec)
            settled = shortcuts.look(found.host, found.maps).settled
            return settled and not [*found.findings(), *tunnel.findings()]
    return False


def _compare(found: DataPath, spec: AgentSpec) -> None:
    """Raises ``ExistsError`` unless the existing data path is as specified."""
    maps = found.maps
    capacity = capacity_of(maps)
    existing = {
        "hook": deciding_hook(maps.read_meta().layers).value,
        "max_endpoints": capacity.max_endpoints,
        "max_local": capacity.max_local,
        "peers": None if spec.peers is None else _peers(found),
        "shortcut": maps.read_meta().shortcut.value,
    }
    wanted = {
        **attrs.asdict(spec, recurse=False),
        "hook": spec.hook and spec.hook.value,
        "shortcut": spec.shortcut and spec.shortcut.value,
    }
    refuse_differences(
        f"the transit agent of {found.name}",
        wanted,
        existing,
        holder=found.name,
        hint="leave the argument out; agent.peers changes the peers, agent.update() the shortcut, "
        "the rest needs agent.detach() first",
    )


def _peers(found: DataPath) -> frozenset[IPNetwork]:
    with found.reading() as maps:
        return maps.read_peers()


def complete(tunnel: TunnelDevice, found: DataPath) -> bool:
    """Repair every finding except programs of another build; whether the data path had been unfinished."""
    findings = [*found.findings(), *tunnel.findings()]
    kinds = {finding.kind for finding in findings}
    if FindingKind.ENDING in kinds:
        raise StaleHandleError(f"the transit agent of {tunnel.name} is being detached")
    found.refuse([each for each in findings if each.kind is not FindingKind.UNFINISHED])
    if FindingKind.LIFELINE_MISSING in kinds:
        tunnel.hooks.write_lifeline(found.maps)
    tunnel.hooks.put_back(found.maps, found.maps.read_meta().layers)
    if FindingKind.TUNNEL_DOWN in kinds:
        tunnel.bring_up()
        _refuse_overtaken(tunnel, found.maps)
    shortcuts.settle(found.host, found.maps)
    if FindingKind.UNFINISHED in kinds:
        _set_state(found.maps, State.LIVE)
    return FindingKind.UNFINISHED in kinds


def _make(tunnel: TunnelDevice, spec: AgentSpec, layers: int) -> bool:
    """Whether this call made the data path; False: another process attached first, and nothing of this call is left."""
    capacity = Capacity(spec.max_endpoints or MAX_ENDPOINTS, spec.max_local or MAX_LOCAL)
    with ExitStack() as stack:
        loaded = stack.enter_context(loader.load(_config(tunnel), capacity, [GUARD, AGENT]))
        maps = Maps.of(loaded)
        maps.meta.update(FIRST, _meta(tunnel, layers, spec.shortcut or Shortcut.OFF).pack())
        tunnel.hooks.write_lifeline(maps)
        maps.add_peers(_on_link(tunnel) if spec.peers is None else spec.peers)
        maps.stamp()
        before = tunnel.hooks.survey()
        first = wanted_places(layers)[0]
        # This step decides between two makers: the kernel refuses it if the hook has changed since the survey.
        if before.any is not None or not tunnel.hooks.attach(first, loaded.programs[first.program], before):
            return False
        with ExitStack() as on_failure:
            on_failure.callback(_undo, tunnel, maps)
            tunnel.hooks.put_back(maps, layers, loaded=loaded.programs)
            tunnel.bring_up()
            _refuse_overtaken(tunnel, maps)
            shortcuts.settle(tunnel.host, maps)
            _set_state(maps, State.LIVE)
            on_failure.pop_all()
    return True


def _undo(tunnel: TunnelDevice, maps: Maps) -> None:
    if maps.read_meta().state is not State.MAKING:
        return  # another process has completed it, or is detaching it
    shortcuts.clear(tunnel.host, maps.meta.id)
    try:
        tunnel.take_down()
    except KernelError:
        return  # the tunnel may be up, so the guard stays; the next call completes the data path
    tunnel.hooks.take_off(maps.meta.id)


def _refuse_overtaken(tunnel: TunnelDevice, maps: Maps) -> None:
    """Take the tunnel down again, and raise ``StaleHandleError``, if another process detached the data path meanwhile.

    Detaching takes the tunnel down before and after the programs are detached. So whatever the order of the two
    processes, the tunnel ends down or guarded.
    """
    standing = tunnel.hooks.survey().any
    if standing is None or maps.read_meta().state is State.DELETING:
        tunnel.take_down()
    elif standing.meta_id == maps.meta.id:
        return
    raise StaleHandleError(f"the transit agent of {tunnel.name} was detached while it was being attached")


def remove(tunnel: TunnelDevice, found: DataPath, *, force: bool) -> None:
    """Remove all endpoints, take the tunnel down, then detach the data path.

    ``meta`` says first that the data path is being deleted. From then on no endpoint can be completed, and if this
    process dies, the next call continues.

    Raises:
        InUseError: Endpoints exist, and ``force`` is not given.
    """
    endpoints = LocalEndpoints.of(found)
    if not force:
        endpoints.refuse_in_use()
    _set_state(found.maps, State.DELETING)
    if not force:
        _look_again(endpoints)
    Gateways.of(found).remove_all()
    endpoints.remove(endpoints.recorded())
    switches.clear(found)
    shortcuts.clear(found.host, found.meta_id)
    tunnel.take_down()
    tunnel.hooks.take_off(found.meta_id)
    with suppress(NotFoundError):
        if tunnel.hooks.survey().any is None:
            tunnel.take_down()


def remove_rest(tunnel: TunnelDevice) -> None:
    """Take down a tunnel that no program guards, and remove what the kernel does not delete with a data path."""
    tunnel.take_down()
    leftovers.clear_host(tunnel.host)


def _look_again(endpoints: LocalEndpoints) -> None:
    """Refuse again: a process that does not see the lock may have made an endpoint before ``meta`` was written."""
    try:
        endpoints.refuse_in_use()
    except BaseException:
        _set_state(endpoints.maps, State.LIVE)
        raise


def _set_state(maps: Maps, state: State) -> None:
    maps.meta.update(FIRST, attrs.evolve(maps.read_meta(), state=state).pack())


def _config(tunnel: TunnelDevice) -> bytes:
    # Agent and guard recognise each other's packets by these marks; the top bit keeps them apart from the small marks
    # that other software uses.
    local, bounced = (0x80000000 | secrets.randbits(31) for _ in range(2))
    return Config(
        mark_local=local,
        mark_bounced=bounced,
        token_bounced=secrets.token_bytes(12),
        local=tunnel.local,
        virtual_mac=VIRTUAL_MAC,
        tunnel_mac=MacAddress.parse(tunnel.current().mac or ""),
        encap=tunnel.encap,
        port=tunnel.port,
        mtu=tunnel.mtu,
    ).pack()


def _meta(tunnel: TunnelDevice, layers: int, shortcut: Shortcut) -> Meta:
    return Meta(
        head=Head(
            schema=Limit.SCHEMA,
            ifindex=tunnel.ifindex,
            netns_cookie=tunnel.host.cookie,
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
        shortcut=shortcut,
    )


def _on_link(tunnel: TunnelDevice) -> list[IPNetwork]:
    """On-link prefixes of the underlay, of the tunnel's address family."""
    underlay = tunnel.find_underlay()
    if underlay is None:
        raise UnderlayNotFoundError(f"the underlay {tunnel.underlay} went meanwhile", hint="name the peers=")
    found = on_link_prefixes(tunnel.host, underlay.ifindex)
    prefixes = [prefix for prefix in found if prefix.version == tunnel.local.version]
    if not any(tunnel.local in prefix for prefix in prefixes):
        raise InvalidValueError(
            f"{tunnel.local} is in no on-link prefix of {underlay.name}, so the other hosts are not known to be there",
            argument="peers",
            value=None,
            hint="give peers=, the prefixes that the other hosts' addresses are in; [] for a host alone",
        )
    return prefixes
