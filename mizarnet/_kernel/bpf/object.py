# SPDX-License-Identifier: Apache-2.0
"""BPF objects: a specification that can still be changed, and what the kernel holds after loading it."""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import Self

from mizarnet._kernel.bpf._lib import NETWORK_NEEDS, CData, check, failure, ffi, lib, text
from mizarnet._kernel.bpf._log import listening
from mizarnet._kernel.bpf.btf import Btf, StructLayout
from mizarnet._kernel.bpf.fd import require_descriptors
from mizarnet._kernel.bpf.features import has_btf
from mizarnet._kernel.bpf.map import Map, MapShape
from mizarnet._kernel.bpf.program import Program
from mizarnet._kernel.closing import Closing, Owner
from mizarnet.errors import ClosedError, InvalidValueError, NotFoundError, UnsupportedError, VerifierError

_LOAD_NEEDS = (*NETWORK_NEEDS, "CAP_PERFMON")

# One per program while loading. Only what the kernel writes is ever touched, so this costs address space, not
# memory. Kernels since 6.4 keep the end of a log that does not fit, older ones its beginning.
_LOG_SIZE = 16 << 20
# Descriptors that libbpf has open beside those of maps and programs: BTF, and what it tries features with.
_LIBBPFS_OWN = 16
_new_uncleared = ffi.new_allocator(should_clear_after_alloc=False)


class Object(Closing):
    """The maps and programs that one load made; they live while a descriptor or a device holds them."""

    def __init__(self, *, maps: Mapping[str, Map], programs: Mapping[str, Program]) -> None:
        """Join what was loaded; see `ObjectSpec.load`."""
        self.maps = maps
        self.programs = programs

    def close(self) -> None:
        """Close the descriptors of all maps and programs; again is harmless."""
        for handle in (*self.maps.values(), *self.programs.values()):
            handle.close()

    def __repr__(self) -> str:
        return f"Object(maps={sorted(self.maps)}, programs={sorted(self.programs)})"


class ObjectSpec(Owner):
    """A BPF object file, opened and not loaded. Everything that can be chosen is chosen here, before `load`.

    Attributes:
        layouts: Structures and unions by name, as the compiler laid them out.
        enums: Enumerations by name; enumerators of those without a name are under ``""``.
        maps: Names of the maps; data sections by section name, such as ``".rodata"``.
        programs: Names of the programs, or of those that were selected.
    """

    layouts: Mapping[str, StructLayout]
    enums: Mapping[str, Mapping[str, int]]
    maps: tuple[str, ...]
    programs: tuple[str, ...]

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, name: str) -> Self:
        """Open the object file at ``path``.

        Args:
            path: An ELF file made by clang, with BTF.
            name: What to call the object in messages and in the names of its data maps.

        Raises:
            NotFoundError: There is no such file.
            BpfError: It is not a BPF object that libbpf understands.
        """
        if not os.path.exists(path):
            raise NotFoundError(f"there is no BPF object at {os.fspath(path)!r}")
        label = ffi.new("char[]", name.encode())
        opts = ffi.new(
            "struct bpf_object_open_opts *",
            {"sz": ffi.sizeof("struct bpf_object_open_opts"), "object_name": label},
        )
        with listening() as said:
            pointer = lib.bpf_object__open_file(os.fsencode(path), opts)
        if not pointer:
            raise failure(f"open BPF object {os.fspath(path)!r}", ffi.errno, said="; ".join(said))
        return cls(pointer, name=name)

    def __init__(self, pointer: CData, *, name: str) -> None:
        """Own libbpf's object; use `open`."""
        self._pointer = pointer
        self._closed = False
        self._name = name
        btf = Btf(_raw_btf(pointer))
        self.layouts = btf.layouts()
        self.enums = btf.enums()
        self._variables = btf.variables()
        self.maps = tuple(_map_name(item) for item in _maps_of(pointer))
        self.programs = tuple(text(lib.bpf_program__name(item)) for item in _programs_of(pointer))

    def set_variable(self, name: str, value: bytes) -> None:
        """Give a global variable (usually ``const volatile``, so in ``.rodata``) its value.

        Args:
            name: Name of the variable in C.
            value: Bytes of the value, exactly as many as the variable has.

        Raises:
            InvalidValueError: No such variable, or another size.
        """
        variable = self._variables.get(name)
        if variable is None:
            raise InvalidValueError(f"{self._name} has no variable {name!r}", argument="name", value=name)
        if len(value) != variable.size:
            message = f"variable {name!r} has {variable.size} bytes, not {len(value)}"
            raise InvalidValueError(message, argument="value", value=value)
        section = self._map(variable.section)
        size = ffi.new("size_t *")
        data = bytearray(ffi.buffer(lib.bpf_map__initial_value(section, size), size[0]))
        data[variable.offset : variable.offset + variable.size] = value
        check(lib.bpf_map__set_initial_value(section, bytes(data), len(data)), f"set variable {name!r}")

    def set_max_entries(self, name: str, entries: int) -> None:
        """Set the capacity of map ``name``: entries, or bytes (a power of two, whole pages) of a ring buffer.

        Raises:
            InvalidValueError: No such map, or less than one.
        """
        if entries < 1:
            raise InvalidValueError("a map holds at least one entry", argument="entries", value=entries)
        check(lib.bpf_map__set_max_entries(self._map(name), entries), f"set the capacity of map {name!r}")

    def shape(self, name: str) -> MapShape:
        """Kind, sizes and flags of map ``name`` as it will be made.

        Raises:
            InvalidValueError: No such map.
        """
        item = self._map(name)
        return MapShape(
            int(lib.bpf_map__type(item)),
            int(lib.bpf_map__key_size(item)),
            int(lib.bpf_map__value_size(item)),
            int(lib.bpf_map__max_entries(item)),
            int(lib.bpf_map__map_flags(item)),
        )

    def reuse_map(self, name: str, existing: Map) -> None:
        """Use an ``existing`` map in place of map ``name``, so that new programs keep old data.

        The caller keeps ``existing``; the loaded object has a descriptor of its own.

        Raises:
            InvalidValueError: No such map.
            BpfError: libbpf refuses. That both maps are alike is checked by the verifier, at `load`.
        """
        check(lib.bpf_map__reuse_fd(self._map(name), existing.fileno()), f"reuse a map as {name!r}")

    def select_programs(self, *names: str) -> None:
        """Load only these programs.

        Raises:
            InvalidValueError: No program has one of the names.
        """
        for name in names:
            if name not in self.programs:
                raise InvalidValueError(f"{self._name} has no program {name!r}", argument="names", value=name)
        for item in _programs_of(self._alive()):
            name = text(lib.bpf_program__name(item))
            check(lib.bpf_program__set_autoload(item, name in names), f"leave program {name!r} out")
        self.programs = names

    def load(self) -> Object:
        """Load maps and programs into the kernel. The specification is closed by it, whatever the outcome.

        Raises:
            VerifierError: The verifier rejected a program.
            PrivilegeError: ``CAP_BPF``, ``CAP_NET_ADMIN`` or ``CAP_PERFMON`` is missing.
            UnsupportedError: The kernel has no BTF.
            KernelError: The process may not open enough descriptors.
            BpfError: Anything else, a kernel function the kernel does not have among them.
        """
        pointer = self._alive()
        logs = {name: _log_buffer(item) for name, item in self._selected()}
        try:
            # A shortage in the middle of it libbpf takes for a feature that the kernel lacks, until the process ends.
            needed = 2 * (len(self.maps) + len(self.programs)) + _LIBBPFS_OWN
            require_descriptors(needed, operation=f"load BPF object {self._name!r}")
            with listening() as said:
                result = lib.bpf_object__load(pointer)
            if result < 0:
                raise self._load_failure(-result, logs, said)
            return _take(pointer, dict(self._selected()))
        finally:
            self.close()

    def _release(self) -> None:
        lib.bpf_object__close(self._pointer)

    def __del__(self) -> None:
        # Before loading, libbpf holds memory alone: nothing that needs a warning.
        self.close()

    def __repr__(self) -> str:
        return f"ObjectSpec({self._name!r}{', closed' if self._closed else ''})"

    def _alive(self) -> CData:
        if self._closed:
            raise ClosedError(f"BPF object {self._name!r} was loaded or closed")
        return self._pointer

    def _selected(self) -> Iterator[tuple[str, CData]]:
        for item in _programs_of(self._alive()):
            name = text(lib.bpf_program__name(item))
            if name in self.programs:
                yield name, item

    def _map(self, name: str) -> CData:
        for item in _maps_of(self._alive()):
            if _map_name(item) == name:
                return item
        raise InvalidValueError(f"{self._name} has no map {name!r}", argument="name", value=name)

    def _load_failure(self, errno: int, logs: Mapping[str, CData], said: list[str]) -> Exception:
        """Say which program the verifier stopped at: the one whose log is not empty."""
        operation = f"load BPF object {self._name!r}"
        for program, buffer in logs.items():
            log = text(buffer).splitlines()
            if log and errno != _errno.EPERM:
                operation = f"load BPF program {program!r}"
                return VerifierError(operation, errno=errno, program=program, log=log)
        btf = has_btf()
        if errno == _errno.ESRCH and btf.available is False:
            return UnsupportedError(f"{operation}: {btf.reason}", feature="btf", hint=btf.instead)
        return failure(operation, errno, needs=_LOAD_NEEDS, said="; ".join(said))


def _raw_btf(pointer: CData) -> bytes:
    size = ffi.new("__u32 *")
    btf = lib.bpf_object__btf(pointer)
    raw = lib.btf__raw_data(btf, size) if btf else None
    return bytes(ffi.buffer(raw, size[0])) if raw else b""


def _maps_of(pointer: CData) -> Iterator[CData]:
    item = lib.bpf_object__next_map(pointer, ffi.NULL)
    while item:
        yield item
        item = lib.bpf_object__next_map(pointer, item)


def _programs_of(pointer: CData) -> Iterator[CData]:
    item = lib.bpf_object__next_program(pointer, ffi.NULL)
    while item:
        yield item
        item = lib.bpf_object__next_program(pointer, item)


def _map_name(item: CData) -> str:
    """Name of a map. libbpf puts the object's name before that of a data section."""
    name = text(lib.bpf_map__name(item))
    return name[name.index(".") :] if lib.bpf_map__is_internal(item) else name


def _log_buffer(program: CData) -> CData:
    buffer = _new_uncleared("char[]", _LOG_SIZE)
    buffer[0] = b"\0"
    check(lib.bpf_program__set_log_buf(program, buffer, _LOG_SIZE), "set a verifier log")
    return buffer


def _take(pointer: CData, selected: Mapping[str, CData]) -> Object:
    """Duplicate every descriptor, so that libbpf's object can be closed and each has one owner."""
    with ExitStack() as undo:
        maps = {
            name: undo.enter_context(Map.copy_of(lib.bpf_map__fd(item), what=f"map {name!r}"))
            for item, name in ((item, _map_name(item)) for item in _maps_of(pointer))
        }
        programs = {
            name: undo.enter_context(Program.copy_of(lib.bpf_program__fd(item), what=f"program {name!r}"))
            for name, item in selected.items()
        }
        undo.pop_all()
    return Object(maps=MappingProxyType(maps), programs=MappingProxyType(programs))
