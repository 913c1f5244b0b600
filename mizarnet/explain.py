# SPDX-License-Identifier: Apache-2.0
"""A packet's way over several hosts, as one explanation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import attrs

from mizarnet._datapath.endpoints import LocalEndpoints
from mizarnet._datapath.walk import Site, arrival, explain, follow, has_address, heads_of, is_meant
from mizarnet._model import arguments
from mizarnet._model.arguments import IPAddress
from mizarnet._model.explanation import Crossing, Explanation, Step, joined
from mizarnet._model.public import public
from mizarnet._model.question import OfEndpoint, Question, Who
from mizarnet._model.specs import AddressLike, EndpointSpec
from mizarnet.agent import TransitAgent, site_of
from mizarnet.errors import EndpointNotFoundError, InvalidTypeError

_NOBODY = "-"
_MOST_HOSTS = 10
"""Hosts on the way of one packet: no frame is sent on more than eight times."""


@public
def explain_path(
    agents: Iterable[TransitAgent | Explanation],
    source: OfEndpoint | AddressLike,
    destination: OfEndpoint | AddressLike | None = None,
    *,
    vni: int | None = None,
    protocol: Literal["icmp", "tcp", "udp", "arp", "nd"] = "icmp",
    port: int | None = None,
    size: int | None = None,
    frame: bytes | None = None,
) -> Explanation:
    """What would become of a packet on all hosts of its way; nothing is sent or changed.

    Args:
        agents: Agents of the hosts, in any order. In place of one that this process cannot open, what
            ``agent.explain(..., outer=...)`` said there, by way of ``to_dict()`` and ``Explanation.from_dict()``.
        source: Endpoint that sends the packet, its name, or its address.
        destination: Endpoint that it is for, its name on any of the hosts, or its address.
        vni: VNI of both, where neither is an endpoint.
        protocol: As for :meth:`TransitAgent.explain`.
        port: As for :meth:`TransitAgent.explain`.
        size: As for :meth:`TransitAgent.explain`.
        frame: As for :meth:`TransitAgent.explain`.

    Returns:
        The steps on all hosts, as far as the packet comes. A host that is not among the given ones is a step that says
        so.

    Raises:
        InvalidValueError: An argument cannot be right, or does not fit to the others or to the endpoint.
        InvalidTypeError: An argument has the wrong type.
        EndpointNotFoundError: No endpoint of these hosts has a name that was given.
    """
    question = Question.check(
        source,
        destination,
        vni=vni,
        protocol=protocol,
        port=port,
        size=size,
        frame=frame,
        outer=None,
    )
    given = [*arguments.check_items(agents, argument="agents", what="agents")]
    sites = [site_of(each) for each in given if isinstance(each, TransitAgent)]
    halves = [each for each in given if isinstance(each, Explanation)]
    if len(sites) + len(halves) < len(given):
        raise InvalidTypeError("agents must be agents or explanations", argument="agents")
    question = _resolved(sites, question)
    near = _first_half(sites, question)
    if near is None:
        return Explanation((_unknown_source(question),))
    return joined(_parts(near, sites, halves, question))


def _parts(
    near: Explanation, sites: list[Site], halves: list[Explanation], question: Question
) -> list[Explanation]:
    parts = [near]
    while parts[-1].ok and parts[-1].left is not None and len(parts) < _MOST_HOSTS:
        left, here = parts[-1].left, parts[-1].at
        site = next((each for each in sites if has_address(each, left.destination)), None)
        half = next((each for each in halves if _arrives(each, left)), None)
        if site is not None:
            refused = _misfit(left, arrival(site, left.destination), here, site.at)
            parts.append(Explanation((refused,)) if refused else follow(site, left, question))
        elif half is not None and half.arrived is not None:
            refused = _misfit(left, half.arrived, here, half.steps[0].at)
            parts.append(Explanation((refused,)) if refused else half)
        else:
            text = f"none of the given hosts has {left.destination}: what becomes of it there is not known from here"
            if any(each.arrived and each.arrived.destination == left.destination for each in halves):
                text = f"what was explained on {left.destination} is another packet: ask there for this one"
            parts.append(Explanation((Step(here, "host", text, ok=None),)))
            break
    return parts


def _arrives(half: Explanation, left: Crossing) -> bool:
    """Whether an explanation is of that packet, and not of another one to that host."""
    arrived = half.arrived
    return (
        arrived is not None
        and bool(half.steps)
        and (arrived.source, arrived.destination, arrived.vni) == (left.source, left.destination, left.vni)
        and _heads(arrived) == _heads(left)
    )


def _heads(crossing: Crossing) -> object:
    return heads_of(bytes.fromhex(crossing.frame))


def _misfit(left: Crossing, arrived: Crossing, here: str, there: str) -> Step | None:
    """What two hosts disagree about, so that no packet gets from one to the other."""
    if (left.encap, left.port) != (arrived.encap, arrived.port):
        text = f"{there} has {arrived.encap} port {arrived.port}, and {here} sends to {left.encap} port {left.port}"
        return Step(there, "port", text, ok=False, remedy="make both tunnels with one encap= and port=")
    if left.macs and arrived.macs and not set(left.macs) & set(arrived.macs):
        text = f"{here} has the MAC {left.macs[0]} for {left.destination}, and {there} has {', '.join(arrived.macs)}"
        remedy = f"ip neighbour delete {left.destination} on {here}: somebody put it there"
        return Step(here, "underlay", text, ok=False, remedy=remedy)
    return None


# -- who is meant


def _resolved(sites: list[Site], question: Question) -> Question:
    """The question with the specification of each endpoint that was given by its name.

    Hosts name their endpoints each for itself. Of those of one name it is the first in the VNI that is asked about, or
    that both sides have one in.
    """
    named = [
        _named(sites, question.source, "source"),
        _named(sites, question.destination, "destination"),
    ]
    asked = {_vni(question)} - {0}
    vnis = asked or {each.vni for each in named[0]} & {each.vni for each in named[1]}
    source, destination = (next((each for each in found if each.vni in vnis), None) for found in named)
    return attrs.evolve(
        question,
        source=_known(question.source, source, named[0]),
        destination=_known(question.destination, destination, named[1]),
    )


def _known(who: Who | None, found: EndpointSpec | None, others: list[EndpointSpec]) -> Who | None:
    spec = found or next(iter(others), None)
    return who if who is None or spec is None else who._replace(spec=spec)


def _named(sites: list[Site], who: Who | None, argument: str) -> list[EndpointSpec]:
    """Specifications of the endpoints that have a name; none for what was not given by its name."""
    if who is None or who.name is None or who.spec is not None:
        return []
    records = (LocalEndpoints.of(site.datapath).named(who.name) for site in sites)
    found = [record.spec for record in records if record is not None]
    if not found:
        raise EndpointNotFoundError(
            f"{argument}: there is no endpoint {who.name!r} on any of the given hosts",
            hint="give its address and vni=, or the agent of its host",
        )
    return found


def _first_half(sites: list[Site], question: Question) -> Explanation | None:
    """The way on the sender's host; None: no given host has the sender."""
    for site in sites:
        if _has_source(LocalEndpoints.of(site.datapath), question):
            return explain(site, question)
    return None


def _has_source(endpoints: LocalEndpoints, question: Question) -> bool:
    who, vni = question.source, _vni(question)
    assert who is not None  # the question was checked for it
    if who.ip is not None:
        return endpoints.at(vni, who.ip) is not None
    record = endpoints.named(who.name or "")
    return record is not None and is_meant(record, who)


def _vni(question: Question) -> int:
    known = (who.vni for who in (question.source, question.destination) if who is not None)
    return question.vni or next((vni for vni in known if vni), 0)


def _unknown_source(question: Question) -> Step:
    who = question.source
    ip: IPAddress | str | None = who and (who.ip or who.name)
    text = f"no endpoint of the given hosts is ({_vni(question)}, {ip})"
    return Step(
        _NOBODY, "endpoint", text, ok=False, remedy="give the agent of its host, or Endpoint.create()"
    )
