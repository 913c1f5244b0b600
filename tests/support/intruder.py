# SPDX-License-Identifier: Apache-2.0
"""Processes with more or less power over a network namespace, which try what they are told and say what came of it.

An attempt is a command (``ip link set eth0 mtu 9000``) or, after ``>``, a Python expression over what
``intruder_inside.py`` has. What came of it is told in a word: the name of an error, ``done``, ``nothing``, or what a
command that shows something has printed.
"""

from __future__ import annotations

import enum
import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import mizarnet as mz
from tests.support.namespace import Namespace
from tests.world import Tenants, new_namespace, quiet

_INSIDE = (Path(__file__).parent / "intruder_inside.py").read_text()
# Not the environment's own: the directory that is in need not be open to everybody.
_PYTHON = os.path.realpath(sys.executable)
_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
# As in a container: no process of the host to be seen, and no file system of the host's that tells of others.
_CONTAINER = (
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *("sh", "-c", 'mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs /run && exec "$@"', "sh"),
)
# What the tools say in their own words.
_MESSAGES = {
    "does not exist": "ENODEV",
    "Cannot find device": "ENODEV",
    "permission denied": "EPERM",
    'Invalid "netns" value': "ENOENT",
}


class Guise(enum.Enum):
    """Who the process is, by the capabilities that it keeps."""

    PLAIN = ""
    """A user of the container without any capability: T0."""
    RAW = "net_raw"
    """Root with raw sockets: T1."""
    ADMIN = "net_admin net_raw bpf"
    """Root with all there is to networking, in the host's own user namespace: T2."""
    ROOTLESS = "all"
    """Nobody on the host, but root of a user namespace that owns the network namespace: T2."""


class Intruder:
    """A process and its namespace, which last as long as the ``with`` block.

    Attributes:
        namespace: The process's.
    """

    def __init__(self, guise: Guise, *, descriptors: tuple[int, ...] = ()) -> None:
        """Start it; it inherits ``descriptors``."""
        if guise is Guise.ROOTLESS:
            enter = (*_NOBODY, "unshare", "--user", "--map-root-user", "--net", *_CONTAINER)
            self._start(enter, descriptors)
            self.namespace = _named(self._process.pid)
        else:
            self.namespace = new_namespace(guise.name.lower())
            kept = ",".join(("-all", *(f"+{name}" for name in guise.value.split())))
            limited = (
                *(_NOBODY if guise is Guise.PLAIN else ("setpriv",)),
                f"--bounding-set={kept}",
                "--inh-caps=-all",
            )
            self._start(("nsenter", f"--net={self.namespace.path}", *_CONTAINER, *limited), descriptors)

    def _start(self, by: tuple[str, ...], descriptors: tuple[int, ...]) -> None:
        command = [*by, _PYTHON, "-I", "-c", _INSIDE]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=descriptors
        )
        assert self._answer() == "ready"

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the intruder ended: {self._process.wait()}"
        return json.loads(line)

    def attempt(self, what: str) -> str:
        """Let it try; what came of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return answer if isinstance(answer, str) else _in_a_word(what, *answer)

    def must(self, *attempts: str) -> None:
        """Let it do what it may."""
        for what in attempts:
            assert (came := self.attempt(what)) == "done", f"{what}: {came}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        try:
            self._take_devices_away()
        finally:
            self.namespace.delete()

    def _take_devices_away(self) -> None:
        # The kernel clears a namespace some time after it is gone, and until then a device on top of a shared one
        # keeps its MAC from everybody's next.
        for kind in ("macvlan", "macvtap"):
            for link in json.loads(self.namespace.run("ip", "-json", "link", "show", "type", kind)):
                self.namespace.run("ip", "link", "delete", link["ifname"])


@contextmanager
def tenant(
    net: Tenants, guise: Guise, *, vni: int, ip: str = "10.0.0.66/24", descriptors: tuple[int, ...] = ()
) -> Iterator[tuple[Intruder, mz.Endpoint]]:
    """An endpoint on the first host that both hosts know, and a process with that power over its namespace."""
    with Intruder(guise, descriptors=descriptors) as root:
        quiet(root.namespace)
        made = mz.Endpoint.create(
            net.first.agent, vni=vni, ip=ip, netns=root.namespace.path, trust_user_namespace=True
        )
        net.second.agent.endpoints[vni, made.ip] = mz.Remote(net.first.address)
        yield root, made
        made.delete()
        del net.second.agent.endpoints[vni, made.ip]


def _named(pid: int) -> Namespace:
    """The namespace of a process, under a name."""
    found = Namespace.adopt(f"mzt-{os.getpid()}-rootless-{pid}")
    Path(found.path).touch()
    subprocess.run(["mount", "--bind", f"/proc/{pid}/ns/net", found.path], check=True)
    return found


def _in_a_word(what: str, status: int, output: str, errors: str) -> str:
    if status == 0:
        shows = what.startswith("ls ") or " show" in what
        return (output.strip() or "nothing") if shows else "done"
    known = {os.strerror(number): name for number, name in errno.errorcode.items()} | _MESSAGES
    return next((name for text, name in known.items() if text in errors), f"{status}: {errors.strip()}")
