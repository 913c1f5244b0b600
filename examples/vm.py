# SPDX-License-Identifier: Apache-2.0
"""A VM on the overlay: QEMU boots on an endpoint's descriptor; it and containers ping and read each other's pages.

Needs qemu-system-x86 and busybox-static. The VM's kernel is Debian's, fetched once (12 MB) into ~/.cache/mizarnet, or
the one in a given directory: ``python examples/vm.py /`` takes an installed one.
"""

from __future__ import annotations

import signal
import sys

import mizarnet as mz
from support.guest import Guest
from support.visits import Visits


def main(kernel: str | None = None) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # kill(1) cleans up as Ctrl-C does
    with mz.Lab(hosts=2, name="vm") as lab:
        home, away = (host.agent for host in lab.hosts)
        vm = mz.Endpoint.create(home, name="vm", vni=7, ip="10.0.0.1/24", kind="macvtap")
        near, far = (
            mz.Endpoint.create(agent, name=name, vni=7, ip=ip, netns=lab.container(name))
            for agent, name, ip in ((home, "near", "10.0.0.2/24"), (away, "far", "10.0.0.3/24"))
        )
        lab.publish()  # every host learns where the endpoints of the other are

        print(f"Booting a VM on {vm}")
        with vm.open_tap() as tap, Guest(vm, tap.fds, kernel=kernel) as guest:
            print(guest.run("uname -sr").strip())
            visits = Visits(lab, vm, guest)
            visits.exchange(near)  # on the same host: the frames never leave it
            visits.exchange(far)  # on the other: through the tunnel
            return visits.conclude()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
