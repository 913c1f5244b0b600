# SPDX-License-Identifier: Apache-2.0
"""What a host's programs know: the constants they were loaded with and the entries of their tables.

An address is its bytes in network order, four or sixteen of them: the length is the family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

Ip: TypeAlias = bytes
Mac: TypeAlias = bytes
Prefix: TypeAlias = tuple[Ip, int]
"""The first address, and how many leading bits of it count."""


@attrs.frozen(kw_only=True)
class Config:
    """Constants of one attached agent. A state says what matters; what it leaves out is as here.

    Attributes:
        encap: Encapsulation of the tunnel.
        local: Its underlay address.
        port: Its UDP port.
        mtu: Longest packet it takes, from the IP header on.
        tunnel_mac: Its own.
        virtual_mac: Answers for everything that is not on this host.
        mark_local: Secret: from the agent to the guard.
        mark_bounced: Secret: from the guard to the agent.
        token_bounced: Secret, twelve bytes: the same.
        route_identity: Whether the agent can read where a frame came from.
    """

    encap: Literal["vxlan", "geneve"]
    local: Ip
    port: int = 4789
    mtu: int = 1450
    tunnel_mac: Mac = b"\x02\0\0\0\1\1"
    virtual_mac: Mac = b"\x02\0\0\0\1\2"
    mark_local: int = 0x11223344
    mark_bounced: int = 0x55667788
    token_bounced: bytes = b"mizarnet tok"
    route_identity: bool = True


@attrs.frozen(kw_only=True)
class SenderRecord:
    """What the host knows about the sender behind a MAC.

    Attributes:
        vni: Its tenant network space.
        number: Where its traffic is counted.
        netns_cookie: The namespace its device belongs to.
        ifindex: Its device there; 0: not known yet.
        forwarding: Whether it may send from addresses that are not its own.
        more: Whether it has further addresses, which only their entries name.
        addresses: Its own, with the length of the on-link prefix.
        gateways: One of a family at most.
        told_in: The second in which it was told last that a packet is too long.
        told: How often in that second.
    """

    vni: int
    number: int
    netns_cookie: int
    ifindex: int
    forwarding: bool = False
    more: bool = False
    addresses: tuple[tuple[Ip, int], ...]
    gateways: tuple[Ip, ...] = ()
    told_in: int = 0
    told: int = 0


@attrs.frozen
class Local:
    """An endpoint of this host.

    Attributes:
        number: Where its traffic is counted.
        mac: Its own.
        forwarding: Whether it receives what is for others.
        prefix_length: Length of the address's on-link prefix.
        tap: Whether it is a VM's.
    """

    number: int
    mac: Mac
    forwarding: bool = False
    prefix_length: int = 0
    tap: bool = False


@attrs.frozen
class Remote:
    """An endpoint of another host, and that host's underlay address."""

    host: Ip


@attrs.frozen
class Elsewhere:
    """An entry of a place that this version does not know; the rest is what other places have there."""

    place: int
    number: int
    mac: Mac
    host: Ip


Place: TypeAlias = Local | Remote | Elsewhere


@attrs.frozen
class Network:
    """A prefix of a VNI; ``via`` is its next hop."""

    gateway: Ip | None
    switches: tuple[Ip, ...]
    via: Ip | None = None


@attrs.frozen(kw_only=True)
class State:
    """Everything a verdict depends on, but for the frame.

    Attributes:
        senders: By source MAC.
        endpoints: By VNI and address.
        networks: By VNI and prefix.
        peers: Underlay prefixes that tunnel packets are accepted from.
        routers: Next hops of a VNI that a host has, by VNI and host.
        generic: Whether the transit switch is on the generic hook.
        tunnel: Whether the tunnel's device is there, which a transit switch may outlive.
        moved: Whether the device of switch and shortcut has left the host, and taken them along.
    """

    config: Config
    senders: Mapping[Mac, SenderRecord]
    endpoints: Mapping[tuple[int, Ip], Place]
    networks: Mapping[tuple[int, Prefix], Network]
    peers: frozenset[Prefix]
    routers: Mapping[tuple[int, Ip], tuple[Ip, ...]] = attrs.Factory(dict)
    generic: bool = False
    tunnel: bool = True
    moved: bool = False
