# SPDX-License-Identifier: Apache-2.0
"""Gateways that go with their tunnel when that gets another underlay.

A gateway that leads out by the tunnel's own device would drop everything once the host's routes lead by the new one.
One whose device still leads out stays where it is: a tunnel may get a network of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from mizarnet._datapath import forwarding, gateway_notes
from mizarnet._datapath.gateway_notes import Noted
from mizarnet._datapath.gateways import Gateways, put_back
from mizarnet._datapath.gateways.making import Making
from mizarnet._kernel.netlink import Link, Session, list_routes
from mizarnet._model.gateways import GatewaySpec
from mizarnet._model.log import log
from mizarnet._model.specs import Life


def followers(gateways: Gateways, before: int, after: Link) -> list[Noted]:
    """The whole gateways that go to another device with their tunnel, or have begun to.

    Args:
        gateways: Gateways of the tunnel.
        before: Index of the tunnel's underlay until now.
        after: The new underlay.

    Raises:
        UnsupportedError: The kernel cannot forward IPv6 of the new one alone, and the host does not forward it.
    """
    found: list[Noted] = []
    for noted in gateways.all() if before != after.ifindex else ():
        spec = gateways.spec(noted)
        if spec is None or gateways.life(noted) is not Life.LIVE:
            continue
        begun = noted.note.egress == after.ifindex
        if begun or (noted.note.egress == before and not _stays(gateways.host, spec, before, after.ifindex)):
            for version in spec.versions:
                forwarding.needed_by_router(
                    gateways.host, after.name, version, whole=noted.note.whole is not None
                )
            found.append(noted)
    return found


def move(gateways: Gateways, vni: int, to: Link) -> None:
    """Let the gateway of a VNI lead out by another device, if it is whole.

    The note tells of the new device before anything changes, and rules close that before it forwards.
    """
    noted = gateways.find(vni)  # as it is now: one that went before may have handed on what is to be put back
    spec = None if noted is None else gateways.spec(noted)
    if noted is None or spec is None:
        return  # it lost its endpoint meanwhile, and leads nowhere
    note = noted.note
    if note.egress != to.ifindex:
        note = attrs.evolve(note, egress=to.ifindex, forwarding=0)
        gateway_notes.write(gateways.host, noted.link.ifindex, note)
        put_back(gateways.host, noted.note)
    making = Making(gateways.datapath, gateways.maps, attrs.evolve(spec, egress=to.name), note)
    making.fit(to.mtu)
    making.complete()
    log.info("gateway of VNI %d leads out by %s from now on", note.vni, to.name)


def _stays(host: Session, spec: GatewaySpec, before: int, after: int) -> bool:
    """Whether the host still leads out by the old device, and not by the new one where the old one does not."""
    old, new = ({v for v in spec.versions if _leads_out(host, each, v)} for each in (before, after))
    return bool(old) and not new - old


def _leads_out(host: Session, ifindex: int, version: int) -> bool:
    routes = [each for each in list_routes(host) if each.destination.version == version]
    defaults = [each.through for each in routes if not each.prefix_length]
    return _leads(
        defaults or [each.through for each in routes if not each.destination.is_link_local], ifindex
    )


def _leads(through: Iterable[tuple[int, ...]], ifindex: int) -> bool:
    return any(ifindex in each for each in through)
