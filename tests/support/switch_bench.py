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
from itertools import product
from pathlib import Path
from typing import Any

import attrs

import mizarnet
from mizarnet import Encap, MacAddress, Stats, Verdict
from mizarnet._datapath import loader
from mizarnet._kernel.bpf import Object, XdpHook
from mizarnet._kernel.netlink import (
    LOOPBACK_IFINDEX,
    Session,
    add_address,
    create_veth,
    get_link,
    set_link,
    write_sysctl,
)
from mizarnet._model.codec import FIRST
from mizarnet._model.specs import XdpMode
from mizarnet._model.stats import unpack_stats
from tests.frames import UDP, datagram, frame, geneve, ipv4, ipv6, is_sealed, summed, udp, vxlan
from tests.model import Model
from tests.model.case import XDP_PASS, XDP_TX, Case, Outcome
from tests.model.state import Config, State
from tests.support.namespace import Namespace
from tests.support.switch_knowledge import (
    INNER,
    LOCAL,
    NEIGHBOURS,
    OWN,
    SENDER,
    SENT_FROM,
    UNDERLAYS,
    VNI,
    Underlay,
    knowledge,
    ways,
)
from tests.support.twin_tables import pack_config, pack_switching, tables

OBJECT = Path(mizarnet.__file__).parent / "_objects" / "transit-mac-only.bpf.o"


def load(state: State) -> Object:
    """The shipped object with what the model knows in its maps."""
    loaded = loader.load(
        pack_config(state.config), mizarnet.Capacity(max_endpoints=64, max_local=4), path=OBJECT
    )
    for name, entries in tables(state).items():
        for key, value in entries.items():
            loaded.maps[name].update(key, value)
    loaded.maps["lifeline"].update(FIRST, struct.pack("=I", LOOPBACK_IFINDEX))
    return loaded


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


@attrs.frozen
class Ran:
    """What the program did with a frame."""

    verdict: Verdict
    frame: bytes


@attrs.frozen(repr=False)
class Bench:
    """A loaded object with filled tables, and the packets of its tunnel."""

    stage: Stage
    loaded: Object
    state: State
    underlay: Underlay

    def run(self, frame: bytes) -> Ran:
        """Run the program on a frame; it must count exactly one verdict, and return what goes with it."""
        before = self._stats()
        context = struct.pack("6I", 0, len(frame), 0, self.stage.ifindex, 0, 0)  # struct xdp_md
        program = self.loaded.programs["mzn_switch"]
        ran = self.stage.session.run(program.test_run, frame, context=context)
        since = self._stats().since(before).switch
        counted = {verdict: counter for verdict, counter in since.items() if counter.packets}
        assert list(counted.values()) == [mizarnet.Counter(1, min(len(frame), PAGE_FRAME))]
        verdict = next(iter(counted))
        assert ran.verdict == (XDP_TX if verdict is Verdict.BOUNCED else XDP_PASS)
        return Ran(verdict, ran.frame)

    @contextmanager
    def on_generic_hook(self) -> Iterator[Bench]:
        """The same, while the host's record says that the program is on the generic hook."""
        generic = attrs.evolve(self.state, generic=True)
        self.loaded.maps["switching"].update(FIRST, pack_switching(generic))
        yield attrs.evolve(self, state=generic)
        self.loaded.maps["switching"].update(FIRST, pack_switching(self.state))

    def _stats(self) -> Stats:
        return unpack_stats(self.loaded.maps["verdicts"].sum_words()[1])

    def expected(self, frame: bytes) -> Outcome:
        """What the model says, if the kernel answers for the host that it asks about."""
        model, hops = Model(self.state), ways(self.underlay)
        case = Case(program="switch", frame=frame, hop=next(iter(hops.values())))
        asked = model.judge(case).asked
        return model.judge(attrs.evolve(case, hop=hops[asked[1]]) if asked else case)

    def agree(self, frame: bytes) -> Ran:
        """Run a frame; program and model must agree about verdict and every byte."""
        ran, expected = self.run(frame), self.expected(frame)
        assert expected.frame is not None
        assert (ran.verdict, ran.frame.hex()) == (expected.verdict, expected.frame.hex())
        # The model changes checksums as the program does; a right one must also be right over the whole.
        assert ran.verdict != Verdict.BOUNCED or is_sealed(ran.frame[14:]) or not is_sealed(frame[14:])
        return ran

    def packet(self, to: str = "10.0.0.2", **outer: Any) -> bytes:
        """A tunnel packet for an endpoint, in its outer Ethernet frame."""
        return self.wrap(inner_frame(to), **outer)

    def wrap(self, inner: bytes, **outer: Any) -> bytes:
        """An inner frame in a tunnel packet."""
        return Wrapper(self.state.config, self.underlay, **outer).around(inner)


# A test run puts what does not fit into a page into further buffers; more than this is not in the first one.
PAGE_FRAME = 3520


def inner_frame(to: str, payload: bytes = b"frame") -> bytes:
    source = "fd01::1" if ":" in to else "10.0.0.1"
    return datagram(INNER, source, to, destination_mac=OWN, payload=payload)


@attrs.frozen
class Wrapper:
    """The outer headers, each field to be chosen."""

    config: Config
    underlay: Underlay
    vni: int = VNI
    source: int = 2
    hops: int = 64
    source_port: int = SENT_FROM
    has_checksum: bool = False
    options: bytes = b""
    fragment: int = 0

    def around(self, inner: bytes) -> bytes:
        return self.outer(self.tunnel_header() + inner)

    def tunnel_header(self) -> bytes:
        return (
            vxlan(self.vni, b"")
            if self.config.encap == "vxlan"
            else geneve(self.vni, b"", options=self.options)
        )

    def outer(self, payload: bytes) -> bytes:
        body = udp(self.source_port, self.config.port, payload)
        source, local = str(self.underlay.host(self.source)), str(self.underlay.host(LOCAL))
        if self.has_checksum:
            body = summed(source, local, UDP, body)
        if self.underlay.version == 4:
            return frame(OWN, SENDER, ipv4(source, local, body, hops=self.hops, flags=self.fragment))
        return frame(OWN, SENDER, ipv6(source, local, body, hops=self.hops))


@contextmanager
def benches(stage: Stage) -> Iterator[dict[tuple[Encap, int], Bench]]:
    """One for each encapsulation over each family; parsing needs no tunnel of the kernel's."""
    with ExitStack() as stack:
        made: dict[tuple[Encap, int], Bench] = {}
        for encap, underlay in product(Encap, UNDERLAYS):
            state = knowledge(encap, underlay)
            loaded = stack.enter_context(load(state))
            made[encap, underlay.version] = Bench(stage, loaded, state, underlay)
        # Any of them, so that the device has a receive queue for XDP.
        program = loaded.programs["mzn_switch"]
        hook = XdpHook(stage.ifindex)
        stage.session.run(hook.attach, program, mode=XdpMode.NATIVE)
        stack.callback(stage.session.run, hook.detach, program, mode=XdpMode.NATIVE)
        yield made
