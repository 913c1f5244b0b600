# SPDX-License-Identifier: Apache-2.0
"""A transit switch for single frames: a loaded program, a device with routes, and the packets of its tunnel.

The kernel's routes and neighbours answer the program's look-up, so a device with static neighbours stands in a
namespace of its own. The program is attached to it, because a test run on a device needs its receive queue.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_interface

import attrs

from mizarnet import MacAddress, Verdict
from mizarnet._kernel.bpf import XdpHook
from mizarnet._kernel.netlink import Session, add_address, create_veth, get_link, set_link, write_sysctl
from mizarnet._model.specs import XdpMode
from tests.frames import UDP, datagram, frame, geneve, is_sealed, packet, summed, udp, vxlan
from tests.model import Model
from tests.model.case import XDP_PASS, XDP_TX, Case, Outcome
from tests.model.state import State
from tests.support.namespace import Namespace
from tests.support.shipped import Ran, Shipped
from tests.support.switch_knowledge import (
    INNER,
    LOCAL,
    NEIGHBOURS,
    OWN,
    SENDER,
    SENT_FROM,
    THERE,
    TUNNELS,
    UNDERLAYS,
    VNI,
    Underlay,
    knowledge,
    ways,
)


def make_device(session: Session, name: str, addresses: list[str], device_mac: bytes | None = None) -> int:
    """A device that is up and forwards; its other end says nothing of its own accord."""
    made = create_veth(
        session, name, peer=f"{name}-far", mac=str(MacAddress(device_mac)) if device_mac else None
    )
    far = get_link(session, f"{name}-far")
    assert far is not None
    write_sysctl(session, f"ipv6/conf/{far.name}/disable_ipv6", "1")
    for address in addresses:
        add_address(session, made.ifindex, ip_interface(address), dad=False)
    set_forwarding(session, name, True)
    set_link(session, made.ifindex, up=True)
    set_link(session, far.ifindex, up=True)
    return made.ifindex


def set_forwarding(session: Session, name: str, on: bool) -> None:
    for version in (4, 6):
        write_sysctl(session, f"ipv{version}/conf/{name}/forwarding", str(int(on)))


def add_routes(namespace: Namespace, underlay: Underlay) -> None:
    """The hosts' MACs, the way to the gateway, and the way that is barred."""
    ip = ("ip", f"-{underlay.version}")
    ways = {underlay.host(number): ("eth0", address) for number, address in NEIGHBOURS.items()}
    for host, (device, address) in {**ways, underlay.elsewhere: ("eth1", SENDER)}.items():
        lladdr = str(MacAddress(address))
        namespace.run(*ip, "neigh", "replace", str(host), "lladdr", lladdr, "dev", device, "nud", "permanent")
    namespace.run(*ip, "route", "add", underlay.prefix(underlay.beyond), "via", str(underlay.host(2)))
    namespace.run(*ip, "route", "add", "prohibit", underlay.prefix(underlay.refused))


@attrs.frozen
class Stage:
    """A host's devices and routes, without a host."""

    session: Session
    ifindex: int


@contextmanager
def staged() -> Iterator[Stage]:
    """A namespace with the devices and routes, for as long as the block lasts."""
    namespace = Namespace(f"mzx-{os.getpid()}")
    try:
        with Session.open(namespace.name) as session:
            near = [f"{each.host(LOCAL)}/{24 if each.version == 4 else 64}" for each in UNDERLAYS]
            ifindex = make_device(session, "eth0", near, OWN)
            make_device(session, "eth1", ["198.51.100.1/24", "fd00:6e::1/64"])
            for underlay in UNDERLAYS:
                add_routes(namespace, underlay)
            yield Stage(session, ifindex)
    finally:
        namespace.delete()


@attrs.frozen(repr=False)
class Bench:
    """A loaded object with filled tables, and the packets of its tunnel."""

    stage: Stage
    shipped: Shipped
    state: State
    model: Model = attrs.field(
        init=False, default=attrs.Factory(lambda self: Model(self.state), takes_self=True)
    )

    @property
    def underlay(self) -> Underlay:
        """Its addresses."""
        return Underlay(4 if len(self.state.config.local) == 4 else 6)

    def run(self, frame: bytes) -> Ran:
        """Run the program on a frame; it must return what goes with its verdict."""
        context = struct.pack("6I", 0, len(frame), 0, self.stage.ifindex, 0, 0)  # struct xdp_md
        ran = self.stage.session.run(self.shipped.run, "switch", frame, context)
        assert ran.action == (XDP_TX if ran.verdict is Verdict.BOUNCED else XDP_PASS)
        return ran

    @contextmanager
    def on_generic_hook(self) -> Iterator[Bench]:
        """The same, while the host's record says that the program is on the generic hook."""
        generic = attrs.evolve(self.state, generic=True)
        self.shipped.switching(generic)
        yield attrs.evolve(self, state=generic)
        self.shipped.switching(self.state)

    def expected(self, frame: bytes) -> Outcome:
        """What the model says, if the kernel answers for the host that it asks about."""
        hops = ways(self.underlay)
        case = Case(program="switch", frame=frame, hop=next(iter(hops.values())))
        asked = self.model.judge(case).asked
        return self.model.judge(attrs.evolve(case, hop=hops[asked[1]]) if asked else case)

    def agree(self, frame: bytes, name: str = "") -> Ran:
        """Run a frame; program and model must agree about verdict and every byte."""
        ran, expected = self.run(frame), self.expected(frame)
        assert expected.frame is not None
        assert (ran.verdict, ran.frame.hex()) == (expected.verdict, expected.frame.hex()), name
        # The model changes checksums as the program does; a right one must also be right over the whole.
        assert ran.verdict != Verdict.BOUNCED or is_sealed(ran.frame[14:]) or not is_sealed(frame[14:])
        return ran

    def packet(
        self,
        to: str = THERE,
        *,
        payload: bytes = b"frame",
        vni: int = VNI,
        hops: int = 64,
        source_port: int = SENT_FROM,
        has_checksum: bool = False,
        options: bytes = b"",
    ) -> bytes:
        """A tunnel packet for an endpoint, in its outer Ethernet frame."""
        inner = datagram(
            INNER, "fd01::1" if ":" in to else "10.0.0.1", to, destination_mac=OWN, payload=payload
        )
        is_vxlan, port = self.state.config.encap == "vxlan", self.state.config.port
        body = udp(source_port, port, vxlan(vni, inner) if is_vxlan else geneve(vni, inner, options=options))
        source, local = str(self.underlay.host(3)), str(self.underlay.host(LOCAL))
        if has_checksum:
            body = summed(source, local, UDP, body)
        return frame(OWN, SENDER, packet(source, local, body, hops=hops))


@contextmanager
def benches(stage: Stage) -> Iterator[dict[str, Bench]]:
    """One for each tunnel; parsing needs none of the kernel's."""
    with ExitStack() as stack:
        made: dict[str, Bench] = {}
        for tunnel in TUNNELS:
            shipped = stack.enter_context(Shipped.load(knowledge(tunnel)))
            made[tunnel] = Bench(stage, shipped, shipped.state)
        # Any of them, so that the device has a receive queue for XDP.
        program = shipped.loaded.programs["mzn_switch"]
        hook = XdpHook(stage.ifindex)
        stage.session.run(hook.attach, program, mode=XdpMode.NATIVE)
        stack.callback(stage.session.run, hook.detach, program, mode=XdpMode.NATIVE)
        yield made
