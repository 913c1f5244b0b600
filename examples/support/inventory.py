# SPDX-License-Identifier: Apache-2.0
"""Three bare hosts with containers, and the file that says what shall be on them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import mizarnet as mz

TENANTS: Final = ("red", "blue", "green", "white")
EACH: Final = 5
"""Containers of each tenant on each host."""
_COMMON = """networks = [
{networks}]
[tunnel]
encap = "{encap}"
underlay = "eth0"
"""
_HOST = """
[hosts.{netns}]
tunnel.local = "{address}"
endpoints = [
{endpoints}]
"""


def write(lab: mz.Lab, path: Path, owner: str) -> None:
    """Take everything off the hosts of a lab, make their containers, and write the file."""
    for host in lab.hosts:
        host.tunnel.delete(force=True)
    networks = "".join(
        f'    {{vni = {101 + tenant}, prefix = "10.20.{tenant}.0/24", gateway = "10.20.{tenant}.1"}},\n'
        for tenant in range(len(TENANTS))
    )
    hosts = [
        _HOST.format(netns=host.netns, address=host.address, endpoints=_endpoints(lab, number, owner))
        for number, host in enumerate(lab.hosts)
    ]
    path.write_text(_COMMON.format(networks=networks, encap=lab.encap.value) + "".join(hosts))


def _endpoints(lab: mz.Lab, host: int, owner: str) -> str:
    lines = [
        f'    {{name = "{owner}{name}-{host}-{number}", vni = {101 + tenant}, '
        f'ip = "10.20.{tenant}.{10 + EACH * host + number}/24", netns = "{lab.container(f"{name}_{host}_{number}")}", '
        f'labels = {{tenant = "{name}"}}}},\n'
        for tenant, name in enumerate(TENANTS)
        for number in range(EACH)
    ]
    return "".join(lines)


def bar(done: int, total: int, change: mz.Change) -> None:
    """Show how far a plan is."""
    print(
        f"\r[{'#' * (30 * done // total):30}] {done}/{total}", end="\n" if done == total else "", flush=True
    )
