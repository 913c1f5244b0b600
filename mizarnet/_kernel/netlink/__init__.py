# SPDX-License-Identifier: Apache-2.0
"""Links, addresses, routes and network namespaces, over rtnetlink.

Everything happens inside a `Session`: a thread that lives in one network namespace.
"""

from __future__ import annotations

from mizarnet._kernel.netlink.addresses import (
    Address,
    add_address,
    delete_address,
    list_addresses,
    primary_address,
    wait_for_address,
)
from mizarnet._kernel.netlink.advertised import advertised_links
from mizarnet._kernel.netlink.chains import HOOKS, Chain, Expression, list_chains
from mizarnet._kernel.netlink.create import (
    UNNAMED,
    create_bridge,
    create_macvlan,
    create_tunnel,
    create_veth,
    silence,
)
from mizarnet._kernel.netlink.ethtool import has_gro
from mizarnet._kernel.netlink.group import delete_links
from mizarnet._kernel.netlink.link import IFINDEXES, Link
from mizarnet._kernel.netlink.links import (
    LOOPBACK_IFINDEX,
    SAME_NAMESPACE,
    delete_link,
    delete_root_qdisc,
    dump_links,
    get_link,
    read_links,
    read_statistics,
    set_link,
    set_macvlan_mode,
)
from mizarnet._kernel.netlink.macvtap import VNET_HEADER_BYTES, macvtap_holders, open_macvtap
from mizarnet._kernel.netlink.named import (
    anonymous_netns,
    create_netns,
    delete_netns,
    delete_unmounted,
    list_netns,
    read_unmounted,
)
from mizarnet._kernel.netlink.neighbours import (
    Neighbour,
    NeighbourTable,
    ask_again,
    list_neighbours,
    neighbour_tables,
)
from mizarnet._kernel.netlink.netns import (
    Netns,
    NetnsHandle,
    identity_of,
    is_current,
    netns_path,
    owner_is_initial,
    resolve,
)
from mizarnet._kernel.netlink.nsid import nsid_of, own_nsid, upper_links
from mizarnet._kernel.netlink.routes import (
    DEFAULTS,
    Route,
    Way,
    add_route,
    delete_route,
    is_broadcast,
    list_routes,
    look_up_ways,
    on_link_prefixes,
    routed_prefixes,
)
from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.netlink.side_by_side import side_by_side
from mizarnet._kernel.netlink.sockets import waiting_ports, waiting_sockets
from mizarnet._kernel.netlink.sysctl import read_sysctl, write_sysctl
from mizarnet._kernel.netlink.xfrm import count_policies, has_incoming_policies

__all__ = [
    "DEFAULTS",
    "HOOKS",
    "IFINDEXES",
    "LOOPBACK_IFINDEX",
    "SAME_NAMESPACE",
    "UNNAMED",
    "VNET_HEADER_BYTES",
    "Address",
    "Chain",
    "Expression",
    "Link",
    "Neighbour",
    "NeighbourTable",
    "Netns",
    "NetnsHandle",
    "Route",
    "Session",
    "Way",
    "add_address",
    "add_route",
    "advertised_links",
    "anonymous_netns",
    "ask_again",
    "count_policies",
    "create_bridge",
    "create_macvlan",
    "create_netns",
    "create_tunnel",
    "create_veth",
    "delete_address",
    "delete_link",
    "delete_links",
    "delete_netns",
    "delete_root_qdisc",
    "delete_route",
    "delete_unmounted",
    "dump_links",
    "get_link",
    "has_gro",
    "has_incoming_policies",
    "identity_of",
    "is_broadcast",
    "is_current",
    "list_addresses",
    "list_chains",
    "list_neighbours",
    "list_netns",
    "list_routes",
    "look_up_ways",
    "macvtap_holders",
    "neighbour_tables",
    "netns_path",
    "nsid_of",
    "on_link_prefixes",
    "open_macvtap",
    "own_nsid",
    "owner_is_initial",
    "primary_address",
    "read_links",
    "read_statistics",
    "read_sysctl",
    "read_unmounted",
    "resolve",
    "routed_prefixes",
    "set_link",
    "set_macvlan_mode",
    "side_by_side",
    "silence",
    "upper_links",
    "wait_for_address",
    "waiting_ports",
    "waiting_sockets",
    "write_sysctl",
]
