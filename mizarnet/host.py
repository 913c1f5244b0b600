# SPDX-License-Identifier: Apache-2.0
"""A host as a whole: what of mizarnet is on it, whether it works, and how it is mended, cleaned and cleared."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Self, final

import attrs

from mizarnet._datapath import health, repairs
from mizarnet._datapath.checks import look_at_host
from mizarnet._datapath.checks.confirm import confirmed
from mizarnet._datapath.checks.losses import loss_findings, with_evidence
from mizarnet._datapath.clearing import clear
from mizarnet._datapath.host import Host as Session
from mizarnet._datapath.losses import Watch
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._kernel.closing import Closing
from mizarnet._kernel.jobs import whole
from mizarnet._model import arguments
from mizarnet._model.described import Described, Listing
from mizarnet._model.finding import Finding, Health, Report, worst_first
from mizarnet._model.public import public
from mizarnet._model.specs import NetnsLike
from mizarnet.agent import TransitAgent, datapath_of
from mizarnet.errors import (
    AgentNotFoundError,
    ExistsError,
    LayoutError,
    StaleHandleError,
    TunnelNotFoundError,
)
from mizarnet.gateway import Gateway
from mizarnet.hostspec import HostSpec
from mizarnet.plan import Plan, make
from mizarnet.tunnel import Tunnel, device_of, learn


@public
@final
class Host(Described, Closing):
    """A handle of a host: a network namespace in which tunnels live, with whatever of mizarnet is in it.

    Made by :meth:`open`, also on a host where nothing is, or where a call that was ended halfway left something.
    Closing it, or leaving its ``with``, closes the handles that it gave out, and touches nothing in the kernel.

    Attributes:
        netns: Network namespace of the host, as the caller named it; None: that of the thread that made the handle.

    Raises:
        ClosedError: In each method, after :meth:`close`.
        ForkedError: In each method, in a child of the process that made the handle.
        PrivilegeError: In each method: ``CAP_SYS_ADMIN``, ``CAP_NET_ADMIN`` or ``CAP_BPF`` is missing.
        LockTimeoutError: In :meth:`clear`, and in :meth:`agents` where an agent was replaced: another process held the
            host's lock for 10 s. :meth:`repair` and :meth:`gc` say so in their reports, and try nothing more.
    """

    _DESCRIBED = ("netns",)

    def __init__(self, session: Session, *, netns: str | None) -> None:
        """Not for users: see :meth:`open`."""
        self.netns = netns
        self._session = session
        self._watch = Watch(session)
        self._kept: dict[Tunnel, TransitAgent | None] = {}

    @classmethod
    def open(cls, *, netns: NetnsLike | None = None) -> Self:
        """A handle of a host.

        Args:
            netns: Network namespace of the host, a name under ``/run/netns`` or a path; None: that of the calling
                thread.

        Raises:
            NetnsNotFoundError: There is no such network namespace.
        """
        where = None if netns is None else arguments.check_netns(netns)
        return cls(Session.open(where), netns=where)

    def tunnels(self) -> list[Tunnel]:
        """Handles of all tunnels of the host, by name; they are closed with this handle.

        A tunnel that is still there has the same handle in each call.
        """
        with self._session.open_netns() as here:
            found = [self._keep(each) for each in Tunnel.list(netns=f"/proc/self/fd/{here.fileno()}")]
        for gone in [each for each in self._kept if each not in found]:
            self._let_go(gone)
        columns = ("name", "encap", "local", "port", "mtu", "underlay")
        return Listing(found, caption=f"tunnels of {self._name}", columns=columns)

    def agents(self) -> list[TransitAgent]:
        """Handles of the agents of the host that are attached and whole, by the names of their tunnels.

        They are closed with this handle, and an agent that is still there has the same one in each call. An agent that
        is left out, since it is unfinished or of another version of this package, is named by :meth:`check`.
        """
        found: list[TransitAgent] = []
        for tunnel in self.tunnels():
            agent = self._kept[tunnel]
            with suppress(
                AgentNotFoundError, ExistsError, LayoutError, TunnelNotFoundError, StaleHandleError
            ):
                if agent is None or datapath_of(agent).closed:
                    agent = self._kept[tunnel] = TransitAgent.open(tunnel)
                else:
                    agent.reopen()
                if not datapath_of(agent).is_older:
                    found.append(agent)
        return found

    def gateways(self) -> list[Gateway]:
        """Handles of the gateways of the host that are whole, by tunnel and VNI.

        They are of use until this handle is closed.
        """
        found = [gateway for agent in self.agents() for gateway in Gateway.list(agent)]
        columns = ("vni", "egress", "ip", "publish", "nat")
        return Listing(found, caption=f"gateways of {self._name}", columns=columns)

    def _keep(self, tunnel: Tunnel) -> Tunnel:
        """The handle that was given out before of the same tunnel, or this one."""
        tunnel.netns = self.netns
        for each in self._kept:
            before, now = device_of(each), device_of(tunnel)
            if before.is_same(now) and not before.host.closed:
                learn(each, attrs.evolve(now, host=before.host))
                tunnel.close()
                return each
        self._kept[tunnel] = None
        return tunnel

    def _let_go(self, tunnel: Tunnel) -> None:
        agent = self._kept.pop(tunnel)
        if agent is not None:
            agent.close()
        tunnel.close()

    def check(self) -> list[Finding]:
        """What of mizarnet on this host is not as it should be, the worst first; none is the good case.

        A read without a lock that changes nothing. A finding was seen twice, 0.1 s apart, of the same object; what has
        been in the making, or ending, for less than a minute is none. It covers hooks, programs and constants of the
        agents, tables, tunnels, the underlay with the ways to other hosts, switches, gateways with their rules, and
        devices, namespaces, addresses and routes of endpoints. What a tunnel's device lost since the last call of this
        handle is a finding;
        other counters of the kernel that say the same as a finding are its ``evidence``.
        """
        devices = TunnelDevice.all(self._session)
        self._watch.begin(devices)
        found = confirmed(lambda: look_at_host(self._session))
        self._watch.look(devices)
        rates = self._watch.rates
        found = [*with_evidence(found, rates), *loss_findings(devices, rates)]
        columns = ("severity", "kind", "object", "message")
        return Listing(worst_first(found), caption=f"findings on {self._name}", columns=columns)

    @whole
    def repair(self, findings: Iterable[Finding] | None = None) -> Report:
        """Mend what was found: guard and agent, then tunnels, then entries, then devices.

        Each finding is looked at again under the lock first. Devices keep their indexes and TCP streams go on, unless
        ``finding.interrupts`` says otherwise. No endpoint, entry or program is removed, but what was put onto our own
        tunnel, such as a qdisc or an address. What cannot be rebuilt, such as a tunnel that was deleted, is left, and
        its message tells what to do.

        Args:
            findings: Findings of :meth:`check`, or of an object's own; None: all that a check finds now.

        Returns:
            What was mended, and what is left.

        Raises:
            InvalidTypeError: ``findings`` has something else than findings.
        """
        if findings is None:
            return repairs.repair_all(self._session)
        given = arguments.check_items(findings, argument="findings", what="Finding")
        return repairs.repair(self._session, arguments.check_all(given, Finding, argument="findings"))

    def plan(self, spec: HostSpec, *, owner: str | None = None) -> Plan:
        """What would change if this host became as a specification says; nothing is changed.

        Sections, and fields of endpoints, that the specification leaves out are not compared. What an object lacks of
        its own record, as :meth:`check` finds it, counts as well. Tunnel, agent and switch are never deleted.

        Args:
            spec: The specification.
            owner: Prefix of the names of the endpoints that may be deleted if the specification does not have them,
                such as ``"svc/"``: it ends with its only ``/``. Entries are written, and deleted, as those of the feed
                ``plan:<owner>``. None: nothing is deleted, and entries are written by hand.

        Raises:
            InvalidValueError: ``owner`` does not end with its only ``/``, an endpoint's name does not begin with it,
                the specification names no tunnel, and the host does not have exactly one, or an entry leads to this
                host, or to one of another IP version than the tunnel's.
            LayoutError: Another version of this package attached the agent.
            ExistsError: Programs of two agents are on the tunnel.
        """
        return make(self._session, spec, netns=self.netns, owner=owner)

    @whole
    def gc(self) -> Report:
        """Remove what is of mizarnet and has no owner.

        That is: endpoints whose devices or containers are gone, with their entries; endpoints, gateways and agents
        that were begun, or whose end was, more than a minute ago; gateways of which a part is gone; devices on a tunnel
        that are no endpoint's; private namespaces of VMs, programs and forwarding on a NIC whose tunnels are gone. What
        a call is making or deleting is left alone.

        Returns:
            What was removed, and what could not be.
        """
        return repairs.collect_all(self._session, confirmed(lambda: look_at_host(self._session)))

    def health(self) -> Health:
        """Whether the host works, for a probe; its cost does not depend on the number of endpoints.

        It covers hooks, tunnels, underlay, gateways, counters and the fill of tables, and no single endpoint, entry or
        other host: these are for :meth:`check`. Counters are compared with the last call of this handle.
        """
        self._watch.look(TunnelDevice.all(self._session))
        return health.of_host(self._session, self._watch.rates)

    @whole
    def clear(self, *, force: bool = False) -> None:
        """End everything of mizarnet on this host: endpoints, agents, switches, tunnels and what is left of them.

        Guards end last, with the tunnels that they guard.

        Args:
            force: Whether to end live endpoints, too.

        Raises:
            InUseError: There are live endpoints, which it counts, and ``force`` is not given; nothing was ended.
            LayoutError: Another version of this package attached an agent, and ``force`` is not given; nothing was
                ended.
            ExistsError: Programs of two agents are on one tunnel, and ``force`` is not given; nothing was ended.
        """
        arguments.check_bool(force, argument="force")
        clear(self._session, force=force)

    @whole
    def close(self) -> None:
        """Close the handle, and those that it gave out; closing it again is harmless."""
        for tunnel in [*self._kept]:
            self._let_go(tunnel)
        self._session.close()

    @property
    def _name(self) -> str:
        return self.netns or os.uname().nodename

    def __repr__(self) -> str:
        return f"<Host {self._name}>"

    def _caption(self) -> str:
        return f"Host {self._name}"
