# SPDX-License-Identifier: Apache-2.0
"""What a host must be, and what it is: one look at each kind of object, without a lock.

What a call of another process is in the middle of is no finding: an object that is being made or deleted counts as such
for a minute, and everything else must be seen by two looks, one after the other (``confirm.py``).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from mizarnet._datapath import private_netns
from mizarnet._datapath.checks.agent import agent_findings, is_being_changed
from mizarnet._datapath.checks.agent import switch_findings as switch_findings
from mizarnet._datapath.checks.by_hand import by_hand_findings
from mizarnet._datapath.checks.endpoints import Tables as Tables
from mizarnet._datapath.checks.endpoints import all_findings as all_findings
from mizarnet._datapath.checks.endpoints import endpoint_findings as endpoint_findings
from mizarnet._datapath.checks.endpoints import left_entries
from mizarnet._datapath.checks.gateways import gateway_findings as gateway_findings
from mizarnet._datapath.checks.gateways import gateways_findings, left_gateways
from mizarnet._datapath.checks.gateways import rules_findings as rules_findings
from mizarnet._datapath.checks.leftovers import left_namespaces, left_shortcuts, left_switches
from mizarnet._datapath.checks.leftovers import left_tunnels as left_tunnels
from mizarnet._datapath.checks.next_hops import next_hop_findings
from mizarnet._datapath.checks.tunnel import tunnel_findings as tunnel_findings
from mizarnet._datapath.checks.underlay import Hosts, host_findings, underlay_findings
from mizarnet._datapath.checks.underlay import is_cut_off as is_cut_off
from mizarnet._datapath.checks.underlay import neighbour_findings as neighbour_findings
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import LocalEndpoints
from mizarnet._datapath.gateways import Gateways
from mizarnet._datapath.host import Host
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._model.codec import instance_of
from mizarnet._model.enumerations import State
from mizarnet._model.finding import Cure, Finding, FindingKind
from mizarnet.errors import (
    AgentNotFoundError,
    ExistsError,
    KernelError,
    LayoutError,
    StaleHandleError,
    TunnelNotFoundError,
)


@contextmanager
def found_datapath(device: TunnelDevice) -> Generator[DataPath | Finding | None, None, None]:
    """The data path of a tunnel; None if it has none, or the finding that says why it cannot be looked into."""
    try:
        found = DataPath.find(device.hooks)
    except (LayoutError, ExistsError) as refused:
        kind = FindingKind.OTHER_VERSION if isinstance(refused, LayoutError) else FindingKind.TWO_AGENTS
        yield device.finding(kind, None, None, refused.message, refused.hint or "")
        return
    try:
        yield found
    finally:
        if found is not None:
            found.close()


def is_usable(datapath: DataPath) -> bool:
    """Whether records lead to devices: the data path is whole, and of this namespace."""
    meta = datapath.maps.read_meta()
    return meta.state is State.LIVE and meta.head.netns_cookie == datapath.host.cookie


def look_at_tunnel(device: TunnelDevice, datapath: DataPath | None) -> list[Finding]:
    """One look at a tunnel's device and what is below it."""
    if datapath is None or not is_usable(datapath):
        return [*tunnel_findings(device, datapath)]
    device = device.by(datapath.maps.read_meta())
    below = underlay_findings(device) if device.find() is not None else ()
    return [*tunnel_findings(device, datapath), *below]


def look_at_agent(device: TunnelDevice, datapath: DataPath, tables: Tables | None = None) -> list[Finding]:
    """One look at an agent: programs, switch, tables, and the ways to the hosts that these name."""
    try:
        found = [*agent_findings(datapath)]
        if not is_usable(datapath):
            return found
        device = device.by(datapath.maps.read_meta())
        endpoints = LocalEndpoints.of(datapath)
        read = tables or Tables.read(endpoints.maps)
        hosts = Hosts.read(datapath.maps, read.contents["endpoints"].values())
        hops = next_hop_findings(datapath, read.contents["endpoints"])
        found += [*left_entries(endpoints, read), *host_findings(device, datapath, hosts), *hops]
        return [*found, *by_hand_findings(endpoints)]
    except (StaleHandleError, AgentNotFoundError) as gone:
        return [agent_gone(datapath, gone)]
    except ExistsError as two:
        return [device.finding(FindingKind.TWO_AGENTS, None, None, two.message, two.hint or "")]


def agent_gone(datapath: DataPath, gone: StaleHandleError | AgentNotFoundError) -> Finding:
    """The finding for a handle whose agent or tunnel is gone."""
    text, remedy = gone.message, gone.hint or ""
    return datapath.finding(FindingKind.AGENT_GONE, "attached", None, text, remedy, Cure.NONE)


def look_at_host(host: Host) -> list[Finding]:
    """One look at everything of ours on a host."""
    return list(_look_at_host(host))


def _look_at_host(host: Host) -> Iterator[Finding]:
    # Before the records: an endpoint's record is written before its namespace is made.
    spaces = private_netns.names()
    instances: dict[int, frozenset[int] | None] = {}
    for device in TunnelDevice.all(host):
        instances[device.ifindex] = None
        with found_datapath(device) as found, unless_it_went(device):
            if isinstance(found, Finding):
                yield found
            elif found is None:
                yield from look_at_tunnel(device, None)
            elif not is_being_changed(found):
                tables = Tables.read(found.maps)
                instances[device.ifindex] = frozenset(map(instance_of, tables.contents["records"].values()))
                yield from look_at_tunnel(device, found)
                yield from look_at_agent(device, found, tables)
                if is_usable(found):
                    yield from all_findings(LocalEndpoints.of(found), tables)
                    yield from gateways_findings(Gateways.of(found))
    yield from left_tunnels(host)
    yield from left_switches(host)
    yield from left_shortcuts(host)
    yield from left_gateways(host)
    yield from rules_findings(host)
    yield from left_namespaces(host, spaces, instances)


@contextmanager
def unless_it_went(device: TunnelDevice) -> Generator[None, None, None]:
    """Let a look end early at a tunnel, or an agent, that another process ends meanwhile."""
    try:
        yield
    except (StaleHandleError, AgentNotFoundError, TunnelNotFoundError):
        return
    except KernelError:
        if device.find() is not None:
            raise
