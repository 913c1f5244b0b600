# SPDX-License-Identifier: Apache-2.0
"""The gateways of a host: making, finding, changing and removing them.

A gateway is an endpoint that forwards, in a namespace of its own, and a pair of devices between that and the host. The
host's end of the pair comes first and goes last, and has the note: whoever dies halfway leaves it, and the next call
finds by it what there is. Rules come before what they guard, and the entries that lead packets there are the last step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import attrs

from mizarnet._datapath import age, forwarding, gateway_notes, private_netns, switches, whole_host
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import LocalEndpoints, configuration
from mizarnet._datapath.gateway_notes import Note, Noted
from mizarnet._datapath.gateways import fitness, networks, rules
from mizarnet._datapath.gateways.making import Making, take_back
from mizarnet._datapath.gateways.ruleset import FAMILY, TABLE, Way
from mizarnet._datapath.host import Host
from mizarnet._datapath.maps import Maps
from mizarnet._kernel import nftables
from mizarnet._kernel.netlink import Session, delete_link, delete_netns, get_link, read_sysctl
from mizarnet._model.codec import Record, record_key
from mizarnet._model.differences import refuse_differences
from mizarnet._model.enumerations import State
from mizarnet._model.gateways import GatewaySpec
from mizarnet._model.log import log
from mizarnet._model.specs import Kind, Life
from mizarnet.errors import ExistsError, InUseError, KernelError, MizarnetError, NetnsNotFoundError


@attrs.frozen
class Traffic:
    """What went through a gateway.

    Attributes:
        connections: Connections that its namespace knows now.
        packets: Packets that it forwarded since its rules were written.
        bytes: Their bytes.
    """

    connections: int = 0
    packets: int = 0
    bytes: int = 0


@attrs.frozen
class Gateways:
    """The gateways on one data path. A caller that changes one holds the host alone.

    Attributes:
        datapath: Data path that they are on.
        maps: Maps of the data path.
    """

    datapath: DataPath
    maps: Maps

    @classmethod
    def of(cls, datapath: DataPath) -> Gateways:
        """The gateways of a data path, for reading; raises as :attr:`DataPath.maps` does."""
        return cls(datapath, datapath.maps)

    @property
    def host(self) -> Host:
        """Host of the data path."""
        return self.datapath.host

    @property
    def endpoints(self) -> LocalEndpoints:
        """The endpoints of the data path."""
        return LocalEndpoints(self.datapath, self.maps)

    # -- found

    def all(self) -> list[Noted]:
        """All notes of gateways on this data path, by VNI."""
        own = self.datapath.hooks.ifindex
        return [each for each in gateway_notes.read_all(self.host) if each.note.tunnel == own]

    def find(self, vni: int) -> Noted | None:
        """The note of the gateway of a VNI; None if there is none."""
        link = get_link(self.host, gateway_notes.device_name(self.datapath.hooks.ifindex, vni))
        note = None if link is None else Note.parse(link.alias)
        return None if link is None or note is None else Noted(note, link)

    def bereft(self) -> list[Record]:
        """Records of gateways' endpoints whose notes are gone: somebody deleted the device, or overwrote its alias."""
        named = {each.note.key for each in self.all()}
        private = (
            each for each in self.endpoints.recorded() if each.private and each.spec.kind is Kind.MACVLAN
        )
        return [each for each in private if record_key(each.spec.name) not in named]

    def record(self, noted: Noted) -> Record | None:
        """Record of a gateway's endpoint; None if it is gone."""
        return rules.find_record(self.host, noted.note)

    def life(self, noted: Noted) -> Life:
        """How far a gateway has come."""
        if noted.note.state is not State.LIVE:
            return Life.MAKING if noted.note.state is State.MAKING else Life.DELETING
        record = self.record(noted)
        return Life.LIVE if record is not None and self.endpoints.is_present(record) else Life.DEAD

    def spec(self, noted: Noted) -> GatewaySpec | None:
        """What a gateway is; None if its endpoint, or its namespace, is gone."""
        record = self.record(noted)
        if record is None:
            return None
        egress = get_link(self.host, ifindex=noted.note.egress)
        with suppress(NetnsNotFoundError), configuration.inside(record, self.host) as inside:
            return GatewaySpec(
                vni=noted.note.vni,
                egress="?" if egress is None else egress.name,
                ip=record.spec.ip,
                publish=rules.known_published(self.host, noted.note, inside),
                nat=noted.note.nat,
                host_access=noted.note.host_access,
                name=record.spec.name,
                forward_all_ipv6=noted.note.whole is not None,
            )
        return None

    def traffic(self, noted: Noted) -> Traffic:
        """What went through a gateway; nothing if its namespace is gone."""
        record = self.record(noted)
        if record is None:
            return Traffic()
        with suppress(NetnsNotFoundError), configuration.inside(record, self.host) as inside:
            return _traffic(inside)
        return Traffic()

    def refuse_own(self, record: Record) -> None:
        """Raises ``InUseError`` for the endpoint of a gateway: with its device the gateway's note would go."""
        for each in self.all():
            if record.private and each.note.key == record_key(record.spec.name):
                raise InUseError(
                    f"endpoint {record.spec.name!r} is that of the gateway of VNI {each.note.vni}",
                    users=[record.spec.name],
                    hint="change or delete the gateway: Gateway.open(agent, vni=...)",
                )

    def refuse_change(self, record: Record, given: Iterable[str]) -> None:
        """Raises ``InUseError`` for new values of a gateway's endpoint that the gateway stands on: all but labels.

        Args:
            record: Record of the endpoint, of any kind.
            given: Names of the new values.
        """
        if record.private and record.spec.kind is Kind.MACVLAN and {*given} - {"labels"}:
            self.refuse_own(record)

    # -- made

    def find_or_make(self, spec: GatewaySpec) -> tuple[Noted, GatewaySpec, bool]:
        """Make a gateway, or find the existing one.

        Returns:
            Its note, what it is, and whether this call made it.

        Raises:
            ExistsError: The gateway exists and is not as specified, or something that it needs is taken.
            InvalidValueError: The specification does not fit to what is there.
            NetnsNotFoundError: The gateway lives, and its namespace has no name that this process sees.
            UnderlayNotFoundError: There is no such egress device.
            UnsupportedError: The kernel has no nftables, the command nft is missing, or IPv6 cannot be forwarded.
        """
        wanted = fitness.with_prefixes(spec, networks.of_vni(self.maps, spec.vni))
        existing = self.find(spec.vni)
        if existing is not None:
            there = self.spec(existing)
            if self.life(existing) is Life.LIVE:
                if there is None:
                    raise _unseen(existing)
                _refuse_other(wanted, there)
                Making(self.datapath, self.maps, there, existing.note).complete()
                return existing, there, False
            self._refuse_young(existing)
            self.remove(existing)
        self.remove_bereft(spec.vni)
        return self._make(wanted), wanted, True

    def replace(self, existing: Noted, there: GatewaySpec, spec: GatewaySpec) -> None:
        """Make a gateway anew. What forbids it is met, as far as one can look ahead, before the existing one goes.

        Args:
            existing: Its note.
            there: What it is.
            spec: What it shall be.

        Raises:
            MizarnetError: As for :meth:`find_or_make`; the existing gateway is there still, or again.
        """
        wanted = fitness.with_prefixes(spec, networks.of_vni(self.maps, spec.vni))
        self._fitting(wanted, instead=existing)
        self.remove(existing)
        try:
            self._make(wanted)
        except BaseException as error:
            try:
                self._make(there)
            except MizarnetError as left:
                error.add_note(f"The gateway of VNI {spec.vni} is gone, and could not be made again: {left}")
            raise

    def _make(self, spec: GatewaySpec) -> Noted:
        making = self._fitting(spec)
        try:
            making.run()
            made = self.find(spec.vni)
        except BaseException as error:
            self._undo(spec.vni, error)
            raise
        log.info("gateway of VNI %d created: %s by %s", spec.vni, ", ".join(map(str, spec.ip)), spec.egress)
        if made is None:
            raise ExistsError(
                f"another process deleted the gateway of VNI {spec.vni} meanwhile", holder=making.note.device
            )
        return made

    def _fitting(self, spec: GatewaySpec, *, instead: Noted | None = None) -> Making:
        """The gateway of a specification, of which nothing is there yet; raises as :meth:`find_or_make` does.

        Args:
            spec: The specification.
            instead: Note of the gateway that goes for it; None: there is none.
        """
        host, own = self.host, None if instead is None else self.record(instead)
        egress = fitness.refuse_unfit(host, self.endpoints, spec, own=own)
        meta = self.maps.read_meta()
        ways = rules.ways(host) if gateway_notes.read_all(host) else []
        ways = [way for way in ways if instead is None or way.note.device != instead.note.device]
        fitness.refuse_taken_ports(host, ways, spec.publish, port=meta.port, tunnel=self.datapath.name)
        fitness.refuse_closed_targets(host, spec.publish, port=meta.port)
        if not spec.nat:
            within = fitness.prefixes(spec.ip, networks.of_vni(self.maps, spec.vni))
            fitness.refuse_routed(
                host, within, spec.vni, but=None if instead is None else instead.link.ifindex
            )
        note = Note(
            tunnel=self.datapath.hooks.ifindex,
            vni=spec.vni,
            state=State.MAKING,
            egress=egress.ifindex,
            port=meta.port,
            nat=spec.nat,
            host_access=spec.host_access,
            forwarding=0,
            number=fitness.free_number(host),
            key=record_key(spec.name),
        )
        rules.refuse_unable(host, Way(note, spec.publish))
        fitness.refuse_unforwarded(host, spec, egress, note)
        holder = self.endpoints.named(spec.name)
        if holder is None or own is None or holder.instance != own.instance:
            self.endpoints.evict(holder, f"the name {spec.name!r}")
        return Making(self.datapath, self.maps, spec, note)

    def _undo(self, vni: int, error: BaseException) -> None:
        """Remove what was made of a gateway, as the next call would if this process died."""
        try:
            self.delete(vni)
        except MizarnetError as refused:
            error.add_note(
                f"What was made of the gateway of VNI {vni} is still there, until the next create() or delete() of "
                f"it: {refused}"
            )

    def _refuse_young(self, noted: Noted) -> None:
        """Raises ``ExistsError`` if another process may be making or deleting a gateway now."""
        record = self.record(noted)
        if record is not None and self.endpoints.is_in_other_hands(record):
            raise ExistsError(
                f"the gateway of VNI {noted.note.vni} is being made or deleted by a process that has a /run of its own",
                holder=noted.link.name,
                hint=f"wait for it, or {age.ABANDONED:.0f} s if it died",
            )

    def complete(self, noted: Noted) -> None:
        """Give a live gateway back what it has lost; one whose namespace is gone stays as it is."""
        spec = self.spec(noted)
        if spec is not None:
            Making(self.datapath, self.maps, spec, noted.note).complete()

    # -- changed

    def update(
        self, noted: Noted, spec: GatewaySpec, given: Mapping[str, Any]
    ) -> tuple[GatewaySpec, tuple[str, ...]]:
        """Change published ports, translation or the host's services; other connections go on.

        Args:
            noted: Note of the gateway.
            spec: What the gateway is.
            given: New values, by the names of a specification; what is left out stays.

        Returns:
            What the gateway is now, and the names of what changed.

        Raises:
            InvalidValueError: A published port leads out of the VNI, or it, or what it leads to, is a tunnel's.
            ExistsError: A published port is taken, or the host has routes to what would no longer be translated.
        """
        wanted = attrs.evolve(spec, **given)
        changed = tuple(name for name in given if getattr(wanted, name) != getattr(spec, name))
        there = networks.of_vni(self.maps, spec.vni)
        fitness.refuse_outside(wanted, there)
        fresh = [each for each in wanted.publish if each.key not in {old.key for old in spec.publish}]
        others = [way for way in rules.ways(self.host) if way.note.device != noted.note.device]
        fitness.refuse_taken_ports(self.host, others, fresh, port=noted.note.port, tunnel=self.datapath.name)
        targets = [each for each in wanted.publish if each not in spec.publish]
        fitness.refuse_closed_targets(self.host, targets, port=noted.note.port)
        if spec.nat and not wanted.nat:
            fitness.refuse_routed(self.host, fitness.prefixes(spec.ip, there), spec.vni)
        making = Making(self.datapath, self.maps, wanted, noted.note)
        if changed:
            try:
                making.change()
            except BaseException as error:
                try:
                    Making(self.datapath, self.maps, spec, making.note).change()
                except MizarnetError as left:
                    error.add_note(f"The gateway of VNI {spec.vni} is changed in part: {left}")
                raise
            log.info("gateway of VNI %d changed: %s", spec.vni, ", ".join(changed))
        else:
            making.complete()  # a call that was cut off may have changed a part
        return wanted, changed

    # -- gone

    def delete(self, vni: int) -> None:
        """Remove the gateway of a VNI, however far it has come; one that is not there is no error."""
        noted = self.find(vni)
        if noted is not None:
            self.remove(noted)
        else:
            delete_link(self.host, name=gateway_notes.device_name(self.datapath.hooks.ifindex, vni))
            self.remove_bereft(vni)

    def remove(self, noted: Noted) -> None:
        """Remove a gateway, however far it has come; parts that are gone already are no error.

        The pair is down from the moment that the note says so: the rules that keep tenants from the host go before the
        pair. The note ends with that, and the pair with a namespace that has one end of it. So both ends are on the
        host when the namespace goes, and the pair goes last.
        """
        record = self.record(noted)
        if record is not None and not record.private and record.instance != noted.note.instance:
            record = None  # somebody's own endpoint, made after that of the gateway was gone
        note = attrs.evolve(
            noted.note,
            state=State.DELETING,
            instance=noted.note.instance if record is None else record.instance,
        )
        gateway_notes.write(self.host, noted.link.ifindex, note, up=False)
        networks.change(self.maps, {}, networks.keys(note.vni))
        close_host(self.host, Noted(note, noted.link))
        if record is not None:
            self.endpoints.remove(
                [attrs.evolve(record, private=False)]
            )  # its namespace has a part of the pair
        take_back(self.host, note)
        delete_netns(private_netns.name_of(note.instance))
        delete_link(self.host, noted.link.ifindex)
        log.info("gateway of VNI %d deleted", note.vni)

    def remove_bereft(self, vni: int) -> None:
        """Remove what is left of a VNI's gateway whose device, and note, somebody deleted; nothing is no error."""
        left = [each for each in self.bereft() if each.spec.vni == vni]
        if left:
            networks.change(self.maps, {}, networks.keys(vni))
            self.endpoints.remove(left)
            rules.write_host(self.host)
            log.info("gateway of VNI %d removed: its device on the host was deleted", vni)

    def remove_all(self) -> None:
        """Remove the gateways of this data path."""
        for each in self.all():
            self.remove(each)


def close_host(host: Host, noted: Noted) -> None:
    """Put back what a gateway that has begun to end changed of the host, unless others need it."""
    note = noted.note
    if note.whole is not None:
        whole_host.give_up(host, note.whole)
        note = attrs.evolve(note, whole=None)
        gateway_notes.write(host, noted.link.ifindex, note)
    if note.forwarding:
        put_back(host, note)
        note = attrs.evolve(note, forwarding=0)
        gateway_notes.write(host, noted.link.ifindex, note)
    rules.write_host(host)


def put_back(host: Host, note: Note) -> None:
    """Put back what a gateway changed of its egress device, or hand it on to a transit switch or gateway there."""
    own, shared = note.forwarding & forwarding.FORCED_IPV6, note.forwarding & ~forwarding.FORCED_IPV6
    if shared and not any(each.take_over(note.egress, shared) for each in switches.find(host)):
        own |= shared
    forwarding.restore(host, note.egress, own)


def clear_ownerless(host: Host) -> None:
    """Remove what is left of gateways whose tunnels are gone, or who have no note; the caller holds the host alone."""
    for link in gateway_notes.unnoted(host):
        delete_link(host, link.ifindex)
    for each in gateway_notes.read_all(host):
        tunnel = get_link(host, ifindex=each.note.tunnel)
        if tunnel is not None and tunnel.external:
            continue
        remove_left(host, each)


def remove_left(host: Host, noted: Noted) -> None:
    """Remove a gateway by its note, where its tunnel or the programs are gone; the caller holds the host alone.

    Its endpoint is in its namespace, and ends with it.
    """
    note = attrs.evolve(noted.note, state=State.DELETING)
    gateway_notes.write(host, noted.link.ifindex, note, up=False)
    close_host(host, Noted(note, noted.link))
    take_back(host, note)
    delete_netns(private_netns.name_of(note.instance))
    delete_link(host, noted.link.ifindex)
    log.info("gateway of VNI %d removed: its tunnel, or what ran there, is gone", note.vni)


def _unseen(noted: Noted) -> NetnsNotFoundError:
    """The error for a gateway that lives, in a namespace whose name is under the ``/run`` of other processes."""
    return NetnsNotFoundError(
        f"the gateway of VNI {noted.note.vni} lives, and its namespace is not to be seen from here",
        hint="use a process with the /run that has it; if none has, delete the gateway first",
    )


def _refuse_other(wanted: GatewaySpec, there: GatewaySpec) -> None:
    refuse_differences(
        f"the gateway of VNI {wanted.vni}",
        wanted.compared(),
        there.compared(),
        holder=there.name,
        hint="update() changes publish, nat and host_access; for all else delete it first",
    )


def _traffic(inside: Session) -> Traffic:
    listed = nftables.read(inside, "chain", FAMILY, TABLE, "forwarded") or []
    counters = [
        part["counter"]
        for each in listed
        if "rule" in each
        for part in each["rule"]["expr"]
        if "counter" in part
    ]
    try:
        connections = int(read_sysctl(inside, "netfilter/nf_conntrack_count"))
    except KernelError:  # nobody tracks connections there
        connections = 0
    return Traffic(
        connections, sum(each["packets"] for each in counters), sum(each["bytes"] for each in counters)
    )
