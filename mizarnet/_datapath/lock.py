# SPDX-License-Identifier: Apache-2.0
"""The locks that the writers of one host take: on the host, on its tables, and on each name of an endpoint.

They are sections of a file in ``/run/mizarnet``, one for each network namespace, which the kernel unlocks when their
holder dies. Who changes the data path itself holds the host alone; who changes its content shares the host, and holds
a section of its own. So endpoints of different names are made and deleted side by side, and nobody waits for the end of
another's device.

Correctness does not depend on it: two processes, each with a ``/run`` of its own, do not see each other's file. Then a
call of theirs may fail, but no table is lost. The namespace's own file would be seen by all processes, but any local
user can lock that for ever.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import stat
import struct
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import attrs

from mizarnet._kernel.jobs import stopping
from mizarnet._kernel.refusals import refused as explanation
from mizarnet.errors import ExistsError, LockTimeoutError, MizarnetError, PrivilegeError

DIRECTORY = Path("/run/mizarnet")
TIMEOUT = 10.0
"""Time that a writer waits for a lock, in seconds."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_PAUSE = 0.0005
"""Mean time between two attempts, in seconds."""
_FLOCK = struct.Struct("hhqqi4x")  # struct flock, with 64-bit offsets
_QUEUE_BYTES = 1 << 58


@attrs.frozen
class Section:
    """A part of a host that is locked by itself: a byte of the file, and the places of those who wait for it.

    Whoever waits locks the byte of the microsecond at which it came, in the way in which it wants the section: the
    kernel tells the others that it is there, until it dies. So all come in turn, and those who share a section cannot
    keep out one who wants it alone.

    Attributes:
        offset: Offset of the section's lock.
        queue: Offset of the first place; 0: there are none, as few ever wait at one time.
        shared: Whether others may share it.
    """

    offset: int
    queue: int = 0
    shared: bool = False


HOST = Section(1, queue=1 << 60)
SHARED_HOST = attrs.evolve(HOST, shared=True)
TABLES = Section(3, queue=HOST.queue + _QUEUE_BYTES)
"""Of the tables that users write: endpoints of other hosts, networks, peers."""
READERS = Section(4)
"""Of the places of those who read events."""
SHARED_TABLES = attrs.evolve(TABLES, shared=True)
TABLE_WRITER = (SHARED_HOST, TABLES)
_FIRST_NAME = 1 << 32


def endpoint_writer(name: str) -> tuple[Section, Section]:
    """The sections of whoever makes or deletes the endpoint of a name."""
    return SHARED_HOST, of_name(name)


def of_name(name: str) -> Section:
    """The section of the endpoints that have a name, whatever their tunnel."""
    digest = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")
    return Section(_FIRST_NAME + digest)


def of_names(names: Iterable[str]) -> list[Section]:
    """The sections of several names, in the one order in which all callers take them."""
    return sorted({of_name(name) for name in names}, key=lambda section: section.offset)


@contextmanager
def locked(cookie: int, *sections: Section, timeout: float | None = None) -> Generator[None, None, None]:
    """Hold sections of a host's lock against other processes and threads.

    Args:
        cookie: Cookie of the host's network namespace.
        sections: Sections, taken in this order; without one, the host alone.
        timeout: Time to wait for all of them, in seconds; None: ``TIMEOUT``.

    Raises:
        LockTimeoutError: Other processes or threads held one all that time; ``pid`` is the holder's, if the kernel
            tells.
        PrivilegeError: ``/run/mizarnet`` or the file is not root's alone, or this user cannot make it.
        ExistsError: ``/run/mizarnet`` is no directory, or the file in it is no regular file.
        KernelError: The file system refused, for instance because it is read-only.
    """
    wait = TIMEOUT if timeout is None else timeout
    descriptor = _acquire(DIRECTORY / f"{cookie:x}", sections or (HOST,), wait)
    try:
        yield
    finally:
        _let_go(descriptor)


def identity(cookie: int) -> int:
    """Id of a host's lock file; 0 if there is none.

    A process that holds a lock with this id knows that any earlier holder of the same id released it, or died.

    Args:
        cookie: Cookie of the host's network namespace.
    """
    with suppress(OSError):
        found = os.lstat(DIRECTORY / f"{cookie:x}")
        return (found.st_dev << 40 ^ found.st_ino) & (1 << 64) - 1
    return 0


def forget(cookie: int) -> None:
    """Delete the lock file of a namespace that was deleted, if there is one and nobody holds a part of it.

    Who waits for the lock then takes it in a new file.

    Args:
        cookie: Cookie of the network namespace.
    """
    path = DIRECTORY / f"{cookie:x}"
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _set(descriptor, fcntl.F_WRLCK, 0, 0)
            if _is_at(path, descriptor):
                path.unlink()
        finally:
            os.close(descriptor)


def _acquire(path: Path, sections: tuple[Section, ...], timeout: float) -> int:
    deadline = time.monotonic() + timeout
    while True:
        _make_directory(path.parent)
        descriptor = _open_own(path)
        with ExitStack() as undo:
            if descriptor is not None:
                _held.add(descriptor)
                undo.callback(_let_go, descriptor)
                for section in sections:
                    _take(descriptor, section, path, deadline, timeout)
                # The directory may have been removed with the service that it was made for: such a lock is void.
                if _is_at(path, descriptor):
                    undo.pop_all()
                    return descriptor
        if time.monotonic() > deadline:
            raise _overdue(path, HOST.offset, timeout)


_held: set[int] = set()


def _let_go(descriptor: int) -> None:
    if descriptor in _held:  # else this is a child, which was forked inside of the block
        _held.remove(descriptor)
        # A child forked meanwhile shares the open file until it runs, so closing alone might leave that locked.
        _set(descriptor, fcntl.F_UNLCK, 0, 0)
        os.close(descriptor)


def _forget_held() -> None:
    """Close a parent's descriptors in a child: it shares the open files, which would stay locked if the parent dies."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_forget_held)


def _take(descriptor: int, section: Section, path: Path, deadline: float, timeout: float) -> None:
    kind = fcntl.F_RDLCK if section.shared else fcntl.F_WRLCK
    place = 0
    while not (
        _is_next(descriptor, kind, section, place, path) and _try(descriptor, kind, section.offset, path)
    ):
        if time.monotonic() > deadline or stopping():
            raise _overdue(path, section.offset, timeout)
        if section.queue and not place:
            place = _queue_up(descriptor, kind, section, path)
        time.sleep(_PAUSE * random.uniform(0.5, 1.5))
    if place:
        _set(descriptor, fcntl.F_UNLCK, place)


def _is_next(descriptor: int, kind: int, section: Section, place: int, path: Path) -> bool:
    """Whether nobody waits whom to let pass: for one who shares, those who want the section alone."""
    if not section.queue:
        return True
    before = place - section.queue if place else _QUEUE_BYTES
    asked = _FLOCK.pack(kind, os.SEEK_SET, section.queue, before, 0)
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
    except OSError as refused:
        raise _refusal("lock", path, refused) from None
    found: int = _FLOCK.unpack(answer)[0]
    return found == fcntl.F_UNLCK


def _queue_up(descriptor: int, kind: int, section: Section, path: Path) -> int:
    """Take a place behind all who wait; its offset."""
    # The one clock that is the same in all time namespaces. Where it is set, some come out of turn.
    place = section.queue + time.time_ns() // 1000
    while not _try(descriptor, kind, place, path):
        place += 1  # another one came in the same microsecond
    return place


def _try(descriptor: int, kind: int, offset: int, path: Path) -> bool:
    try:
        _set(descriptor, kind, offset)
    except BlockingIOError:
        return False
    except OSError as refused:
        raise _refusal("lock", path, refused) from None
    return True


def _set(descriptor: int, kind: int, offset: int, length: int = 1) -> None:
    """Set a lock of the open file, not of the process: threads exclude each other, too. Length 0: up to the end."""
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, offset, length, 0))


def _is_at(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    return False


def _make_directory(directory: Path) -> None:
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass  # its kind and owner are checked below
    except OSError as refused:
        raise _refusal("make the directory", directory, refused) from None
    try:
        found = os.lstat(directory)
    except FileNotFoundError:
        return  # removed with the service that it was made for; the next attempt makes it again
    except OSError as refused:
        raise _refusal("look at", directory, refused) from None
    if not stat.S_ISDIR(found.st_mode):
        raise _wrong_kind(directory, found, "directory")
    _check_owner(directory, found, mode=0o700)


def _open_own(path: Path) -> int | None:
    """Open the file, made if need be, and refuse one that is not root's alone; None if its directory is gone."""
    with ExitStack() as undo:
        descriptor = _open(path)
        if descriptor is None:
            return None
        undo.callback(os.close, descriptor)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _wrong_kind(path, found, "file")
        _check_owner(path, found, mode=0o600)
        undo.pop_all()
        return descriptor


def _open(path: Path) -> int | None:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        return None  # the directory was removed meanwhile
    except OSError as refused:
        if refused.errno in (errno.ELOOP, errno.EISDIR):
            _refuse_kind(path)
            return None
        raise _refusal("open", path, refused) from None


def _refuse_kind(path: Path) -> None:
    try:
        found = os.lstat(path)
    except OSError:
        return  # it was removed meanwhile
    raise _wrong_kind(path, found, "file")


def _check_owner(path: Path, found: os.stat_result, *, mode: int) -> None:
    if found.st_uid or found.st_mode & _OTHERS:
        raise PrivilegeError(
            f"{path} belongs to user {found.st_uid} with mode {stat.S_IMODE(found.st_mode):o}",
            missing=(),
            hint=f"it must be root's, with mode {mode:o}: find out which program made it, and remove it",
        )


def _wrong_kind(path: Path, found: os.stat_result, wanted: str) -> ExistsError:
    what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "something else"
    return ExistsError(
        f"{path} is {what}, not a {wanted}",
        holder=str(path),
        hint="find out which program made it, and remove it",
    )


def _refusal(operation: str, path: Path, refused: OSError) -> MizarnetError:
    number = refused.errno or errno.EIO
    hint = "/run must be a writable file system" if number in (errno.EROFS, errno.ENOENT) else ""
    return explanation(f"{operation} {path}", number, capability="CAP_DAC_OVERRIDE", hint=hint)


def _overdue(path: Path, offset: int, timeout: float) -> LockTimeoutError:
    holder = _holder(path, offset) if timeout else None  # who does not wait goes on without it
    who, hint = "another process", f"try again; fuser {path} names those who use it"
    if holder == os.getpid():
        who, hint = "another thread of this process", "try again once its call has ended"
    elif holder:
        who, hint = f"process {holder}", f"try again once it has ended; ps {holder} shows what it is"
    text = f"{who} holds {path} after a wait of {timeout:g} s"
    return LockTimeoutError(text, timeout=timeout, pid=holder, hint=hint)


def _holder(path: Path, offset: int) -> int | None:
    """Id of a process that holds the lock at an offset; None where the kernel does not tell, as across pid namespaces.

    The kernel's list of locks has no process for one of an open file: each process's own list of descriptors has it.
    """
    with suppress(OSError):
        wanted = os.lstat(path)
        for process in filter(str.isdigit, os.listdir("/proc")):
            if any(offset in span for span in _locks_of(process, wanted)):
                return int(process)
    return None


def _locks_of(process: str, file: os.stat_result) -> Iterator[range]:
    """Parts of a file that a process has locked; none of one that ends meanwhile, or is not to be seen."""
    with suppress(OSError):
        for descriptor in os.listdir(f"/proc/{process}/fd"):
            with suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{process}/fd/{descriptor}"), file):
                    yield from _spans(
                        Path(f"/proc/{process}/fdinfo/{descriptor}").read_text(encoding="ascii")
                    )


def _spans(facts: str) -> Iterator[range]:
    for line in facts.splitlines():
        if line.startswith("lock:") and not line.endswith("EOF"):
            first, last = line.split()[-2:]
            yield range(int(first), int(last) + 1)
