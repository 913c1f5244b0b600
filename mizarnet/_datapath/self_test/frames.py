# SPDX-License-Identifier: Apache-2.0
"""The canned frames, each with its one right result by docs/packet-rules.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from mizarnet._datapath.dry_run import DEVICE, NO_CONTEXT, NO_FACTS, Context, Outcome
from mizarnet._datapath.dry_run.facts import NO_IP, Asked, Facts, Key, Origin
from mizarnet._datapath.self_test import host as known
from mizarnet._datapath.self_test import packets
from mizarnet._datapath.self_test.host import IPV4, IPV6, OTHER_VNI, VNI, Addresses, Host
from mizarnet._datapath.self_test.packets import Party, ethernet, ip, udp
from mizarnet._model.arguments import IPAddress
from mizarnet._model.enumerations import Program, Verdict
from mizarnet._model.specs import VIRTUAL_MAC

_TC_NEXT, _TC_OK, _TC_SHOT, _TC_REDIRECT = 0xFFFFFFFF, 0, 2, 7  # TC_NEXT is -1, as the kernel returns it
_XDP_PASS, _XDP_TX = 2, 3
_EGRESS, _INGRESS = 0, 1  # flags of a redirect
_IPV6_KEY, _ZERO_CHECKSUM = 1, 2  # BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX
_FAMILIES = {4: 2, 6: 10}  # AF_INET, AF_INET6
_AF_PACKET = 17
_TTL, _BOUNCED_TTL = 64, 8

_VIRTUAL, _WEB, _DB = VIRTUAL_MAC.packed, known.WEB_MAC.packed, known.DB_MAC.packed
_REMOTE, _NOBODY, _TUNNEL = known.REMOTE_MAC.packed, known.NOBODYS_MAC.packed, known.TUNNEL_MAC.packed
_ROUTER, _NIC, _NEXT_HOP = (bytes.fromhex(f"0200000001{number:02x}") for number in range(1, 4))

# Mark, priority and departure time that a sender sets on its packets; the agent clears them.
_TENANTS: Final = Context(mark=1, priority=2, tstamp=3)
_OF_WEB: Final = Facts(origin=Origin.DEVICE, origin_ifindex=known.IFINDEX, origin_cookie=known.WEB_COOKIE)


@attrs.frozen(kw_only=True)
class Canned:
    """A frame and its right result.

    Attributes:
        name: Name of the frame, as in ``SelfTestError.frame``.
        program: Program that gets the frame.
        frame: Bytes of the frame from the Ethernet header on.
        wanted: Right result of the run.
        context: Facts of the packet besides its bytes.
        facts: Answers that the program gets in place of the kernel's.
        has_tunnel: Whether the tunnel's device exists.
        moved: Whether the device of the underlay has left the host, with the program.
        needs_route_identity: Whether the result is right only for an agent that reads the route of packets.
    """

    name: str
    program: Program
    frame: bytes
    wanted: Outcome
    context: Context = NO_CONTEXT
    facts: Facts = NO_FACTS
    has_tunnel: bool = True
    moved: bool = False
    needs_route_identity: bool = False


def frames(host: Host) -> Iterator[Canned]:
    """All canned frames for a host."""
    for inner in (IPV4, IPV6):
        yield from _sent(host, inner)
        yield from _forged(inner)
        yield _expired(inner)
        yield _too_long(inner)
        yield from _received(host, inner)
    yield from _asked_for_neighbours()
    yield from _in_anothers_name(IPV4)
    yield from _bounced_before(host, IPV4)
    yield from _refused(host, IPV4)
    yield _bounced_by_guard(host, IPV4)
    yield from _switched(host, IPV4)
    yield _taken_out(host, IPV4)
    yield from _left_in(host, IPV4)


# -- the agent ---------------------------------------------------------------------------------------------


def _packet(source: IPAddress, to: IPAddress, *, hops: int = _TTL) -> bytes:
    return ip(source, to, udp(9, 9, b"mizarnet"), hops=hops)


def _sent(host: Host, inner: Addresses) -> Iterator[Canned]:
    """Frames that an endpoint may send."""
    family = f"IPv{inner.web.version}"
    frame = ethernet(_VIRTUAL, _WEB, _packet(inner.web, inner.remote))
    yield _let_out(host, f"{family} to another host", frame, frame, host.second)
    frame = ethernet(_VIRTUAL, _WEB, _packet(inner.web, inner.switched))
    routed = ethernet(_VIRTUAL, _WEB, _packet(inner.web, inner.switched, hops=_TTL - 1))
    yield _let_out(host, f"{family} to a transit switch", frame, routed, host.third)
    frame = ethernet(_VIRTUAL, _WEB, _packet(inner.further, inner.remote))
    yield _let_out(host, f"{family} from a further address", frame, frame, host.second)
    frame = ethernet(_VIRTUAL, _WEB, _packet(inner.web, inner.db))
    delivered = ethernet(_DB, _WEB, _packet(inner.web, inner.db))
    yield _turned(
        f"{family} to an endpoint of this host",
        frame,
        delivered,
        _counted(
            Program.AGENT,
            Verdict.DELIVERED_LOCALLY,
            frame,
            is_sent=True,
            receiver=known.DB_NUMBER,
            redirect=_INGRESS,
        ),
    )


def _from_web(name: str, frame: bytes, wanted: Outcome) -> Canned:
    return Canned(
        name=name, program=Program.AGENT, frame=frame, context=_TENANTS, facts=_OF_WEB, wanted=wanted
    )


def _let_out(host: Host, name: str, frame: bytes, left: bytes, to: IPAddress) -> Canned:
    key = _key_asked(host, to, _TTL)
    asked = _counted(Program.AGENT, Verdict.ENCAPSULATED, frame, is_sent=True, key=key)
    return _from_web(name, frame, Outcome(_TC_OK, left, NO_CONTEXT, asked))


def _turned(name: str, frame: bytes, left: bytes, asked: Asked) -> Canned:
    """Back in through the tunnel, with the mark that the guard knows."""
    return _from_web(name, frame, Outcome(_TC_REDIRECT, left, Context(mark=known.MARK_LOCAL), asked))


def _answered(name: str, verdict: Verdict, frame: bytes, answer: bytes) -> Canned:
    asked = _counted(Program.AGENT, verdict, frame, is_sent=True, redirect=_INGRESS)
    return _turned(name, frame, answer, asked)


def _expired(inner: Addresses) -> Canned:
    packet = _packet(inner.web, inner.outside, hops=1)
    frame = ethernet(_VIRTUAL, _WEB, packet)
    answer = packets.time_exceeded(Party(_WEB, inner.web), Party(_VIRTUAL, inner.gateway), packet)
    return _answered(f"IPv{inner.web.version} expired", Verdict.GATEWAY_ANSWERED, frame, answer)


def _too_long(inner: Addresses) -> Canned:
    room = known.MTU - packets.IP_BYTES[inner.web.version]
    packet = ip(inner.web, inner.remote, bytes(room + 1), whole=True)
    frame = ethernet(_VIRTUAL, _WEB, packet)
    answer = packets.too_long(Party(_WEB, inner.web), Party(_VIRTUAL, inner.gateway), packet, known.MTU)
    return _answered(f"IPv{inner.web.version} too long", Verdict.OVERSIZED_ANSWERED, frame, answer)


def _asked_for_neighbours() -> Iterator[Canned]:
    web, remote = Party(_WEB, IPV4.web), Party(_VIRTUAL, IPV4.remote)
    question = packets.arp(packets.BROADCAST_MAC, packets.ARP_REQUEST, web, Party(bytes(6), IPV4.remote))
    answer = packets.arp(_WEB, packets.ARP_REPLY, remote, web)
    yield _answered("ARP question", Verdict.NEIGHBOUR_ANSWERED, question, answer)
    web, remote = Party(_WEB, IPV6.web), Party(_VIRTUAL, IPV6.remote)
    question, answer = packets.solicitation(web, IPV6.remote), packets.advertisement(web, remote)
    yield _answered("neighbour solicitation", Verdict.NEIGHBOUR_ANSWERED, question, answer)


def _forged(inner: Addresses) -> Iterator[Canned]:
    """Frames that an endpoint may not send."""
    family = f"IPv{inner.web.version}"
    frame = ethernet(_VIRTUAL, _WEB, _packet(inner.db, inner.remote))
    yield _kept_in(f"{family} from another's address", frame, Verdict.FOREIGN_SOURCE)
    frame = ethernet(_VIRTUAL, _WEB, _packet(inner.web, inner.others))
    yield _kept_in(f"{family} to another tenant", frame, Verdict.NO_DESTINATION)


def _in_anothers_name(inner: Addresses) -> Iterator[Canned]:
    frame = ethernet(_VIRTUAL, _NOBODY, _packet(inner.web, inner.remote))
    yield _kept_in("from a MAC of nobody's", frame, Verdict.UNKNOWN_SENDER, is_sent=False)
    frame = ethernet(_VIRTUAL, _WEB, _packet(inner.web, inner.remote))
    for name, reason, facts in (
        ("through a device of another namespace", Verdict.FOREIGN_DEVICE,
         _OF_WEB._replace(origin_cookie=known.DB_COOKIE)),
        ("through another device", Verdict.FOREIGN_DEVICE,
         _OF_WEB._replace(origin_ifindex=known.IFINDEX + 1)),
        ("from a socket of another namespace", Verdict.FOREIGN_SOCKET,
         Facts(origin=Origin.SOCKET, origin_cookie=known.DB_COOKIE, origin_family=_AF_PACKET)),
    ):  # fmt: skip
        canned = _kept_in(name, frame, reason, is_sent=False)
        yield attrs.evolve(canned, facts=facts, needs_route_identity=True)


def _kept_in(name: str, frame: bytes, reason: Verdict, *, is_sent: bool = True) -> Canned:
    asked = _counted(Program.AGENT, reason, frame, is_sent=is_sent)
    return _from_web(name, frame, Outcome(_TC_SHOT, None, NO_CONTEXT, asked))


def _bounced_before(host: Host, inner: Addresses) -> Iterator[Canned]:
    """A frame that the guard bounced, and one that only looks like it."""
    frame = ethernet(_VIRTUAL, _REMOTE, _packet(inner.switched, inner.remote))
    signed = Context(mark=known.MARK_BOUNCED, priority=2, ingress_ifindex=DEVICE, token=known.TOKEN, tstamp=3)
    yield Canned(
        name="bounced by the guard",
        program=Program.AGENT,
        frame=frame,
        context=signed,
        facts=Facts(key=_key_told(host, host.third)),
        wanted=Outcome(
            _TC_OK,
            frame,
            Context(priority=2, tstamp=3),
            _counted(Program.AGENT, Verdict.BOUNCE_ADMITTED, frame),
        ),
    )
    frame = ethernet(_VIRTUAL, _TUNNEL, _packet(inner.switched, inner.remote))
    imitation = _kept_in("as if bounced, without the token", frame, Verdict.TUNNEL_OWN, is_sent=False)
    unsigned = signed._replace(token=bytes(len(known.TOKEN)))
    yield attrs.evolve(imitation, context=unsigned, facts=Facts(key=_key_told(host, host.third)))


# -- the guard ---------------------------------------------------------------------------------------------


def _received(host: Host, inner: Addresses) -> Iterator[Canned]:
    """Frames that an endpoint may receive."""
    packet = _packet(inner.remote, inner.db)
    frame, delivered = ethernet(_VIRTUAL, _REMOTE, packet), ethernet(_DB, _VIRTUAL, packet)
    asked = _counted(Program.GUARD, Verdict.ACCEPTED, frame, receiver=known.DB_NUMBER)
    yield _at_guard(
        f"IPv{inner.web.version} from another host",
        frame,
        _key_told(host, host.second),
        Outcome(_TC_OK, delivered, Context(priority=2, tstamp=3), asked),
    )


def _at_guard(name: str, frame: bytes, key: Key, wanted: Outcome, *, mark: int = 1) -> Canned:
    context = Context(mark=mark, priority=2, ingress_ifindex=DEVICE, tstamp=3)
    return Canned(
        name=name, program=Program.GUARD, frame=frame, context=context, facts=Facts(key=key), wanted=wanted
    )


def _refused(host: Host, inner: Addresses) -> Iterator[Canned]:
    """Frames that an endpoint may not receive, and one that it may."""
    packet = _packet(inner.remote, inner.db)
    frame, own = ethernet(_VIRTUAL, _REMOTE, packet), ethernet(_DB, _WEB, _packet(inner.web, inner.db))
    passed = _counted(Program.GUARD, Verdict.ACCEPTED_LOCALLY, own)
    accepted = Outcome(_TC_OK, own, Context(priority=2, tstamp=3), passed)
    yield _at_guard("from the agent", own, Key(), accepted, mark=known.MARK_LOCAL)
    local, key = ethernet(_VIRTUAL, _REMOTE, _packet(inner.web, inner.db)), _key_told(host, host.second)
    for name, reason, at, told, kept_from in (
        ("without a tunnel key", Verdict.NO_TUNNEL_KEY, own, Key(), 0),
        ("from a stranger", Verdict.FOREIGN_PEER, frame, _key_told(host, host.stranger), 0),
        ("of another tenant", Verdict.NO_DESTINATION, frame, key._replace(vni=OTHER_VNI), 0),
        ("in a local endpoint's name", Verdict.SOURCE_IS_LOCAL, local, key, known.DB_NUMBER),
        (
            "to the tunnel itself",
            Verdict.TUNNEL_MAC,
            ethernet(_TUNNEL, _REMOTE, packet),
            key,
            known.DB_NUMBER,
        ),
    ):
        asked = _counted(Program.GUARD, reason, at, kept_from=kept_from)
        yield _at_guard(name, at, told, Outcome(_TC_SHOT, None, NO_CONTEXT, asked))


def _bounced_by_guard(host: Host, inner: Addresses) -> Canned:
    frame = ethernet(_VIRTUAL, _REMOTE, _packet(inner.switched, inner.remote))
    key = _key_asked(host, host.second, _BOUNCED_TTL)
    asked = _counted(Program.GUARD, Verdict.BOUNCED, frame, key=key, redirect=_EGRESS)
    signed = Context(mark=known.MARK_BOUNCED, priority=2, token=known.TOKEN, tstamp=3)
    wanted = Outcome(_TC_REDIRECT, frame, signed, asked)
    return _at_guard("for another host", frame, _key_told(host, host.third), wanted)


# -- the transit switch ------------------------------------------------------------------------------------


def _switched(host: Host, inner: Addresses) -> Iterator[Canned]:
    away = ethernet(_VIRTUAL, _REMOTE, _packet(inner.switched, inner.remote))
    here = ethernet(_VIRTUAL, _REMOTE, _packet(inner.switched, inner.db))
    datagram = _tunnelled(host, away)
    frame = ethernet(_NIC, _ROUTER, ip(host.third, host.local, datagram))
    sent_on = ethernet(_NEXT_HOP, _NIC, ip(host.local, host.second, datagram, hops=_BOUNCED_TTL))
    asked = _counted(Program.SWITCH, Verdict.BOUNCED, frame, way=(host.local, host.second))
    bounced = Outcome(_XDP_TX, sent_on, NO_CONTEXT, asked)
    yield _at_switch("on the underlay, for another host", frame, bounced)
    yield attrs.evolve(_passed("on the underlay, without a tunnel", frame), has_tunnel=False)
    yield attrs.evolve(_passed("on the underlay, which left the host", frame), moved=True)
    frame = ethernet(_NIC, _ROUTER, ip(host.third, host.local, _tunnelled(host, here)))
    yield _passed("on the underlay, for this host", frame)
    frame = ethernet(_NIC, _ROUTER, ip(host.stranger, host.local, datagram))
    yield _passed("on the underlay, from a stranger", frame)


def _tunnelled(host: Host, frame: bytes) -> bytes:
    return udp(49152, host.port, packets.tunnel(host.encap, VNI, frame))


def _passed(name: str, frame: bytes) -> Canned:
    asked = _counted(Program.SWITCH, Verdict.PASSED, frame)
    return _at_switch(name, frame, Outcome(_XDP_PASS, frame, NO_CONTEXT, asked))


def _at_switch(name: str, frame: bytes, wanted: Outcome) -> Canned:
    way = Facts(hop_ifindex=DEVICE, hop_destination_mac=_NEXT_HOP, hop_source_mac=_NIC)
    return Canned(name=name, program=Program.SWITCH, frame=frame, facts=way, wanted=wanted)


# -- the shortcut ------------------------------------------------------------------------------------------


def _taken_out(host: Host, inner: Addresses) -> Canned:
    """A plain tunnel packet, whose frame an endpoint may receive."""
    packet = _packet(inner.remote, inner.db)
    frame, delivered = ethernet(_VIRTUAL, _REMOTE, packet), ethernet(_DB, _VIRTUAL, packet)
    asked = _counted(Program.SHORTCUT, Verdict.ACCEPTED, frame, receiver=known.DB_NUMBER, redirect=_INGRESS)
    wanted = Outcome(_TC_REDIRECT, delivered, Context(mark=known.MARK_LOCAL), asked)
    return _at_shortcut("taken out of its tunnel", _plain(host, frame), wanted)


def _left_in(host: Host, inner: Addresses) -> Iterator[Canned]:
    """Packets that go the kernel's way, as they came."""
    here = ethernet(_VIRTUAL, _REMOTE, _packet(inner.remote, inner.db))
    away = ethernet(_VIRTUAL, _REMOTE, _packet(inner.switched, inner.remote))
    for name, frame, has_tunnel, moved in (
        ("left in its tunnel, which is gone", _plain(host, here), False, False),
        ("left in its tunnel, on a device that left the host", _plain(host, here), True, True),
        ("left in its tunnel, for another host", _plain(host, away), True, False),
    ):
        asked = _counted(Program.SHORTCUT, Verdict.PASSED, frame)
        left = _at_shortcut(name, frame, Outcome(_TC_NEXT, frame, NO_CONTEXT, asked))
        yield attrs.evolve(left, has_tunnel=has_tunnel, moved=moved)


def _plain(host: Host, frame: bytes) -> bytes:
    return ethernet(_NIC, _ROUTER, ip(host.second, host.local, _tunnelled(host, frame)))


def _at_shortcut(name: str, frame: bytes, wanted: Outcome) -> Canned:
    return Canned(name=name, program=Program.SHORTCUT, frame=frame, wanted=wanted)


# -- facts and recorded calls -------------------------------------------------------------------------------


def _key_told(host: Host, remote: IPAddress) -> Key:
    return Key(remote.version, VNI, _TTL, 0, _words(remote), _words(host.local))


def _key_asked(host: Host, remote: IPAddress, ttl: int) -> Key:
    flags = _ZERO_CHECKSUM | (_IPV6_KEY if remote.version == 6 else 0)
    return Key(remote.version, VNI, ttl, flags, _words(remote), _words(host.local))


def _words(address: IPAddress) -> bytes:
    return address.packed.rjust(len(NO_IP), b"\0")


def _counted(
    program: Program,
    verdict: Verdict,
    frame: bytes,
    *,
    is_sent: bool = False,
    receiver: int = 0,
    kept_from: int = 0,
    redirect: int | None = None,
    key: Key | None = None,
    way: tuple[IPAddress, IPAddress] | None = None,
) -> Asked:
    """The record of a run with one verdict, counted also for sender and (missed) receiver, and the other calls."""
    length, outer = len(frame), key or Key()
    source, destination = (ip.packed.ljust(len(NO_IP), b"\0") for ip in way) if way else (NO_IP, NO_IP)
    return Asked(
        verdicts=1,
        program=program,
        verdict=verdict,
        length=length,
        sent=int(is_sent),
        sent_slot=known.WEB_NUMBER if is_sent else 0,
        sent_verdict=verdict if is_sent else 0,
        sent_length=length if is_sent else 0,
        received=int(bool(receiver)),
        received_slot=receiver,
        received_length=length if receiver else 0,
        undelivered=int(bool(kept_from)),
        undelivered_slot=kept_from,
        undelivered_verdict=verdict if kept_from else 0,
        undelivered_length=length if kept_from else 0,
        redirects=int(redirect is not None),
        redirect_ifindex=DEVICE if redirect is not None else 0,
        redirect_flags=redirect or 0,
        keys=int(key is not None),
        key_family=outer.family,
        key_vni=outer.vni,
        key_ttl=outer.ttl,
        key_flags=outer.flags,
        key_remote=outer.remote,
        key_local=outer.local,
        hops=int(way is not None),
        hop_family=_FAMILIES[way[0].version] if way else 0,
        hop_protocol=packets.UDP if way else 0,
        hop_ifindex=DEVICE if way else 0,
        hop_source=source,
        hop_destination=destination,
    )
