# SPDX-License-Identifier: Apache-2.0
"""What a veth underlay needs before native XDP_TX delivers anything.

A veth takes frames from its peer's XDP only if it runs an XDP program itself (they go into its own XDP queue), and
it does not compute the checksums that a sender left to the hardware. Physical devices need neither.
"""

from __future__ import annotations

import array
import fcntl
import platform
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mizarnet._kernel.bpf import ObjectSpec, Program, XdpHook
from mizarnet._kernel.netlink import Session, get_link
from mizarnet._model.specs import XdpMode
from tests.world import UNDERLAY, Host, World

SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
COMPILE_SECONDS = 60
SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp.frags") int let_pass(struct xdp_md *ctx) { return XDP_PASS; }
char license_name[] SEC("license") = "GPL";
"""


@contextmanager
def let_pass(directory: Path) -> Iterator[Program]:
    """A program that passes everything."""
    source, target = directory / "let_pass.bpf.c", directory / "let_pass.o"
    source.write_text(SOURCE)
    include = f"/usr/include/{platform.machine()}-linux-gnu"
    command = ["clang", "-O2", "-g", "-target", "bpf", "-idirafter", include, "-c", str(source)]
    subprocess.run([*command, "-o", str(target)], check=True, timeout=COMPILE_SECONDS)
    with ObjectSpec.open(target, name="let_pass") as spec, spec.load() as loaded:
        yield loaded.programs["let_pass"]


@contextmanager
def attached(program: Program, namespace: str, device: str, mode: XdpMode) -> Iterator[None]:
    """The program on a device, for as long as the block lasts."""
    with Session.open(namespace) as session:
        link = get_link(session, device)
        assert link is not None
        hook = XdpHook(link.ifindex)
        session.run(hook.attach, program, mode=mode)
        try:
            yield
        finally:
            session.run(hook.detach, program, mode=mode)


def set_tx_checksums(host: Host, on: bool) -> None:
    """Whether the host's underlay device is said to compute checksums."""
    setting = array.array("I", [ETHTOOL_STXCSUM, on])
    request = struct.pack("16sP16x", UNDERLAY.encode(), setting.buffer_info()[0])
    with host.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCETHTOOL, request)


@contextmanager
def native_underlay(world: World, switch: Host, program: Program) -> Iterator[None]:
    """An underlay on which the native XDP of one host can transmit, for as long as the block lasts."""
    port = switch.namespace.name.rpartition("-")[2]
    with ExitStack() as undo:
        for host in world.hosts:
            undo.callback(set_tx_checksums, host, True)
            set_tx_checksums(host, False)
        undo.enter_context(attached(program, world.hub.name, port, XdpMode.NATIVE))
        yield
