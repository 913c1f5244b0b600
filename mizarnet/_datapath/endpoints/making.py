# SPDX-License-Identifier: Apache-2.0
"""Making one endpoint: its record is written first, and last when all of it is there."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import attrs

from mizarnet._datapath import private_netns
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import company, configuration, device, entries, items
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.netlink import SAME_NAMESPACE, Session, delete_link, get_link
from mizarnet._model import codec
from mizarnet._model.arguments import SMALLEST_IPV6_MTU, IPAddress
from mizarnet._model.codec import NO_SLOT, Record
from mizarnet._model.enumerations import State
from mizarnet._model.layout import varied
from mizarnet._model.specs import DefaultRoute, EndpointSpec, Kind, MacAddress
from mizarnet.errors import MizarnetError, MtuError


@attrs.define
class Making:
    """One endpoint that is being made.

    Attributes:
        datapath: Data path that it is made on.
        maps: Maps of the data path.
        gateways_given: Whether the caller named the gateways; else they are the networks'.
        record: The endpoint as far as it has come: by this, whatever has been made of it is found.
    """

    datapath: DataPath
    maps: Maps
    gateways_given: bool
    record: Record

    @classmethod
    def of(cls, spec: EndpointSpec, datapath: DataPath, maps: Maps, *, private: bool = False) -> Making:
        """The endpoint of a specification, of which nothing is there yet; raises ``MtuError``.

        Args:
            spec: The specification.
            datapath: Data path that it is made on.
            maps: Maps of the data path.
            private: Whether its namespace is made for it; a MACVTAP without a namespace always gets one.
        """
        wanted = _filled_in(spec, maps, largest_mtu(datapath, maps))
        instance = secrets.randbits(64)
        private = private or (spec.kind is Kind.MACVTAP and spec.netns is None)
        if private:
            wanted = attrs.evolve(wanted, netns=private_netns.name_of(instance))
        record = Record(
            spec=wanted,
            instance=instance,
            slot=NO_SLOT,
            ifindex=0,
            netns_cookie=0,
            netns_id=(0, 0),
            nsid=SAME_NAMESPACE,
            maker=datapath.host.lock_id,
            state=State.MAKING,
            private=private,
            own_mtu=spec.mtu is not None,
            items=codec.items_of(wanted),
        )
        return cls(datapath, maps, spec.gateway is not None, record)

    def run(self) -> None:
        """Make everything but the record, which is there, and finish that."""
        hooks, host = self.datapath.hooks, self.datapath.host
        items.write(self.maps, self.record, self.record.items)
        with ExitStack() as stack:
            if self.record.private:
                private_netns.make(self.record, host.cookie, hooks.ifindex)
            target = stack.enter_context(device.open_namespace(self.record.spec, host))
            target.run(self._run_inside, target)  # as one call, since each takes 0.05 ms to be handed over
        # A process that detaches the agent writes so into meta before it looks for endpoints.
        self.datapath.refuse_detached()

    def _run_inside(self, target: Session) -> None:
        hooks = self.datapath.hooks
        company.refuse_same_subnet(self.maps, target, self.record, self.record.spec.ip)
        nsid = device.nsid_from(hooks.host, target)
        self.record = entries.claim_slot(self.maps, self.record)
        # From here on there may be a device, which is found by the namespace.
        self.record = entries.claim(
            self.maps,
            attrs.evolve(self.record, netns_cookie=target.cookie, netns_id=target.identity, nsid=nsid),
        )
        ifindex, routed = device.make(
            hooks,
            target,
            self.record,
            partial(entries.owner_of, self.maps),
            gateways_given=self.gateways_given,
        )
        self.record = attrs.evolve(self.record, ifindex=ifindex, routed=routed, state=State.LIVE)
        company.refuse_same_subnet(self.maps, target, self.record, self.record.spec.ip)
        entries.publish(self.maps, self.record)


def make_device_again(datapath: DataPath, maps: Maps, record: Record) -> Record:
    """Make the device of an endpoint that lost it, in the same namespace; the caller holds the lock of its name.

    Claims, MAC, index and counters stay the endpoint's. Routes are what ``configuration.complete`` gives back.

    Returns:
        The record, with the index of the new device.

    Raises:
        NetnsNotFoundError: The namespace has ended, or no known name leads to it.
        ExistsError: The device's name or MAC is taken.
        EndpointNotFoundError: Another process, which does not see the lock, deleted the endpoint meanwhile.
    """
    host, owner_of = datapath.host, partial(entries.owner_of, maps)
    # An MTU that was asked for may be larger than that of a tunnel that shrank since.
    mtu = min(record.mtu, largest_mtu(datapath, maps))
    plain = attrs.evolve(record.spec, default_route=DefaultRoute.NEVER, mtu=mtu)
    with configuration.inside(record, host) as target:
        begun = attrs.evolve(record, ifindex=0, state=State.MAKING, maker=host.lock_id, changed=0)
        entries.rewrite(maps, begun)
        try:
            ifindex, _ = target.run(
                device.make,
                datapath.hooks,
                target,
                attrs.evolve(begun, spec=plain),
                owner_of,
                gateways_given=False,
            )
            made = attrs.evolve(record, ifindex=ifindex, changed=0)
            entries.publish(maps, made)
        except BaseException as error:
            _put_back(datapath, maps, record, begun, error)
            raise
    return made


def _put_back(datapath: DataPath, maps: Maps, record: Record, begun: Record, error: BaseException) -> None:
    """Undo the making of a device; the error that was met first is the one to raise."""
    try:
        link = device.find(begun, datapath.hooks, partial(entries.owner_of, maps))
        if link is not None:
            delete_link(datapath.host, link.ifindex, nsid=record.nsid)
        entries.rewrite(maps, record)
    except MizarnetError as left:
        error.add_note(f"Host.gc() removes what is left of endpoint {record.spec.name!r}: {left}")


def _filled_in(spec: EndpointSpec, maps: Maps, largest: int) -> EndpointSpec:
    """The specification with MAC, MTU and gateways filled in."""
    mtu = largest if spec.mtu is None else spec.mtu
    refuse_unfit_mtu(spec, mtu, largest)
    mac = spec.mac or MacAddress.derive(spec.vni, spec.ip[0].ip)
    gateways = gateways_of_networks(maps, spec) if spec.gateway is None else spec.gateway
    return varied(spec, mtu=mtu, mac=mac, gateway=gateways)


def refuse_unfit_mtu(spec: EndpointSpec, mtu: int, largest: int) -> None:
    """Raises ``MtuError`` if an MTU is larger than the tunnel's, or too small for IPv6."""
    if mtu > largest:
        raise MtuError(
            f"mtu {mtu} is larger than the tunnel's {largest}",
            argument="mtu",
            value=mtu,
            hint=f"give at most {largest}",
        )
    if mtu < SMALLEST_IPV6_MTU and spec.ip[-1].version == 6:
        raise MtuError(
            f"{spec.ip[-1]}: IPv6 needs an MTU of {SMALLEST_IPV6_MTU}, the tunnel's is {mtu}",
            argument="mtu",
            value=mtu,
            hint="use IPv4 only, or a tunnel with a larger mtu=",
        )


def largest_mtu(datapath: DataPath, maps: Maps) -> int:
    """What the agent lets out, and no more than the tunnel's device takes now."""
    link = get_link(datapath.host, ifindex=datapath.hooks.ifindex)
    agreed = maps.read_meta().mtu
    return agreed if link is None else min(agreed, link.mtu)


def gateways_of_networks(maps: Maps, spec: EndpointSpec) -> tuple[IPAddress, ...]:
    """Gateways of the networks that the endpoint's first addresses are in."""
    return tuple(_gateways(maps, spec))


def _gateways(maps: Maps, spec: EndpointSpec) -> Iterator[IPAddress]:
    own = {address.ip for address in spec.ip}
    for address in spec.first:
        data = maps.networks.lookup(codec.pack_host_key(spec.vni, address.ip))
        gateway = None if data is None else codec.unpack_network(data).gateway
        if gateway is not None and gateway in address.network and gateway not in own:
            yield gateway
