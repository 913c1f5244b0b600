# SPDX-License-Identifier: Apache-2.0
"""Three hosts, four tenants and sixty containers from one file: the first run makes all of it, the second nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import mizarnet as mz
from support import inventory

OWNER = "orc/"  # what has this in front of its name, and is not in the file, is deleted


def converge(path: Path) -> int:
    """Make every host as the file says; how many changes that took."""
    count = 0
    for name, spec in mz.HostSpec.fleet(path).items():
        with mz.Host.open(netns=name) as host:
            plan = host.plan(spec, owner=OWNER)
            plan.apply(progress=inventory.bar)
            print(f"{name}: {len(plan.changes)} changes")
            count += len(plan.changes)
    return count


def main() -> int:
    with mz.Lab(hosts=3, name="orchestrator") as lab, TemporaryDirectory() as directory:
        path = Path(directory) / "fleet.toml"
        inventory.write(lab, path, OWNER)
        first, second = converge(path), converge(path)
        lab.run("red_0_0", "ping", "-c", "1", "10.20.0.20")
        print(f"{first} changes, then {second}; a container of the first host reaches one of the third")
        return 1 if second else 0


if __name__ == "__main__":
    sys.exit(main())
