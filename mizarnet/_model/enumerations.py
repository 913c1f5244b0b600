# SPDX-License-Identifier: Apache-2.0
# Generated from csrc/include/mizarnet/abi.h by tools/gen_abi.py; do not edit.
"""The numbers that BPF programs and Python share."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class Limit:
    """Sizes and bounds that programs and user space share."""

    SCHEMA: Final = 1
    """Version of the layouts in this file."""
    VNI_MAX: Final = 0xFFFFFF
    """Highest VNI; zero is not one."""
    ADDRESSES: Final = 2
    """Own addresses of a sender: one IPv4 and one IPv6."""
    SWITCHES: Final = 16
    """Transit switches of a network."""
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
    PROGRAMS: Final = 3
    """Programs that count verdicts."""
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
    """Guard: decapsulated frame given to a local endpoint."""
    ACCEPTED_LOCALLY = 6
    """Guard: the agent's own frame given to a local endpoint."""
    BOUNCED = 7
    """Guard, switch: sent on to the host that has the endpoint."""
    PASSED = 8
    """Switch: not its business, left to the kernel."""
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
    """Longer than the tunnel's MTU, and not to be segmented."""
    BAD_OFFLOAD = 98
    """A checksum left to the device would change headers that were checked."""

    @property
    def dropped(self) -> bool:
        """Whether the frame ended here."""
        return self >= Limit.FIRST_DROP


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


class Layer(enum.IntEnum):
    """Where agent and guard stand on the tunnel, as recorded."""

    TCX = 1
    """Agent and guard stand on tcx."""
    CLSACT = 2
    """They stand as filters of a clsact."""


ENUMERATIONS: Final[Mapping[str, Mapping[str, int]]] = {
    "mzn_limit": {
        "MZN_LIMIT_SCHEMA": Limit.SCHEMA,
        "MZN_LIMIT_VNI_MAX": Limit.VNI_MAX,
        "MZN_LIMIT_ADDRESSES": Limit.ADDRESSES,
        "MZN_LIMIT_SWITCHES": Limit.SWITCHES,
        "MZN_LIMIT_NAME_BYTES": Limit.NAME_BYTES,
        "MZN_LIMIT_PATH_BYTES": Limit.PATH_BYTES,
        "MZN_LIMIT_DEVICE_BYTES": Limit.DEVICE_BYTES,
        "MZN_LIMIT_LABEL_BYTES": Limit.LABEL_BYTES,
        "MZN_LIMIT_FEEDS": Limit.FEEDS,
        "MZN_LIMIT_FEED_BYTES": Limit.FEED_BYTES,
        "MZN_LIMIT_GROUPS": Limit.GROUPS,
        "MZN_LIMIT_VERDICTS": Limit.VERDICTS,
        "MZN_LIMIT_PROGRAMS": Limit.PROGRAMS,
        "MZN_LIMIT_FIRST_DROP": Limit.FIRST_DROP,
    },
    "mzn_program": {
        "MZN_PROGRAM_AGENT": Program.AGENT,
        "MZN_PROGRAM_GUARD": Program.GUARD,
        "MZN_PROGRAM_SWITCH": Program.SWITCH,
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
    "mzn_layer": {
        "MZN_LAYER_TCX": Layer.TCX,
        "MZN_LAYER_CLSACT": Layer.CLSACT,
    },
}
"""The members of each C enumeration under their C names."""
