# SPDX-License-Identifier: Apache-2.0
"""Other ways to connect guests, to be measured beside this one: each in a file, with a test that it is what it says."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

from tests.bench.peers.base import Peer as Peer
from tests.bench.peers.base import Way as Way
from tests.bench.peers.bridged import Bridge as Bridge
from tests.bench.peers.bridged import BridgeNetfilter as BridgeNetfilter
from tests.bench.peers.cilium import Cilium as Cilium
from tests.bench.peers.cilium import CiliumInPlace as CiliumInPlace
from tests.bench.peers.macvlan import Macvlan as Macvlan
from tests.bench.peers.native import Native as Native
from tests.bench.peers.netkit import Netkit as Netkit
from tests.bench.peers.ovs import Ovs as Ovs
from tests.bench.peers.own import Geneve as Geneve
from tests.bench.peers.own import Mizarnet as Mizarnet
from tests.bench.peers.own import WithShortcut as WithShortcut
from tests.bench.peers.wiring import OldWiring as OldWiring
from tests.support.builds import FLAGS

PEERS: tuple[type[Peer], ...] = (
    Mizarnet,
    WithShortcut,
    Native,
    Bridge,
    BridgeNetfilter,
    Cilium,
    CiliumInPlace,
    OldWiring,
    Macvlan,
)
"""Those of this machine's kernel."""
EMULATED: tuple[type[Peer], ...] = (
    Mizarnet,
    WithShortcut,
    Geneve,
    Native,
    Bridge,
    Cilium,
    CiliumInPlace,
    Netkit,
    Ovs,
)
"""Those of Debian's kernel 6.12."""
_HERE = Path(__file__).parent


def compile_programs(directory: Path) -> Path:
    """The object of ``peers.bpf.c``."""
    made = directory / "peers.bpf.o"
    include = ("-idirafter", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}")
    command = ("clang", *FLAGS, *include, "-c", _HERE / "peers.bpf.c", "-o", made)
    subprocess.run(command, check=True, timeout=60)
    return made


def compile_tool(name: str, directory: Path) -> Path:
    """The program of ``timer.c`` or ``pump.c``."""
    made = directory / name
    source = (_HERE.parent / name).with_suffix(".c")
    subprocess.run(("gcc", "-Wall", "-Wextra", "-Werror", "-O2", "-o", made, source), check=True, timeout=60)
    return made
