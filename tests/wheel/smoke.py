# SPDX-License-Identifier: Apache-2.0
"""What ``tools/wheel_smoke.py`` runs on a system with Python and an installed wheel, and nothing else of ours."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import mizarnet as mz

README = Path(__file__).with_name("README.md")
CABLE = """
from mizarnet._kernel.netlink import Session, create_veth, resolve
with Session.open() as session, resolve("h2") as far:
    create_veth(session, "eth0", peer="eth0", peer_netns=far)
"""
ADDRESS = """
import sys
from ipaddress import ip_interface
from mizarnet._kernel.netlink import Session, add_address, get_link, set_link
with Session.open() as session:
    index = get_link(session, "eth0").ifindex
    add_address(session, index, ip_interface(f"192.0.2.{sys.argv[1]}/24"))
    set_link(session, index, up=True)
"""


def nothing_helps() -> None:
    """The wheel has to bring what it needs: here is neither a compiler nor a library of its own."""
    assert not [name for name in ("cc", "gcc", "clang", "ld") if shutil.which(name)]
    libraries = [
        path for place in ("/usr/lib", "/lib", "/usr/local/lib") for path in Path(place).rglob("lib*.so*")
    ]
    assert not [path for path in libraries if path.name.startswith(("libbpf", "libelf"))]


OF_EXTRAS = {"mizarnet.metrics": "metrics"}
"""Modules that need libraries which come with an extra."""


def everything_is_there() -> None:
    """Every module can be imported, every public name is there, and the libraries are those of the wheel."""
    for module in pkgutil.walk_packages(mz.__path__, "mizarnet."):
        if module.name not in OF_EXTRAS:
            importlib.import_module(module.name)
    for name, extra in OF_EXTRAS.items():
        try:
            importlib.import_module(name)
        except mz.MissingLibraryError as missing:
            assert f"mizarnet[{extra}]" in str(missing)
        else:
            raise AssertionError(f"{name} needs nothing")
    assert all(getattr(mz, name) for name in mz.__all__)
    assert mz.__version__ == version("mizarnet")
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    for library in ("libbpf", "libelf"):
        assert [Path(path).parent.name for path in mapped if f"/{library}" in path] == ["mizarnet.libs"]


def _enter(name: str) -> tuple[str, ...]:
    return "nsenter", f"--net=/run/netns/{name}"


def _run(name: str, code: str, *arguments: str) -> None:
    subprocess.run([*_enter(name), sys.executable, "-I", "-c", code, *arguments], check=True)


def packets_arrive() -> None:
    """Two hosts with an endpoint each, which reach each other."""
    with mz.Lab(hosts=2, name="smoke") as lab:
        addresses = ("10.0.0.1", "10.0.0.2")
        for host, address in zip(lab.hosts, addresses, strict=True):
            container = lab.container(host.name + "c")
            mz.Endpoint.create(host.agent, vni=7, ip=f"{address}/24", netns=container)
        lab.publish()
        subprocess.run(
            [*_enter(container), "ping", "-c", "3", "-i", "0.2", "-W", "5", addresses[0]], check=True
        )


def the_first_page_keeps_its_word() -> None:
    """Its lines for two hosts, run there as it says, lead to a ping."""
    for name in ("h1", "h2", "web", "db"):
        Path("/run/netns", name).touch()
        subprocess.run(["unshare", f"--net=/run/netns/{name}", "true"], check=True)
    _run("h1", CABLE)
    for number in (1, 2):
        _run(f"h{number}", ADDRESS, str(number))
    host_1, host_2, *_ = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for host, code in (("h1", host_1), ("h2", host_2)):
        _run(host, code)
    subprocess.run([*_enter("web"), "ping", "-c", "2", "-i", "0.2", "-W", "5", "10.0.0.2"], check=True)


def an_ordinary_user_is_told() -> None:
    """One line that says what is missing."""
    code = "import mizarnet as mz; mz.Tunnel.create('tunnel0', encap='vxlan', underlay='eth0')"
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    done = subprocess.run([*user, sys.executable, "-I", "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("mizarnet.errors.PrivilegeError: ") and "run as root" in last, last
    print("as an ordinary user:", last)


if __name__ == "__main__":
    nothing_helps()
    everything_is_there()
    print(mz.probe(), flush=True)
    packets_arrive()
    the_first_page_keeps_its_word()
    an_ordinary_user_is_told()
    print(f"mizarnet {mz.__version__} works here")
