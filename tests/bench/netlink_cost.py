# SPDX-License-Identifier: Apache-2.0
"""Prints what the steps of an endpoint's creation cost over netlink, in milliseconds; run as root."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from ipaddress import ip_interface

from mizarnet._kernel.netlink import (
    Link,
    Session,
    add_address,
    create_macvlan,
    create_netns,
    create_tunnel,
    delete_link,
    delete_netns,
    get_link,
    list_addresses,
    nsid_of,
    set_link,
)

ROUNDS = 200
HOST, TARGET = f"mzlh{os.getpid()}", f"mzlt{os.getpid()}"


def report(what: str, step: Callable[[int], object], *, after: Callable[[int], object] | None = None) -> None:
    """Time a step ROUNDS times, without what comes after it."""
    spent: list[float] = []
    for number in range(ROUNDS):
        start = time.perf_counter()
        step(number)
        spent.append((time.perf_counter() - start) * 1e3)
        if after is not None:
            after(number)
    tail = sorted(spent)[int(ROUNDS * 0.95)]
    print(f"{what:<56} median {statistics.median(spent):7.3f}  p95 {tail:7.3f}")


def open_and_close(_: int) -> None:
    """Open and close the only session to a namespace."""
    Session.open(TARGET).close()


def measure(host: Session, target: Session, tunnel: Link) -> None:
    """Time the steps inside open sessions."""
    with host.open_netns() as handle:
        nsid = nsid_of(target, handle)

    def create(_: int) -> None:
        create_macvlan(
            target,
            "eth0",
            parent_ifindex=tunnel.ifindex,
            parent_nsid=nsid,
            mac="02:00:00:00:00:05",
            mtu=1450,
        )

    def created() -> int:
        link = get_link(target, "eth0")
        assert link is not None
        return link.ifindex

    report("hand a call to the thread and back", lambda _: target.run(int))
    report("read a link by name", lambda _: get_link(target, "lo"))
    report("create a macvlan, read it back", create, after=lambda _: delete_link(target, created()))
    create(0)
    report("delete a macvlan", lambda _: delete_link(target, created()), after=create)
    ifindex = created()
    report("read the addresses of a link", lambda _: list_addresses(target, ifindex=ifindex))
    report(
        "add an address", lambda number: add_address(target, ifindex, ip_interface(f"10.0.0.{number + 1}/24"))
    )


def endpoint_link(tunnel: Link, *, number: int) -> None:
    """Do all of an endpoint's netlink work, as one hand-over, in a session of its own."""
    with Session.open(TARGET) as target, Session.open(HOST) as host, host.open_netns() as handle:

        def work() -> None:
            nsid = nsid_of(target, handle)
            mac = f"02:00:00:00:01:{number:02x}"
            name = f"ep{number}"
            link = create_macvlan(
                target, name, parent_ifindex=tunnel.ifindex, parent_nsid=nsid, mac=mac, mtu=1450
            )
            add_address(target, link.ifindex, ip_interface(f"10.1.0.{number + 1}/24"))

        target.run(work)


def main() -> None:
    """Measure everything in namespaces of its own."""
    create_netns(HOST)
    create_netns(TARGET)
    try:
        with Session.open(HOST) as host:
            tunnel = create_tunnel(host, "tunnel0", kind="vxlan", port=4789, mtu=1450)
            set_link(host, tunnel.ifindex, up=True)
            report("open and close a session (thread, setns, socket)", open_and_close)
            with Session.open(TARGET) as target:
                measure(host, target, tunnel)
            report(
                "all of an endpoint: sessions, id, macvlan, address",
                lambda n: endpoint_link(tunnel, number=n),
            )
    finally:
        delete_netns(TARGET)
        delete_netns(HOST)


if __name__ == "__main__":
    main()
