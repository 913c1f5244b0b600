# SPDX-License-Identifier: Apache-2.0
"""A state of the model as the constants and tables that the programs read."""

from __future__ import annotations

from typing import Any

from mizarnet import numbers
from mizarnet.abi import records
from mizarnet.numbers import EncapNumber, InterfaceFlag, Limit, SwitchFlag
from tests.model.state import Config, Elsewhere, Interface, Ip, Local, Network, Place, Prefix, State

_NETWORK_BITS = 8 * (records.NETWORK_KEY.offset("ip.words") - records.NETWORK_KEY.offset("vni"))
_PEER_BITS = 8 * records.PEER_KEY.offset("ip.words") - 8 * records.PEER_KEY.offset("ip.family")


def words(ip: Ip) -> bytes:
    """Sixteen bytes, IPv4 mapped."""
    return bytes(10) + b"\xff\xff" + ip if len(ip) == 4 else ip


def _ip(ip: Ip | None) -> tuple[int, bytes]:
    return (0, bytes(16)) if ip is None else (4 if len(ip) == 4 else 6, words(ip))


def _bits(prefix: Prefix) -> int:
    ip, length = prefix
    return length + (96 if len(ip) == 4 else 0)


def pack_config(config: Config) -> bytes:
    """``mzn_config``."""
    return records.CONFIG.pack(
        config.mark_local, config.mark_bounced, config.token_bounced, *_ip(config.local), config.virtual_mac,
        config.tunnel_mac,
        EncapNumber[config.encap.upper()], config.port, config.mtu,
    )  # fmt: skip


def pack_interface(interface: Interface) -> bytes:
    """``mzn_interface``."""
    own: list[Any] = []
    for ip, length in interface.addresses:
        own += [*_ip(ip), length]
    own += [0, bytes(16), 0] * (Limit.ADDRESSES - len(interface.addresses))
    gateways: list[Any] = []
    for index in range(Limit.ADDRESSES):
        gateways += _ip(interface.gateways[index] if index < len(interface.gateways) else None)
    flags = InterfaceFlag.FORWARDING if interface.forwarding else 0
    return records.INTERFACE.pack(
        interface.netns_cookie, interface.ifindex, interface.vni, interface.number, flags, *own, *gateways,
        bytes(16),
    )  # fmt: skip


def pack_endpoint(place: Place) -> bytes:
    """``mzn_endpoint``."""
    if isinstance(place, Elsewhere):
        return records.ENDPOINT.pack(place.place, place.number, place.mac, words(place.host))
    if isinstance(place, Local):
        return records.ENDPOINT.pack(numbers.Place.LOCAL, place.number, place.mac, bytes(16))
    return records.ENDPOINT.pack(numbers.Place.REMOTE, 0, bytes(6), words(place.host))


def pack_network(network: Network) -> bytes:
    """``mzn_network``."""
    switches = b"".join(map(words, network.switches))
    return records.NETWORK.pack(*_ip(network.gateway), len(network.switches), switches)


def tables(state: State) -> dict[str, dict[bytes, bytes]]:
    """What stands in each map, packed."""
    return {
        "interfaces": {
            records.MAC.pack(mac): pack_interface(known) for mac, known in state.interfaces.items()
        },
        "endpoints": {
            records.ENDPOINT_KEY.pack(vni, *_ip(ip)): pack_endpoint(place)
            for (vni, ip), place in state.endpoints.items()
        },
        "networks": {
            records.NETWORK_KEY.pack(_NETWORK_BITS + _bits(prefix), vni, *_ip(prefix[0])): pack_network(known)
            for (vni, prefix), known in state.networks.items()
        },
        "peers": {
            records.PEER_KEY.pack(_PEER_BITS + _bits(prefix), *_ip(prefix[0])): bytes(4)
            for prefix in state.peers
        },
    }


def pack_meta(state: State) -> bytes:
    """``mzn_meta``, of which the programs read how the transit switch is attached."""
    values: dict[str, Any] = {
        "schema": Limit.SCHEMA,
        "local.words": bytes(16),
        "tunnel": b"",
        "underlay": b"",
        "switch_flags": SwitchFlag.GENERIC_XDP if state.generic else 0,
    }
    return records.META.pack(*(values.get(leaf.path, 0) for leaf in records.META.leaves()))
