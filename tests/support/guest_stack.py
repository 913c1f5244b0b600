# SPDX-License-Identifier: Apache-2.0
"""A guest without a machine: a namespace whose NICs are the other sides of MACVTAPs' descriptors.

Its frames are those of a Linux guest with a virtio NIC, since the kernel's own stack makes and takes them.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import mizarnet as mz
from mizarnet._kernel.netlink import Session, add_address, get_link
from tests.support.namespace import Namespace

NIC = "eth0"
TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8  # <linux/if_tun.h>
CHECKSUMS, SEGMENTS_IPV4, SEGMENTS_IPV6 = 1, 2, 4  # TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6
TAP, NO_PACKET_INFORMATION, VIRTIO_HEADER = 0x0002, 0x1000, 0x4000
HEADER_BYTES = 12
LARGEST = HEADER_BYTES + (1 << 16) + 14


@contextmanager
def guest(
    endpoint: mz.Endpoint, space: Namespace, *, name: str = NIC, mtu: int | None = None, offloads: int = 0
) -> Iterator[None]:
    """A guest of an endpoint in a namespace, with the endpoint's MAC and addresses, as long as the block lasts.

    A guest with several NICs is made of as many endpoints, each with a ``name`` for its NIC.

    Args:
        endpoint: Whose descriptor it has.
        space: Where its stack is.
        name: Of its NIC.
        mtu: That the guest believes in; None: the endpoint's.
        offloads: What the guest leaves to its NIC: ``TUN_F_*``.
    """
    with endpoint.open_tap() as tap:
        nic = space.call(lambda: _open_nic(name, offloads))
        end, told = os.pipe()
        pump = threading.Thread(target=_pump, args=(tap.fds[0], nic, end), name=f"guest {endpoint.name}")
        pump.start()
        try:
            _configure(endpoint, space, name, mtu or endpoint.state().mtu)
            yield
        finally:
            os.close(told)
            pump.join()
            os.close(end)
            os.close(nic)


def _open_nic(name: str, offloads: int) -> int:
    nic = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    flags = TAP | NO_PACKET_INFORMATION | VIRTIO_HEADER
    fcntl.ioctl(nic, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    fcntl.ioctl(nic, TUNSETVNETHDRSZ, struct.pack("i", HEADER_BYTES))
    fcntl.ioctl(nic, TUNSETOFFLOAD, offloads)
    return nic


def _configure(endpoint: mz.Endpoint, space: Namespace, name: str, mtu: int) -> None:
    space.run("ip", "link", "set", name, "address", str(endpoint.mac), "mtu", str(mtu), "up")
    with Session.open(space.name) as session:
        link = get_link(session, name)
        assert link is not None
        for address in endpoint.addresses:
            add_address(session, link.ifindex, address, dad=False)


def _pump(one: int, other: int, end: int) -> None:
    ways = {one: other, other: one}
    while True:
        ready, _, _ = select.select([*ways, end], [], [])
        if end in ready:
            return
        for each in ready:
            os.write(ways[each], os.read(each, LARGEST))
