# SPDX-License-Identifier: Apache-2.0
"""Simulated hosts on one machine, for demonstrations, tests, benchmarks and notebooks.

Each host is a network namespace with an ``eth0`` on a common bridge, a tunnel and a transit agent. mizarnet
distributes nothing between hosts: here, :meth:`Lab.publish` plays the part of the control plane.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import ExitStack, suppress
from ipaddress import ip_interface
from threading import Lock
from types import TracebackType
from typing import Final, Literal, Self, final

import attrs

from mizarnet import lab_netns
from mizarnet._datapath.leftovers import sweep
from mizarnet._kernel.jobs import whole
from mizarnet._kernel.netlink import (
    Session,
    add_address,
    create_bridge,
    create_veth,
    get_link,
    set_link,
)
from mizarnet._model import arguments
from mizarnet._model.arguments import IPAddress, IPInterface
from mizarnet._model.described import Described
from mizarnet._model.html import table
from mizarnet._model.public import public
from mizarnet._model.specs import Encap, EndpointKey, Hook, Remote, parse_member
from mizarnet.agent import TransitAgent
from mizarnet.endpoint import Endpoint
from mizarnet.errors import ClosedError, InvalidValueError
from mizarnet.features import probe_encapsulation
from mizarnet.lab_netns import FABRIC
from mizarnet.tunnel import Tunnel

UNDERLAY: Final = "eth0"
TUNNEL: Final = "tunnel0"
MOST_HOSTS: Final = 64
# With a smaller MTU, inner packets would have less than the 1280 bytes that IPv6 needs.
SMALLEST_MTU: Final = 1280 + 70

_LAB_NAME = re.compile(r"[a-z0-9-]{1,20}")
# No "-": in the name of a namespace, the last "-" ends the lab's name.
_CONTAINER_NAME = re.compile(r"(?!h\d+$|fabric$)[a-z0-9_]{1,32}")

_PLACE = re.compile(r"[a-z0-9_]+")


@public
@attrs.frozen(eq=False)
class LabHost(Described):
    """A simulated host.

    Attributes:
        name: Name of the host: ``"h1"``, ``"h2"``, …
        netns: Name of the host's namespace.
        address: Address of the host on the underlay.
        tunnel: Tunnel of the host, named ``tunnel0``.
        agent: Transit agent of the host.
    """

    name: str
    netns: str
    address: IPAddress
    tunnel: Tunnel
    agent: TransitAgent


@public
@final
class Lab(Described):
    """Hosts joined by an underlay, each with tunnel and transit agent; leaving the ``with`` deletes all of it.

    The remains of an earlier lab of the same name, whose process was killed, are removed first. The machine's own
    namespace is left alone.

    Attributes:
        name: Name of the lab, with which the names of its namespaces begin.
        hosts: Hosts of the lab; the namespace of the first is ``"<name>-h1"``.
        encap: Encapsulation of the tunnels.
        encap_reason: Reason for that encapsulation, as a sentence.

    Raises:
        ClosedError: In :meth:`container`, :meth:`publish` and :meth:`run`, after :meth:`delete`.
    """

    _DESCRIBED = ("name", "hosts", "encap", "encap_reason")

    @whole
    def __init__(
        self,
        *,
        hosts: int = 2,
        mtu: int = 1500,
        encap: Encap | Literal["geneve", "vxlan"] | None = None,
        name: str = "lab",
        ipv6: bool = False,
        max_endpoints: int = 65536,
        max_local: int = 4096,
        hook: Hook | Literal["auto", "tcx", "clsact"] = "auto",
    ) -> None:
        """Build the lab; on failure nothing is left behind.

        Args:
            hosts: Number of hosts, 1 to 64.
            mtu: MTU of the underlay, in bytes, 1350 to 65535.
            encap: Encapsulation of the tunnels; None: Geneve where the kernel has it, else VXLAN.
            name: Name of the lab: 1 to 20 characters of ``a-z``, ``0-9`` and ``-``.
            ipv6: Whether the underlay is fd00:6d7a::/64 instead of 198.51.100.0/24.
            max_endpoints: Room for endpoints on each host, local and remote together, 1 to 16,777,216.
            max_local: Room for endpoints of each host, 1 to 65,536.
            hook: Hooks of each agent, as for :meth:`TransitAgent.attach`.

        Raises:
            InUseError: A lab of that name exists, in this or another process.
            ExistsError: A namespace that is not this lab's has a name that the lab needs.
            LockTimeoutError: Another process was making a lab of that name for 10 s.
            UnsupportedError: The kernel lacks the encapsulation, the hook or the devices.
            PrivilegeError: A capability of root is missing.
        """
        arguments.check_int(hosts, argument="hosts", low=1, high=MOST_HOSTS)
        self._mtu = arguments.check_int(mtu, argument="mtu", low=SMALLEST_MTU, high=arguments.LARGEST_MTU)
        self._ipv6 = arguments.check_bool(ipv6, argument="ipv6")
        self.name: str = _check_name(name, _LAB_NAME, "up to 20 of a-z, 0-9 and -")
        chosen, reason = _choose(encap)
        self.encap: Encap = chosen
        self.encap_reason: str = reason
        self.hosts: tuple[LabHost, ...] = ()
        self._deleted = False
        self._handles = ExitStack()
        self._making = Lock()
        sweep()
        claim = lab_netns.claim(name)
        self._handles.callback(claim.close)
        with ExitStack() as undo:
            undo.callback(self.delete)
            with Session.open(claim) as fabric:
                set_link(fabric, create_bridge(fabric, FABRIC).ifindex, up=True)
                for number in range(1, hosts + 1):
                    tunnel = self._make_host(fabric, number)
                    agent = TransitAgent.attach(
                        tunnel, max_endpoints=max_endpoints, max_local=max_local, hook=hook
                    )
                    self._handles.callback(agent.close)
                    host = LabHost(f"h{number}", f"{name}-h{number}", tunnel.local, tunnel, agent)
                    self.hosts += (host,)
            undo.pop_all()

    def _make_host(self, fabric: Session, number: int) -> Tunnel:
        netns = lab_netns.make(self.name, f"h{number}")
        with Session.open(netns) as host, fabric.open_netns() as far:
            near = create_veth(host, UNDERLAY, peer=f"h{number}", peer_netns=far, mtu=self._mtu)
            bridge, port = get_link(fabric, FABRIC), get_link(fabric, f"h{number}")
            assert bridge is not None and port is not None  # both were just made
            set_link(fabric, port.ifindex, master=bridge.ifindex, up=True)
            set_link(host, near.ifindex, up=True)
            add_address(host, near.ifindex, self._address(number), dad=False)
            tunnel = Tunnel.create(TUNNEL, encap=self.encap, underlay=UNDERLAY, netns=netns)
        self._handles.callback(tunnel.close)
        return tunnel

    def _address(self, number: int) -> IPInterface:
        return ip_interface(f"fd00:6d7a::{number:x}/64" if self._ipv6 else f"198.51.100.{number}/24")

    @whole
    def container(self, name: str) -> str:
        """Make a namespace for an endpoint, with ``lo`` up, unless the lab has one of that name.

        Args:
            name: Name of the container: 1 to 32 characters of ``a-z``, ``0-9`` and ``_``; no name of a host such as
                ``h1``, and not ``fabric``.

        Returns:
            Name of the namespace, ``"<lab>-<name>"``, for ``Endpoint.create(netns=...)``.

        Raises:
            ExistsError: A namespace that is not this lab's has the name ``<lab>-<name>``.
        """
        self._check_alive()
        _check_name(name, _CONTAINER_NAME, "up to 32 of a-z, 0-9 and _, but no host's name")
        with self._making:  # another thread may ask for the same
            if lab_netns.exists(self.name, name):
                return f"{self.name}-{name}"
            return lab_netns.make(self.name, name)

    @whole
    def publish(self) -> None:
        """Write into each host's table where the others' endpoints live, and remove what else was written by hand.

        Entries of feeds stay.

        Raises:
            LocalEndpointError: Two hosts have endpoints with the same VNI and address.
            ForeignEntryError: An entry of a feed leads to the address of such an endpoint; no entry of its host was
                changed.
        """
        self._check_alive()
        homes = {
            EndpointKey(endpoint.vni, address.ip): host
            for host in self.hosts
            for endpoint in Endpoint.list(host.agent)
            for address in endpoint.addresses
        }
        for host in self.hosts:
            others = [(key, Remote(home.address)) for key, home in homes.items() if home is not host]
            host.agent.endpoints.sync(others)

    def run(
        self, where: str, /, *argv: str, timeout: float = 10.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace of a container or host and wait for it.

        Args:
            where: Name of a host, such as ``"h1"``, or of a container, as it was given to :meth:`container`.
            *argv: Command and its arguments; no shell.
            timeout: Time limit in seconds, after which the command and its children are killed, but for those that
                began a session of their own.
            check: Whether an exit status other than zero is an error.

        Returns:
            The finished process, with ``stdout`` and ``stderr`` as text; what is no UTF-8 is replaced in it.

        Raises:
            NetnsNotFoundError: The lab has no such container or host.
            subprocess.CalledProcessError: The command failed, and ``check`` is true; its error output is a note.
            subprocess.TimeoutExpired: The command ran longer than ``timeout``.
            OSError: The command cannot be started: ``FileNotFoundError`` if there is none, ``PermissionError`` if it is
                no program.
        """
        self._check_alive()
        _check_name(where, _PLACE, "the name of a container or host", argument="where")
        _check_command(argv)
        arguments.check_seconds(timeout, argument="timeout")
        arguments.check_bool(check, argument="check")
        with lab_netns.opened(self.name, where) as session:
            # A process starts in the namespace of the thread that starts it.
            process = session.run(
                subprocess.Popen,
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        return _finish(process, timeout, check)

    @whole
    def delete(self) -> None:
        """Remove endpoints, agents, tunnels and namespaces; doing it again is harmless.

        A process that still runs in a namespace keeps it until the process ends: without a name, and with no device of
        mizarnet's.
        """
        if self._deleted:
            return
        self._deleted = True
        with ExitStack() as order:
            order.callback(self._handles.close)  # last: closing the claim unlocks the lab's name
            order.callback(lab_netns.remove_all, self.name)

    def _check_alive(self) -> None:
        if self._deleted:
            raise ClosedError(f"lab {self.name} was deleted")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.delete()

    def __repr__(self) -> str:
        deleted = ", deleted" if self._deleted else ""
        return f"<Lab {self.name}: {len(self.hosts)} hosts, {self.encap.value}{deleted}>"

    def _repr_html_(self) -> str:
        rows = [(host.name, host.netns, host.address) for host in self.hosts]
        return table(repr(self).strip("<>"), ("host", "netns", "address"), rows)


def _check_name(name: str, pattern: re.Pattern[str], rule: str, *, argument: str = "name") -> str:
    arguments.check_str(name, argument=argument)
    if not pattern.fullmatch(name):
        raise InvalidValueError(f"{argument} {name!r} is not {rule}", argument=argument, value=name)
    return name


def _check_command(argv: tuple[str, ...]) -> None:
    arguments.check_all(argv, str, argument="argv")
    try:
        encoded = [os.fsencode(each) for each in argv]
    except UnicodeEncodeError:
        encoded = []
    if not encoded or any(b"\0" in each for each in encoded):
        raise InvalidValueError(f"{argv!r} cannot be a command", argument="argv", value=argv)


def _choose(encap: Encap | Literal["geneve", "vxlan"] | None) -> tuple[Encap, str]:
    """The encapsulation of a lab, and the reason for it."""
    if encap is not None:
        chosen = parse_member(Encap, encap, argument="encap")
        return chosen, f"{chosen.value} was asked for"
    geneve = probe_encapsulation(Encap.GENEVE)
    if geneve:
        return Encap.GENEVE, "this kernel has geneve"
    return Encap.VXLAN, geneve.reason


def _finish(process: subprocess.Popen[str], timeout: float, check: bool) -> subprocess.CompletedProcess[str]:
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except BaseException:
        # Its children too, which are of its session.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # A child with a session of its own may keep the other ends for as long as it likes.
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        raise
    done = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
    if check and process.returncode:
        error = subprocess.CalledProcessError(process.returncode, process.args, stdout, stderr)
        error.add_note(stderr.strip() or stdout.strip())
        raise error
    return done
