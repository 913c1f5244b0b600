# SPDX-License-Identifier: Apache-2.0
"""Loading the programs, with maps of their own or on the maps of a data path that is in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path

import attrs

from mizarnet._datapath.conversion import leaves
from mizarnet._datapath.maps import Maps
from mizarnet._kernel import objects
from mizarnet._kernel.bpf import Object, ObjectSpec
from mizarnet._kernel.objects import has_route_identity
from mizarnet._kernel.refusals import explained
from mizarnet._model import codec, enumerations
from mizarnet._model.codec import FIRST
from mizarnet._model.described import Described
from mizarnet._model.layout import Layout, check_numbers, u64
from mizarnet._model.layouts import LAYOUTS
from mizarnet._model.public import public
from mizarnet.errors import NotFoundError

AGENT, GUARD, SWITCH, SHORTCUT = PROGRAMS = ("mzn_agent", "mzn_guard", "mzn_switch", "mzn_shortcut")
BUILD = ".rodata.build"
"""Name of the map that holds the digest of the object that a program was loaded from."""
CONFIG = ".rodata.config"
"""Name of the map that holds a program's constants."""
OWN_DEVICE = {SWITCH: "switch_device", SHORTCUT: "shortcut_device"}
"""Name of the map that holds the device that a program stands on, by the program: each load makes new ones."""
_BUILD_BYTES = 8
ADDRESSES_EACH, ADDRESSES_AT_LEAST = 4, 1024
"""Entries of ``addresses`` and ``items`` for each endpoint of ``max_local``: an average, as one endpoint may have any
number of addresses and routes; and how many there are at least."""


@public
@attrs.frozen
class Capacity(Described):
    """Sizes of the agent's tables, in entries.

    Attributes:
        max_endpoints: Room for entries of ``agent.endpoints``, local and remote together.
        max_local: Room for endpoints of this host.
    """

    max_endpoints: int
    max_local: int


def capacity_of(maps: Maps) -> Capacity:
    """Capacity that a set of maps was made with."""
    return Capacity(max_endpoints=maps.endpoints.max_entries, max_local=maps.senders.max_entries)


def object_path() -> Path:
    """Path of the shipped object for this kernel."""
    return objects.object_path("transit", route_identity=bool(has_route_identity()))


def build_of(path: Path) -> int:
    """Digest of an object, which tells its build.

    Raises:
        NotFoundError: The file is gone.
        KernelError: It cannot be read.
    """
    with explained(f"read the BPF object {str(path)!r}", capability="CAP_DAC_OVERRIDE"):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise NotFoundError(
                f"there is no BPF object at {str(path)!r}", hint="is mizarnet being installed just now?"
            ) from None
    return int.from_bytes(blake2b(content, digest_size=_BUILD_BYTES).digest(), "little")


def installed_build() -> int:
    """Digest of the object that this package attaches on this kernel; raises as :func:`build_of` does."""
    return build_of(object_path())


def build_text(build: int) -> str:
    """Text for a build: its digest as 16 hexadecimal digits."""
    return f"{build:016x}"


def load(
    config: bytes,
    capacity: Capacity,
    programs: Sequence[str] = PROGRAMS,
    *,
    path: Path | None = None,
    layouts: Iterable[Layout] = (),
) -> Object:
    """Load programs with maps of their own.

    Args:
        config: Constants of the programs: a packed ``mzn_config``.
        capacity: Sizes of the tables.
        programs: Names of the programs to load.
        path: Path of the object; None: the one for this kernel.
        layouts: Structures to compare with the object, besides those of ``mizarnet/abi.h``.

    Raises:
        LayoutError: The object was built from another header than this package.
        VerifierError: The kernel's verifier rejected a program.
        PrivilegeError: ``CAP_BPF``, ``CAP_NET_ADMIN`` or ``CAP_PERFMON`` is missing.
    """
    with _open(path or object_path(), programs) as spec:
        for layout in layouts:
            _check_layout(spec, layout)
        spec.set_variable("config", config)
        _give_room(spec, capacity)
        return _bound(spec.load())


def load_maps(config: bytes, capacity: Capacity, adapt: Callable[[ObjectSpec], None]) -> Maps:
    """Make the maps of a data path, and no program.

    Args:
        config: Constants of the programs to come.
        capacity: Sizes of the tables.
        adapt: What is called before they are made: it may have some of them larger, or use others in place of them.

    Raises:
        LayoutError: The object was built from another header than this package.
        PrivilegeError: ``CAP_BPF``, ``CAP_NET_ADMIN`` or ``CAP_PERFMON`` is missing.
    """
    with _open(object_path(), ()) as spec:
        spec.set_variable("config", config)
        _give_room(spec, capacity)
        adapt(spec)
        loaded = spec.load()
    with ExitStack() as undo:
        undo.callback(loaded.close)
        maps = Maps.of(loaded)
        kept = {each.id for each in maps.all()}
        for each in loaded.maps.values():
            if each.id not in kept:
                each.close()
        undo.pop_all()
        return maps


def _give_room(spec: ObjectSpec, capacity: Capacity) -> None:
    spec.set_max_entries("endpoints", capacity.max_endpoints)
    for name in ("addresses", "items"):
        spec.set_max_entries(name, max(ADDRESSES_EACH * capacity.max_local, ADDRESSES_AT_LEAST))
    for name in ("senders", "records", "traffic", "slots"):
        spec.set_max_entries(name, capacity.max_local)


def load_onto(maps: Maps, programs: Sequence[str]) -> Object:
    """Load programs on the maps of a data path, with its constants and secrets; raises as :func:`load` does."""
    with _open(object_path(), programs) as spec:
        _share(spec, maps)
        return _bound(spec.load())


WRITTEN = ("verdicts", "traffic", "drops", "readers", "rings", "heard", ".data.attention")
"""Maps that agent and guard write: counters, and what readers of events get."""


def load_beside(maps: Maps, programs: Sequence[str], *, path: Path, layouts: Iterable[Layout] = ()) -> Object:
    """Load programs on the tables and constants of a data path, with counters that count nobody, and without readers.

    Arguments and errors are as for :func:`load`.
    """
    with _open(path, programs) as spec:
        for layout in layouts:
            _check_layout(spec, layout)
        _share(spec, maps, but=WRITTEN)
        spec.set_max_entries("traffic", maps.traffic.max_entries)
        return spec.load()


def _share(spec: ObjectSpec, maps: Maps, *, but: Sequence[str] = ()) -> None:
    """Use the maps of a data path. Nobody may write constants: other ones than those get a map of their own."""
    wanted = constants(maps)
    for name, each in maps.by_name().items():
        if name == CONFIG and each.lookup(FIRST) != wanted:
            spec.set_variable("config", wanted)
        elif name not in but:
            spec.reuse_map(name, each)


def constants(maps: Maps) -> bytes:
    """Constants of the programs of a data path: the secrets in use, with what ``meta`` says of the tunnel."""
    meta = maps.read_meta()
    return codec.constants_at(maps.config.lookup(FIRST) or b"", local=meta.local, mtu=meta.mtu)


def _open(path: Path, programs: Sequence[str]) -> ObjectSpec:
    with ExitStack() as undo:
        spec = undo.enter_context(ObjectSpec.open(path, name="transit"))
        check_object(spec)
        spec.select_programs(*programs)
        spec.set_variable("build", u64(build_of(path)))
        undo.pop_all()
        return spec


def _bound(loaded: Object) -> Object:
    """The object, with every map bound to each program, so that one attached program keeps all tables.

    libbpf binds what no program uses, such as the build, by itself, but says nothing if the kernel refuses.
    """
    with ExitStack() as undo:
        undo.callback(loaded.close)
        maps = [*Maps.of(loaded).all(), loaded.maps[BUILD]]
        for program in loaded.programs.values():
            for each in maps:
                program.bind(each)
        undo.pop_all()
    return loaded


def check_object(spec: ObjectSpec) -> None:
    """Raises ``LayoutError`` unless the object's BTF has every shared structure and enumeration as this package has."""
    for layout in LAYOUTS.values():
        _check_layout(spec, layout)
    for c_name, enum in enumerations.ENUMERATIONS.items():
        check_numbers(c_name, enum, spec.enums.get(c_name))


def _check_layout(spec: ObjectSpec, layout: Layout) -> None:
    found = spec.layouts.get(layout.name)
    layout.check([*leaves(spec.layouts, layout.name)] if found else [], found.size if found else 0)
