# SPDX-License-Identifier: Apache-2.0
"""Frames by the byte, made and read without the library.

Each function makes one header around what is given to it, so a frame reads from the inside out; `datagram` makes the
one that most tests want. All of them are right by default, checksums and lengths too. To make a frame wrong, say so
where there is a keyword for it, or put other bytes in with `patched`. Addresses are text, MACs are bytes.
"""

from tests.frames.internet import (
    DESTINATION_OPTIONS,
    FRAGMENT,
    HEADER_BYTES,
    HOP_BY_HOP,
    ICMP,
    ICMPV6,
    ROUTING,
    TCP,
    UDP,
    Header,
    checksum,
    extension,
    fragment,
    ip,
    ipv4,
    ipv6,
    link_local,
    packet,
    pseudo_header,
    pseudo_sum,
)
from tests.frames.link import (
    BROADCAST,
    TYPE_ARP,
    TYPE_IPV4,
    TYPE_IPV6,
    VIRTUAL,
    arp,
    ethernet,
    frame,
    mac,
    patched,
    tagged,
    u16,
)
from tests.frames.neighbours import (
    ADVERTISEMENT,
    REDIRECT,
    ROUTER_ADVERTISEMENT,
    SOLICITATION,
    SOURCE_MAC,
    TARGET_MAC,
    link_option,
    neighbour,
)
from tests.frames.tunnel import (
    GENEVE_PORT,
    PORTS,
    VXLAN_PORT,
    Outer,
    geneve,
    geneve_option,
    is_sealed,
    seal,
    tunnel,
    vxlan,
)
from tests.frames.upper import (
    ACK,
    FIN,
    SYN,
    checksums_hold,
    datagram,
    echo_request,
    icmp,
    icmpv6,
    sum_of_message,
    summed,
    tcp,
    udp,
)
