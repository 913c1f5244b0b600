# SPDX-License-Identifier: Apache-2.0
"""What a tunnel's device must be, and what it is."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from mizarnet._datapath.datapath import CREATE_AGAIN, DataPath
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._kernel.netlink import Link, get_link, list_addresses
from mizarnet._model import codec
from mizarnet._model.codec import FIRST
from mizarnet._model.finding import Cure, Finding, FindingKind

_PLAIN_QDISCS = ("noqueue", "noop")
"""Disciplines without a queue: that of the device's kind, and that of a device which never was up."""


def tunnel_findings(device: TunnelDevice, datapath: DataPath | None) -> Iterator[Finding]:
    """Findings about a tunnel's device.

    Args:
        device: The tunnel.
        datapath: Its data path, if that is whole; None: it has none.
    """
    link = device.find()
    if link is None:
        yield device.finding(
            FindingKind.TUNNEL_GONE, device.ifindex, None, "its device is gone", CREATE_AGAIN
        )
        return
    if datapath is None:
        if link.up:
            text = "it is up, and no agent and guard are attached: what arrives reaches the devices on it unchecked"
            yield device.finding(FindingKind.AGENT_GONE, "down", "up", text)
    else:
        yield from _with_datapath(device, link, datapath)
    yield from _settings(device, link)


def _with_datapath(device: TunnelDevice, link: Link, datapath: DataPath) -> Iterator[Finding]:
    if not link.up:
        yield device.finding(FindingKind.TUNNEL_DOWN, "up", "down", "its device is down")
    meta = datapath.maps.read_meta()
    if link.mtu != meta.mtu:
        text = f"its MTU is {link.mtu}, and the agent was attached with {meta.mtu}"
        differs = device.finding(FindingKind.MTU_DIFFERS, meta.mtu, link.mtu, text)
        underlay = device.find_underlay()
        needed = meta.mtu + device.encap.overhead(device.local.version)
        if underlay is None or underlay.mtu < needed:
            remedy = f"raise the underlay's MTU first: ip link set {device.underlay} mtu {needed}"
            differs = attrs.evolve(differs, remedy=remedy, cure=Cure.NONE)
        yield differs
    mac = str(codec.tunnel_mac(datapath.maps.config.lookup(FIRST) or b""))
    if link.mac != mac:
        text = f"its MAC is {link.mac}, and the agent knows it by {mac}"
        yield device.finding(FindingKind.MAC_DIFFERS, mac, link.mac, text)


def _settings(device: TunnelDevice, link: Link) -> Iterator[Finding]:
    for program_id in link.xdp_ids:
        text = f"XDP program {program_id} of other software runs before the guard, and can change or drop any frame"
        remedy = f"ip link set {device.name} xdp off, xdpgeneric off"
        yield device.finding(
            FindingKind.PROGRAM_AHEAD, f"no XDP program {program_id}", program_id, text, remedy
        )
    if link.qdisc not in _PLAIN_QDISCS:
        text = f"its qdisc is {link.qdisc}: frames that wait there get each other's destinations"
        yield device.finding(FindingKind.QDISC_DIFFERS, "noqueue", link.qdisc, text)
    if not link.silent:
        text = "ARP or multicast is on, and the host speaks on the overlay"
        yield device.finding(FindingKind.NOT_SILENT, "silent", "speaks", text)
    if link.master_ifindex is not None:
        master = get_link(device.host, ifindex=link.master_ifindex)
        name = master.name if master else str(link.master_ifindex)
        text = f"{name} has it as a port, so no endpoint can be made"
        yield device.finding(FindingKind.MASTER_SET, None, name, text)
    for address in list_addresses(device.host, ifindex=link.ifindex):
        text = f"it has the address {address.interface}, which no endpoint can reach"
        yield device.finding(FindingKind.ADDRESS_ADDED, f"no {address.interface}", address.interface, text)
