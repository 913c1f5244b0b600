# SPDX-License-Identifier: Apache-2.0
"""What this kernel offers, tried out in a network namespace that is made for it and deleted again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias, get_args

import attrs

from mizarnet._kernel import behaviours, bpf
from mizarnet._kernel.bpf import YES, XdpHook
from mizarnet._kernel.bpf import Feature as Feature
from mizarnet._kernel.capabilities import missing_capabilities, way_to_gain
from mizarnet._kernel.netlink import (
    Session,
    anonymous_netns,
    create_macvlan,
    create_tunnel,
    create_veth,
    neighbour_tables,
)
from mizarnet._kernel.objects import has_route_identity
from mizarnet._model import arguments
from mizarnet._model.described import Described
from mizarnet._model.html import table
from mizarnet._model.public import public
from mizarnet._model.specs import Encap, NetnsLike, XdpMode
from mizarnet.errors import MizarnetError, UnsupportedError

_NEEDED = (
    "CAP_NET_ADMIN",  # devices, addresses, routes
    "CAP_SYS_ADMIN",  # entering namespaces, opening programs and maps by their ids
    "CAP_PERFMON",  # reading kernel structures in programs
    "CAP_BPF",  # maps and programs
)


_NEIGHBOURS = 8192
"""Neighbours that a host with many endpoints should have room for; the kernel's usual 1,024 are few."""


@public
@attrs.frozen
class Features(Described):
    """Features of this kernel, as :func:`probe` found them: "unknown" where it could not try.

    Attributes:
        kernel: Release of the running kernel.
        btf: Description of the kernel's types (BTF), without which no program is loaded.
        vxlan: VXLAN devices in metadata mode.
        geneve: Geneve devices in metadata mode.
        macvlan: MACVLAN devices, for endpoints of containers.
        macvtap: MACVTAP devices, for endpoints of VMs.
        tcx: Programs on the tcx hooks (kernel 6.6), which run before the filters of a clsact.
        route_identity: Programs that know a sender by the device its packets were routed through (kernel 6.2).
        native_xdp: XDP programs in a driver; tried on a veth, other drivers may differ.
        neighbours: Limits of the kernel's tables of neighbours, which all namespaces share: most entries of IPv4 and
            IPv6 (``net.ipv4.neigh.default.gc_thresh3`` and its like). Each endpoint that another one talks to is one.
        missing_privileges: Names of the capabilities that this thread lacks.
        behaviours: Behaviours of the kernel that mizarnet relies on, by name; sentences that describe them are in
            ``mizarnet._kernel.behaviours.BEHAVIOURS``.
    """

    kernel: str
    btf: Feature
    vxlan: Feature
    geneve: Feature
    macvlan: Feature
    macvtap: Feature
    tcx: Feature
    route_identity: Feature
    native_xdp: Feature
    neighbours: Mapping[int, int]
    missing_privileges: tuple[str, ...]
    behaviours: Mapping[str, Feature]

    def _rows(self) -> Iterator[tuple[str, str, str, str]]:
        offered = {field.name: getattr(self, field.name) for field in attrs.fields(Features)}
        for name, value in {**offered, **self.behaviours}.items():
            if isinstance(value, Feature):
                yield name, value.answer, value.reason, value.instead
        for version, limit in self.neighbours.items():
            name = f"net.ipv{version}.neigh.default.gc_thresh3"
            instead = (
                f"sysctl -w {name}={_NEIGHBOURS}, in the initial namespace" if limit < _NEIGHBOURS else ""
            )
            yield f"neighbours of IPv{version}", str(limit), "of all namespaces together", instead
        for name in self.missing_privileges:
            yield name, "no", "this thread lacks it", way_to_gain()

    def __str__(self) -> str:
        lines = [f"kernel {self.kernel}"]
        for name, answer, reason, instead in self._rows():
            lines.append(f"{name:25} {answer:8}" + (f"{reason}; instead: {instead}" if reason else ""))
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        header = ("feature", "available", "reason", "instead")
        return table(f"Kernel {self.kernel}", header, self._rows())


@public
def probe(netns: NetnsLike | None = None) -> Features:
    """Find out by trying what the kernel offers.

    Devices are tried out in a nameless namespace that ends with the call; the kernel may load modules for them.

    Args:
        netns: Host namespace, a name under ``/run/netns`` or a path; None: the calling thread's.

    Raises:
        NetnsNotFoundError: There is no such namespace.
    """
    where = None if netns is None else arguments.check_netns(netns)
    missing = missing_capabilities(*_NEEDED)
    with Session.open(where) as session:
        tcx = session.run(bpf.has_tcx)
        neighbours = {each.version: each.limit for each in neighbour_tables(session)}
    return Features(
        kernel=os.uname().release,
        btf=bpf.has_btf(),
        tcx=_otherwise(tcx, "filters of a clsact alone: one layer, which ends with its clsact"),
        route_identity=_otherwise(
            has_route_identity(),
            "source MAC and source address only: a container with raw sockets can imitate an endpoint of its host",
        ),
        neighbours=neighbours,
        missing_privileges=missing,
        **_try_devices(missing),
        behaviours=_try_behaviours(missing),
    )


def probe_encapsulation(encap: Encap) -> Feature:
    """Whether the kernel has the devices of one encapsulation in metadata mode; far quicker than :func:`probe`."""
    with anonymous_netns() as netns, Session.open(netns) as session:
        return session.run(_try_device, session, encap.value)


def _otherwise(found: Feature, instead: str) -> Feature:
    return attrs.evolve(found, instead=instead) if found.available is False else found


def _try_devices(missing: tuple[str, ...]) -> dict[_DeviceKind, Feature]:
    names: tuple[_DeviceKind, ...] = get_args(_DeviceKind)
    if missing:
        return dict.fromkeys(names, _unknown(missing))
    with anonymous_netns() as netns, Session.open(netns) as session:
        return {name: session.run(_try_device, session, name) for name in names}


def _try_behaviours(missing: tuple[str, ...]) -> Mapping[str, Feature]:
    names = [behaviour.name for behaviour in behaviours.BEHAVIOURS]
    if missing:
        return dict.fromkeys(names, _unknown(missing))
    try:
        return behaviours.try_all()
    except MizarnetError as error:
        return dict.fromkeys(
            names, Feature(available=None, reason=error.message, instead=error.hint or behaviours.AGAIN)
        )


def _unknown(missing: tuple[str, ...]) -> Feature:
    return Feature(available=None, reason=f"not known without {missing[0]}", instead=way_to_gain())


_DeviceKind: TypeAlias = Literal["vxlan", "geneve", "macvlan", "macvtap", "native_xdp"]

_INSTEAD: dict[_DeviceKind, str] = {
    "vxlan": 'encap="geneve"',
    "geneve": 'encap="vxlan"',
    "macvlan": "nothing: endpoints need it",
    "macvtap": "nothing: endpoints of VMs need it",
    "native_xdp": "XDP on the generic hook",
}


def _try_device(session: Session, name: _DeviceKind) -> Feature:
    try:
        if name == "vxlan" or name == "geneve":
            create_tunnel(session, name, kind=name, port=Encap(name).default_port, mtu=1400)
        elif name == "native_xdp":
            _try_native_xdp(session)
        else:
            lower = create_veth(session, f"{name}0", peer=f"{name}1")
            create_macvlan(
                session, name, parent_ifindex=lower.ifindex, mac="02:00:00:00:00:01", mtu=1400, kind=name
            )
    except UnsupportedError as refused:
        is_own = refused.feature == name != "native_xdp"
        reason = f"this kernel has no {name} (CONFIG_{name.upper()})" if is_own else str(refused)
    except MizarnetError as error:
        return Feature(available=None, reason=str(error), instead=_INSTEAD[name])
    else:
        return YES
    return Feature(available=False, reason=reason, instead=_INSTEAD[name])


def _try_native_xdp(session: Session) -> None:
    veth = create_veth(session, "xdp0", peer="xdp1")
    with behaviours.load(route_identity=False) as loaded:
        XdpHook(veth.ifindex).attach(loaded.programs["passes"], mode=XdpMode.NATIVE)
