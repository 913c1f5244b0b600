# SPDX-License-Identifier: Apache-2.0
"""Each error that a user can cause says what is wrong in his words, and what to do next: situations made for real."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import pytest

import mizarnet as mz
from tests.support.namespace import Namespace
from tests.support.process import UNPRIVILEGED, finish, start_python
from tests.world import TUNNEL, UNDERLAY, World, cable, new_namespace


class Scene:
    """A host with an underlay, another one at the end of its cable, and a container; the rest is made when used."""

    def __init__(self, undo: ExitStack) -> None:
        self._undo = undo
        self.host, self.far, self.web = (self.namespace(name) for name in ("host", "far", "web"))
        cable(self.host, self.far)

    def namespace(self, label: str) -> Namespace:
        made = new_namespace(label)
        self._undo.callback(made.delete)
        return made

    def sh(self, script: str) -> None:
        """A script in the host's namespace; ``$WEB`` and ``$FAR`` are the names of the others."""
        names = f"WEB={self.web.name} FAR={self.far.name}"
        self.host.run("sh", "-ec", f"{names}\n{script}")

    def listen(self, port: int) -> None:
        """A service on a UDP port of the host."""
        self._undo.enter_context(self.host.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(("", port))

    def create(self, name: str = TUNNEL, **changes: Any) -> mz.Tunnel:
        given = {"encap": "vxlan", "underlay": UNDERLAY, "netns": self.host.name, **changes}
        made = self._undo.enter_context(mz.Tunnel.create(name, **given))
        self._undo.callback(made.delete, force=True)
        return made

    @cached_property
    def tunnel(self) -> mz.Tunnel:
        return self.create()

    def attach(self, **options: Any) -> mz.TransitAgent:
        return self._undo.enter_context(mz.TransitAgent.attach(self.tunnel, **options))

    @cached_property
    def agent(self) -> mz.TransitAgent:
        return self.attach()

    def endpoint(self, **changes: Any) -> mz.Endpoint:
        given: dict[str, Any] = {"vni": 7, "ip": "10.0.0.1/24", "netns": self.web.name, **changes}
        return mz.Endpoint.create(self.agent, **given)

    def tap(self, queues: int = 1) -> mz.Tap:
        return self._undo.enter_context(self.endpoint(kind="macvtap").open_tap(queues=queues))


@pytest.fixture
def scene() -> Iterator[Scene]:
    with ExitStack() as undo:
        yield Scene(undo)


@attrs.frozen
class Situation:
    """A state of the host, made by a call or by a script on a host with an agent; a call in it, and what is told."""

    made: str | Callable[[Scene], object]
    call: Callable[[Scene], object]
    error: type[mz.MizarnetError]
    words: tuple[str, ...]


def _create(**changes: Any) -> Callable[[Scene], object]:
    return lambda scene: scene.create(**changes)


def _endpoint(**changes: Any) -> Callable[[Scene], object]:
    return lambda scene: scene.endpoint(**changes)


def _bare(script: str) -> Callable[[Scene], None]:
    return lambda scene: scene.sh(script)


BARE = _bare("true")


def _with_tunnel(script: str) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        assert scene.tunnel
        scene.sh(script)

    return make


def _in_netns(netns: str) -> Situation:
    return Situation(
        BARE, _create(netns=netns), mz.NetnsNotFoundError, (netns, "ip netns list", "/proc/<pid>/ns/net")
    )


def _attach(scene: Scene) -> object:
    return scene.attach()


def _switch(scene: Scene) -> object:
    return mz.TransitSwitch.attach(scene.agent)


def _second(scene: Scene, **changes: Any) -> object:
    return scene.endpoint(**{"name": "db", "netns": scene.namespace("db").name, **changes})


def _tap_of_a_lost_device(scene: Scene) -> object:
    endpoint = scene.endpoint(kind="macvtap")
    scene.sh("ip -n $WEB link delete eth0")
    return endpoint.open_tap()


def _other_switch(scene: Scene) -> None:
    other = mz.TransitAgent.attach(scene.create("other", port=4790))
    mz.TransitSwitch.attach(other, mode="generic")
    other.close()


def _small(**sizes: int) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        scene.__dict__["agent"] = scene.attach(**sizes)
        scene.endpoint()

    return make


DUPLICATE = f"""
    ip -n $FAR address add 2001:db8::1/64 dev {UNDERLAY} nodad
    ip address flush dev {UNDERLAY}
    ip address add 2001:db8::1/64 dev {UNDERLAY}
    for each in $(seq 40); do ip address show dev {UNDERLAY} | grep -q dadfailed && exit; sleep 0.1; done; exit 1
"""
SITUATIONS = {
    # -- the underlay
    "no such underlay": Situation(
        BARE, _create(underlay="eth7"), mz.UnderlayNotFoundError, ("'eth7'", "there are eth0, lo")
    ),
    "underlay without an address": Situation(
        _bare(f"ip address flush dev {UNDERLAY}"),
        _create(),
        mz.UnderlayNotFoundError,
        ("eth0 has no global address", "ip address add ... dev eth0", "local="),
    ),
    "loopback as underlay": Situation(
        BARE, _create(underlay="lo"), mz.UnderlayNotFoundError, ("lo has no global", "local=")
    ),
    "address that stays tentative": Situation(
        _bare(f"ip link set {UNDERLAY} down; ip address flush dev {UNDERLAY}; "
              f"ip address add 2001:db8::1/64 dev {UNDERLAY}"),
        _create(),
        mz.UnderlayNotFoundError,
        ("2001:db8::1 yet", "duplicate address detection", "ip link set eth0 up"),
    ),
    "address of another host": Situation(
        _bare(DUPLICATE), _create(), mz.UnderlayNotFoundError, ("another host has it", "another address")
    ),
    "address of another host, by name": Situation(
        _bare(DUPLICATE), _create(local="2001:db8::1"), mz.UnderlayNotFoundError, ("another host has it",)
    ),
    "somebody else's address": Situation(
        BARE, _create(local="192.0.2.77"), mz.UnderlayNotFoundError, ("192.0.2.77", "leave local= out")
    ),
    "mtu above the underlay's": Situation(
        BARE, _create(mtu=1451), mz.MtuError, ("at most 1450", "ip link set eth0 mtu 1501")
    ),
    "underlay with a tiny mtu": Situation(
        _bare(f"ip link set {UNDERLAY} mtu 100"), _create(), mz.MtuError, ("ip link set eth0 mtu 118",)
    ),
    "underlay gone before attach": Situation(
        _with_tunnel(f"ip link delete {UNDERLAY}"),
        _attach,
        mz.UnderlayNotFoundError,
        ("eth0 of tunnel0 is gone", "tunnel.update(underlay=)"),
    ),
    # -- the tunnel's device
    "name of another device": Situation(
        _bare(f"ip link add name {TUNNEL} type veth peer name x0"),
        _create(),
        mz.ExistsError,
        ("tunnel0 exists and is no mizarnet tunnel", "another name"),
    ),
    "tunnel with other arguments": Situation(
        "", _create(mtu=1400), mz.ExistsError, ("mtu is 1450, not 1400", "leave the argument out", "update()")
    ),
    "port of another overlay": Situation(
        _with_tunnel("ip link add name flannel type vxlan external dstport 4789; ip link set flannel up"),
        _attach,
        mz.ExistsError,
        ("flannel uses UDP port 4789", "port="),
    ),
    "port of a service": Situation(
        lambda scene: scene.listen(4789), _attach, mz.ExistsError, ("4789", "ss -ulpn sport = :4789", "port=")
    ),
    "no tunnel": Situation(
        BARE,
        lambda scene: mz.Tunnel.open(TUNNEL, netns=scene.host.name),
        mz.TunnelNotFoundError,
        ("no tunnel tunnel0", "Tunnel.create()"),
    ),
    "no agent": Situation(
        _with_tunnel("true"),
        lambda scene: mz.TransitAgent.open(TUNNEL, netns=scene.host.name),
        mz.AgentNotFoundError,
        ("no transit agent", "TransitAgent.attach(tunnel)"),
    ),
    "tunnel deleted before attach": Situation(
        _with_tunnel(f"ip link delete {TUNNEL}"), _attach, mz.TunnelNotFoundError, ("is gone", "Tunnel.create()")
    ),
    "tunnel deleted under a handle": Situation(
        f"ip link delete {TUNNEL}", _endpoint(), mz.StaleHandleError, ("is gone", "Tunnel.create()")
    ),
    # -- what others put there
    "ingress qdisc of another program": Situation(
        _with_tunnel(f"tc qdisc add dev {TUNNEL} ingress"),
        _attach,
        mz.ExistsError,
        ("tunnel0 has a qdisc 'ingress'", "tc qdisc del dev tunnel0 ingress"),
    ),
    "filter in our place": Situation(
        _with_tunnel(f"tc qdisc add dev {TUNNEL} clsact; tc filter add dev {TUNNEL} ingress pref 1 handle 0x6d7a "
                     "protocol all bpf direct-action bytecode '1,6 0 0 0'"),
        _attach,
        mz.ExistsError,
        ("is taken by a filter", "tc filter del dev tunnel0 ingress prio 1"),
    ),
    "tunnel in a bridge": Situation(
        f"ip link add name br0 type bridge; ip link set {TUNNEL} master br0",
        _endpoint(),
        mz.ExistsError,
        ("br0 has tunnel0 for itself", "ip link set tunnel0 nomaster"),
    ),
    "tunnel below a passthru device": Situation(
        f"ip link add link {TUNNEL} name mv0 type macvlan mode passthru",
        _endpoint(),
        mz.ExistsError,
        ("mv0 has tunnel0 for itself", "ip link delete mv0"),
    ),
    "xdp program of another": Situation(
        _other_switch, _switch, mz.ExistsError, ("is attached", "ip link set dev eth0 xdpgeneric off")
    ),
    "no native xdp": Situation(
        "ip link add name br0 type bridge",
        lambda scene: mz.TransitSwitch.attach(scene.agent, underlay="br0", mode="native"),
        mz.UnsupportedError,
        ("the driver cannot", "generic"),
    ),
    "switch on no device": Situation(
        "",
        lambda scene: mz.TransitSwitch.attach(scene.agent, underlay="eth7"),
        mz.UnderlayNotFoundError,
        ("'eth7'", "there are eth0, lo, tunnel0"),
    ),
    "switch detached from no device": Situation(
        "",
        lambda scene: mz.TransitSwitch.detach("eth7", netns=scene.host.name),
        mz.UnderlayNotFoundError,
        ("'eth7'", "there are eth0, lo, tunnel0"),
    ),
    # -- namespaces
    "no such namespace": _in_netns("mzt-no-such"),
    "namespace of a process that ended": _in_netns("/proc/999999999/ns/net"),
    "a directory as namespace": _in_netns("/tmp"),
    "a file as namespace": _in_netns("/etc/passwd"),
    "a namespace of another kind": _in_netns("/proc/self/ns/mnt"),
    # -- endpoints
    "device of that name": Situation(
        "ip -n $WEB link add name eth0 type veth peer name x0", _endpoint(), mz.ExistsError, ("eth0", "ifname=")
    ),
    "address of another endpoint": Situation(
        _endpoint(), _second, mz.ExistsError, ("(7, 10.0.0.1) belongs to endpoint '7/10.0.0.1'", "delete that endpoint")
    ),
    "mac of another endpoint": Situation(
        _endpoint(mac="02:00:00:00:00:07"),
        lambda scene: _second(scene, ip="10.0.0.2/24", mac="02:00:00:00:00:07"),
        mz.ExistsError,
        ("MAC 02:00:00:00:00:07 belongs to endpoint '7/10.0.0.1'", "give another"),
    ),
    "mac of the tunnel itself": Situation(
        f"ip link set {TUNNEL} address 02:00:00:00:00:07",
        _endpoint(mac="02:00:00:00:00:07"),
        mz.ExistsError,
        ("MAC 02:00:00:00:00:07 is taken", "mac="),
    ),
    "endpoint with other arguments": Situation(
        _endpoint(), _endpoint(mtu=1400), mz.ExistsError, ("mtu is 1450, not 1400", "name=", "delete the endpoint")
    ),
    "default route there": Situation(
        "ip -n $WEB link add name x0 type veth peer name x1; ip -n $WEB link set x0 up; "
        "ip -n $WEB route add default dev x0",
        _endpoint(gateway="10.0.0.254"),
        mz.ExistsError,
        ("default route of IPv4", "gateway=()"),
    ),
    "gateway that is the namespace's own": Situation(
        "ip -n $WEB link add name x0 type veth peer name x1; ip -n $WEB link set x0 up; ip -n $WEB link set x1 up; "
        "ip -n $WEB address add fd00::fe/64 dev x0 nodad",
        _endpoint(ip="fd00::1/64", gateway="fd00::fe"),
        mz.ExistsError,
        ("fd00::fe is an address of the namespace itself", "gateway="),
    ),
    "mtu above the tunnel's": Situation("", _endpoint(mtu=1451), mz.MtuError, ("at most 1450",)),
    "no such endpoint": Situation(
        "", lambda scene: mz.Endpoint.open(scene.agent, "db"), mz.EndpointNotFoundError, ("'db'", "Endpoint.list(")
    ),
    "tap of a device that is gone": Situation(
        "", _tap_of_a_lost_device, mz.EndpointNotFoundError, ("device", "is gone", "Endpoint.create()")
    ),
    "too many descriptors of a tap": Situation(
        Scene.tap, lambda scene: scene.tap(queues=256), mz.KernelError, ("at most 256", "queues=")
    ),
    # -- full tables
    "room for local endpoints": Situation(
        _small(max_local=1), _endpoint(ip="10.2.0.2/24", ifname="e2"), mz.CapacityError, ("larger max_local",)
    ),
    "room for endpoints": Situation(
        _small(max_endpoints=1), _endpoint(ip="10.2.0.2/24", ifname="e2"), mz.CapacityError, ("larger max_endpoints",)
    ),
    "room for entries": Situation(
        _small(max_endpoints=1),
        lambda scene: scene.agent.endpoints.update({(7, "10.0.0.9"): mz.Remote("192.0.2.9")}),
        mz.CapacityError,
        ("larger max_endpoints",),
    ),
    "room for peers": Situation(
        "",
        lambda scene: scene.agent.peers.update(f"10.{n >> 8}.{n & 255}.0/24" for n in range(5000)),
        mz.CapacityError,
        ("1 of 4096 are used", "remove entries first"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SITUATIONS)
def test_an_error_says_what_is_wrong_and_what_to_do(scene: Scene, name: str) -> None:
    situation = SITUATIONS[name]
    if callable(situation.made):
        situation.made(scene)
    else:
        assert scene.agent
        scene.sh(situation.made)
    with pytest.raises(situation.error) as caught:
        situation.call(scene)
    assert type(caught.value) is situation.error
    assert caught.value.hint
    for word in situation.words:
        assert word in str(caught.value)


# -- places where little works -----------------------------------------------------------------------------

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
attempt("dual", lambda: create(vni=7, ip=["10.2.0.2/24", "fd00::2/64"], netns=WEB, ifname="eth1"))
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
