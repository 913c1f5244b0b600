# SPDX-License-Identifier: Apache-2.0
"""What the kernel is relied on to do and promises nowhere: each behaviour with a self-test that can say no.

A self-test sends a few frames, ends a device or asks a map, in a namespace made for it and thrown away. The programs
and maps are in ``csrc/bpf/behaviours.bpf.c``.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from ipaddress import IPv4Interface

import attrs

from mizarnet._kernel import bpf
from mizarnet._kernel.bpf import (
    YES,
    ClsactPlace,
    Direction,
    Feature,
    Map,
    Object,
    ObjectSpec,
    Program,
    TcxHook,
    XdpHook,
)
from mizarnet._kernel.netlink import (
    Link,
    NetnsHandle,
    Session,
    add_address,
    anonymous_netns,
    create_macvlan,
    create_veth,
    delete_link,
    get_link,
    nsid_of,
    set_link,
    silence,
)
from mizarnet._kernel.objects import has_route_identity, object_path
from mizarnet._model.codec import FIRST
from mizarnet._model.layout import read_number, u32
from mizarnet._model.specs import XdpMode
from mizarnet.errors import MizarnetError, StaleHandleError

_FRAMES = 3
_PATIENCE = 3.0  # seconds: the kernel frees maps and programs after a grace period, some ten milliseconds
_PROTOCOL = 0x88B5  # TEST_FRAME of the programs
_FRAME = bytes.fromhex("02000000000b 02000000000a 88b5") + bytes(46)
_MAC = "02:00:00:00:00:0c"
_ADDRESS = IPv4Interface("192.0.2.1/24")
_BROADCAST = ("192.0.2.255", 9)  # needs no neighbour
_ORIGIN = struct.Struct("=IIQ8x")  # struct origin, less its last member
_FROM_DEVICE = 1  # ORIGIN_DEVICE
_BOTH = u32(0), u32(1)
_PREFIX = struct.Struct("=I4s")  # struct prefix
_FOUND = {
    8: 0,
    16: 16,
    24: 16,
    32: 32,
}  # lengths of prefixes, asked for and found, of 16 and 32 bits that are there
_XDP_PASS = 2

_REPORT = "nothing: it is relied on, so report this kernel and keep tenants off it"
AGAIN = "try again once that is mended"
"""What to do about something that could not be tried."""


class Ground:
    """Where one self-test takes place: a silent pair of veth, near and far, in a namespace of its own.

    Made and used on the thread of its session.

    Attributes:
        session: Session of that namespace.
        near: Device that frames are sent from.
        far: Device that they arrive at.
    """

    def __init__(self, session: Session, loaded: Object) -> None:
        """Make the devices, for programs that stay the caller's."""
        self.session = session
        self._loaded = loaded
        self.near: Link
        self.far: Link
        self.near, self.far = _pair(session)

    def program(self, name: str) -> Program:
        """The program of that name."""
        return self._loaded.programs[name]

    def map(self, name: str) -> Map:
        """The programs' map of that name."""
        return self._loaded.maps[name]

    def counts(self, name: str) -> tuple[int, int]:
        """The two counters in the map of that name."""
        first, second = (read_number(self.map(name).lookup(key) or b"") for key in _BOTH)
        return first, second

    def tcx(self, link: Link, direction: Direction) -> TcxHook:
        """The tcx hook on one side of a device."""
        return TcxHook(link.ifindex, direction)

    def xdp(self) -> XdpHook:
        """The XDP hook of the near device."""
        return XdpHook(self.near.ifindex)

    def attach(self, link: Link, direction: Direction, program: Program) -> None:
        """Put a program on the hook that agent and guard use on this kernel."""
        if bpf.has_tcx():
            hook = self.tcx(link, direction)
            hook.attach(program, revision=hook.query().revision)
        else:
            self.attach_filter(link, direction, program)

    def attach_filter(self, link: Link, direction: Direction, program: Program) -> None:
        """Make a program a filter of a clsact."""
        _place(link, direction).attach(program)

    def attached(self, link: Link, direction: Direction) -> int | None:
        """Id of the program that `attach` put there; None if there is none."""
        if bpf.has_tcx():
            return next(iter(self.tcx(link, direction).query().program_ids), None)
        return _place(link, direction).query()

    def bind(self, program: Program, bound: Map) -> None:
        """Let a program keep a map that it does not use."""
        program.bind(bound)

    def send(self) -> None:
        """Send frames from near to far."""
        with _packet_socket() as source:
            self._send(source)

    def pass_on(self) -> None:
        """Send frames from near to far, and wait until they are through all hooks of both."""
        with _packet_socket() as both:
            both.bind((self.far.name, _PROTOCOL))
            both.settimeout(_PATIENCE)
            self._send(both)
            for _ in range(_FRAMES):
                both.recv(len(_FRAME))

    def _send(self, source: socket.socket) -> None:
        for _ in range(_FRAMES):
            source.sendto(_FRAME, (self.near.name, _PROTOCOL))

    def say(self, stack_of: Session, link: Link) -> None:
        """Send a packet from a stack that routes it through ``link``, a device above near."""
        with stack_of.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as speaker:
            speaker.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            speaker.sendto(b"", _BROADCAST)


def _pair(session: Session) -> tuple[Link, Link]:
    near = create_veth(session, "near", peer="far")
    far = get_link(session, "far")
    assert far is not None  # born with the other
    # The near end last: only the one that comes up second is ready to send at once.
    for link in (far, near):
        silence(session, link)
        set_link(session, link.ifindex, up=True)
    return near, far


def _place(link: Link, direction: Direction) -> ClsactPlace:
    return ClsactPlace(ifindex=link.ifindex, direction=direction, priority=1, handle=1)


def _packet_socket() -> socket.socket:
    """A packet socket that receives nothing until it is bound."""
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)


def _becomes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


# -- the self-tests: what was seen instead, or nothing -----------------------------------------------------


def _tcx_ends_the_chain(ground: Ground) -> str:
    sides = ((ground.near, Direction.EGRESS), (ground.far, Direction.INGRESS))
    ahead, behind = ground.program("answers_ok"), ground.program("stands_behind")
    for link, direction in sides:
        ground.attach(link, direction, ahead)
        ground.attach_filter(link, direction, behind)
    ground.pass_on()
    if any(ground.counts("behind")):
        return f"filters ran behind tcx programs that answered: {_per_side(ground)}"
    for link, direction in sides:
        ground.tcx(link, direction).detach(ahead)
    ground.pass_on()
    if ground.counts("behind") != (_FRAMES, _FRAMES):
        return f"filters did not run once the tcx programs were gone: {_per_side(ground)}"
    return ""


def _per_side(ground: Ground) -> str:
    return "{} of {frames} frames on egress, {} of {frames} on ingress".format(
        *ground.counts("behind"), frames=_FRAMES
    )


def _tcx_compares(ground: Ground) -> str:
    hook = ground.tcx(ground.near, Direction.INGRESS)
    first, second, third = map(ground.program, ("answers_ok", "stands_behind", "bounces"))
    read = hook.query().revision
    hook.attach(first, revision=read)
    if not _refuses(lambda: hook.attach(second, revision=read)):
        return "a program was attached for a revision that had passed"
    if not _refuses(lambda: hook.replace(second, expected=third)):
        return "a program was replaced that was not the expected one"
    hook.replace(second, expected=first)
    running = hook.query().program_ids
    return "" if running == (second.id,) else f"the hook runs {running}, not {second.id} alone"


def _xdp_compares(ground: Ground) -> str:
    hook, first, second = ground.xdp(), ground.program("passes"), ground.program("sees_device")
    hook.attach(first, mode=XdpMode.GENERIC)
    if not _refuses(lambda: hook.replace(second, expected=second, mode=XdpMode.GENERIC)):
        return "a program was replaced that was not the expected one"
    hook.replace(second, expected=first, mode=XdpMode.GENERIC)
    running = hook.query().program_ids
    return "" if running == [second.id] else f"the hook runs {running}, not {second.id} alone"


def _refuses(change: Callable[[], None]) -> bool:
    try:
        change()
    except StaleHandleError:
        return True
    return False


def _device_keeps_programs(ground: Ground) -> str:
    side = (ground.near, Direction.INGRESS)
    program_id, map_id = _leave(ground, *side)
    if ground.attached(*side) != program_id:
        return "a program left its hook with its last descriptor"
    with _open_program(program_id) as program:
        if map_id not in program.map_ids:
            return "a map that was bound to a program went with its last descriptor"
    delete_link(ground.session, ground.near.ifindex)
    if not _becomes_true(lambda: _is_gone(Program, program_id) and _is_gone(Map, map_id)):
        return f"program or map were still there {_PATIENCE:g} s after the end of their device"
    return ""


def _leave(ground: Ground, link: Link, direction: Direction) -> tuple[int, int]:
    """Put a program with a bound map on a hook, and let go of both; their ids."""
    with load(route_identity=False) as own:
        program, bound = own.programs["answers_ok"], own.maps["bound"]
        ground.bind(program, bound)
        ground.attach(link, direction, program)
        return program.id, bound.id


def _open_program(program_id: int) -> Program:
    program = Program.open_id(program_id)
    assert program is not None  # its hook has it
    return program


def _is_gone(kind: type[Program] | type[Map], kernel_id: int) -> bool:
    found = kind.open_id(kernel_id)
    if found is not None:
        found.close()
    return found is None


def _devmap_follows_device(ground: Ground) -> str:
    ground.map("device").update(FIRST, u32(ground.near.ifindex))
    looks = ground.program("sees_device")
    if looks.test_run(_FRAME).verdict != _XDP_PASS:
        return "a program does not find the entry of a device that is there"
    delete_link(ground.session, ground.near.ifindex)
    if looks.test_run(_FRAME).verdict == _XDP_PASS:
        return "the entry is still there after the end of its device"
    return ""


def _macvlan_keeps_route(ground: Ground) -> str:
    ground.attach(ground.near, Direction.EGRESS, ground.program("reads_origin"))
    with anonymous_netns() as netns, Session.open(netns) as inside:
        link = _macvlan(ground, inside)
        if not _becomes_true(lambda: _speaks(ground, inside, link)):
            return "no packet of the MACVLAN came by"
        seen = _ORIGIN.unpack(ground.map("last_origin").lookup(FIRST) or b"")
        expected = (_FROM_DEVICE, link.ifindex, inside.cookie)
    return "" if seen == expected else "a packet had lost the route that its sender gave it"


def _macvlan(ground: Ground, inside: Session) -> Link:
    """A MACVLAN in another namespace than the device below it, as an endpoint's is."""
    with ground.session.open_netns() as below:
        nsid = nsid_of(inside, below)
    link = create_macvlan(
        inside, "above", parent_ifindex=ground.near.ifindex, parent_nsid=nsid, mac=_MAC, mtu=1500
    )
    add_address(inside, link.ifindex, _ADDRESS)
    return link


def _speaks(ground: Ground, inside: Session, link: Link) -> bool:
    """Say something, and tell whether it was seen: a device that has just come up may still drop it."""
    ground.say(inside, link)
    return any(ground.map("last_origin").lookup(FIRST) or b"")


def _bounce_keeps_signature(ground: Ground) -> str:
    ground.attach(ground.far, Direction.INGRESS, ground.program("bounces"))
    ground.attach(ground.far, Direction.EGRESS, ground.program("meets_bounced"))
    ground.send()
    return _redirected(ground, "bounced", "mark, control block and interface")


def _local_redirect_keeps_mark(ground: Ground) -> str:
    ground.attach(ground.near, Direction.EGRESS, ground.program("turns_in"))
    ground.attach(ground.near, Direction.INGRESS, ground.program("meets_turned"))
    ground.send()
    return _redirected(ground, "turned", "the mark")


def _redirected(ground: Ground, counters: str, what: str) -> str:
    _becomes_true(lambda: sum(ground.counts(counters)) == _FRAMES)
    _, whole = ground.counts(counters)
    return "" if whole == _FRAMES else f"{whole} of {_FRAMES} redirected frames came with {what}"


def _trie_respects_length(ground: Ground) -> str:
    prefixes, keys = ground.map("prefixes"), {length: _PREFIX.pack(length, bytes(4)) for length in _FOUND}
    for length in (16, 32):
        prefixes.update(keys[length], u32(length))
    found = {length: read_number(prefixes.lookup(key) or b"") for length, key in keys.items()}
    return "" if found == _FOUND else f"of prefixes of 16 and 32 bits, look-ups found {found}"


# -- the list ----------------------------------------------------------------------------------------------


@attrs.frozen
class Behaviour:
    """Something the kernel is relied on to do.

    Attributes:
        name: Short name, a word of Python.
        sentence: What the kernel does.
        self_test: Tries it, and returns what was seen instead; empty if nothing else was.
        needs: Question whether the kernel offers what it takes; None: it takes nothing.
        instead: What is used on a kernel that does not offer it; empty if nothing is needed.
    """

    name: str
    sentence: str
    self_test: Callable[[Ground], str]
    needs: Callable[[], Feature] | None = None
    instead: str = ""


BEHAVIOURS = (
    Behaviour(
        "tcx_ends_the_chain",
        'An answer of a tcx program other than "next" ends the chain: filters of a clsact behind it are not run, and '
        "run at once when it is gone.",
        _tcx_ends_the_chain,
        bpf.has_tcx,
        "filters alone: one layer, which ends with its clsact",
    ),
    Behaviour(
        "tcx_compares",
        "A tcx hook that changed since it was read, or that lacks the expected predecessor, takes no program.",
        _tcx_compares,
        bpf.has_tcx,
        "filters, read back after each change",
    ),
    Behaviour(
        "xdp_compares", "An XDP hook without the expected predecessor takes no program.", _xdp_compares
    ),
    Behaviour(
        "device_keeps_programs",
        "A program on a hook, and each map bound to it, stay with the device without descriptors, and end with it.",
        _device_keeps_programs,
    ),
    Behaviour("devmap_follows_device", "The entry of a DEVMAP goes with its device.", _devmap_follows_device),
    Behaviour(
        "macvlan_keeps_route",
        "A MACVLAN keeps the route of a packet, so that the device below sees by which device it was sent.",
        _macvlan_keeps_route,
        has_route_identity,
        "source MAC and source address only",
    ),
    Behaviour(
        "bounce_keeps_signature",
        "A redirect from ingress to the egress of the same device keeps mark, control block and received interface.",
        _bounce_keeps_signature,
    ),
    Behaviour(
        "local_redirect_keeps_mark",
        "A redirect from egress to the ingress of the same device keeps the mark.",
        _local_redirect_keeps_mark,
    ),
    Behaviour(
        "trie_respects_length",
        "A look-up in an LPM trie finds the longest prefix that contains the key's, and none that is longer.",
        _trie_respects_length,
    ),
)
"""Every behaviour that is relied on."""


def load(*, route_identity: bool) -> Object:
    """Load the programs; the one that looks at routes only where the kernel offers that."""
    with ObjectSpec.open(object_path("behaviours", route_identity=route_identity), name="behaviours") as spec:
        return spec.load()


def try_all() -> Mapping[str, Feature]:
    """Whether the kernel shows each behaviour, by name; each is tried in a namespace that ends with the call.

    Raises:
        PrivilegeError: ``CAP_NET_ADMIN``, ``CAP_SYS_ADMIN``, ``CAP_BPF`` or ``CAP_PERFMON`` is missing.
    """
    with ExitStack() as kept:
        loaded = kept.enter_context(load(route_identity=bool(has_route_identity())))
        # All end together at last: while the kernel ends one, changes of devices in the others wait for it.
        return {
            behaviour.name: try_one(behaviour, loaded, kept.enter_context(anonymous_netns()))
            for behaviour in BEHAVIOURS
        }


def try_one(
    behaviour: Behaviour,
    loaded: Object,
    netns: NetnsHandle,
    *,
    ground: Callable[[Session, Object], Ground] = Ground,
) -> Feature:
    """Whether the kernel shows one behaviour: tried in a new namespace with the programs of ``loaded``."""
    if behaviour.needs and not (offered := behaviour.needs()):
        return attrs.evolve(offered, instead=behaviour.instead)
    try:
        with Session.open(netns) as session:
            seen = session.run(lambda: behaviour.self_test(ground(session, loaded)))
    except (MizarnetError, OSError) as error:
        return Feature(available=None, reason=f"it could not be tried: {error}", instead=AGAIN)
    return YES if not seen else Feature(available=False, reason=seen, instead=_REPORT)
