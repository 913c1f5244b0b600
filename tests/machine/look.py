# SPDX-License-Identifier: Apache-2.0
"""What there is, read from the kernel, in the model's terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

import mizarnet as mz
from mizarnet import Kind, Life
from mizarnet._datapath import switches
from mizarnet._datapath.endpoints import items
from mizarnet._datapath.feeds import feed_number
from mizarnet._kernel.netlink import read_sysctl
from mizarnet._model import codec
from mizarnet._model.codec import Record
from tests.machine.ground import ASKER, VNI, Ground, private_names
from tests.machine.model import HALF, Known, Model
from tests.support.agreement import disagreements
from tests.world import UNDERLAY

_ASKER = mz.EndpointKey.parse((VNI, ASKER))


@attrs.frozen
class Seen:
    """What there is.

    Attributes:
        endpoints: Endpoints by name, made from what their records say.
        entries: Value of each entry of each table, with the number of its feed.
        switch: Whether the host is a switch; None: half.
    """

    endpoints: Mapping[str, Known]
    entries: Mapping[str, Mapping[Any, tuple[Any, int]]]
    switch: bool | None


def look(ground: Ground) -> Seen:
    """Look at everything that the model knows."""
    maps = ground.agent._datapath.maps
    records = [items.of(maps, data) for _, data in maps.records.items()]
    remotes = ((key, value) for key, value in maps.endpoints.items() if not codec.is_local(value))
    endpoints = {
        codec.unpack_endpoint_key(key): (codec.unpack_endpoint(value), codec.endpoint_feed(value))
        for key, value in remotes
    }
    del endpoints[_ASKER]
    networks = {
        codec.unpack_network_key(key): (codec.unpack_network(value), codec.network_feed(value))
        for key, value in maps.networks.items()
    }
    peers = {codec.unpack_peer_key(key): (None, codec.peer_feed(value)) for key, value in maps.peers.items()}
    return Seen(
        {record.spec.name: _known(ground, record) for record in records},
        {"endpoints": endpoints, "networks": networks, "peers": peers},
        _switch(ground),
    )


def _known(ground: Ground, record: Record) -> Known:
    handle = mz.Endpoint.open(ground.agent, record.spec.name, dead=True)
    state = handle.state()
    return Known(record.spec, state.life, record.instance, state.up, frozenset(state.addresses))


def _switch(ground: Ground) -> bool | None:
    datapath = ground.agent._datapath
    standing = bool([*switches.own(datapath)])
    forwarding = read_sysctl(datapath.host, f"ipv4/conf/{UNDERLAY}/forwarding") == "1"
    return standing if standing is forwarding else None


def numbered(entries: Mapping[Any, tuple[Any, str]]) -> dict[Any, tuple[Any, int]]:
    """Entries of a model as they are seen."""
    return {key: (value, feed_number(feed)) for key, (value, feed) in entries.items()}


def is_seen(known: Known, seen: Known) -> bool:
    """Whether an endpoint of the model is the one that is seen; of one that is not live nothing else is to be seen."""
    if known.life is not seen.life or known.instance not in (0, seen.instance):
        return False
    ours, theirs = known.spec, seen.spec
    fields = ("name", "vni", "ip", "ifname", "kind", "mac", "forwarding")
    if any(getattr(ours, field) != getattr(theirs, field) for field in fields):
        return False
    if ours.mtu not in (None, theirs.mtu) or (ours.netns != theirs.netns and ours.kind is Kind.MACVLAN):
        return False
    configured = (known.up, known.addresses) == (seen.up, seen.addresses)
    return configured or known.life is not Life.LIVE


# -- what must hold whatever was done ----------------------------------------------------------------------


def faults(ground: Ground, model: Model) -> Iterator[str]:
    """What is wrong between the kernel's tables and devices, and between them and what the library tells."""
    agent, private = ground.agent, private_names()
    live = sorted(each.spec.name for each in model.of_life(Life.LIVE))
    rest = sorted(model.endpoints.keys() - {*live})
    yield from disagreements(agent, [*sorted(model.spaces), *private], halves=rest)
    yield from _private(ground, private)
    if [each.name for each in mz.Endpoint.list(agent)] != live:
        yield f"list() has {mz.Endpoint.list(agent)} instead of {live}"
    if [each.name for each in mz.Endpoint.list(agent, dead=True)] != sorted(model.endpoints):
        yield f"list(dead=True) has {mz.Endpoint.list(agent, dead=True)}"
    missing = {*live} - mz.Endpoint.stats_all(agent).keys()
    if missing:
        yield f"stats_all() lacks {missing}"
    for name in rest:
        try:
            mz.Endpoint.open(agent, name)
            yield f"open() gives {name}, which is {model.endpoints[name].life}"
        except mz.EndpointNotFoundError:
            pass
    state = agent.state()
    if not (state.up and all(state.attached.values())):
        yield f"the agent is not whole: {state}"
    yield from _answers(ground, model)


def _private(ground: Ground, names: list[str]) -> Iterator[str]:
    each = (Record.unpack(data) for _, data in ground.agent._datapath.maps.records.items())
    owned = {record.spec.netns for record in each if record.private}
    yield from (f"namespace {name} is nobody's" for name in names if name not in owned)


def _answers(ground: Ground, model: Model) -> Iterator[str]:
    live = [each for each in model.of_life(Life.LIVE) if each.spec.vni == VNI]
    # A namespace with two devices of one network answers by either of them.
    alone = [each for each in live if not _has_company(model, each)]
    wanted = {str(ip.ip) for each in alone if each.up for ip in each.addresses if ip.version == 4}
    kept = {str(key.ip) for known in model.of_life(Life.DEAD) for key in known.keys if key.vni == VNI}
    accepted = {str(ip.ip) for each in live for ip in each.spec.ip if ip.version == 4}
    unsure = {str(key.ip) for known in model.of_life(*HALF) for key in known.keys if key.vni == VNI}
    everybody = {f"10.0.0.{number}" for number in range(1, 4)} - unsure
    company = {str(ip.ip) for each in live if each not in alone for ip in each.addresses}
    found, count = ground.asker.ask(sorted(everybody), sorted(wanted))
    if not wanted <= found <= wanted | company:
        yield f"{sorted(found)} answer, not {sorted(wanted)}"
    if count != len(everybody & (accepted | kept)):
        yield f"the guard accepted {count} questions, not those to {sorted(everybody & (accepted | kept))}"


def _has_company(model: Model, known: Known) -> bool:
    others = (each for each in model.others(known.spec.name) if each.life is not Life.DEAD)
    return any(known.is_beside(each) for each in others)
