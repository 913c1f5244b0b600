# SPDX-License-Identifier: Apache-2.0
"""How an agent comes onto a tunnel: loaded, pinned, attached, and only then is the tunnel brought up.

The caller holds the host's lock.
"""

from __future__ import annotations

import errno
import secrets
from contextlib import ExitStack
from pathlib import Path

from mizarnet import attachment, bpf
from mizarnet.abi.records import META_KEY, Config, Meta
from mizarnet.attachment import Capacity
from mizarnet.bpf import Map
from mizarnet.checks import IPNetwork
from mizarnet.errors import ExistsError, KernelError, NotFoundError, UnderlayNotFoundError
from mizarnet.netlink import get_link, on_link_prefixes, set_link
from mizarnet.numbers import Limit
from mizarnet.store import Maps, read_meta
from mizarnet.tables import write_peers
from mizarnet.tunnel import Tunnel, port_holders
from mizarnet.values import VIRTUAL_MAC, Hook, MacAddress


def is_complete(directory: Path, tunnel: Tunnel) -> bool:
    """Whether an agent was attached to the end, to this very tunnel and not to one of its name that is gone."""
    try:
        with Map.open_pinned(str(directory / "meta"), name="meta") as meta:
            known = read_meta(meta)
    except NotFoundError:
        return False
    pinned = all((directory / name).exists() for name in Maps.names())
    return pinned and known is not None and known.tunnel_ifindex == tunnel.ifindex


def install(
    tunnel: Tunnel, directory: Path, hook: Hook, capacity: Capacity, peers: list[IPNetwork] | None
) -> None:
    """Load, pin, attach, and only then bring the tunnel up; the schema in ``meta`` is the last word."""
    _refuse_strangers(tunnel, hook)
    with ExitStack() as stack:
        path = attachment.object_path()
        loaded = stack.enter_context(attachment.load(path, _config(tunnel), capacity))
        maps = Maps.of(loaded)
        _fill_peers(maps, tunnel, peers)
        with ExitStack() as on_failure:
            bpf.make_pin_directory(str(directory))
            on_failure.callback(attachment.remove, directory, tunnel.session, tunnel.ifindex)
            maps.pin(directory)
            attachment.pin_programs(loaded, directory)
            attachment.attach(tunnel.session, tunnel.ifindex, hook, directory)
            bring_up(tunnel)
            maps.meta.update(META_KEY, _meta(tunnel, attachment.build_id(path)).pack())
            on_failure.pop_all()


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


def _refuse_strangers(tunnel: Tunnel, hook: Hook) -> None:
    """Programs on the hooks without pins: another view of the BPF file system may hold the pins of a live agent."""
    if hook is not Hook.TCX:
        return
    for direction in attachment.DIRECTIONS.values():
        names = [
            bpf.program_name(number)
            for number in tunnel.session.run(bpf.query_tcx, tunnel.ifindex, direction=direction)
        ]
        ours = [name for name in names if name in attachment.DIRECTIONS]
        if ours:
            raise ExistsError(
                f"{ours[0]} is attached to {tunnel.name}, but its pins are not to be seen from here",
                holder=ours[0],
                hint="`ip netns exec` hides the BPF file system: use `nsenter --net`, or netns=",
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


def _meta(tunnel: Tunnel, build: int) -> Meta:
    return Meta(
        schema=Limit.SCHEMA,
        build=build,
        encap=tunnel.encap,
        tunnel_ifindex=tunnel.ifindex,
        port=tunnel.port,
        mtu=tunnel.mtu,
        local=tunnel.local,
        tunnel=tunnel.name,
        underlay=tunnel.underlay,
    )


def _fill_peers(maps: Maps, tunnel: Tunnel, peers: list[IPNetwork] | None) -> None:
    if peers is None:
        underlay = get_link(tunnel.session, tunnel.underlay)
        if underlay is None:
            raise UnderlayNotFoundError(f"the underlay {tunnel.underlay} is gone", hint="name the peers=")
        found = on_link_prefixes(tunnel.session, underlay.ifindex)
        peers = [prefix for prefix in found if prefix.version == tunnel.local.version]
    write_peers(maps, peers)
