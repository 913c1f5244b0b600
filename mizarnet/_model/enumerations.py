# SPDX-License-Identifier: Apache-2.0
# Generated from csrc/include/mizarnet/abi.h by tools/gen_abi.py; do not edit.
"""The numbers that BPF programs and Python share."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple


class VerdictKind(enum.Enum):
    """Whose concern a verdict is."""

    PASSED = "passed"
    """The frame went on."""
    CHATTER = "chatter"
    """What every network stack says of itself, and the overlay does not carry: nothing is wrong."""
    TENANT = "tenant"
    """A container or VM does what it may not, by mistake or not."""
    OPERATOR = "operator"
    """The hosts were not told, or not set up, as they should be."""
    ATTACK = "attack"
    """What no network stack sends: somebody forges frames."""
    KERNEL = "kernel"
    """The kernel refused what was asked of it."""


class Limit:
    """Sizes and bounds that programs and user space share."""

    SCHEMA: Final = 5
    """Version of the layouts in this file."""
    VNI_MAX: Final = 0xFFFFFF
    """Highest VNI; zero is not one."""
    ADDRESSES: Final = 2
    """Own addresses in a sender's entry: the first of IPv4 and of IPv6."""
    SWITCHES: Final = 16
    """Transit switches of a network."""
    WITNESSES: Final = 4
    """Next hops of a VNI that are kept for a host that has them."""
    NAME_BYTES: Final = 192
    """An endpoint's name with its final zero."""
    PATH_BYTES: Final = 256
    """A namespace's path with its final zero."""
    DEVICE_BYTES: Final = 16
    """A device's name with its final zero (the kernel's IFNAMSIZ)."""
    LABEL_BYTES: Final = 128
    """Room for an endpoint's labels."""
    FEEDS: Final = 16
    """Names of feeds."""
    FEED_BYTES: Final = 32
    """A feed's name with its final zero."""
    GROUPS: Final = 8
    """Groups of maps that may be added to the first one."""
    VERDICTS: Final = 256
    """Room for verdicts of one program in the map ``verdicts``."""
    PROGRAMS: Final = 4
    """Programs that count verdicts."""
    READERS: Final = 4
    """Readers of events at one time."""
    EVENT_BYTES: Final = 128
    """First bytes of a frame in an event."""
    EVENT_BUDGET: Final = 10000
    """Events that a reader gets of each CPU in a second."""
    DROPS: Final = 16384
    """Room for reasons of endpoints' drops in the map ``drops``."""
    FIRST_DROP: Final = 64
    """Verdicts from this number on are drop reasons; below it, frames went on."""


class Program(enum.IntEnum):
    """A program that counts verdicts."""

    AGENT = 0
    """TC, egress of the tunnel."""
    GUARD = 1
    """TC, ingress of the tunnel."""
    SWITCH = 2
    """XDP, ingress of the underlay."""
    SHORTCUT = 3
    """TC, ingress of the underlay."""


class Verdict(enum.IntEnum):
    """What a program decided about a frame; numbers keep their meaning for good."""

    ENCAPSULATED = 0
    """Agent: tunnel key set, leaves towards a host or transit switch."""
    DELIVERED_LOCALLY = 1
    """Agent: handed to the tunnel's own ingress for a local endpoint."""
    NEIGHBOUR_ANSWERED = 2
    """Agent: ARP request or neighbour solicitation answered."""
    GATEWAY_ANSWERED = 3
    """Agent: answered in the gateway's name (echo, time exceeded)."""
    BOUNCE_ADMITTED = 4
    """Agent: the guard's bounced frame let out."""
    ACCEPTED = 5
    """Guard, shortcut: decapsulated frame given to a local endpoint."""
    ACCEPTED_LOCALLY = 6
    """Guard: a frame of agent or shortcut given to a local endpoint."""
    BOUNCED = 7
    """Guard, switch: sent on to the host that has the endpoint."""
    PASSED = 8
    """Switch, shortcut: not its business, left to the kernel."""
    PASSED_NO_NEIGHBOUR = 9
    """Switch: next hop not resolved, left to the guard."""
    PASSED_FORWARDING_OFF = 10
    """Switch: forwarding is off on the underlay, left to the guard."""
    PASSED_OTHER_INTERFACE = 11
    """Switch: next hop is behind another device, left to the guard."""
    PASSED_CHECKSUM = 12
    """Switch: outer checksum on a generic hook, left to the guard."""
    PASSED_NO_ROUTE = 13
    """Switch: no usable route to the next hop, left to the guard."""
    COPIED = 14
    """Guard: a copy without the sender's socket replaces the agent's own frame."""
    OVERSIZED_ANSWERED = 15
    """Agent: too long, so its sender was told the tunnel's MTU."""
    TRUNCATED = 64
    """A header does not fit into the frame."""
    VLAN_TAGGED = 65
    """A VLAN tag, in the bytes or beside them."""
    UNKNOWN_ETHERTYPE = 66
    """Neither IPv4 nor IPv6 nor ARP."""
    BAD_IPV4 = 67
    """IPv4 version, header length or total length."""
    BAD_IPV6 = 68
    """IPv6 version or payload length."""
    BAD_ARP = 69
    """ARP for anything but IPv4 over Ethernet, or no request."""
    TUNNEL_OWN = 70
    """Sent by the tunnel device itself, which has nothing to say."""
    UNKNOWN_SENDER = 71
    """Source MAC without a record."""
    FOREIGN_DEVICE = 72
    """Routed through a device that is not the sender's."""
    FOREIGN_SOCKET = 73
    """Sent by a socket of another namespace."""
    REFLECTED = 74
    """Socket of a routed family without a route: a frame that was received before."""
    NO_ORIGIN = 75
    """Neither route nor socket, and not ARP."""
    FOREIGN_SOURCE = 76
    """Source address that is not the sender's."""
    ARP_SPOOFED = 77
    """ARP in another's name."""
    OWN_ADDRESS_ASKED = 78
    """Question about or announcement of the own address: consumed."""
    NEIGHBOUR_UNKNOWN = 79
    """Question about an address that nobody has."""
    MULTICAST = 80
    """Multicast or broadcast destination."""
    NO_DESTINATION = 81
    """Neither an endpoint nor a network of the VNI."""
    HAIRPIN = 82
    """Destination is the sender."""
    HOP_LIMIT = 83
    """TTL or hop limit used up."""
    NO_SWITCH = 84
    """The network has no transit switch and no entry for the destination."""
    TUNNEL_KEY_REFUSED = 85
    """The kernel did not take the tunnel key."""
    NO_TUNNEL_KEY = 86
    """Guard: no tunnel key and not marked by the agent."""
    FOREIGN_PEER = 87
    """Guard: outer source is no peer."""
    FOREIGN_LOCAL = 88
    """Guard: outer destination is not the tunnel's address."""
    TUNNEL_MAC = 89
    """Guard: addressed to the tunnel device itself."""
    SOURCE_IS_LOCAL = 90
    """Guard: a remote host speaks for an endpoint of this one."""
    UNREADABLE = 91
    """The kernel could not make the headers readable or writable."""
    BAD_ND = 92
    """Malformed neighbour discovery, or any from a remote host."""
    ND_SPOOFED = 93
    """Neighbour discovery in another's name, or in a router's."""
    EXTENSION_HEADERS = 94
    """More IPv6 extension headers than are walked."""
    OUTER_HOP_LIMIT = 95
    """Guard: bounced too often."""
    GENEVE_OPTIONS = 96
    """Guard: a control frame, or an option that must be understood."""
    OVERSIZED = 97
    """Longer than the tunnel carries, and not answered."""
    BAD_OFFLOAD = 98
    """A checksum left to the device would change headers that were checked."""
    BOUNCED_BACK = 99
    """Guard: its place is the host that it came from."""
    NO_NEXT_HOP = 100
    """The network's next hop has no entry, or may not forward."""

    @property
    def dropped(self) -> bool:
        """Whether the frame ended here."""
        return self >= Limit.FIRST_DROP

    @property
    def kind(self) -> VerdictKind:
        """Whose concern it is; of what may have several causes, that of the usual one."""
        return _MEANINGS[self].kind

    @property
    def cause(self) -> str:
        """What usually brings it about, in a sentence."""
        return _MEANINGS[self].cause

    @property
    def remedy(self) -> str:
        """What to do about it, in a sentence or two."""
        return _MEANINGS[self].remedy

    @property
    def page(self) -> str:
        """Path of the page about it, in the source tree and in the documentation."""
        return f"docs/verdicts/{self.name.lower().replace('_', '-')}.md"


class _Meaning(NamedTuple):
    kind: VerdictKind
    cause: str
    remedy: str


class Place(enum.IntEnum):
    """Where an endpoint lives, seen from this host."""

    LOCAL = 1
    """On this host."""
    REMOTE = 2
    """On another host."""


class SenderFlag(enum.IntEnum):
    """What a local endpoint is allowed to do."""

    FORWARDING = 1
    """May send from addresses that are not its own."""
    TRUSTED_NETNS = 2
    """Of the record only: another user namespace may own the namespace."""
    PRIVATE_NETNS = 4
    """Of the record only: the namespace is the endpoint's and ends with it."""
    ROUTE_IF_NONE = 8
    """Of the record only: a default route unless the namespace had one."""
    ROUTE_NEVER = 16
    """Of the record only: no default route."""
    ROUTED_IPV4 = 32
    """Of the record only: the default route of IPv4 is the endpoint's."""
    ROUTED_IPV6 = 64
    """Of the record only: that of IPv6 is."""
    MORE_ADDRESSES = 128
    """Of the sender only: further ones have entries of their own."""
    OWN_MTU = 256
    """Of the record only: its MTU was asked for, and does not follow the tunnel's."""
    TAP = 512
    """Of the entry only: what is received goes to a VM."""


class KindNumber(enum.IntEnum):
    """The kind of an endpoint's device, as recorded."""

    MACVLAN = 1
    """A device in the container's namespace."""
    MACVTAP = 2
    """A device with a descriptor for a VM."""


class State(enum.IntEnum):
    """How far an object has come."""

    MAKING = 1
    """Begun, and not whole."""
    LIVE = 2
    """Whole."""
    DELETING = 3
    """Its end has begun."""


class ItemKind(enum.IntEnum):
    """What an entry of ``items`` is."""

    ADDRESS = 1
    """A further address."""
    ROUTE = 2
    """A route of the endpoint's namespace."""


class EncapNumber(enum.IntEnum):
    """The encapsulation of a tunnel, as recorded."""

    VXLAN = 1
    """RFC 7348."""
    GENEVE = 2
    """RFC 8926."""


class SwitchFlag(enum.IntEnum):
    """How a transit switch was attached, and what that changed on its device."""

    GENERIC_XDP = 1
    """Attached to the generic hook, where checksums may be unfinished."""
    SET_FORWARDING_IPV4 = 2
    """IPv4 forwarding of the device was off before."""
    SET_FORWARDING_IPV6 = 4
    """IPv6 forwarding of the device was off before."""
    SET_ACCEPT_RA = 8
    """Router advertisements were accepted only because forwarding was off."""


class ShortcutNumber(enum.IntEnum):
    """Whether there shall be a shortcut on the way in, as recorded."""

    OFF = 0
    """Tunnel packets go the kernel's way alone."""
    AUTO = 1
    """Plain ones are taken out on the underlay, where kernel and underlay allow it."""


class Layer(enum.IntEnum):
    """Where agent and guard stand on the tunnel, as recorded."""

    TCX = 1
    """Agent and guard stand on tcx."""
    CLSACT = 2
    """They stand as filters of a clsact."""


class Wish(enum.IntEnum):
    """Which frames a reader of events wants, as recorded."""

    DROPS = 1
    """Frames that were dropped."""
    PASSES = 2
    """Frames that went on."""


class EventFlag(enum.IntEnum):
    """What is special about an event."""

    CLAIMED = 1
    """Nobody proved the VNI."""


_MEANINGS: Final[Mapping[Verdict, _Meaning]] = {
    Verdict.ENCAPSULATED: _Meaning(
        VerdictKind.PASSED,
        "The destination lives on another host, or behind a transit switch.",
        "None needed.",
    ),
    Verdict.DELIVERED_LOCALLY: _Meaning(
        VerdictKind.PASSED,
        "The destination lives on this host.",
        "None needed.",
    ),
    Verdict.NEIGHBOUR_ANSWERED: _Meaning(
        VerdictKind.PASSED,
        "An endpoint asked for the MAC of an address that is known.",
        "None needed.",
    ),
    Verdict.GATEWAY_ANSWERED: _Meaning(
        VerdictKind.PASSED,
        "An endpoint asked for its gateway's echo, or sent a packet that expired there.",
        "None needed.",
    ),
    Verdict.BOUNCE_ADMITTED: _Meaning(
        VerdictKind.PASSED,
        "The guard sends a packet on to the host that has its destination.",
        "None needed.",
    ),
    Verdict.ACCEPTED: _Meaning(
        VerdictKind.PASSED,
        "A packet of another host is for an endpoint of this one.",
        "None needed.",
    ),
    Verdict.ACCEPTED_LOCALLY: _Meaning(
        VerdictKind.PASSED,
        "The agent or the shortcut handed over a frame for an endpoint of this host.",
        "None needed.",
    ),
    Verdict.BOUNCED: _Meaning(
        VerdictKind.PASSED,
        "The sending host does not know that the destination lives elsewhere, or relies on this transit switch.",
        "None needed on a transit switch. On any other host tell the sender's agent where it lives: agent.endpoints.update().",
    ),
    Verdict.PASSED: _Meaning(
        VerdictKind.PASSED,
        "The packet is none that the transit switch sends on, or that the shortcut takes out of its tunnel.",
        "None needed.",
    ),
    Verdict.PASSED_NO_NEIGHBOUR: _Meaning(
        VerdictKind.PASSED,
        "The kernel does not know the MAC of the next hop yet, so the slower guard sends the packet on.",
        "None needed for the first packets. If it keeps growing, the host of the destination does not answer: ping it.",
    ),
    Verdict.PASSED_FORWARDING_OFF: _Meaning(
        VerdictKind.PASSED,
        "Forwarding was turned off on the underlay's device, so the slower guard sends the packet on.",
        "Attach the switch again, which turns it on: TransitSwitch.attach().",
    ),
    Verdict.PASSED_OTHER_INTERFACE: _Meaning(
        VerdictKind.PASSED,
        "The next hop is behind another device than the one that the packet came in by, so the slower guard sends it on.",
        "Attach the switch to the device that leads to the hosts, or leave it to the guard: TransitSwitch.detach().",
    ),
    Verdict.PASSED_CHECKSUM: _Meaning(
        VerdictKind.PASSED,
        "The sender fills in the outer UDP checksum, which cannot be changed on a generic hook, so the slower guard sends the packet on.",
        "Attach the switch with mode=\"native\", or let the sender's tunnel leave the checksum zero, as mizarnet's does.",
    ),
    Verdict.PASSED_NO_ROUTE: _Meaning(
        VerdictKind.PASSED,
        "The host has no route to the next hop, so the packet is left to the guard, which will fail as well.",
        "Add a route to the host of the destination, or correct its address: agent.endpoints.update().",
    ),
    Verdict.COPIED: _Meaning(
        VerdictKind.PASSED,
        "The frame came from a socket that the kernel shares between namespaces, so a copy without it was delivered.",
        "None needed.",
    ),
    Verdict.OVERSIZED_ANSWERED: _Meaning(
        VerdictKind.PASSED,
        "A VM or a raw socket sent a packet that is longer than the tunnel's MTU and may not be fragmented, and was told the MTU.",
        "None needed. If it keeps growing, set the MTU inside to that of endpoint.state(), also in the guest.",
    ),
    Verdict.TRUNCATED: _Meaning(
        VerdictKind.TENANT,
        "A raw socket or a VM sent a frame that ends within its headers.",
        "Correct the program that makes the frames.",
    ),
    Verdict.VLAN_TAGGED: _Meaning(
        VerdictKind.TENANT,
        "A container or VM has a VLAN device on its endpoint, or sends tagged frames.",
        "Remove the VLAN inside, and make an endpoint in a VNI of its own for each: Endpoint.create(vni=).",
    ),
    Verdict.UNKNOWN_ETHERTYPE: _Meaning(
        VerdictKind.TENANT,
        "A container or VM speaks a protocol that is neither IPv4 nor IPv6 nor ARP, such as LLDP, STP or PPPoE.",
        "Switch that protocol off inside.",
    ),
    Verdict.BAD_IPV4: _Meaning(
        VerdictKind.TENANT,
        "A raw socket or a VM sent an IPv4 header that contradicts its frame, or \"BIG TCP\" is on.",
        "Correct the program that makes the frames; keep gso_ipv4_max_size of the device at 65536 or less.",
    ),
    Verdict.BAD_IPV6: _Meaning(
        VerdictKind.TENANT,
        "A raw socket or a VM sent an IPv6 header that contradicts its frame, or \"BIG TCP\" is on.",
        "Correct the program that makes the frames; keep gso_max_size of the device at 65536 or less.",
    ),
    Verdict.BAD_ARP: _Meaning(
        VerdictKind.TENANT,
        "A container or VM sent an ARP message that is no request for IPv4, such as an announcement as a reply; or another host sent ARP.",
        "None needed for announcements: an address is told by agent.endpoints.update(). Hosts with other software than mizarnet must not send ARP through the tunnel.",
    ),
    Verdict.TUNNEL_OWN: _Meaning(
        VerdictKind.OPERATOR,
        "A program of the host sends through the tunnel's device, such as a daemon that manages all devices.",
        "Exempt the device from that daemon, until tunnel.state() says that it is silent again.",
    ),
    Verdict.UNKNOWN_SENDER: _Meaning(
        VerdictKind.TENANT,
        "A container or VM sends from another MAC than its endpoint's: it was changed inside, or a bridge or a nested VM is behind it.",
        "Give the device the MAC of endpoint.mac again, or make an endpoint with the MAC that is used: Endpoint.create(mac=).",
    ),
    Verdict.FOREIGN_DEVICE: _Meaning(
        VerdictKind.ATTACK,
        "A container routed a packet with the MAC of another endpoint through its own device.",
        "Look for raw sockets and rewritten headers in the containers of this host: this one used the MAC of the endpoint named by the frame.",
    ),
    Verdict.FOREIGN_SOCKET: _Meaning(
        VerdictKind.ATTACK,
        "A raw socket, or a tap that was opened in another namespace, sent from the MAC of an endpoint.",
        "Open a MACVTAP with endpoint.open_tap(). If none is there, look for raw sockets in the containers of this host.",
    ),
    Verdict.REFLECTED: _Meaning(
        VerdictKind.ATTACK,
        "A container sent a received frame back, by a traffic control action or a program of its own.",
        "Take CAP_NET_ADMIN over its namespace from the container.",
    ),
    Verdict.NO_ORIGIN: _Meaning(
        VerdictKind.TENANT,
        "A container forwards frames that it did not send itself, from a bridge or a device behind its own.",
        "Route in the container in place of bridging, with Endpoint.create(forwarding=True).",
    ),
    Verdict.FOREIGN_SOURCE: _Meaning(
        VerdictKind.TENANT,
        "A container or VM sends from an address that its endpoint does not have: changed inside, forwarded, or forged.",
        "Make the endpoint with that address, or allow it to forward: Endpoint.create(ip=), Endpoint.create(forwarding=True).",
    ),
    Verdict.ARP_SPOOFED: _Meaning(
        VerdictKind.TENANT,
        "A container or VM speaks ARP from an address or MAC that its endpoint does not have: changed inside, or forged.",
        "Set the address inside back to one of endpoint.addresses, or make the endpoint with it: Endpoint.create(ip=).",
    ),
    Verdict.OWN_ADDRESS_ASKED: _Meaning(
        VerdictKind.CHATTER,
        "An endpoint made sure that its address is its own, or announced it, as each stack does.",
        "None needed.",
    ),
    Verdict.NEIGHBOUR_UNKNOWN: _Meaning(
        VerdictKind.OPERATOR,
        "This host was not told where the address lives that an endpoint asks for, or nobody has it.",
        "If the address exists, tell this host: agent.endpoints.update(), or agent.networks.update() with transit switches.",
    ),
    Verdict.MULTICAST: _Meaning(
        VerdictKind.CHATTER,
        "Multicast or broadcast, which the overlay does not carry: router solicitations, group reports, DHCP, mDNS.",
        "None needed. Give addresses with the endpoint, in place of DHCP: Endpoint.create(ip=).",
    ),
    Verdict.NO_DESTINATION: _Meaning(
        VerdictKind.OPERATOR,
        "This host was not told where the destination lives, or nobody has it; or it is a gateway, which answers echo alone.",
        "If the address exists, tell this host: agent.endpoints.update(), or agent.networks.update() with transit switches.",
    ),
    Verdict.HAIRPIN: _Meaning(
        VerdictKind.TENANT,
        "A container or VM sent a packet to its own address through the device.",
        "Let it reach itself over its loopback device.",
    ),
    Verdict.HOP_LIMIT: _Meaning(
        VerdictKind.TENANT,
        "A routed packet had no hop left, and no answer could be sent: it is an error itself, or the sender has no gateway.",
        "None needed for traceroute. Otherwise give the endpoint a gateway: Endpoint.create(gateway=).",
    ),
    Verdict.NO_SWITCH: _Meaning(
        VerdictKind.OPERATOR,
        "The network has no transit switch, or this host is one of them, and the address has no entry.",
        "Tell this host where the address lives, or which switches know it: agent.endpoints.update(), agent.networks.update().",
    ),
    Verdict.TUNNEL_KEY_REFUSED: _Meaning(
        VerdictKind.KERNEL,
        "The kernel refused the outer headers, for lack of memory.",
        "Look at the host's memory, and at the kernel's log.",
    ),
    Verdict.NO_TUNNEL_KEY: _Meaning(
        VerdictKind.ATTACK,
        "A frame came to the guard past the agent: another MACVLAN was set to bridge mode, or a program of the host redirects frames here.",
        "Look at endpoint.state(), whose mode must be private, and at agent.state(), which names programs ahead of ours.",
    ),
    Verdict.FOREIGN_PEER: _Meaning(
        VerdictKind.OPERATOR,
        "A host that is not among the peers sent a tunnel packet: a new host, or a stranger.",
        "If the host is yours, add its underlay prefix: agent.peers.add().",
    ),
    Verdict.FOREIGN_LOCAL: _Meaning(
        VerdictKind.OPERATOR,
        "A host sent to another address of this one than the tunnel's, since its entry names that.",
        "Correct the entry on the sending host to the address of this host's tunnel: agent.endpoints.update().",
    ),
    Verdict.TUNNEL_MAC: _Meaning(
        VerdictKind.ATTACK,
        "A peer addressed the inner frame to the tunnel's own device, as no agent does.",
        "Look at the peer, or remove it: agent.peers.discard().",
    ),
    Verdict.SOURCE_IS_LOCAL: _Meaning(
        VerdictKind.OPERATOR,
        "A peer speaks for an address that an endpoint of this host has: both hosts have it, or the peer forges it.",
        "Delete the endpoint on the host that it left: Endpoint.delete_many(). If there is no other, look at the peer.",
    ),
    Verdict.UNREADABLE: _Meaning(
        VerdictKind.KERNEL,
        "The kernel had no memory for the headers, or may not change them: the sender left a checksum in them to the device.",
        "Look at the host's memory.",
    ),
    Verdict.BAD_ND: _Meaning(
        VerdictKind.TENANT,
        "A container or VM sent malformed neighbour discovery, or another host sent any.",
        "Correct the program that makes the frames. Hosts with other software than mizarnet must not send it through the tunnel.",
    ),
    Verdict.ND_SPOOFED: _Meaning(
        VerdictKind.TENANT,
        "A container or VM claims an IPv6 address that its endpoint does not have, or to be a router: changed inside, or forged.",
        "Make the endpoint with that address, and no router inside: Endpoint.create(ip=). For link-local addresses set addr_gen_mode to eui64.",
    ),
    Verdict.EXTENSION_HEADERS: _Meaning(
        VerdictKind.TENANT,
        "A container or VM sends IPv6 with more than six extension headers, or more than 128 bytes of them.",
        "Correct the program that makes them.",
    ),
    Verdict.OUTER_HOP_LIMIT: _Meaning(
        VerdictKind.OPERATOR,
        "Hosts disagree on where the destination lives, and sent the packet on to each other until its outer hops were used up.",
        "Compare the entry of the address on each of them, and correct it: agent.endpoints.update().",
    ),
    Verdict.GENEVE_OPTIONS: _Meaning(
        VerdictKind.OPERATOR,
        "A peer sent a Geneve control frame, or an option that must be understood: other software uses the tunnel's port.",
        "Let that software use another port, or make the tunnel with one: Tunnel.create(port=).",
    ),
    Verdict.OVERSIZED: _Meaning(
        VerdictKind.TENANT,
        "A VM or a raw socket sent a frame that is longer than the tunnel's MTU, and could not be told, such as IPv4 that may be fragmented.",
        "Set the MTU inside to that of endpoint.state(), also in the guest.",
    ),
    Verdict.BAD_OFFLOAD: _Meaning(
        VerdictKind.ATTACK,
        "A VM or a raw socket asked the device to write a checksum over headers that were checked.",
        "Look at what makes the frames: a guest's own network stack does not do this.",
    ),
    Verdict.BOUNCED_BACK: _Meaning(
        VerdictKind.OPERATOR,
        "Two hosts disagree on where the destination lives: each has an entry that names the other.",
        "Compare the entry of the address on both, and correct it: agent.endpoints.update().",
    ),
    Verdict.NO_NEXT_HOP: _Meaning(
        VerdictKind.OPERATOR,
        "The next hop of the network has no entry on this host, or its endpoint may not forward.",
        "Tell this host where it lives, or make it a router: agent.endpoints.update(), Endpoint.create(forwarding=True).",
    ),
}


ENUMERATIONS: Final[Mapping[str, Mapping[str, int]]] = {
    "mzn_limit": {
        "MZN_LIMIT_SCHEMA": Limit.SCHEMA,
        "MZN_LIMIT_VNI_MAX": Limit.VNI_MAX,
        "MZN_LIMIT_ADDRESSES": Limit.ADDRESSES,
        "MZN_LIMIT_SWITCHES": Limit.SWITCHES,
        "MZN_LIMIT_WITNESSES": Limit.WITNESSES,
        "MZN_LIMIT_NAME_BYTES": Limit.NAME_BYTES,
        "MZN_LIMIT_PATH_BYTES": Limit.PATH_BYTES,
        "MZN_LIMIT_DEVICE_BYTES": Limit.DEVICE_BYTES,
        "MZN_LIMIT_LABEL_BYTES": Limit.LABEL_BYTES,
        "MZN_LIMIT_FEEDS": Limit.FEEDS,
        "MZN_LIMIT_FEED_BYTES": Limit.FEED_BYTES,
        "MZN_LIMIT_GROUPS": Limit.GROUPS,
        "MZN_LIMIT_VERDICTS": Limit.VERDICTS,
        "MZN_LIMIT_PROGRAMS": Limit.PROGRAMS,
        "MZN_LIMIT_READERS": Limit.READERS,
        "MZN_LIMIT_EVENT_BYTES": Limit.EVENT_BYTES,
        "MZN_LIMIT_EVENT_BUDGET": Limit.EVENT_BUDGET,
        "MZN_LIMIT_DROPS": Limit.DROPS,
        "MZN_LIMIT_FIRST_DROP": Limit.FIRST_DROP,
    },
    "mzn_program": {
        "MZN_PROGRAM_AGENT": Program.AGENT,
        "MZN_PROGRAM_GUARD": Program.GUARD,
        "MZN_PROGRAM_SWITCH": Program.SWITCH,
        "MZN_PROGRAM_SHORTCUT": Program.SHORTCUT,
    },
    "mzn_verdict": {
        "MZN_PASS_ENCAPSULATED": Verdict.ENCAPSULATED,
        "MZN_PASS_DELIVERED_LOCALLY": Verdict.DELIVERED_LOCALLY,
        "MZN_PASS_NEIGHBOUR_ANSWERED": Verdict.NEIGHBOUR_ANSWERED,
        "MZN_PASS_GATEWAY_ANSWERED": Verdict.GATEWAY_ANSWERED,
        "MZN_PASS_BOUNCE_ADMITTED": Verdict.BOUNCE_ADMITTED,
        "MZN_PASS_ACCEPTED": Verdict.ACCEPTED,
        "MZN_PASS_ACCEPTED_LOCALLY": Verdict.ACCEPTED_LOCALLY,
        "MZN_PASS_BOUNCED": Verdict.BOUNCED,
        "MZN_PASS_PASSED": Verdict.PASSED,
        "MZN_PASS_PASSED_NO_NEIGHBOUR": Verdict.PASSED_NO_NEIGHBOUR,
        "MZN_PASS_PASSED_FORWARDING_OFF": Verdict.PASSED_FORWARDING_OFF,
        "MZN_PASS_PASSED_OTHER_INTERFACE": Verdict.PASSED_OTHER_INTERFACE,
        "MZN_PASS_PASSED_CHECKSUM": Verdict.PASSED_CHECKSUM,
        "MZN_PASS_PASSED_NO_ROUTE": Verdict.PASSED_NO_ROUTE,
        "MZN_PASS_COPIED": Verdict.COPIED,
        "MZN_PASS_OVERSIZED_ANSWERED": Verdict.OVERSIZED_ANSWERED,
        "MZN_DROP_TRUNCATED": Verdict.TRUNCATED,
        "MZN_DROP_VLAN_TAGGED": Verdict.VLAN_TAGGED,
        "MZN_DROP_UNKNOWN_ETHERTYPE": Verdict.UNKNOWN_ETHERTYPE,
        "MZN_DROP_BAD_IPV4": Verdict.BAD_IPV4,
        "MZN_DROP_BAD_IPV6": Verdict.BAD_IPV6,
        "MZN_DROP_BAD_ARP": Verdict.BAD_ARP,
        "MZN_DROP_TUNNEL_OWN": Verdict.TUNNEL_OWN,
        "MZN_DROP_UNKNOWN_SENDER": Verdict.UNKNOWN_SENDER,
        "MZN_DROP_FOREIGN_DEVICE": Verdict.FOREIGN_DEVICE,
        "MZN_DROP_FOREIGN_SOCKET": Verdict.FOREIGN_SOCKET,
        "MZN_DROP_REFLECTED": Verdict.REFLECTED,
        "MZN_DROP_NO_ORIGIN": Verdict.NO_ORIGIN,
        "MZN_DROP_FOREIGN_SOURCE": Verdict.FOREIGN_SOURCE,
        "MZN_DROP_ARP_SPOOFED": Verdict.ARP_SPOOFED,
        "MZN_DROP_OWN_ADDRESS_ASKED": Verdict.OWN_ADDRESS_ASKED,
        "MZN_DROP_NEIGHBOUR_UNKNOWN": Verdict.NEIGHBOUR_UNKNOWN,
        "MZN_DROP_MULTICAST": Verdict.MULTICAST,
        "MZN_DROP_NO_DESTINATION": Verdict.NO_DESTINATION,
        "MZN_DROP_HAIRPIN": Verdict.HAIRPIN,
        "MZN_DROP_HOP_LIMIT": Verdict.HOP_LIMIT,
        "MZN_DROP_NO_SWITCH": Verdict.NO_SWITCH,
        "MZN_DROP_TUNNEL_KEY_REFUSED": Verdict.TUNNEL_KEY_REFUSED,
        "MZN_DROP_NO_TUNNEL_KEY": Verdict.NO_TUNNEL_KEY,
        "MZN_DROP_FOREIGN_PEER": Verdict.FOREIGN_PEER,
        "MZN_DROP_FOREIGN_LOCAL": Verdict.FOREIGN_LOCAL,
        "MZN_DROP_TUNNEL_MAC": Verdict.TUNNEL_MAC,
        "MZN_DROP_SOURCE_IS_LOCAL": Verdict.SOURCE_IS_LOCAL,
        "MZN_DROP_UNREADABLE": Verdict.UNREADABLE,
        "MZN_DROP_BAD_ND": Verdict.BAD_ND,
        "MZN_DROP_ND_SPOOFED": Verdict.ND_SPOOFED,
        "MZN_DROP_EXTENSION_HEADERS": Verdict.EXTENSION_HEADERS,
        "MZN_DROP_OUTER_HOP_LIMIT": Verdict.OUTER_HOP_LIMIT,
        "MZN_DROP_GENEVE_OPTIONS": Verdict.GENEVE_OPTIONS,
        "MZN_DROP_OVERSIZED": Verdict.OVERSIZED,
        "MZN_DROP_BAD_OFFLOAD": Verdict.BAD_OFFLOAD,
        "MZN_DROP_BOUNCED_BACK": Verdict.BOUNCED_BACK,
        "MZN_DROP_NO_NEXT_HOP": Verdict.NO_NEXT_HOP,
    },
    "mzn_place": {
        "MZN_PLACE_LOCAL": Place.LOCAL,
        "MZN_PLACE_REMOTE": Place.REMOTE,
    },
    "mzn_sender_flag": {
        "MZN_FLAG_FORWARDING": SenderFlag.FORWARDING,
        "MZN_FLAG_TRUSTED_NETNS": SenderFlag.TRUSTED_NETNS,
        "MZN_FLAG_PRIVATE_NETNS": SenderFlag.PRIVATE_NETNS,
        "MZN_FLAG_ROUTE_IF_NONE": SenderFlag.ROUTE_IF_NONE,
        "MZN_FLAG_ROUTE_NEVER": SenderFlag.ROUTE_NEVER,
        "MZN_FLAG_ROUTED_IPV4": SenderFlag.ROUTED_IPV4,
        "MZN_FLAG_ROUTED_IPV6": SenderFlag.ROUTED_IPV6,
        "MZN_FLAG_MORE_ADDRESSES": SenderFlag.MORE_ADDRESSES,
        "MZN_FLAG_OWN_MTU": SenderFlag.OWN_MTU,
        "MZN_FLAG_TAP": SenderFlag.TAP,
    },
    "mzn_kind": {
        "MZN_KIND_MACVLAN": KindNumber.MACVLAN,
        "MZN_KIND_MACVTAP": KindNumber.MACVTAP,
    },
    "mzn_state": {
        "MZN_STATE_MAKING": State.MAKING,
        "MZN_STATE_LIVE": State.LIVE,
        "MZN_STATE_DELETING": State.DELETING,
    },
    "mzn_item_kind": {
        "MZN_ITEM_ADDRESS": ItemKind.ADDRESS,
        "MZN_ITEM_ROUTE": ItemKind.ROUTE,
    },
    "mzn_encap": {
        "MZN_ENCAP_VXLAN": EncapNumber.VXLAN,
        "MZN_ENCAP_GENEVE": EncapNumber.GENEVE,
    },
    "mzn_switch_flag": {
        "MZN_SWITCH_GENERIC_XDP": SwitchFlag.GENERIC_XDP,
        "MZN_SWITCH_SET_FORWARDING_IPV4": SwitchFlag.SET_FORWARDING_IPV4,
        "MZN_SWITCH_SET_FORWARDING_IPV6": SwitchFlag.SET_FORWARDING_IPV6,
        "MZN_SWITCH_SET_ACCEPT_RA": SwitchFlag.SET_ACCEPT_RA,
    },
    "mzn_shortcut": {
        "MZN_SHORTCUT_OFF": ShortcutNumber.OFF,
        "MZN_SHORTCUT_AUTO": ShortcutNumber.AUTO,
    },
    "mzn_layer": {
        "MZN_LAYER_TCX": Layer.TCX,
        "MZN_LAYER_CLSACT": Layer.CLSACT,
    },
    "mzn_wish": {
        "MZN_WISH_DROPS": Wish.DROPS,
        "MZN_WISH_PASSES": Wish.PASSES,
    },
    "mzn_event_flag": {
        "MZN_EVENT_CLAIMED": EventFlag.CLAIMED,
    },
}
"""The members of each C enumeration under their C names."""
