# SPDX-License-Identifier: Apache-2.0
"""Two tenants with the same addresses leave by one host, and let the outside in by a published port each."""

from __future__ import annotations

import sys

import mizarnet as mz
from support.outing import PORT, Outing

TENANTS = {"red": 7, "blue": 8}  # name and VNI


def main() -> int:
    with mz.Lab(hosts=3, name="wayout") as lab, Outing(lab, outside=lab.hosts[2]) as outing:
        first, second, _ = lab.hosts
        for name, vni in TENANTS.items():
            for host, number in ((first, 11), (second, 12)):
                netns, ip = lab.container(f"{name}{number}"), f"10.0.0.{number}/24"
                mz.Endpoint.create(
                    host.agent, name=f"{name}{number}", vni=vni, ip=ip, gateway="10.0.0.1", netns=netns
                )
            page = mz.Publish("tcp", 8000 + vni, "10.0.0.12", PORT)
            mz.Gateway.create(first.agent, vni=vni, egress="eth0", ip="10.0.0.1/24", publish=[page])
            second.agent.networks[vni, "0.0.0.0/0"] = mz.Network(via="10.0.0.1")
        lab.publish()  # the second host learns where the gateways are

        outing.leave()
        outing.ask_from_outside({8000 + vni: f"{name}12" for name, vni in TENANTS.items()}, at=first)
        outing.try_a_tunnel("red11", TENANTS["blue"])
        for gateway in mz.Gateway.list(first.agent):
            gateway.delete()
        outing.stay_in()
        return outing.conclude()


if __name__ == "__main__":
    sys.exit(main())
