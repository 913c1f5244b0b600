# SPDX-License-Identifier: Apache-2.0
"""Giving a tunnel in use another underlay address, another underlay or another MTU; every endpoint stays.

``meta`` is written first and says what the tunnel shall be. What follows compares with it and changes what differs:
devices of endpoints before the agent where the MTU shrinks, and after it where it grows. So the same call finishes what
one that was killed has begun, and programs that were left behind are a finding. On an error ``meta`` is put back, and
all of it is done once more, towards what was before. Gateways go to the new underlay even before ``meta``, each whole
by itself: their tenants get out, and to no tunnel, whatever is done of the rest. So does a switch on the old underlay:
by ``meta`` it is told from one that was given a device of its own, which stays there. The caller holds the host's lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

import attrs

from mizarnet._datapath import shortcuts, switches
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import LocalEndpoints, configuration, entries
from mizarnet._datapath.gateways import Gateways, following, rules
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.tunnel_device import (
    TunnelDevice,
    fitting_mtu,
    note_of,
    own_address,
    refuse_own_underlay,
    underlay_of,
)
from mizarnet._datapath.upgrade import upgrade
from mizarnet._kernel.netlink import Link, ask_again, get_link, set_link
from mizarnet._model.arguments import SMALLEST_IPV6_MTU, IPAddress
from mizarnet._model.codec import FIRST, Meta, Record
from mizarnet._model.log import log
from mizarnet._model.specs import TunnelSpec
from mizarnet.errors import (
    InvalidValueError,
    MizarnetError,
    MtuError,
    NetnsNotFoundError,
    UnderlayNotFoundError,
)


@attrs.frozen
class _Target:
    """What a tunnel shall be.

    Attributes:
        local: Underlay address that outer packets come from.
        underlay: The underlay's device.
        mtu: Largest inner packet, in bytes.
    """

    local: IPAddress
    underlay: Link
    mtu: int


def relocate(tunnel: TunnelDevice, given: Mapping[str, Any]) -> tuple[TunnelDevice, tuple[str, ...]]:
    """Change what is given of a tunnel, and finish what an earlier change left.

    Args:
        tunnel: The tunnel, as it was found at any time.
        given: New values of ``local``, ``underlay`` and ``mtu``, as of a ``TunnelSpec``; what is left out stays.

    Returns:
        The tunnel as it is now, and the names of what was given and was not so.

    Raises:
        TunnelNotFoundError: The tunnel is gone.
        UnderlayNotFoundError: There is no such underlay, or it, or this host, lacks the address.
        InvalidValueError: The address is of the other family.
        MtuError: The MTU does not fit the underlay, or is too small for endpoints with IPv6 addresses.
        ExistsError: The switch would move to a device that has another XDP program.
        UnsupportedError: The kernel cannot forward IPv6 of the new underlay alone, for a gateway that goes there.
        AgentNotFoundError: The tunnel's agent is unfinished.
        LayoutError: Another version of this package attached it.
    """
    now = tunnel.seen_from(tunnel.host)
    found = DataPath.find(now.hooks)
    if found is None:
        target = _target(now, given, now.mtu)
        changed = _changed(now, target, now.underlay, now.mtu)
        now.set_mtu(target.mtu)
    else:
        with closing(found):
            found.refuse(found.findings())
            meta = found.maps.read_meta()
            target = _target(now, given, meta.mtu)
            _refuse_small(found, target)
            leads_switch = switches.follows(found, meta.underlay_ifindex, target.underlay)
            found.make_whole()
            changed = _changed(now, target, meta.underlay, meta.mtu)
            # A device asks as soon as its prefix has a route, and what is answered before its own address has one is
            # lost, or before the port of a bridge forwards.
            if asks_anew := "local" in changed or "underlay" in changed:
                ask_again(now.host, target.underlay.ifindex)
            _move(now, found, meta, target, leads_switch=leads_switch)
            if asks_anew:
                ask_again(now.host, target.underlay.ifindex)
    if (note := note_of(target.underlay, target.local)) != now.current().alias:
        set_link(now.host, now.ifindex, alias=note)  # which has it again once the agent is detached
    if changed:
        log.info("%s changed: from %s over %s", now.name, target.local, target.underlay.name)
    return now.seen_from(now.host), tuple(name for name in changed if name in given)


def _target(now: TunnelDevice, given: Mapping[str, Any], mtu: int) -> _Target:
    """What the tunnel shall be, after a look at whether it can."""
    kept = TunnelSpec(encap=now.encap, underlay=now.underlay, local=now.local, mtu=mtu)
    spec = attrs.evolve(kept, **given)
    underlay = underlay_of(now.host, spec) if "underlay" in given else now.find_underlay()
    if underlay is None:
        raise UnderlayNotFoundError(
            f"the underlay {now.underlay} of {now.name} is gone",
            hint="give underlay=, the device that took its place",
        )
    refuse_own_underlay(now.link, underlay)
    local = own_address(now.host, spec, underlay, versions=[now.local.version])
    if local.version != now.local.version:
        raise InvalidValueError(
            f"{local} is no IPv{now.local.version} address, as those of all other hosts are",
            argument="local",
            value=local,
            hint="delete the tunnel with force=True, and create one of the other family",
        )
    return _Target(local, underlay, fitting_mtu(spec, underlay, local))


def _changed(now: TunnelDevice, target: _Target, name: str, mtu: int) -> tuple[str, ...]:
    moved = (target.underlay.ifindex, target.underlay.name) != (now.underlay_ifindex, name)
    changed = {"local": target.local != now.local, "underlay": moved, "mtu": target.mtu != mtu}
    return tuple(name for name, differs in changed.items() if differs)


def _refuse_small(datapath: DataPath, target: _Target) -> None:
    """Raises ``MtuError`` if an endpoint has IPv6 addresses, and the tunnel would have too small an MTU for them."""
    if target.mtu < SMALLEST_IPV6_MTU:
        records = LocalEndpoints.of(datapath).recorded()
        six = [record.spec.name for record in records if record.spec.ip[-1].version == 6]
        if six:
            raise MtuError(
                f"mtu {target.mtu} is too small for IPv6, which {len(six)} endpoints have, such as {six[0]!r}",
                argument="mtu",
                value=target.mtu,
                hint=f"give at least {SMALLEST_IPV6_MTU}, or take their IPv6 addresses away first",
            )


def _move(
    tunnel: TunnelDevice, datapath: DataPath, before: Meta, target: _Target, *, leads_switch: bool
) -> None:
    wanted = attrs.evolve(
        before,
        local=target.local,
        mtu=target.mtu,
        underlay=target.underlay.name,
        underlay_ifindex=target.underlay.ifindex,
        tunnel=tunnel.name,
    )
    gateways, touched = Gateways.of(datapath), list[Record]()
    moving = following.followers(gateways, before.underlay_ifindex, target.underlay)
    moved: list[int] = []
    try:
        for noted in moving:
            if noted.note.egress != target.underlay.ifindex:  # others may have been made there
                moved.append(noted.note.vni)
            following.move(gateways, noted.note.vni, target.underlay)
        if leads_switch:
            switches.move(datapath, datapath.maps, target.underlay)
        _go_to(tunnel, datapath, wanted, touched)
    except BaseException as error:
        _go_back(tunnel, datapath, before, touched, error, leads_switch=leads_switch)
        _lead_back(gateways, moved, before.underlay_ifindex, error)
        raise


def _go_to(tunnel: TunnelDevice, datapath: DataPath, wanted: Meta, touched: list[Record]) -> None:
    """Make everything as ``wanted`` says; ``touched`` gets the endpoints whose MTU changes, as they were."""
    maps = datapath.maps
    _write_meta(maps, wanted)
    if tunnel.current().mtu < wanted.mtu:
        tunnel.set_mtu(wanted.mtu)  # first: no device above has a larger one
    for record in _with_other_mtu(datapath, wanted.mtu, larger=True):
        touched.append(record)
        _give_mtu(datapath, record, wanted.mtu)
    upgrade(datapath)
    rules.follow_switch(datapath.host)
    shortcuts.settle(datapath.host, maps)
    tunnel.set_mtu(wanted.mtu)
    for record in _with_other_mtu(datapath, wanted.mtu, larger=False):
        touched.append(record)
        _give_mtu(datapath, record, wanted.mtu)


def _go_back(
    tunnel: TunnelDevice,
    datapath: DataPath,
    before: Meta,
    touched: list[Record],
    error: BaseException,
    *,
    leads_switch: bool,
) -> None:
    """Make everything as it was; what is met on the way becomes a note of the error that is to be raised."""
    try:
        maps = datapath.maps
        _write_meta(maps, before)
        upgrade(datapath)
        underlay = tunnel.find_underlay()
        if leads_switch and underlay is not None:
            switches.move(datapath, maps, underlay)
        shortcuts.settle(datapath.host, maps)
        if tunnel.current().mtu < before.mtu:
            tunnel.set_mtu(before.mtu)
        for record in touched:
            _give_mtu(datapath, record, min(record.mtu, before.mtu))
        tunnel.set_mtu(before.mtu)
    except MizarnetError as left:
        error.add_note(f"{tunnel.name} was changed in part; Host.check() tells what: {left}")


def _lead_back(gateways: Gateways, moved: list[int], before: int, error: BaseException) -> None:
    """Let gateways lead out by the tunnel's former underlay again, if that is there still."""
    underlay = get_link(gateways.host, ifindex=before)
    try:
        rules.follow_switch(gateways.host)
        if underlay is not None:
            for vni in moved:
                following.move(gateways, vni, underlay)
    except MizarnetError as left:
        error.add_note(f"gateways were changed in part; Host.check() tells what: {left}")


def _write_meta(maps: Maps, wanted: Meta) -> None:
    """Write what concerns the tunnel's place: the rest of ``meta`` is others'."""
    now = maps.read_meta()
    meta = attrs.evolve(
        now,
        local=wanted.local,
        mtu=wanted.mtu,
        underlay=wanted.underlay,
        underlay_ifindex=wanted.underlay_ifindex,
        tunnel=wanted.tunnel,
    )
    if meta != now:
        maps.meta.update(FIRST, meta.pack())


def _with_other_mtu(datapath: DataPath, mtu: int, *, larger: bool) -> Iterator[Record]:
    """Endpoints with a larger MTU than the tunnel's, or with a smaller one than they can have now.

    The kernel lowers devices with the tunnel's, whoever lowered that: so they are looked at as well as records.
    """
    endpoints = LocalEndpoints.of(datapath)
    records = endpoints.recorded()
    if larger:
        yield from (record for record in records if record.mtu > mtu)
        return
    links = endpoints.devices(records)
    for record in records:
        wanted = min(record.mtu, mtu) if record.own_mtu else mtu
        link = links.get(record.instance)
        if (record.mtu if link is None else min(record.mtu, link.mtu)) < wanted:
            yield record


def _give_mtu(datapath: DataPath, record: Record, mtu: int) -> None:
    """Give an endpoint another MTU, first in its record, by which a device that lacks it is mended.

    One that was asked for stays in the record, and is the device's again as soon as the tunnel has room for it. A
    device that is out of reach stays smaller than its record says, or is lowered by the kernel with the tunnel's.
    """
    if record.own_mtu:
        mtu = min(record.mtu, mtu)
    else:
        entries.rewrite(datapath.maps, attrs.evolve(record, spec=attrs.evolve(record.spec, mtu=mtu)))
    link = LocalEndpoints.of(datapath).device(record)
    if link is not None and link.mtu != mtu:
        with suppress(NetnsNotFoundError), configuration.inside(record, datapath.host) as session:
            set_link(session, link.ifindex, mtu=mtu)
