# SPDX-License-Identifier: Apache-2.0
"""Two networks, a transit switch for each and a router between them: which way a packet takes, and why."""

from __future__ import annotations

import sys

import mizarnet as mz
from support.journey import Journeys

RED, BLUE, ALL = "10.1.0.0/24", "10.2.0.0/24", "0.0.0.0/0"
GATEWAYS = {RED: "10.1.0.1", BLUE: "10.2.0.1", ALL: None}


def main() -> int:
    with mz.Lab(hosts=6, name="switched") as lab, Journeys(lab) as journeys:
        h1, h2, red, router, blue, h6 = lab.hosts
        knowing = {RED: (red, h1, h2, router), BLUE: (blue, h6, router), ALL: (router, h1, h2, h6)}
        for prefix, (switch, *hosts) in knowing.items():
            mz.TransitSwitch.attach(switch.agent, mode="generic")
            for host in hosts:
                network = mz.Network(gateway=GATEWAYS[prefix], switches=[switch.address])
                host.agent.networks[7, prefix] = network

        def add(name: str, host: mz.LabHost, ip: str, *, known_to: mz.LabHost) -> mz.Endpoint:
            known_to.agent.endpoints[7, ip.split("/")[0]] = mz.Remote(host.address)
            return mz.Endpoint.create(host.agent, name=name, vni=7, ip=ip, netns=lab.container(name))

        a = add("a", h1, "10.1.0.11/24", known_to=red)
        b = add("b", h2, "10.1.0.12/24", known_to=h1)
        c = add("c", h2, "10.1.0.13/24", known_to=red)
        d = add("d", h6, "10.2.0.14/24", known_to=blue)
        journeys.follow("Direct", a, b, way=("h1", "h2"), ttl=64)
        journeys.follow("Switched", a, c, way=("h1", "h3", "h2"), ttl=64)
        journeys.follow("Routed", a, d, way=("h1", "h4", "h5", "h6"), ttl=63)
        return journeys.conclude()


if __name__ == "__main__":
    sys.exit(main())
