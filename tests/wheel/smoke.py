# SPDX-License-Identifier: Apache-2.0
"""What ``tools/wheel_smoke.py`` runs on a system with Python and an installed wheel, and nothing else of ours."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import mizarnet as mz


def nothing_helps() -> None:
    """The wheel has to bring what it needs: here is neither a compiler nor a library of its own."""
    assert not [name for name in ("cc", "gcc", "clang", "ld") if shutil.which(name)]
    libraries = [
        path for place in ("/usr/lib", "/lib", "/usr/local/lib") for path in Path(place).rglob("lib*.so*")
    ]
    assert not [path for path in libraries if path.name.startswith(("libbpf", "libelf"))]


def everything_is_there() -> None:
    """Every module can be imported, every public name is there, and the libraries are those of the wheel."""
    for module in pkgutil.walk_packages(mz.__path__, "mizarnet."):
        importlib.import_module(module.name)
    assert all(getattr(mz, name) for name in mz.__all__)
    assert mz.__version__ == version("mizarnet")
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    for library in ("libbpf", "libelf"):
        assert [Path(path).parent.name for path in mapped if f"/{library}" in path] == ["mizarnet.libs"]


def packets_arrive() -> None:
    """Two hosts with an endpoint each, which reach each other."""
    with mz.Lab(hosts=2, name="smoke") as lab:
        addresses = ("10.0.0.1", "10.0.0.2")
        for host, address in zip(lab.hosts, addresses, strict=True):
            netns = lab.container(host.name + "c")
            mz.Endpoint.create(host.agent, vni=7, ip=f"{address}/24", netns=netns)
        lab.publish()
        enter = ("nsenter", f"--net=/run/netns/{netns}")
        subprocess.run([*enter, "ping", "-c", "3", "-i", "0.2", "-W", "5", addresses[0]], check=True)


if __name__ == "__main__":
    nothing_helps()
    everything_is_there()
    print(mz.probe(), flush=True)
    packets_arrive()
    print(f"mizarnet {mz.__version__} works here")
