# SPDX-License-Identifier: Apache-2.0
"""How long a plan takes: ``chrt -f 10 python -m tests.bench.plan``, one core.

4,096 endpoints in 16 namespaces, 65,536 remotes, and four differences; then none. The file is read apart.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import mizarnet as mz
from tests.bench.endpoints import HOST, median_of, report, specs, timed

REMOTES = 65_536
OWNER = "bench/"


def document(lab: mz.Lab) -> dict[str, object]:
    """What the host shall have."""
    names = [f"{OWNER}{number}" for number in range(HOST)]
    endpoints = [
        {**spec.to_dict(), "name": name} for name, spec in zip(names, specs(lab, HOST, 16), strict=True)
    ]
    given = ("name", "vni", "ip", "netns", "ifname")
    return {
        "endpoints": [{field: each[field] for field in given} for each in endpoints],
        "remotes": [
            {"vni": 8, "ip": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "host": "198.51.100.2"}
            for number in range(1, REMOTES + 1)
        ],
    }


def main() -> int:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with (
        mz.Lab(hosts=1, name="bench-plan", max_endpoints=2 * REMOTES) as lab,
        TemporaryDirectory() as directory,
        mz.Host.open(netns=lab.hosts[0].netns) as host,
    ):
        path = Path(directory) / "host.json"
        path.write_text(json.dumps(document(lab)))
        report(
            f"reading the file: {HOST:,} endpoints, {REMOTES:,} remotes",
            median_of(partial(mz.HostSpec.load, path), 3),
        )
        spec = mz.HostSpec.load(path)
        report("plan() of all of it", median_of(partial(host.plan, spec, owner=OWNER), 3))
        report("apply() of all of it", timed(host.plan(spec, owner=OWNER).apply))
        plan = host.plan(spec, owner=OWNER)
        assert not plan, str(plan)
        report("plan() with nothing to change", median_of(partial(host.plan, spec, owner=OWNER), 3))
        agent = lab.hosts[0].agent
        mz.Endpoint.open(agent, f"{OWNER}7").update(mtu=1300, labels={"a": "b"})
        agent.endpoints.apply({(8, "10.0.0.9"): mz.Remote("198.51.100.3")}, feed=f"plan:{OWNER}")
        lab.run("s3", "ip", "link", "set", "e0", "down")
        report("plan() with some differences", median_of(partial(host.plan, spec, owner=OWNER), 3))
        print(host.plan(spec, owner=OWNER))
        mz.Endpoint.delete_many(agent, [f"{OWNER}{number}" for number in range(HOST)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
