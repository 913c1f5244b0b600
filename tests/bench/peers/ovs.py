# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch with its kernel datapath: veth pairs, a learning bridge, and a VXLAN port."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import ClassVar

from tests.bench.peers.base import VNI, Peer
from tests.support.namespace import Namespace
from tests.world import ADDRESSES

PACKAGES = ("openvswitch-switch", "openvswitch-common", "libxdp1")
"""What Debian has it in; they may be unpacked, and need not be installed."""
_SWITCH = "/usr/lib/openvswitch-switch/ovs-vswitchd"
_YOUNG, _PATIENCE = 11.0, 60.0
_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


class Ovs(Peer):
    """A switch on each host, whose daemons have a directory of their own."""

    name = "ovs"
    says = "Open vSwitch's kernel datapath: veth, a bridge with its usual learning, a VXLAN port with a fixed remote"
    bridge: ClassVar[str] = "br7"

    def build(self) -> None:
        """A bridge on each host, with the guests and a VXLAN port."""
        # In the first ten seconds of a machine's life it finds no processor, and starts no thread for new flows.
        time.sleep(max(0.0, _YOUNG - time.monotonic()))
        guests = self.guests()
        self.pairs(guests)
        for host, own, other in zip(self.hosts, ADDRESSES, reversed(ADDRESSES), strict=True):
            database = self._start(host)
            tunnel = (f"options:local_ip={own}", f"options:remote_ip={other}", f"options:key={VNI}")
            host.run(
                *("ovs-vsctl", f"--db=unix:{database}", "--timeout=60", "add-br", self.bridge),
                *("--", "add-port", self.bridge, "q0", "--", "add-port", self.bridge, "q1"),
                *(
                    "--",
                    "add-port",
                    self.bridge,
                    "vx7",
                    "--",
                    "set",
                    "interface",
                    "vx7",
                    "type=vxlan",
                    *tunnel,
                ),
                timeout=90,
            )
        self.introduce(guests)
        self.ways(guests)
        for way in (self.remote, self.local):
            assert way is not None
            # The first packets wait for the daemons, which have only begun.
            way.source.run("ping", "-q", "-c", "1", "-w", "30", way.address, timeout=60)

    def _start(self, host: Namespace) -> Path:
        """Start database and switch of a host; the database's socket."""
        directory = Path(self._undo.enter_context(tempfile.TemporaryDirectory(prefix="ovs-")))
        database, socket = directory / "conf.db", directory / "db.sock"
        host.run("ovsdb-tool", "create", str(database), _SCHEMA)
        self._daemon(host, directory, "ovsdb-server", str(database), f"--remote=punix:{socket}")
        deadline = time.monotonic() + _PATIENCE
        while not socket.exists():
            assert time.monotonic() < deadline, "ovsdb-server does not listen"
            time.sleep(0.05)
        host.run("ovs-vsctl", f"--db=unix:{socket}", "--no-wait", "--timeout=60", "init", timeout=90)
        self._daemon(host, directory, _SWITCH, f"unix:{socket}")
        return socket

    def _daemon(self, host: Namespace, directory: Path, program: str, *arguments: str) -> None:
        name = Path(program).name
        log = self._undo.enter_context((directory / f"{name}.log").open("wb"))
        command = (
            program,
            *arguments,
            f"--unixctl={directory / name}.ctl",
            f"--pidfile={directory / name}.pid",
        )
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "OVS_RUNDIR": str(directory)}
        started = host.call(
            lambda: subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=directory)
        )
        self._undo.callback(started.wait)
        self._undo.callback(started.terminate)
