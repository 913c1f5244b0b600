# SPDX-License-Identifier: Apache-2.0
"""Ending everything of mizarnet on a host."""

from __future__ import annotations

from mizarnet._datapath import leftovers
from mizarnet._datapath.checks import left_tunnels
from mizarnet._datapath.host import Host
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._kernel.netlink import delete_link
from mizarnet.errors import InUseError


def clear(host: Host, *, force: bool) -> None:
    """End all tunnels of a host with what is on them, and what is left of tunnels that are gone.

    The kernel deletes the endpoints' devices before the tunnel's, and with that one the programs, which guard it to the
    end.

    Raises:
        InUseError: There are live endpoints, and ``force`` is not given; nothing was ended.
        LayoutError: Another version of this package attached an agent, and ``force`` is not given; nothing was ended.
        ExistsError: Programs of two agents are on one tunnel, and ``force`` is not given; nothing was ended.
    """
    with host.locked():
        devices = TunnelDevice.all(host)
        if not force:
            _refuse_in_use(devices)
        for device in devices:
            device.delete(force=True)
        leftovers.clear_host(host)
        for each in left_tunnels(host):
            delete_link(host, int(each.found))


def _refuse_in_use(devices: list[TunnelDevice]) -> None:
    users: list[str] = []
    for device in devices:
        try:
            device.refuse_in_use()
        except InUseError as used:
            users += used.users
    if users:
        raise InUseError(
            f"{len(users)} live endpoints are on this host, such as {users[0]!r}",
            users=users,
            hint="delete them first, or give force=True",
        )
