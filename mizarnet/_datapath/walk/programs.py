# SPDX-License-Identifier: Apache-2.0
"""The programs on a packet's way, run on the living tables; nothing is changed or sent."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv6Address

import attrs

from mizarnet._datapath.checks import tunnel_findings
from mizarnet._datapath.dry_run import Context, Outcome
from mizarnet._datapath.dry_run.facts import Facts, Key, Origin
from mizarnet._datapath.loader import build_text, installed_build
from mizarnet._datapath.walk import hints
from mizarnet._datapath.walk.flow import addresses_in, has_extension
from mizarnet._datapath.walk.trail import Trail
from mizarnet._model.arguments import IPAddress
from mizarnet._model.codec import Record, is_local, pack_endpoint_key
from mizarnet._model.enumerations import Program, Verdict
from mizarnet._model.explanation import Crossing
from mizarnet._model.finding import FindingKind
from mizarnet._model.specs import EndpointKey, MacAddress

# By the version of IP: offset of the ICMP type in a frame, and the type.
_TIME_EXCEEDED = {4: (34, 11), 6: (54, 3)}
_SECONDS = itertools.count(1)
_ENDS = {FindingKind.TUNNEL_GONE, FindingKind.TUNNEL_DOWN}


@attrs.frozen
class Sender:
    """An endpoint of the host that sends, as far as the agent asks for it.

    Attributes:
        record: Record of the endpoint.
        mac: MAC address of its device, which need not be that of the record.
        ifindex: Index of its device.
        gso_size: Payload of each segment in bytes, if its stack leaves the segments to the device; else 0.
    """

    record: Record
    mac: bytes
    ifindex: int
    gso_size: int = 0

    @property
    def facts(self) -> Facts:
        """Its own origin, which the kernel proves on the packets of its own stack and sockets.

        The clock goes on by a second with each question, so that no budget of a second is spent.
        """
        cookie, clock = self.record.netns_cookie, next(_SECONDS) * 10**9
        return Facts(origin=Origin.DEVICE, origin_ifindex=self.ifindex, origin_cookie=cookie, clock=clock)


def tunnel(trail: Trail) -> None:
    """The tunnel's device, and the programs on it."""
    device, datapath = trail.device, trail.datapath
    findings = [*tunnel_findings(device, datapath), *datapath.findings()]
    for each in findings:
        if each.kind in _ENDS:
            trail.end("tunnel", f"{device.name}: {each.text}", remedy=each.message.partition("; ")[2])
    ahead = [f"a program of others runs before ours ({side})" for side, _ in datapath.survey().ahead]
    remarks = [*(each.text for each in findings), *ahead]
    link = device.current()
    trail.note(
        "tunnel",
        f"{device.name}, {device.encap.value} port {device.port}, up, mtu {link.mtu}, {device.local}",
        remark="; ".join(remarks),
        remedy="Host.repair() mends what it can" if findings else "",
    )
    others = datapath.survey().builds - {installed_build()}
    if others:
        builds = ", ".join(sorted(map(build_text, others)))
        trail.unknown(
            "programs",
            f"those attached are of another build ({builds}): this package's are walked",
            remedy="agent.upgrade()",
        )


def agent(trail: Trail, sender: Sender, frame: bytes) -> Outcome:
    """The agent's judgement of a frame; a drop ends the way."""
    outcome = run_agent(trail, sender, frame)
    if outcome.verdict.dropped:
        text, remedy = hints.of_agent(trail, outcome.verdict, frame, sender.record, sender.mac)
        trail.end("agent", text, verdict=outcome.verdict, remedy=remedy)
    if outcome.verdict is Verdict.OVERSIZED_ANSWERED:
        text, remedy = hints.of_agent(trail, Verdict.OVERSIZED, frame, sender.record, sender.mac)
        trail.end("agent", f"{text}: its sender is told so", verdict=outcome.verdict, remedy=remedy)
    if outcome.verdict is Verdict.GATEWAY_ANSWERED and _has_expired(outcome.frame or b""):
        text = "its hops are used up: its sender is told so, in the gateway's name"
        trail.end("agent", text, verdict=outcome.verdict, remedy="send it with a larger TTL")
    trail.note("agent", _passed(trail, outcome, frame, sender.record.spec.vni), verdict=outcome.verdict)
    return outcome


def _has_expired(answer: bytes) -> bool:
    """Whether an answer of the agent's is "time exceeded"."""
    at, kind = _TIME_EXCEEDED[answer[14] >> 4]
    return answer[at] == kind


def run_agent(trail: Trail, sender: Sender, frame: bytes) -> Outcome:
    """What the agent makes of a frame."""
    context = Context(gso_size=sender.gso_size)
    return trail.datapath.rehearse(Program.AGENT, frame, context, sender.facts)


def _passed(trail: Trail, outcome: Outcome, frame: bytes, vni: int) -> str:
    found = addresses_in(frame)
    to = f"({vni}, {found.destination})" if found else "it"
    match outcome.verdict:
        case Verdict.ENCAPSULATED:
            return f"sender known, {hints.entry(trail, vni, found)} -> {host_of(outcome.asked.key)}"
        case Verdict.DELIVERED_LOCALLY:
            return f"sender known, {to} goes to an endpoint of this host"
        case Verdict.NEIGHBOUR_ANSWERED:
            return f"{to} is {_answered_mac(outcome)}"
        case _:
            return "answered in the gateway's name"


def _answered_mac(outcome: Outcome) -> str:
    return (outcome.frame or b"")[6:12].hex(":")


def guard_here(trail: Trail, given: Outcome) -> bytes:
    """The guard's judgement of a frame that the agent hands over on this host; the frame as it goes on."""
    # Without the sender's socket, as a test run has none: a copy arrives all the same.
    context = Context(mark=given.context.mark)
    outcome = trail.datapath.rehearse(Program.GUARD, given.frame or b"", context, Facts())
    if outcome.verdict.dropped:
        trail.end(
            "guard", hints.sentence(outcome.verdict), verdict=outcome.verdict, remedy=outcome.verdict.remedy
        )
    trail.note("guard", "the agent's own frame", verdict=outcome.verdict)
    return outcome.frame or b""


def judged_by_guard(trail: Trail, crossing: Crossing) -> Outcome:
    """The guard's judgement of a frame from another host, which :func:`guard` notes."""
    facts = Facts(key=_key(crossing))
    return trail.datapath.rehearse(Program.GUARD, bytes.fromhex(crossing.frame), Context(), facts)


def has_own_mac(trail: Trail, crossing: Crossing) -> bool:
    """Whether a frame from another host comes from the MAC of the tunnel's device, which drops it then.

    Both encapsulations do so against loops: ``vxlan_set_mac`` and ``geneve_rx`` in Linux.
    """
    own = trail.device.current().mac
    return own is not None and bytes.fromhex(crossing.frame)[6:12] == MacAddress.parse(own).packed


def may_take_shortcut(trail: Trail, crossing: Crossing, outcome: Outcome) -> bool:
    """Whether a shortcut that stands would take a whole packet, of which the guard says so: section 5 of the rules."""
    frame = bytes.fromhex(crossing.frame)
    found = addresses_in(frame)
    if outcome.verdict is not Verdict.ACCEPTED or found is None or has_extension(frame):
        return False
    entry = trail.datapath.maps.endpoints.lookup(
        pack_endpoint_key(EndpointKey(crossing.vni, found.destination))
    )
    return entry is not None and is_local(entry)


def guard(trail: Trail, crossing: Crossing, outcome: Outcome) -> None:
    """Note the guard's judgement of a frame from another host; a drop ends the way."""
    frame = bytes.fromhex(crossing.frame)
    if outcome.verdict.dropped:
        text, remedy = hints.of_guard(trail, outcome.verdict, crossing, frame)
        trail.end("guard", text, verdict=outcome.verdict, remedy=remedy)
    found = addresses_in(frame)
    entry = hints.entry(trail, crossing.vni, found)
    if outcome.verdict is Verdict.BOUNCED:
        _sent_on(trail, crossing, f"{entry} -> {host_of(outcome.asked.key)}: sent on")
    else:
        trail.note("guard", f"{crossing.source} is a peer, {entry} is here", verdict=outcome.verdict)


def _sent_on(trail: Trail, crossing: Crossing, text: str) -> None:
    """Note a packet that the guard sends on: as it should be on a transit switch, and nowhere else."""
    if trail.datapath.maps.read_switching().ifindex:
        trail.note("guard", text, verdict=Verdict.BOUNCED)
        return
    remark = f"{crossing.source} sent it here, and this host sends it on, by the slower way"
    remedy = (
        f"tell {crossing.source} where it lives: agent.endpoints.update(), unless this is a transit switch"
    )
    trail.note("guard", text, verdict=Verdict.BOUNCED, remark=remark, remedy=remedy)


def _key(crossing: Crossing) -> Key:
    return Key(
        family=crossing.source.version,
        vni=crossing.vni,
        ttl=crossing.ttl,
        remote=_words(crossing.source),
        local=_words(crossing.destination),
    )


def _words(ip: IPAddress) -> bytes:
    return bytes(12) + ip.packed if ip.version == 4 else ip.packed


def host_of(key: Key) -> IPAddress:
    """The host that a tunnel key leads to."""
    return IPv4Address(key.remote[12:]) if key.family == 4 else IPv6Address(key.remote)


def receiver(trail: Trail, frame: bytes) -> Record | None:
    """The endpoint of this host whose device takes a frame, by its destination MAC."""
    return trail.endpoints.with_mac(MacAddress(frame[:6]))
