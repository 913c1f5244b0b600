# SPDX-License-Identifier: Apache-2.0
"""What the system refuses at the pins is an error of this package, and leaves no descriptor open."""

from __future__ import annotations

import errno
from textwrap import dedent

import mizarnet as mz
from tests.support.process import run_python
from tests.support.topology import TUNNEL, Host

# A file system of the process's own, mounted over the one of that name or changed.
ALONE = ("unshare", "--mount", "sh", "-c")
WITHOUT_PROC = (*ALONE, 'mount -t tmpfs tmpfs /proc && exec "$@"', "sh")
READ_ONLY = (*ALONE, 'mount -o remount,bind,ro /sys/fs/bpf && exec "$@"', "sh")

# The lowest free descriptor, which is a higher one once any was left open.
LOWEST = """
def lowest():
    number = os.open("/", os.O_RDONLY)
    os.close(number)
    return number
before = lowest()
"""


def test_a_pin_that_proc_does_not_tell_about_is_not_used(host: Host) -> None:
    program = """
        from mizarnet import bpf
        try:
            bpf.Map.open_pinned(sys.argv[1])
        except mz.BpfError as refused:
            print(refused.errno, refused.hint, lowest() - before)
    """
    said = python(program, str(host.agent.store.directory / "meta"), by=WITHOUT_PROC)
    assert said == f"{errno.ENOENT} /proc must be mounted 0\n"


def test_a_file_system_of_pins_that_may_not_be_written_is_an_error_of_the_kernels(host: Host) -> None:
    host.agent.detach()
    program = """
        with mz.Tunnel.open(sys.argv[1], netns=sys.argv[2]) as tunnel:
            before = lowest()
            try:
                mz.TransitAgent.attach(tunnel)
            except mz.BpfError as refused:
                print(refused.errno, lowest() - before)
    """
    assert python(program, TUNNEL, host.namespace.name, by=READ_ONLY) == f"{errno.EROFS} 0\n"
    with mz.TransitAgent.attach(host.tunnel) as agent:
        assert agent.created


def test_a_lock_that_the_kernel_refuses_leaves_no_descriptor(host: Host) -> None:
    program = """
        from mizarnet.store import locked
        def refuse(event, arguments):
            if event == "fcntl.flock":
                raise OSError(int(sys.argv[2]), "no more locks")
        sys.addaudithook(refuse)
        try:
            with locked(int(sys.argv[1])):
                pass
        except OSError as refused:
            print(refused.errno, lowest() - before)
    """
    said = python(program, str(host.agent.session.cookie), str(errno.ENOLCK))
    assert said == f"{errno.ENOLCK} 0\n"


def python(program: str, *arguments: str, by: tuple[str, ...] = ()) -> str:
    """The output of a program that knows the ``lowest()`` free descriptor, now and ``before``."""
    return run_python(LOWEST + dedent(program), *arguments, by=by)
