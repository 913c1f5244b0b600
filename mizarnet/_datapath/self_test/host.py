# SPDX-License-Identifier: Apache-2.0
"""The hosts whose programs get the canned frames: constants, tables, and the addresses in them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Final

import attrs

from mizarnet._datapath.maps import Maps
from mizarnet._model import codec
from mizarnet._model.arguments import IPAddress, IPNetwork
from mizarnet._model.codec import Config, Record
from mizarnet._model.specs import (
    VIRTUAL_MAC,
    Encap,
    EndpointKey,
    EndpointSpec,
    Local,
    MacAddress,
    Network,
    NetworkKey,
    Remote,
)

VNI, OTHER_VNI = 7, 8
MTU = 1450
TUNNEL_MAC, WEB_MAC, DB_MAC, REMOTE_MAC, NOBODYS_MAC = (
    MacAddress.parse(f"02:00:00:00:00:{number:02x}") for number in range(1, 6)
)
IFINDEX = 4  # index of each endpoint's device, in the endpoint's namespace
WEB_COOKIE, DB_COOKIE = 101, 102
WEB_NUMBER, DB_NUMBER = 1, 2
MARK_LOCAL, MARK_BOUNCED, TOKEN = 0x80000001, 0x80000002, b"canned token"


@attrs.frozen(kw_only=True)
class Addresses:
    """Addresses of one family in VNI 7.

    Attributes:
        web: Address of an endpoint of this host, which sends.
        further: A further address of the same endpoint.
        db: Address of another endpoint of this host.
        remote: Address of an endpoint of another host.
        switched: Address in a network with a transit switch, without an entry in ``endpoints``.
        others: Address of an endpoint in the other VNI only.
        gateway: Address of the gateway of both endpoints of this host.
        outside: Address in no network.
    """

    web: IPAddress = attrs.field(converter=ip_address)
    further: IPAddress = attrs.field(converter=ip_address)
    db: IPAddress = attrs.field(converter=ip_address)
    remote: IPAddress = attrs.field(converter=ip_address)
    switched: IPAddress = attrs.field(converter=ip_address)
    others: IPAddress = attrs.field(converter=ip_address)
    gateway: IPAddress = attrs.field(converter=ip_address)
    outside: IPAddress = attrs.field(converter=ip_address)


IPV4 = Addresses(
    web="10.0.0.1",
    further="10.0.0.11",
    db="10.0.0.2",
    remote="10.0.0.3",
    switched="10.1.0.9",
    others="10.0.0.9",
    gateway="10.0.0.254",
    outside="10.2.0.1",
)
IPV6 = Addresses(
    web="fd00::1",
    further="fd00::11",
    db="fd00::2",
    remote="fd00::3",
    switched="fd00:0:0:1::9",
    others="fd00::9",
    gateway="fd00::fe",
    outside="fd00:0:0:2::1",
)
_ON_LINK = {4: 24, 6: 64}
_SWITCHED = tuple(map(ip_network, ("10.1.0.0/16", "fd00:0:0:1::/64")))


@attrs.frozen(kw_only=True)
class Host:
    """A host with a tunnel.

    Attributes:
        encap: Encapsulation of the tunnel.
        port: UDP port of the tunnel.
        local: Underlay address of this host.
        second: Underlay address of the remote endpoint's host.
        third: Underlay address of the network's transit switch, which is a peer too.
        stranger: Underlay address of a host that is no peer.
        peers: Underlay prefix of the peers.
    """

    encap: Encap
    port: int
    local: IPAddress = attrs.field(converter=ip_address)
    second: IPAddress = attrs.field(converter=ip_address)
    third: IPAddress = attrs.field(converter=ip_address)
    stranger: IPAddress = attrs.field(converter=ip_address)
    peers: IPNetwork = attrs.field(converter=ip_network)

    @property
    def name(self) -> str:
        """Name of the host's tunnel, such as ``"vxlan over IPv4"``."""
        return f"{self.encap.value} over IPv{self.local.version}"

    @property
    def config(self) -> Config:
        """Constants of the host's programs."""
        return Config(
            mark_local=MARK_LOCAL,
            mark_bounced=MARK_BOUNCED,
            token_bounced=TOKEN,
            local=self.local,
            virtual_mac=VIRTUAL_MAC,
            tunnel_mac=TUNNEL_MAC,
            encap=self.encap,
            port=self.port,
            mtu=MTU,
        )

    def fill(self, maps: Maps) -> None:
        """Write the host's tables."""
        for record in (_WEB, _DB):
            maps.senders.update(codec.mac_key(record.mac), record.pack_sender())
        for key, place in self._endpoints().items():
            maps.endpoints.update(codec.pack_endpoint_key(key), codec.pack_endpoint(place))
        switched = Network(switches=[self.third])
        for network in (NetworkKey(VNI, prefix) for prefix in _SWITCHED):
            maps.networks.update(codec.pack_network_key(network), codec.pack_network(network, switched))
        maps.peers.update(codec.pack_peer_key(self.peers), codec.pack_peer(self.peers))

    def _endpoints(self) -> dict[EndpointKey, Local | Remote]:
        found: dict[EndpointKey, Local | Remote] = {}
        for inner in (IPV4, IPV6):
            for own in (inner.web, inner.further):
                found[EndpointKey(VNI, own)] = Local(WEB_MAC, WEB_NUMBER)
            found[EndpointKey(VNI, inner.db)] = Local(DB_MAC, DB_NUMBER)
            found[EndpointKey(VNI, inner.remote)] = Remote(self.second)
            found[EndpointKey(OTHER_VNI, inner.others)] = Remote(self.second)
        return found


def _record(mac: MacAddress, own: tuple[IPAddress, ...], number: int, cookie: int) -> Record:
    addresses = [f"{ip}/{_ON_LINK[ip.version]}" for ip in own]
    return Record(
        spec=EndpointSpec(vni=VNI, ip=addresses, mac=mac, gateway=[IPV4.gateway, IPV6.gateway]),
        instance=0,
        slot=number,
        ifindex=IFINDEX,
        netns_cookie=cookie,
        netns_id=(0, 0),
        nsid=0,
    )


_WEB = _record(WEB_MAC, (IPV4.web, IPV6.web, IPV4.further, IPV6.further), WEB_NUMBER, WEB_COOKIE)
_DB = _record(DB_MAC, (IPV4.db, IPV6.db), DB_NUMBER, DB_COOKIE)

HOSTS: Final = (
    Host(
        encap=Encap.VXLAN,
        port=4789,
        local="192.0.2.1",
        second="192.0.2.2",
        third="192.0.2.3",
        stranger="198.51.100.1",
        peers="192.0.2.0/24",
    ),
    Host(
        encap=Encap.GENEVE,
        port=6081,
        local="2001:db8::1",
        second="2001:db8::2",
        third="2001:db8::3",
        stranger="2001:db8:1::1",
        peers="2001:db8::/64",
    ),
)
"""Two hosts, which together have both encapsulations and both address families of the underlay."""
