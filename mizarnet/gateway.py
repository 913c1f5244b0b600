# SPDX-License-Identifier: Apache-2.0
"""Gateways: the way out of a VNI, by a device of the host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self, final

import attrs

from mizarnet._datapath import gateway_notes
from mizarnet._datapath.checks import gateway_findings, rules_findings
from mizarnet._datapath.checks.confirm import confirmed
from mizarnet._datapath.gateway_notes import Noted
from mizarnet._datapath.gateways import Gateways, remove_left
from mizarnet._kernel.jobs import whole
from mizarnet._model import arguments
from mizarnet._model.arguments import IPInterface
from mizarnet._model.described import Described, Listing
from mizarnet._model.finding import Findings, worst_first
from mizarnet._model.gateways import GatewaySpec, Publish, to_publish
from mizarnet._model.public import public
from mizarnet._model.specs import KEEP, InterfaceLike, Keep, Life
from mizarnet.agent import TransitAgent, datapath_of
from mizarnet.errors import (
    AgentNotFoundError,
    BulkError,
    GatewayNotFoundError,
    MizarnetError,
    StaleHandleError,
)
from mizarnet.tunnel import place_of


@public
@attrs.frozen
class GatewayState(Described):
    """A gateway as the kernel described it.

    Attributes:
        life: How far the gateway has come; dead: its endpoint, or its namespace, is gone.
        connections: Number of connections through it that the kernel knows now.
        packets: Number of packets that it forwarded, both ways, since its rules were written.
        bytes: Bytes of these packets.
    """

    life: Life
    connections: int
    packets: int
    bytes: int


@public
@final
class Gateway(Described):
    """A handle of the way out of one VNI on one host. It keeps no kernel object open, so there is nothing to close.

    Made by :meth:`create`, :meth:`open` and :meth:`list`. A gateway is an endpoint that forwards, in a namespace of its
    own, from which a pair of devices leads to the host. What leaves gets the gateway's own address first and the host's
    then, by nftables; so tenants with equal addresses do not meet.

    Nothing that leaves reaches the UDP port of a tunnel, whatever host it is sent to: such a packet would be a frame of
    any VNI. What comes in by the egress device reaches tenants only as an answer, or by a published port. If the device
    did not forward before, nothing else that comes in by it is forwarded, either.

    Attributes:
        vni: VNI that it leads out of.
        name: Name of its endpoint.
        egress: Name of the host's device that it leads to.
        ip: Its addresses in the VNI, with their on-link prefixes.
        publish: Published ports.
        nat: Whether what leaves gets an address of the host.
        host_access: Whether tenants reach the services of the host itself.
        created: Whether the call that made this handle created the gateway.

    Raises:
        ClosedError: In each method, after the agent's handle was closed.
        ForkedError: In each method, in a child of the process that made the agent's handle.
        StaleHandleError: In each method but :meth:`delete`: the agent was detached or replaced, or its tunnel is gone.
        AgentNotFoundError: In each method but :meth:`delete`: another program took agent and guard off every hook.
        LockTimeoutError: In each method that changes something: another process held the host's lock for 10 s.
        PrivilegeError: ``CAP_NET_ADMIN`` or ``CAP_SYS_ADMIN`` is missing.
    """

    _DESCRIBED = ("vni", "name", "egress", "ip", "publish", "nat", "host_access", "created")

    def __init__(self, agent: TransitAgent, noted: Noted, spec: GatewaySpec, *, created: bool) -> None:
        """Not for users: see :meth:`create` and :meth:`open`."""
        self._agent = agent
        self._datapath = datapath_of(agent)
        self._key = noted.note.key, noted.link.ifindex
        self._take(spec)
        self.created = created

    def _take(self, spec: GatewaySpec) -> None:
        self._spec = spec
        self.vni: int = spec.vni
        self.name: str = spec.name
        self.egress: str = spec.egress
        self.ip: tuple[IPInterface, ...] = spec.ip
        self.publish: tuple[Publish, ...] = spec.publish
        self.nat: bool = spec.nat
        self.host_access: bool = spec.host_access

    @classmethod
    @whole
    def create(
        cls,
        agent: TransitAgent,
        *,
        vni: int,
        egress: str,
        ip: InterfaceLike | Sequence[InterfaceLike],
        publish: Iterable[Publish] = (),
        nat: bool = True,
        host_access: bool = False,
        name: str | None = None,
        forward_all_ipv6: bool = False,
    ) -> Self:
        """Create the gateway of a VNI, with the entries that lead its packets there on this host.

        Other hosts of the VNI need two entries, by ``agent.endpoints`` and ``agent.networks``: where the gateway's
        address is, and ``Network(via=...)`` for 0.0.0.0/0 or ::/0.

        Args:
            agent: Transit agent of the host.
            vni: Tenant network, 1 to 16,777,215.
            egress: Name of the host's device that leads to the outside. The host's routes decide; what they would
                send by another device is dropped.
            ip: Address of the gateway in the VNI, or one of each IP version, with the on-link prefix, such as
                ``"10.0.0.1/24"``; without, the prefix is that of the network it is in (``agent.networks``).
            publish: Ports of the host's addresses that lead to addresses in the VNI.
            nat: Whether what leaves gets an address of the host. Without, the host gets routes to the VNI's prefixes,
                and the outside must have them, too. The rules that keep tenants from tunnels and from the host are the
                same.
            host_access: Whether tenants reach the services of the host itself, and link-local addresses by it, such
                as those of a cloud's metadata service.
            name: Name of its endpoint; None: ``"gateway/<vni>"``.
            forward_all_ipv6: Whether IPv6 forwarding may be turned on for the whole host, where a gateway with an IPv6
                address needs it: before kernel 6.17. Devices that live on router advertisements go on accepting them,
                and what is no gateway's is dropped as before; the last gateway puts all of it back.

        Returns:
            The gateway; the existing one of the VNI, with ``created`` False, if it is as asked for.

        Raises:
            ExistsError: The VNI has a gateway here that differs, or another way out; the address or the name is taken;
                a port is a socket's, another gateway's or the tunnel's; without ``nat``, the host has such a route.
            InvalidValueError: The egress device leads nowhere, an address is link-local, in no network or the second of
                its IP version, or a published port leads out of the VNI, or to a UDP port of tunnels.
            NetnsNotFoundError: The gateway lives, and its namespace is not to be seen from here: its name is under the
                ``/run`` of other processes.
            UnderlayNotFoundError: There is no such egress device.
            UnsupportedError: The kernel has no nftables, the command ``nft`` is missing, or IPv6 cannot be forwarded
                by one device alone, the host does not forward it, and ``forward_all_ipv6`` is not given.
            CapacityError: A table is full.
        """
        wanted = GatewaySpec(
            vni=vni,
            egress=egress,
            ip=ip,
            publish=publish,
            nat=nat,
            host_access=host_access,
            name=name,
            forward_all_ipv6=forward_all_ipv6,
        )
        datapath = datapath_of(agent)
        with datapath.writing() as maps:
            noted, spec, created = Gateways(datapath, maps).find_or_make(wanted)
        return cls(agent, noted, spec, created=created)

    @classmethod
    def open(cls, agent: TransitAgent, *, vni: int) -> Self:
        """A handle of the gateway of a VNI.

        Args:
            agent: Transit agent of the host.
            vni: VNI that it leads out of.

        Raises:
            GatewayNotFoundError: The VNI has no gateway on this host, or it is not whole.
        """
        gateways = Gateways.of(datapath_of(agent))
        noted = gateways.find(arguments.check_vni(vni))
        spec = None if noted is None else gateways.spec(noted)
        if noted is None or spec is None or gateways.life(noted) is not Life.LIVE:
            raise GatewayNotFoundError(
                f"VNI {vni} has no gateway on this host", hint="make one with Gateway.create()"
            )
        return cls(agent, noted, spec, created=False)

    @classmethod
    def list(cls, agent: TransitAgent) -> list[Self]:
        """Handles of the gateways of an agent, by VNI; those that are not whole are left out.

        Args:
            agent: Transit agent of the host.
        """
        gateways = Gateways.of(datapath_of(agent))
        found = [
            cls(agent, noted, spec, created=False)
            for noted in gateways.all()
            if gateways.life(noted) is Life.LIVE and (spec := gateways.spec(noted)) is not None
        ]
        columns = ("vni", "egress", "ip", "publish", "nat")
        return Listing(found, caption=f"gateways on {place_of(agent.tunnel)}", columns=columns)

    def state(self) -> GatewayState:
        """The gateway, read from the kernel.

        Raises:
            GatewayNotFoundError: It was deleted.
        """
        gateways = Gateways.of(self._datapath)
        noted = self._current(gateways)
        return GatewayState(gateways.life(noted), **attrs.asdict(gateways.traffic(noted)))

    def check(self) -> Findings:
        """What about the gateway is not as it should be, the worst first; none is the good case.

        A read without a lock; each finding was seen twice, 0.1 s apart. It covers namespace, devices, rules, forwarding
        and this host's entries, and chains of other software that drop what it forwards. Entries of other hosts are not
        to be seen from here.

        Raises:
            GatewayNotFoundError: It was deleted.
        """
        return worst_first(confirmed(self._look))

    def _look(self) -> Findings:
        gateways = Gateways.of(self._datapath)
        noted = self._current(gateways)
        return [*gateway_findings(gateways, noted), *rules_findings(gateways.host)]

    @whole
    def update(
        self,
        *,
        publish: Iterable[Publish] | Keep = KEEP,
        nat: bool | Keep = KEEP,
        host_access: bool | Keep = KEEP,
    ) -> tuple[str, ...]:
        """Change the gateway; connections that are not concerned go on.

        A connection by a port that is published no longer goes on until it ends.

        Args:
            publish: All published ports.
            nat: Whether what leaves gets an address of the host.
            host_access: Whether tenants reach the services of the host itself.

        Returns:
            Names of what changed.

        Raises:
            GatewayNotFoundError: It was deleted, or is not whole.
            ExistsError: As for :meth:`create`; nothing was changed.
            InvalidValueError: As for :meth:`create`; nothing was changed.
        """
        given: dict[str, Any] = {"publish": publish, "nat": nat, "host_access": host_access}
        given = {name: value for name, value in given.items() if value is not KEEP}
        if "publish" in given:
            given["publish"] = to_publish(given["publish"])
        attrs.evolve(self._spec, **given)  # whether the values can be right
        with self._datapath.writing() as maps:
            gateways = Gateways(self._datapath, maps)
            noted = self._current(gateways)
            spec = gateways.spec(noted)
            if spec is None or gateways.life(noted) is not Life.LIVE:
                raise GatewayNotFoundError(
                    f"the gateway of VNI {self.vni} is not whole", hint="Gateway.create() makes it again"
                )
            spec, changed = gateways.update(noted, spec, given)
        self._take(spec)
        return changed

    @whole
    def delete(self) -> None:
        """Delete the gateway, and put back what it changed of the host; succeeds if it is gone already.

        A later gateway of the VNI is left alone.
        """
        try:
            with self._datapath.writing() as maps:
                gateways = Gateways(self._datapath, maps)
                noted = gateways.find(self.vni)
                if noted is None:
                    gateways.remove_bereft(self.vni)
                elif (noted.note.key, noted.link.ifindex) == self._key:
                    gateways.remove(noted)
        except (StaleHandleError, AgentNotFoundError):
            self._delete_left()

    def _delete_left(self) -> None:
        """Delete what somebody left who took the tunnel or the programs away; detaching the agent leaves nothing."""
        host = self._datapath.host
        with host.locked():
            for each in gateway_notes.read_all(host):
                if (each.note.key, each.link.ifindex) == self._key:
                    remove_left(host, each)

    @staticmethod
    @whole
    def delete_many(agent: TransitAgent, vnis: Iterable[int]) -> None:
        """Delete gateways by VNI, however far each has come; VNIs without a gateway are no error.

        Args:
            agent: Transit agent of the host.
            vnis: VNIs that they lead out of.

        Raises:
            BulkError: Some gateways were not deleted; ``failed`` has their errors by VNI, as text.
        """
        given = arguments.check_items(vnis, argument="vnis", what="VNIs")
        wanted = [*dict.fromkeys(arguments.check_vni(each) for each in given)]
        failed: dict[str, Exception] = {}
        with datapath_of(agent).writing() as maps:
            gateways = Gateways(datapath_of(agent), maps)
            for each in wanted:
                try:
                    gateways.delete(each)
                except MizarnetError as error:
                    failed[str(each)] = error
        if failed:
            raise BulkError(
                f"{len(failed)} of {len(wanted)} gateways were not deleted",
                failed=failed,
                done=[str(each) for each in wanted if str(each) not in failed],
            )

    def _current(self, gateways: Gateways) -> Noted:
        noted = gateways.find(self.vni)
        if noted is None or (noted.note.key, noted.link.ifindex) != self._key:
            raise GatewayNotFoundError(
                f"the gateway of VNI {self.vni} was deleted", hint="make one with Gateway.create()"
            )
        return noted

    def __repr__(self) -> str:
        addresses = ", ".join(str(each) for each in self.ip)
        return f"<Gateway of VNI {self.vni}: {addresses} by {self.egress}>"

    def _caption(self) -> str:
        return f"Gateway of VNI {self.vni} on {place_of(self._agent.tunnel)}"
