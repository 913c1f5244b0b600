# SPDX-License-Identifier: Apache-2.0
"""Two hosts, two tenants with the same addresses: who reaches whom, how fast, and who is kept apart."""

from __future__ import annotations

import sys

import mizarnet as mz
from support.account import Account

TENANTS = {"blue": 7, "green": 8}  # name and VNI


def main() -> int:
    with mz.Lab(hosts=2, name="demo") as lab, Account(lab) as account:

        def add(host: mz.LabHost, tenant: str, number: int) -> mz.Endpoint:
            name = f"{tenant}{number}"
            netns = lab.container(name)
            ip, vni = f"10.0.0.{number}/24", TENANTS[tenant]
            return mz.Endpoint.create(host.agent, name=name, vni=vni, ip=ip, netns=netns)

        for number, host in zip((1, 2, 3, 4), (0, 0, 1, 1), strict=True):
            for tenant in TENANTS:
                add(lab.hosts[host], tenant, number)
        green9 = add(lab.hosts[1], "green", 9)
        lab.publish()  # every host learns where the endpoints of the other are

        account.draw()
        account.ping_within_tenants()
        account.transfer()
        account.ask_for_names("10.0.0.3")
        account.trespass("blue", green9)
        account.show_counters()
        account.compare_programs()
        return account.conclude()


if __name__ == "__main__":
    sys.exit(main())
