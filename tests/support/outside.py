# SPDX-License-Identifier: Apache-2.0
"""Hosts of which the first leads VNIs out, and the outside: the third, which has addresses of the wide world.

Each VNI has the same addresses: a tenant on the first host and one on the second, and a gateway on the first.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import pytest

import mizarnet as mz
from mizarnet._kernel.netlink import LOOPBACK_IFINDEX, Session, get_link, list_netns
from tests.support.namespace import Namespace
from tests.support.router import add_address
from tests.world import UNDERLAY, Container, EncapName, Host, Subnet, World

WORLD = {4: "203.0.113.9", 6: "2001:db8::9"}
"""Addresses of the outside, behind the third host's own."""
VNIS = (7, 8)
SUBNETS = tuple(Subnet(vni, 1) for vni in VNIS)
_NETLINK_NETFILTER = 12
_OWN = "fd00:ee::{}/64"


def host_address(host: Host, version: int) -> str:
    """An address of a host on the underlay."""
    return host.address if version == 4 else _OWN.format(host.address.rpartition(".")[2]).partition("/")[0]


def need_nftables() -> None:
    """Skip where the kernel has no nftables; where it has, the command must be there."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER).close()
    except OSError:
        pytest.skip("this kernel has no nftables")
    assert shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin"), "apt-get install nftables"


def private_spaces(host: Namespace) -> list[str]:
    """Names of the namespaces that were made for endpoints and gateways of a host."""
    found: list[str] = []
    with Session.open(host.name) as session:
        mark = f"mizarnet host={session.cookie:x} "
    for name in list_netns("mizarnet-"):
        with suppress(mz.NetnsNotFoundError), Session.open(name) as session:
            loopback = get_link(session, ifindex=LOOPBACK_IFINDEX)
            if loopback is not None and loopback.alias.startswith(mark):
                found.append(name)
    return found


def findings(host: mz.Host) -> list[mz.Finding]:
    """What a check says of a host, but for the machine's table of neighbours, which all who use it fill."""
    return [each for each in host.check() if each.kind is not mz.FindingKind.NEIGHBOURS_FULL]


@attrs.frozen
class Outside:
    """A world with a way out.

    Attributes:
        world: The three hosts.
        tenants: Of each VNI, one on the first host and one on the second.
    """

    world: World
    tenants: dict[int, tuple[Container, Container]]

    @property
    def host(self) -> Host:
        """The host that leads out."""
        return self.world.hosts[0]

    @property
    def peer(self) -> Host:
        """Another host, with tenants."""
        return self.world.hosts[1]

    @property
    def space(self) -> Namespace:
        """The outside, which is a host, too."""
        return self.world.hosts[2].namespace

    @property
    def all_tenants(self) -> list[Container]:
        """All of them."""
        return [each for both in self.tenants.values() for each in both]

    def gateway(self, vni: int, **more: object) -> mz.Gateway:
        """The gateway of a VNI, of both families, which the second host knows of, too."""
        net = SUBNETS[VNIS.index(vni)]
        arguments = {"vni": vni, "egress": UNDERLAY, "ip": net.interfaces(2), **more}
        made = mz.Gateway.create(self.host.agent, **arguments)  # type: ignore[arg-type]
        agent = self.peer.agent
        agent.endpoints.update({(vni, each.ip): mz.Remote(self.host.address) for each in made.ip})
        agent.networks.update(
            {(vni, ("0.0.0.0/0", "::/0")[each.version == 6]): mz.Network(via=each.ip) for each in made.ip}
        )
        return made


@contextmanager
def outside(encap: EncapName, vnis: Sequence[int] = VNIS, *, forwards: bool = True) -> Iterator[Outside]:
    """Three hosts, tenants of some VNIs, and no gateway yet.

    Args:
        encap: Encapsulation.
        vnis: VNIs of the tenants.
        forwards: Whether the first host forwards IPv6, where the kernel does so for whole hosts alone.
    """
    need_nftables()
    with World(encap, hosts=3) as world:
        for host in world.hosts:
            add_address(host.namespace, UNDERLAY, _OWN.format(host.address.rpartition(".")[2]))
        first, _, last = world.hosts
        for version, address in WORLD.items():
            add_address(last.namespace, "lo", f"{address}/{32 if version == 4 else 128}")
            via = host_address(last, version)
            first.namespace.run("ip", f"-{version}", "route", "add", "default", "via", via)
            # Servers that wait on every address answer from this one.
            back = host_address(first, version)
            last.namespace.run("ip", f"-{version}", "route", "add", back, "dev", UNDERLAY, "src", address)
        if forwards and not Path("/proc/sys/net/ipv6/conf/all/force_forwarding").exists():
            first.namespace.run("sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1")
        world.serve(last.namespace)
        tenants: dict[int, tuple[Container, Container]] = {}
        for vni in vnis:
            net = SUBNETS[VNIS.index(vni)]
            world.network(net, on=world.hosts[:2])
            tenants[vni] = (world.member(first, net, 5), world.member(world.hosts[1], net, 6))
        world.publish()
        yield Outside(world, tenants)
