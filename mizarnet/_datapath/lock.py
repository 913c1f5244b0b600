# SPDX-License-Identifier: Apache-2.0
"""The lock that the writers of one host take in turn.

It is a file in ``/run/mizarnet``, one for each network namespace, which the kernel unlocks when its holder dies.
Correctness does not depend on it: two processes, each with a ``/run`` of its own, do not see each other's file. Then a
call of theirs may fail, but no table is lost. The namespace's own file would be seen by all processes, but any local
user can lock that for ever.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mizarnet._kernel.jobs import stopping
from mizarnet._kernel.refusals import refused as explanation
from mizarnet.errors import ExistsError, LockTimeoutError, MizarnetError, PrivilegeError

DIRECTORY = Path("/run/mizarnet")
TIMEOUT = 10.0
"""Time that a writer waits for the lock, in seconds."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@contextmanager
def locked(cookie: int, *, timeout: float = TIMEOUT) -> Generator[None, None, None]:
    """Hold the lock of a host against other processes and threads.

    Args:
        cookie: Cookie of the host's network namespace.
        timeout: Time to wait for the lock, in seconds.

    Raises:
        LockTimeoutError: Other processes or threads held the lock all that time; ``pid`` is the holder's, if the kernel
            tells.
        PrivilegeError: ``/run/mizarnet`` or the file is not root's alone, or this user cannot make it.
        ExistsError: ``/run/mizarnet`` is no directory, or the file in it is no regular file.
        KernelError: The file system refused, for instance because it is read-only.
    """
    descriptor = _acquire(DIRECTORY / f"{cookie:x}", time.monotonic() + timeout, timeout)
    try:
        yield
    finally:
        # A child forked meanwhile shares the open file, so closing the descriptor here would leave it locked.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


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


def _acquire(path: Path, deadline: float, timeout: float) -> int:
    pause = 0.001
    while True:
        _make_directory(path.parent)
        descriptor = _try(path)
        if descriptor is not None:
            return descriptor
        if time.monotonic() > deadline or stopping():
            raise _overdue(path, timeout)
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


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


def _try(path: Path) -> int | None:
    with ExitStack() as undo:
        descriptor = _open(path)
        if descriptor is None:
            return None
        undo.callback(os.close, descriptor)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _wrong_kind(path, found, "file")
        _check_owner(path, found, mode=0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError as refused:
            raise _refusal("lock", path, refused) from None
        # The directory may have been removed with the service that it was made for. A lock on the old file is void.
        with suppress(FileNotFoundError):
            if os.lstat(path).st_ino == found.st_ino:
                undo.pop_all()
                return descriptor
    return None


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


def _overdue(path: Path, timeout: float) -> LockTimeoutError:
    holder = _holder(path)
    who, hint = "another process", f"try again; lslocks | grep {path} names it"
    if holder == os.getpid():
        who, hint = "another thread of this process", "try again once its call has ended"
    elif holder:
        who, hint = f"process {holder}", f"try again once it has ended; ps {holder} shows what it is"
    text = f"{who} holds {path} after a wait of {timeout:g} s"
    return LockTimeoutError(text, timeout=timeout, pid=holder, hint=hint)


def _holder(path: Path) -> int | None:
    """Id of the process that holds the lock; None where the kernel does not tell, as across pid namespaces."""
    with suppress(OSError, ValueError):
        found = os.lstat(path)
        device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == device:
                return int(fields[4]) or None
    return None
