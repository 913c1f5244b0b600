# SPDX-License-Identifier: Apache-2.0
"""Mending agents, their tunnels, switches and shortcuts: guard and agent first, the tunnel when it is guarded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_interface

from mizarnet._datapath import forwarding, install, shortcuts, switches
from mizarnet._datapath.checks import found_datapath, look_at_tunnel
from mizarnet._datapath.checks.agent import agent_findings
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.host import Host
from mizarnet._datapath.repairs.tally import Tally
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._datapath.upgrade import upgrade
from mizarnet._kernel.netlink import delete_address, delete_root_qdisc, get_link, set_link
from mizarnet._model.codec import FIRST
from mizarnet._model.enumerations import State, SwitchFlag
from mizarnet._model.finding import Finding, FindingKind
from mizarnet._model.specs import XdpMode
from mizarnet.errors import ExistsError, MtuError

K = FindingKind


def mend_agent(host: Host, tunnel: str, findings: list[Finding], tally: Tally) -> None:
    """Mend findings about a tunnel, its agent and its switch that still hold; the host's lock is held meanwhile."""
    with host.locked():
        device = TunnelDevice.open(host, tunnel)
        with found_datapath(device) as datapath:
            if isinstance(datapath, Finding):
                return  # programs that cannot be looked into guard the tunnel by now: nothing is known to hold still
            still = {each.key for each in _look(device, datapath)}
            for finding in sorted(findings, key=lambda each: _RANK.get((each.object.kind, each.kind), 0)):
                mender = MENDERS.get((finding.object.kind, finding.kind))
                if mender is not None and finding.key in still:
                    with tally.trying(finding):
                        mender(device, datapath, finding)


def _look(device: TunnelDevice, datapath: DataPath | None) -> Iterator[Finding]:
    yield from look_at_tunnel(device, datapath)
    if datapath is not None:
        yield from agent_findings(datapath)


def _complete(device: TunnelDevice, datapath: DataPath | None, finding: Finding) -> None:
    if datapath is not None and datapath.maps.read_meta().state is State.MAKING:
        device.refuse_unfit()
        install.complete(device, datapath)


def _make_whole(device: TunnelDevice, datapath: DataPath | None, finding: Finding) -> None:
    if datapath is not None:
        datapath.make_whole()


def _replace_programs(device: TunnelDevice, datapath: DataPath | None, finding: Finding) -> None:
    if datapath is not None:
        datapath.make_whole()
        upgrade(datapath)


def _take_down(device: TunnelDevice, datapath: DataPath | None, finding: Finding) -> None:
    if datapath is None:
        device.take_down()


def _bring_up(device: TunnelDevice, datapath: DataPath | None, finding: Finding) -> None:
    if datapath is not None:
        datapath.make_whole()
        device.bring_up()


def _remove_qdisc(device: TunnelDevice, datapath: DataPath | None, finding: Finding) -> None:
    delete_root_qdisc(device.host, device.ifindex)


def _silence(device: TunnelDevice, datapath: DataPath | None, finding: Finding) -> None:
    set_link(device.host, device.ifindex, arp=False, multicast=False)


def _remove_address(device: TunnelDevice, datapath: DataPath | None, finding: Finding) -> None:
    delete_address(device.host, device.ifindex, ip_interface(str(finding.found)))


def _release_from_master(device: TunnelDevice, datapath: DataPath | None, finding: Finding) -> None:
    set_link(device.host, device.ifindex, master=0)


def _set_mtu(device: TunnelDevice, datapath: DataPath | None, finding: Finding) -> None:
    underlay, wanted = device.find_underlay(), int(finding.wanted)
    largest = 0 if underlay is None else underlay.mtu - device.encap.overhead(device.local.version)
    if wanted > largest:
        raise MtuError(
            f"{device.underlay} has room for {largest} bytes by now",
            argument="mtu",
            value=wanted,
            hint="raise its MTU",
        )
    device.set_mtu(wanted)


def _set_mac(device: TunnelDevice, datapath: DataPath | None, finding: Finding) -> None:
    set_link(device.host, device.ifindex, mac=str(finding.wanted))


def _complete_switch(device: TunnelDevice, datapath: DataPath | None, finding: Finding) -> None:
    if datapath is not None:
        for each in switches.own(datapath):
            switches.complete(datapath, datapath.maps, each)


def _attach_switch(device: TunnelDevice, datapath: DataPath | None, finding: Finding) -> None:
    if datapath is None:
        return
    noted = datapath.maps.read_switching()
    link = get_link(device.host, ifindex=noted.ifindex) if noted.ifindex else None
    if link is None:
        switches.clear(datapath)  # its device is gone, and with it what was changed there
        return
    if link.xdp_ids:
        holder = f"XDP program {link.xdp_ids[0]}"
        raise ExistsError(f"{holder} is on {link.name} by now", holder=holder, hint="detach it first")
    mode = XdpMode.GENERIC if noted.flags & SwitchFlag.GENERIC_XDP else XdpMode.NATIVE
    try:
        switches.attach(datapath, datapath.maps, link, mode)
    except BaseException:
        # The note tells what was changed on the device, and that a switch should be there.
        datapath.maps.switching.update(FIRST, noted.pack())
        forwarding.enable(device.host, link.name, noted.flags)
        raise


def _settle_shortcut(device: TunnelDevice, datapath: DataPath | None, finding: Finding) -> None:
    if datapath is not None:
        shortcuts.settle(device.host, datapath.maps)


_Mender = Callable[[TunnelDevice, DataPath | None, Finding], None]
MENDERS: Mapping[tuple[str, FindingKind], _Mender] = {
    ("agent", K.PROGRAM_MISSING): _make_whole,
    ("agent", K.LIFELINE_MISSING): _make_whole,
    ("agent", K.UNFINISHED): _complete,
    ("agent", K.CONSTANTS_DIFFER): _replace_programs,
    ("tunnel", K.AGENT_GONE): _take_down,
    ("tunnel", K.QDISC_DIFFERS): _remove_qdisc,
    ("tunnel", K.NOT_SILENT): _silence,
    ("tunnel", K.ADDRESS_ADDED): _remove_address,
    ("tunnel", K.MASTER_SET): _release_from_master,
    ("tunnel", K.MAC_DIFFERS): _set_mac,
    ("tunnel", K.MTU_DIFFERS): _set_mtu,
    ("tunnel", K.TUNNEL_DOWN): _bring_up,
    ("switch", K.CONSTANTS_DIFFER): _replace_programs,
    ("shortcut", K.CONSTANTS_DIFFER): _replace_programs,
    ("switch", K.UNFINISHED): _complete_switch,
    ("switch", K.FORWARDING_OFF): _complete_switch,
    ("switch", K.LIFELINE_MISSING): _complete_switch,
    ("switch", K.RULES_DIFFER): _complete_switch,
    ("switch", K.SWITCH_GONE): _attach_switch,
    ("shortcut", K.SHORTCUT_UNWANTED): _settle_shortcut,
    ("shortcut", K.SHORTCUT_GONE): _settle_shortcut,
    ("shortcut", K.LIFELINE_MISSING): _settle_shortcut,
}
"""How each kind of finding is mended, in the order in which that is done."""
_RANK = {key: rank for rank, key in enumerate(MENDERS)}
