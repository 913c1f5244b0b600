# SPDX-License-Identifier: Apache-2.0
"""The pinned maps of one transit agent: where they are, who may write, and what they say of local endpoints.

Pins lie in ``/sys/fs/bpf/mizarnet/<cookie of the host's namespace>/<tunnel>/``, so hosts on one machine never
meet. Writers hold a lock on the host's directory, which the kernel releases when a process dies.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import attrs

from mizarnet import bpf
from mizarnet.abi import layouts, records
from mizarnet.abi.records import META_KEY, Meta, Record, schema_of
from mizarnet.bpf import Map, MapType, Object
from mizarnet.bpf.pin import check_pin_directory, wrong_pin
from mizarnet.checks import IPAddress
from mizarnet.errors import (
    AgentNotFoundError,
    ClosedError,
    ForkedError,
    LayoutError,
    LockTimeoutError,
    NotFoundError,
    StaleHandleError,
)
from mizarnet.numbers import Limit
from mizarnet.values import EndpointKey, Local, MacAddress

ROOT = Path("/sys/fs/bpf/mizarnet")
LOCK_TIMEOUT = 10.0
"""Seconds that a writer waits for another."""

_NUMBER = 4  # bytes of a key or value that is a __u32
_SHAPES = {
    "endpoints": (MapType.HASH, layouts.ENDPOINT_KEY.size, layouts.ENDPOINT.size),
    "interfaces": (MapType.HASH, layouts.MAC.size, layouts.INTERFACE.size),
    "networks": (MapType.LPM_TRIE, layouts.NETWORK_KEY.size, layouts.NETWORK.size),
    "peers": (MapType.LPM_TRIE, layouts.PEER_KEY.size, _NUMBER),
    "verdicts": (MapType.PERCPU_ARRAY, _NUMBER, layouts.COUNTER.size),
    "traffic": (MapType.PERCPU_ARRAY, _NUMBER, layouts.TRAFFIC.size),
    "records": (MapType.HASH, layouts.RECORD_KEY.size, layouts.RECORD.size),
    "meta": (MapType.ARRAY, _NUMBER, layouts.META.size),
}
"""Type of each map, and the bytes of a key and of a value."""


@attrs.frozen
class Maps:
    """The maps of an agent, by name."""

    endpoints: Map
    interfaces: Map
    networks: Map
    peers: Map
    verdicts: Map
    traffic: Map
    records: Map
    meta: Map

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Every map's name, which is its pin's too."""
        return tuple(attribute.name for attribute in attrs.fields(cls))

    @classmethod
    def of(cls, loaded: Object) -> Maps:
        """Those of a loaded object."""
        return cls(**{name: loaded.maps[name] for name in cls.names()})

    @classmethod
    def open(cls, directory: Path) -> Maps:
        """Those that are pinned in ``directory``.

        Raises:
            NotFoundError: One is missing.
            LayoutError: Another version of this package pinned them.
            BpfError: What is pinned is not what an agent pins.
        """
        opened: dict[str, Map] = {}
        try:
            for name in cls.names():
                opened[name] = Map.open_pinned(str(directory / name), name=name)
            read_meta(opened["meta"])
            _check_shapes(opened, directory)
        except BaseException:
            for each in opened.values():
                each.close()
            raise
        return cls(**opened)

    def pin(self, directory: Path) -> None:
        """Pin each map under its name."""
        for name in self.names():
            getattr(self, name).pin(str(directory / name))

    def close(self) -> None:
        """Let go of the descriptors."""
        for name in self.names():
            getattr(self, name).close()


def _check_shapes(maps: Mapping[str, Map], directory: Path) -> None:
    """A map of the right name may still be another's: what is read from it would mean something else."""
    entries = {
        "verdicts": Limit.PROGRAMS * Limit.VERDICTS,
        "records": maps["interfaces"].max_entries,
        "traffic": maps["interfaces"].max_entries,
        "meta": 1,
    }
    for name, each in maps.items():
        wanted = (*_SHAPES[name], entries.get(name, each.max_entries))
        if (each.type, each.key_size, each.value_size, each.max_entries) != wanted:
            raise wrong_pin(str(directory / name), f"holds a {each.type.name} that is not the agent's")


def read_meta(meta: Map) -> Meta | None:
    """What the agent's map ``meta`` says; None until whoever attached the agent got to the end.

    Raises:
        LayoutError: Another version of this package attached it, or something else pinned it.
    """
    if meta.type is not MapType.ARRAY:
        raise LayoutError(
            "the map pinned as meta is no transit agent's",
            struct="mzn_meta",
            differences=[f"a map of type {meta.type.name}"],
            hint="find out who pinned it, and remove it",
        )
    data = meta.lookup(META_KEY) or bytes(meta.value_size)
    schema = schema_of(data)
    if schema and (schema != Limit.SCHEMA or len(data) != layouts.META.size):
        raise LayoutError(
            f"another version of mizarnet attached the transit agent (schema {schema}, this one has {Limit.SCHEMA})",
            struct="mzn_meta",
            differences=[f"schema {schema}, {len(data)} bytes"],
            hint="use that version, or delete the tunnel with force=True",
        )
    return Meta.unpack(data) if schema else None


def host_directory(cookie: int) -> Path:
    """Where the pins of the host with that namespace cookie lie."""
    return ROOT / f"{cookie:x}"


@contextmanager
def locked(cookie: int, *, timeout: float = LOCK_TIMEOUT) -> Generator[Path, None, None]:
    """Hold the host's lock, against other processes and other threads; gives the host's directory.

    Raises:
        LockTimeoutError: Somebody else held it all the time.
        PrivilegeError: No access to the BPF file system, or somebody else made the directory there.
        ExistsError: Something that is no directory has its name.
    """
    bpf.ensure_bpffs()
    directory = host_directory(cookie)
    descriptor = _lock(directory, time.monotonic() + timeout, timeout)
    try:
        yield directory
    finally:
        _remove_if_empty(directory)
        os.close(descriptor)


def _lock(directory: Path, deadline: float, timeout: float) -> int:
    pause = 0.001
    while True:
        with suppress(NotFoundError):  # the last holder of the lock removed it meanwhile: once more
            bpf.make_pin_directory(str(directory))
        descriptor = _try_lock(directory)
        if descriptor is not None:
            return descriptor
        if time.monotonic() > deadline:
            raise LockTimeoutError(
                f"another process holds {directory} for more than {timeout:g} s", timeout=timeout
            )
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def _try_lock(directory: Path) -> int | None:
    with ExitStack() as undo, suppress(BlockingIOError, FileNotFoundError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        undo.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have removed the directory meanwhile: a lock on that one guards nothing.
        if os.fstat(descriptor).st_ino == os.stat(directory).st_ino:
            undo.pop_all()
            return descriptor
    return None


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return  # an agent's pins are in it


class Store:
    """The maps of one attached agent, opened from their pins."""

    def __init__(self, cookie: int, tunnel: str) -> None:
        self.cookie = cookie
        self.directory: Path = host_directory(cookie) / tunnel
        self._pid = os.getpid()
        self._closed = False
        try:
            check_pin_directory(str(self.directory))
            self._inode = os.stat(self.directory / "meta").st_ino
            self._maps = Maps.open(self.directory)
        except (FileNotFoundError, NotFoundError):
            raise AgentNotFoundError(
                f"no transit agent is attached to {tunnel}",
                hint="attach one with TransitAgent.attach(tunnel)",
            ) from None

    def close(self) -> None:
        """Let go of the maps; the kernel keeps them."""
        if not self._closed:
            self._closed = True
            self._maps.close()

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    @property
    def maps(self) -> Maps:
        """The maps, for reading.

        Raises:
            ClosedError: After ``close()``.
            ForkedError: In a child of the process that opened them.
            StaleHandleError: The agent was detached, or another was attached since.
        """
        if self._closed:
            raise ClosedError(
                "the transit agent's handle is closed", hint="open another with TransitAgent.open()"
            )
        if self._pid != os.getpid():
            raise ForkedError("the handle was made before a fork", hint="open another in this process")
        try:
            current = os.stat(self.directory / "meta").st_ino
        except FileNotFoundError:
            current = None
        if current != self._inode:
            raise StaleHandleError(
                "the transit agent behind this handle was detached",
                hint="open the new one with TransitAgent.open()",
            )
        return self._maps

    @contextmanager
    def writing(self) -> Generator[Maps, None, None]:
        """The maps under the host's lock, so that nobody else writes; raises as :attr:`maps` and :func:`locked` do."""
        if self._closed or self._pid != os.getpid():
            _ = self.maps  # raises
        with locked(self.cookie):
            yield self.maps

    # -- what the maps say of local endpoints

    def record(self, name: str) -> Record | None:
        """The endpoint of that name."""
        data = self.maps.records.lookup(records.record_key(name))
        return None if data is None else Record.unpack(data)

    def record_at(self, vni: int, ip: IPAddress) -> Record | None:
        """The local endpoint with that address."""
        data = self.maps.endpoints.lookup(records.pack_endpoint_key(EndpointKey(vni, ip)))
        if data is None:
            return None
        found = records.unpack_endpoint(data)
        return self.record_of(found.mac) if isinstance(found, Local) else None

    def record_of(self, mac: MacAddress) -> Record | None:
        """The local endpoint with that MAC."""
        interface = self.maps.interfaces.lookup(records.mac_key(mac))
        if interface is None:
            return None
        data = self.maps.records.lookup(records.record_of(interface))
        return None if data is None else Record.unpack(data)

    def all_records(self) -> list[Record]:
        """Every local endpoint, by name."""
        found = [Record.unpack(data) for _, data in self.maps.records.items()]
        return sorted(found, key=lambda record: record.spec.name)
