# SPDX-License-Identifier: Apache-2.0
"""Agent and guard in the kernel: loaded once, on the hooks of one tunnel, pinned, and taken off again.

The caller holds the host's lock. Attaching and detaching act in the host's namespace, so on its session's thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path

import attrs

from mizarnet import bpf, forwarding, numbers
from mizarnet.abi.layout import Leaf, check_numbers
from mizarnet.abi.layouts import LAYOUTS, RECORD
from mizarnet.abi.records import Record
from mizarnet.bpf import ClsactLink, Direction, Link, Map, Object, ObjectSpec, Program, StructLayout
from mizarnet.bpf.pin import check_pin_directory
from mizarnet.errors import LayoutError, NotFoundError, UnsupportedError
from mizarnet.netlink import Session, delete_netns, set_link
from mizarnet.store import Maps, read_meta
from mizarnet.values import Hook

# The guard first: nothing may enter unguarded, and without the agent nothing leaves anyway (no tunnel key).
DIRECTIONS = {"transit_guard": Direction.INGRESS, "transit_agent": Direction.EGRESS}
SWITCH = "transit_switch"
SWITCH_LINK = "link_switch"
_KFUNCS = ("bpf_cast_to_kern_ctx", "bpf_rdonly_cast")
# Our place among the filters of a clsact hook: the first, and a handle that nobody takes by chance.
_PRIORITY, _HANDLE = 1, 0x6D7A


@attrs.frozen
class Capacity:
    """What the agent's tables hold.

    Attributes:
        max_endpoints: Entries of ``agent.endpoints``, local and remote.
        max_local: Endpoints of this host.
    """

    max_endpoints: int
    max_local: int

    @classmethod
    def of(cls, maps: Maps) -> Capacity:
        """That of a set of maps."""
        return cls(max_endpoints=maps.endpoints.max_entries, max_local=maps.interfaces.max_entries)


# -- loading -----------------------------------------------------------------------------------------------


def has_route_identity() -> bpf.Feature:
    """Whether the agent can read the route of a packet on this kernel (6.2)."""
    return bpf.has_kfuncs(*_KFUNCS)


def object_path() -> Path:
    """The object for this kernel: without the look at the route where the kernel does not offer it."""
    name = "transit.bpf.o" if has_route_identity() else "transit-mac-only.bpf.o"
    return Path(str(files("mizarnet") / "_objects" / name))


def build_id(path: Path) -> int:
    """A number that tells one build of an object from another."""
    return int.from_bytes(blake2b(path.read_bytes(), digest_size=8).digest(), "little")


def load(path: Path, config: bytes, capacity: Capacity) -> Object:
    """Load the object at ``path`` with its constants and sizes.

    Raises:
        LayoutError: The object was built from another header than this package.
        VerifierError: The kernel does not accept a program.
        PrivilegeError: ``CAP_BPF``, ``CAP_NET_ADMIN`` or ``CAP_PERFMON`` is missing.
    """
    with ObjectSpec.open(path, name="transit") as spec:
        check_object(spec)
        spec.set_variable("config", config)
        spec.set_max_entries("endpoints", capacity.max_endpoints)
        for name in ("interfaces", "records", "traffic"):
            spec.set_max_entries(name, capacity.max_local)
        return spec.load()


def check_object(spec: ObjectSpec) -> None:
    """Compare every shared structure and number with the object's BTF; raises ``LayoutError``."""
    for name, layout in LAYOUTS.items():
        found = spec.layouts.get(name)
        layout.check(list(_leaves(spec, found)) if found else [], found.size if found else 0)
    for c_name, enum in numbers.ENUMERATIONS.items():
        check_numbers(c_name, enum, spec.enums.get(c_name))


def _leaves(spec: ObjectSpec, layout: StructLayout, prefix: str = "", base: int = 0) -> Iterator[Leaf]:
    for member in layout.members:
        path, offset = prefix + member.name, base + member.offset
        match = re.fullmatch(r"struct (\w+)(?:\[(\d+)\])?", member.type)
        if match is None:
            yield Leaf(path, offset, member.size)
            continue
        inner, count = spec.layouts[match[1]], match[2]
        for index in range(int(count or 1)):
            dotted = f"{path}[{index}]." if count else f"{path}."
            yield from _leaves(spec, inner, dotted, offset + index * inner.size)


# -- attaching ---------------------------------------------------------------------------------------------


def choose_hook(wanted: Hook | None) -> Hook:
    """The hook to use; None is the best one.

    Raises:
        UnsupportedError: tcx was asked for and the kernel has none.
    """
    tcx = bpf.has_tcx()
    if wanted is Hook.TCX and not tcx:
        raise UnsupportedError(f"tcx: {tcx.reason}", feature="tcx", hint='use hook="auto" or "clsact"')
    return wanted or (Hook.TCX if tcx else Hook.CLSACT)


def pin_programs(loaded: Object, directory: Path) -> None:
    """Pin all programs; the switch's for whoever makes this host one later, with the agent's own maps."""
    for name in (*DIRECTIONS, SWITCH):
        loaded.programs[name].pin(str(directory / name))


def attach(session: Session, ifindex: int, hook: Hook, directory: Path) -> None:
    """Put the pinned agent and guard on their hooks, guard first, and pin their links; all or nothing."""
    with ExitStack() as undo:
        for name, program in open_programs(directory).items():
            with program:
                pin, direction = directory / _link_pin(name), DIRECTIONS[name]
                session.run(_attach_one, program, ifindex, direction, hook, pin, undo)
        undo.pop_all()


def attach_again(session: Session, ifindex: int, hook: Hook, directory: Path) -> None:
    """Put agent and guard back on their hooks after somebody took one off. The tunnel is down afterwards."""
    _detach(directory, session, ifindex)
    attach(session, ifindex, hook, directory)


def _attach_one(
    program: Program, ifindex: int, direction: Direction, hook: Hook, pin: Path, undo: ExitStack
) -> None:
    if hook is Hook.TCX:
        with bpf.attach_tcx(program, ifindex, direction=direction) as link:
            link.pin(str(pin))
            undo.callback(bpf.unpin, str(pin))
        return
    filter_ = bpf.attach_clsact(program, ifindex, direction=direction, priority=_PRIORITY, handle=_HANDLE)
    undo.callback(filter_.detach)


def _link_pin(program: str) -> str:
    return program.replace("transit", "link")


def open_programs(directory: Path) -> dict[str, Program]:
    """The pinned programs, by name; raises ``NotFoundError`` if one is missing."""
    with ExitStack() as undo:
        opened: dict[str, Program] = {}
        for name in DIRECTIONS:
            opened[name] = undo.enter_context(Program.open_pinned(str(directory / name), name=name))
        undo.pop_all()
        return opened


def attached_hook(directory: Path, session: Session, ifindex: int) -> Hook | None:
    """Where agent and guard are attached now; None unless both are, on this very device."""
    try:
        with ExitStack() as stack:
            programs = {name: stack.enter_context(each) for name, each in open_programs(directory).items()}
            hooks = {session.run(_hook_of, programs[name], ifindex, directory) for name in DIRECTIONS}
    except NotFoundError:
        return None
    return hooks.pop() if len(hooks) == 1 else None


def _hook_of(program: Program, ifindex: int, directory: Path) -> Hook | None:
    with suppress(NotFoundError), Link.open_pinned(str(directory / _link_pin(program.name))) as link:
        return Hook.TCX if link.ifindex == ifindex and link.program_id == program.id else None
    direction = DIRECTIONS[program.name]
    found = bpf.query_clsact(ifindex, direction=direction, priority=_PRIORITY, handle=_HANDLE)
    return Hook.CLSACT if found == program.id else None


def ahead(session: Session, ifindex: int, ours: Mapping[str, Program]) -> tuple[str, ...]:
    """What others put on the hooks that runs before ``ours``; nothing on a device that is gone."""
    numbers = [program.id for program in ours.values()]
    try:
        return tuple(_ahead(session, ifindex, numbers))
    except NotFoundError:
        return ()


def _ahead(session: Session, ifindex: int, ours: list[int]) -> Iterator[str]:
    for direction in DIRECTIONS.values():
        for number in session.run(_running_order, ifindex, direction):
            if number in ours:
                break
            name = bpf.program_name(number) if number else "a filter without eBPF"
            if name:  # else it went meanwhile
                yield f"{direction.value}: {name} ({number})"


def _running_order(ifindex: int, direction: Direction) -> list[int]:
    """Numbers of the programs on one side of a device: those on tcx run first, then the filters of a clsact."""
    tcx = bpf.query_tcx(ifindex, direction=direction) if bpf.has_tcx() else []
    return [*tcx, *bpf.query_filters(ifindex, direction=direction)]


# -- detaching ---------------------------------------------------------------------------------------------


def refuse_foreign(directory: Path) -> None:
    """Raises where the pins are not this user's own: before anything is changed. None at all are no obstacle."""
    with suppress(NotFoundError):
        check_pin_directory(str(directory))


def remove(directory: Path, session: Session, ifindex: int | None) -> None:
    """Take everything in ``directory`` off the kernel. The tunnel goes down first: nothing may pass unguarded.

    ``ifindex`` is the tunnel's, None when it is gone. What is missing already is no error.
    """
    if not directory.is_dir():
        return
    _restore_forwarding(directory, session)
    if ifindex is not None:
        _detach(directory, session, ifindex)
    remove_pins(directory)


def _detach(directory: Path, session: Session, ifindex: int) -> None:
    set_link(session, ifindex, up=False)
    for name, direction in reversed(DIRECTIONS.items()):
        session.run(_detach_clsact, directory / name, ifindex, direction)
        detach_link(directory / _link_pin(name))


def _restore_forwarding(directory: Path, session: Session) -> None:
    """What a transit switch changed, if there is one; its link goes with the other pins."""
    # What another version noted cannot be read, and must not keep its pins from going.
    with suppress(NotFoundError, LayoutError), Map.open_pinned(str(directory / "meta"), name="meta") as meta:
        known = read_meta(meta)
        if known is not None:
            forwarding.restore(session, known.switch_ifindex, known.switch_flags)


def _detach_clsact(pin: Path, ifindex: int, direction: Direction) -> None:
    with suppress(NotFoundError), Program.open_pinned(str(pin)) as program:
        place = ClsactLink(ifindex=ifindex, direction=direction, priority=_PRIORITY, handle=_HANDLE)
        if bpf.query_clsact(ifindex, direction=direction, priority=_PRIORITY, handle=_HANDLE) == program.id:
            place.detach(expected=program)


def remove_pins(directory: Path) -> None:
    """Detach the links and unpin everything in ``directory``; maps and programs go with their users.

    Namespaces that were made for an endpoint go with its record.
    """
    _delete_private_namespaces(directory)
    for pin in sorted(directory.iterdir(), key=_links_first):
        if pin.name.startswith("link_"):
            detach_link(pin)
        else:
            bpf.unpin(str(pin))
    directory.rmdir()


def _delete_private_namespaces(directory: Path) -> None:
    with suppress(NotFoundError), Map.open_pinned(str(directory / "records"), name="records") as cold:
        if cold.value_size != RECORD.size:
            return  # of another version
        for _, data in cold.items():
            record = Record.unpack(data)
            if record.private:
                delete_netns(record.spec.netns or "")


def detach_link(pin: Path) -> None:
    """Detach and unpin a link; one that is gone is no error."""
    # Unpinning alone detaches some time later: until then the device would look taken by a stranger.
    with suppress(NotFoundError), Link.open_pinned(str(pin)) as link:
        link.detach()
    bpf.unpin(str(pin))


def _links_first(pin: Path) -> tuple[bool, str]:
    return not pin.name.startswith("link_"), pin.name
