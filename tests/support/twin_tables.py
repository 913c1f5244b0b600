# SPDX-License-Identifier: Apache-2.0
"""A state of the model as the constants and tables that the programs read."""

from __future__ import annotations

from ipaddress import ip_address

import attrs

from mizarnet import Encap, MacAddress
from mizarnet._model import codec, enumerations, layouts
from mizarnet._model.enumerations import Limit, SenderFlag, SwitchFlag
from tests.model.state import Config, Elsewhere, Ip, Local, Network, Place, Prefix, SenderRecord, State
from tests.support import filled

_NETWORK_BITS = 8 * (layouts.NETWORK_KEY.offset("ip.words") - layouts.NETWORK_KEY.offset("vni"))
_PEER_BITS = 8 * (layouts.PEER_KEY.offset("ip.words") - layouts.PEER_KEY.offset("ip.family"))
_NO_IP = layouts.Ip(0, bytes(16))
_NO_ADDRESS = layouts.OwnAddress(_NO_IP, 0)


def words(ip: Ip) -> bytes:
    """Sixteen bytes, IPv4 mapped."""
    return bytes(10) + b"\xff\xff" + ip if len(ip) == 4 else ip


def _ip(ip: Ip | None) -> layouts.Ip:
    return _NO_IP if ip is None else layouts.Ip(4 if len(ip) == 4 else 6, words(ip))


def _bits(prefix: Prefix) -> int:
    ip, length = prefix
    return length + (96 if len(ip) == 4 else 0)


def pack_config(config: Config) -> bytes:
    """``mzn_config``: the members that the library and the model both have, under one name."""
    known = {field.name: getattr(config, field.name) for field in attrs.fields(Config)}
    del known["route_identity"]  # that is another object
    known |= {"encap": Encap(config.encap), "local": ip_address(config.local)}
    macs = {name: MacAddress(known[name]) for name in ("tunnel_mac", "virtual_mac")}
    return filled.config(**known | macs).pack()


def pack_sender(sender: SenderRecord) -> bytes:
    """``mzn_sender``: the members that it and the model both have go under one name."""
    known = {name: getattr(sender, name) for name in layouts.Sender._fields if hasattr(sender, name)}
    own = [layouts.OwnAddress(_ip(ip), length) for ip, length in sender.addresses]
    known["slot"] = sender.number
    known["flags"] = _flags(sender)
    known["addresses"] = (*own, *[_NO_ADDRESS] * (Limit.ADDRESSES - len(own)))
    known["gateways"] = (*map(_ip, sender.gateways), *[_NO_IP] * (Limit.ADDRESSES - len(sender.gateways)))
    return layouts.Sender(**known, group=0, record=bytes(16)).pack()


def _flags(sender: SenderRecord) -> int:
    forwarding = SenderFlag.FORWARDING if sender.forwarding else 0
    return forwarding | (SenderFlag.MORE_ADDRESSES if sender.more else 0)


def pack_endpoint(place: Place) -> bytes:
    """``mzn_endpoint``."""
    if isinstance(place, Elsewhere):
        flags = SenderFlag.FORWARDING
        return layouts.Endpoint(
            place.place, place.number, place.mac, words(place.host), 0, 0, flags, 0
        ).pack()
    if isinstance(place, Local):
        flags = SenderFlag.FORWARDING if place.forwarding else 0
        flags |= SenderFlag.TAP if place.tap else 0
        local, length = enumerations.Place.LOCAL, place.prefix_length
        return layouts.Endpoint(local, place.number, place.mac, bytes(16), 0, 0, flags, length).pack()
    return layouts.Endpoint(enumerations.Place.REMOTE, 0, bytes(6), words(place.host), 0, 0, 0, 0).pack()


def _entry(vni: int, prefix: Prefix, network: Network) -> tuple[bytes, bytes]:
    length, switches = _NETWORK_BITS + _bits(prefix), b"".join(map(words, network.switches))
    count = len(network.switches)
    value = layouts.Network(length, _ip(network.gateway), _ip(network.via), count, switches, 0)
    return layouts.NetworkKey(length, vni, _ip(prefix[0])).pack(), value.pack()


def _router(vni: int, host: Ip, vias: tuple[Ip, ...]) -> tuple[bytes, bytes]:
    named = (*map(_ip, vias), *[_NO_IP] * (Limit.WITNESSES - len(vias)))
    return layouts.RouterKey(vni, words(host)).pack(), layouts.Router(len(vias), named).pack()


def _peer(prefix: Prefix) -> tuple[bytes, bytes]:
    length = _PEER_BITS + _bits(prefix)
    return layouts.PeerKey(length, _ip(prefix[0])).pack(), layouts.Peer(length, 0).pack()


def tables(state: State) -> dict[str, dict[bytes, bytes]]:
    """What stands in each map, packed."""
    return {
        "senders": {layouts.MAC.pack(mac): pack_sender(known) for mac, known in state.senders.items()},
        "endpoints": {
            layouts.EndpointKey(vni, _ip(ip)).pack(): pack_endpoint(place)
            for (vni, ip), place in state.endpoints.items()
        },
        "networks": dict(_entry(vni, prefix, known) for (vni, prefix), known in state.networks.items()),
        "routers": dict(_router(vni, host, vias) for (vni, host), vias in state.routers.items()),
        "peers": dict(map(_peer, state.peers)),
    }


def pack_switching(state: State) -> bytes:
    """``mzn_switching``, of which the programs read how the transit switch is attached."""
    return codec.Switching(
        ifindex=1, flags=SwitchFlag.GENERIC_XDP if state.generic else 0, generation=1
    ).pack()
