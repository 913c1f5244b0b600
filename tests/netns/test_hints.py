# SPDX-License-Identifier: Apache-2.0
"""Each error that a user can cause says what is wrong in his words, and what to do next: situations made for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mizarnet as mz
from tests.support.process import UNPRIVILEGED, finish, start_python
from tests.world import World

VERBS = """
import json
HOST, BARE, WEB = sys.argv[1:]
told = {}

def attempt(verb, call):
    try:
        call()
    except mz.MizarnetError as error:
        told[verb] = type(error).__name__, error.message, error.hint

def open_agent():
    return mz.TransitAgent.open("tunnel0", netns=HOST)

def create(**spec):
    mz.Endpoint.create(open_agent(), **spec)

def tap():
    mz.Endpoint.open(open_agent(), "vm").open_tap().close()

def lab():
    mz.Lab(name="hints", hosts=1).delete()

def write():
    open_agent().endpoints[7, "10.0.0.9"] = mz.Remote("192.0.2.9")

attempt("create", lambda: mz.Tunnel.create("tunnel0", encap="vxlan", underlay="eth0", netns=BARE).close())
attempt("attach", lambda: mz.TransitAgent.attach(mz.Tunnel.open("tunnel0", netns=BARE), max_endpoints=1 << 20))
attempt("list", lambda: mz.Tunnel.list(netns=HOST))
attempt("endpoint", lambda: create(vni=7, ip="10.0.0.1/24", netns=WEB))
attempt("dual", lambda: create(vni=7, ip=["10.0.0.2/24", "fd00::2/64"], netns=WEB, ifname="eth1"))
attempt("vm", lambda: create(vni=7, ip="10.0.0.3/24", kind="macvtap"))
attempt("tap", tap)
attempt("write", write)
attempt("read", lambda: open_agent().state())
attempt("upgrade", lambda: open_agent().upgrade())
attempt("switch", lambda: mz.TransitSwitch.attach(open_agent()))
attempt("detach switch", lambda: mz.TransitSwitch.detach("eth0", netns=HOST))
attempt("probe", lambda: mz.probe(HOST))
attempt("lab", lab)
attempt("delete", lambda: mz.Tunnel.open("tunnel0", netns=HOST).delete(force=True))
print(json.dumps(told))
"""


def _after(script: str) -> tuple[str, ...]:
    """In front of a command: file systems of its own, changed by a script."""
    return ("unshare", "--mount", "sh", "-ec", f'{script}\nexec "$0" "$@"')


IPV6_OFF = """
    ip netns exec {web} sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys
"""
CGROUPS = Path("/sys/fs/cgroup")


def _in_cgroup(controller: str, script: str) -> tuple[str, ...]:
    """In front of a command: a cgroup of its own (version 1), set up by a script."""
    return _after(f"mkdir {CGROUPS}/{controller}/{{web}}; cd {CGROUPS}/{controller}/{{web}}; {script}; "
                  'cd "$OLDPWD"; echo $$ > ' f"{CGROUPS}/{controller}/{{web}}/cgroup.procs")  # fmt: skip


PLACES: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "no /proc": (
        _after("umount --lazy /proc"),
        {verb: ("NetnsNotFoundError", "mount /proc") for verb in ("create", "write", "tap", "probe", "lab", "delete")},
    ),
    "a read-only /proc/sys": (
        _after(IPV6_OFF),
        {
            "create": ("KernelError", "disable_ipv6", "remount"),
            "dual": ("KernelError", "disable_ipv6=0", "IPv4 addresses only"),
            "switch": ("KernelError", "eth0/forwarding", "remount"),
        },
    ),
    "a read-only /run": (
        _after("mount -t tmpfs -o ro,mode=700 tmpfs /run/mizarnet"),
        {"write": ("KernelError", "/run/mizarnet", "writable")},
    ),
    "a full /run": (
        _after("mount -t tmpfs -o nr_inodes=1,mode=700 tmpfs /run/mizarnet"),
        {"write": ("KernelError", "/run/mizarnet", "make room")},
    ),
    "no BTF": (
        _after("mount -t tmpfs tmpfs /sys/kernel/btf"),
        {"attach": ("UnsupportedError", "BTF", "CONFIG_DEBUG_INFO_BTF")},
    ),
    "no capabilities": (UNPRIVILEGED, {"create": ("PrivilegeError", "missing CAP_SYS_ADMIN", "run as root")}),
    "no CAP_MKNOD": (
        ("setpriv", "--bounding-set=-mknod", "--inh-caps=-mknod"),
        {"tap": ("PrivilegeError", "missing CAP_MKNOD", "run as root")},
    ),
    "another user": (
        ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
         "--inh-caps=+net_admin,+sys_admin,+bpf,+perfmon", "--ambient-caps=+net_admin,+sys_admin,+bpf,+perfmon"),
        {"write": ("PrivilegeError", "/run/mizarnet", "missing CAP_DAC_OVERRIDE", "run as root")},
    ),
    "another user namespace": (
        ("unshare", "--map-root-user"),
        {"create": ("PrivilegeError", "CAP_SYS_ADMIN", "outside of this user namespace")},
    ),
    "no namespaces left": (
        ("unshare", "--map-root-user", "sh", "-ec", 'echo 0 > /proc/sys/user/max_net_namespaces; exec "$0" "$@"'),
        {"lab": ("KernelError", "make a network namespace", "sysctl user.max_net_namespaces")},
    ),
    "few descriptors": (
        _after("ulimit -n 40"), {"attach": ("KernelError", "Too many open files", "ulimit -n")}
    ),
}  # fmt: skip
if (CGROUPS / "memory").is_dir():
    PLACES["little memory"] = (
        _in_cgroup("memory", "echo 90000000 > memory.limit_in_bytes"),
        {"attach": ("BpfError", "memory", "smaller tables")},
    )
if (CGROUPS / "devices").is_dir():
    PLACES["no devices"] = (
        _in_cgroup("devices", "echo c $(awk '/macvtap/ {print $1}' /proc/devices):* rwm > devices.deny"),
        {"tap": ("PrivilegeError", "though CAP_MKNOD is there", "a device cgroup")},
    )


@pytest.mark.parametrize("name", PLACES)
def test_where_little_works_no_call_leaves_the_user_alone(name: str) -> None:
    by, expected = PLACES[name]
    with World("vxlan", hosts=1) as world:
        host, web = world.hosts[0], world.namespace("web").name
        mz.Endpoint.create(host.agent, name="vm", vni=7, ip="10.0.0.4/24", kind="macvtap")
        try:
            process = start_python(
                VERBS,
                host.namespace.name,
                world.spaces[1].name,
                web,
                by=[part.replace("{web}", web) for part in by],
            )
            status, output = finish(process)
        finally:
            for cgroup in CGROUPS.glob(f"*/{web}"):
                cgroup.rmdir()
        assert status == 0, output
        told: dict[str, list[str]] = json.loads(output.splitlines()[-1])
    for verb, (_, message, hint) in told.items():
        assert hint, f"{verb}: {message}"
    for verb, (error, *words) in expected.items():
        kind, message, hint = told[verb]
        assert kind == error, f"{verb}: {kind}: {message}"
        for word in words:
            assert word in f"{message}; {hint}", verb
