# SPDX-License-Identifier: Apache-2.0
"""An endpoint's device and its namespace, as a packet meets them: device, address, route, neighbour."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress

import attrs

from mizarnet._datapath import forwarding
from mizarnet._datapath.endpoints import configuration
from mizarnet._datapath.endpoints.device import is_above
from mizarnet._datapath.walk import hints
from mizarnet._datapath.walk.flow import Flow
from mizarnet._datapath.walk.programs import Sender, run_agent
from mizarnet._datapath.walk.trail import Trail
from mizarnet._kernel.netlink import (
    Address,
    Link,
    Session,
    Way,
    get_link,
    list_addresses,
    list_neighbours,
    look_up_ways,
)
from mizarnet._model.arguments import IPAddress
from mizarnet._model.codec import Record
from mizarnet._model.enumerations import State, Verdict
from mizarnet._model.specs import VIRTUAL_MAC, Kind
from mizarnet.errors import KernelError, NetnsNotFoundError, PrivilegeError

_SOURCE = "source"


@attrs.frozen
class Inside:
    """An endpoint whose device is there, and its namespace.

    Attributes:
        trail: Way of the packet.
        record: Record of the endpoint.
        link: Its device.
        addresses: Addresses of the device.
        session: The namespace; None: no name that is known leads to it, or it is a VM's.
    """

    trail: Trail
    record: Record
    link: Link
    addresses: tuple[Address, ...]
    session: Session | None

    @property
    def name(self) -> str:
        """Name of the endpoint."""
        return self.record.spec.name

    @property
    def is_vm(self) -> bool:
        """Whether addresses and routes are a VM's, where nobody sees them."""
        return self.record.spec.kind is Kind.MACVTAP

    @property
    def sender(self) -> Sender:
        """The endpoint as the agent knows it."""
        return Sender(self.record, bytes.fromhex((self.link.mac or "").replace(":", "")), self.link.ifindex)

    # -- what a packet meets

    def has_its_mac(self) -> None:
        """Whether the device has the MAC that frames for its endpoint are sent to."""
        mac = self.record.mac
        if self.sender.mac != mac.packed:
            text = f"the MAC of {self.link.name} is {self.link.mac}, and frames for {self.name} are sent to {mac}"
            remedy = f"ip link set {self.link.name} address {mac}, in {self.where}, or Host.repair()"
            self.trail.end("endpoint", text, remedy=remedy)

    def lets_in(self) -> None:
        """Whether the device takes frames for its own MAC: in mode source ``macvlan_handle_frame()`` passes over it."""
        if self.link.mode == _SOURCE:
            text = f"{self.link.name} is in mode {_SOURCE}, and takes no frame for its own MAC"
            self.trail.end("endpoint", text, remedy="Host.repair()")

    def address(self, ip: IPAddress) -> None:
        """Whether the device has an address, or for what comes in the namespace."""
        if self.is_vm:
            return
        name, family = (
            self.link.name,
            [each for each in self.addresses if each.interface.version == ip.version],
        )
        found = next((each for each in family if each.interface.ip == ip), None)
        if found is None and self._is_receiver and self._is_elsewhere(ip):
            return
        if found is None:
            there = [str(each.interface) for each in family if not each.is_link_local]
            text = f"{name} does not have {ip}, but {', '.join(there) or 'no address'}"
            remedy = "Endpoint.create() with the same arguments gives it back, or endpoint.update(ip=...)"
            sends = self.trail.steps and there and not self._is_receiver
            verdict = Verdict.FOREIGN_SOURCE if sends else None
            self.trail.end("address", text, verdict=verdict, remedy=remedy)
        if found.failed or found.tentative:
            state = "refused" if found.failed else "not allowed yet"
            text = f"duplicate address detection has {state} {ip} on {name}"
            self.trail.end("address", text, remedy="find who else has it, or wait a moment")

    @property
    def _is_receiver(self) -> bool:
        return any(step.looked_at == "guard" for step in self.trail.steps)

    def _is_elsewhere(self, ip: IPAddress) -> bool:
        """Whether another device may have an address: Linux takes a packet to it by whichever device it comes in."""
        missing = f"{self.link.name} does not have {ip}"
        if self.session is None:
            self.trail.unknown("address", f"{missing}; whether another device there does cannot be read")
            return True
        way = look_up_ways(self.session, [ip], source=None, port=0)[ip]
        if way is None or not way.local:
            return False
        text, remark = f"{ip} is an address of {self.where}", f"{missing}, but another device there does"
        remedy = f"ip address add {ip} dev {self.link.name}, there, or Host.repair()"
        self.trail.note("address", text, remark=remark, remedy=remedy)
        return True

    def way(self, flow: Flow, *, is_forwarded: bool = False) -> Way | None:
        """The namespace's route for a packet of the endpoint, or one that it forwards; None: it cannot be read."""
        if self.session is None:
            return None
        to, source = flow.destination, None if is_forwarded else flow.source
        port = flow.ports[1] if flow.port else 0
        way = look_up_ways(self.session, [to], source=source, port=port, protocol=flow.number)[to]
        if way is None:
            text = f"no route to {to} in {self.where}"
            remedy = "endpoint.update(routes=...) or gateway=, for what is not on the link"
            self.trail.end("route", text, remedy=remedy)
        if way.ifindex != self.link.ifindex and not way.local:
            other = get_link(self.session, ifindex=way.ifindex)
            name = other.name if other else f"device {way.ifindex}"
            text = f"packets to {to} leave by {name}, and not by {self.link.name}"
            self.trail.end("route", text, remedy=f"ip route get {to}; correct the routes inside")
        return way

    @property
    def where(self) -> str:
        """The namespace, in words."""
        return self.record.spec.netns or "the host's namespace"

    def known_neighbour(self, ip: IPAddress) -> bytes | None:
        """The MAC address that the namespace has for a neighbour; None: it has to ask."""
        if self.session is None:
            return None
        known = (each for each in list_neighbours(self.session, self.link.ifindex) if each.ip == ip)
        found = next(known, None)
        if found is None or found.failed or found.mac is None:
            return None
        return bytes.fromhex(found.mac.replace(":", ""))

    def ask(self, flow: Flow, hop: IPAddress) -> bytes:
        """The MAC address that the agent answers for a neighbour; a refusal ends the way."""
        self.lets_in()
        frame = flow.question(hop, by=self.sender.mac)
        outcome = run_agent(self.trail, self.sender, frame)
        if outcome.verdict.dropped:
            text, remedy = hints.of_agent(self.trail, outcome.verdict, frame, self.record, self.sender.mac)
            if outcome.verdict is Verdict.NEIGHBOUR_UNKNOWN:
                text, remedy = hints.nowhere(self.trail, self.record.spec.vni, hop, outcome.verdict)
            self.trail.end("neighbour", text, verdict=outcome.verdict, remedy=remedy)
        return (outcome.frame or b"")[6:12] or VIRTUAL_MAC.packed

    def forwards(self, version: int) -> bool | None:
        """Whether the namespace forwards packets that come in by the device; None: it cannot be read."""
        if self.session is None:
            return None
        try:
            return forwarding.is_router(self.session, self.link.name, version)
        except KernelError:
            return None


@contextmanager
def entered(trail: Trail, record: Record) -> Generator[Inside, None, None]:
    """An endpoint's device, which must be there and up, and its namespace."""
    name, where = record.spec.name, record.spec.netns or "the host's namespace"
    if record.state is not State.LIVE:
        finding = trail.endpoints.unfinished(record)
        trail.end("endpoint", f"{name}: {finding.text}", remedy=finding.remedy)
    link = get_link(trail.host, ifindex=record.ifindex, nsid=record.nsid) if record.ifindex else None
    if link is None or not is_above(link, record, trail.device.hooks):
        text = f"the device {record.spec.ifname} of {name} is gone from {where}"
        trail.end("endpoint", text, remedy="Host.repair() makes it again, Host.gc() removes the endpoint")
    if not link.up:
        is_vm = record.spec.kind is Kind.MACVTAP
        text = f"{link.name} of {name} in {where} is down" + (": no process has it open" if is_vm else "")
        remedy = (
            "start the VM with endpoint.open_tap()" if is_vm else f"ip link set {link.name} up, in {where}"
        )
        trail.end("endpoint", text, remedy=remedy)
    try:
        addresses = tuple(list_addresses(trail.host, ifindex=link.ifindex, nsid=record.nsid))
    except (NetnsNotFoundError, KernelError):
        trail.end("endpoint", f"{where} of {name} ends just now", remedy="Host.gc() removes what is left")
    shown = ", ".join(str(each.interface) for each in addresses if not each.is_link_local)
    remark = (
        ""
        if link.mode == "private"
        else f"{link.name} is in mode {link.mode}, and not private: Host.repair()"
    )
    trail.note(
        "endpoint",
        f"{name} in {where}, {link.name}, up, mtu {link.mtu}, {shown or 'no address'}",
        remark=remark,
    )
    session = _session(trail, record)
    try:
        yield Inside(trail, record, link, addresses, session)
    finally:
        if session is not None:
            session.close()


def _session(trail: Trail, record: Record) -> Session | None:
    if record.spec.kind is Kind.MACVTAP:
        trail.unknown("inside", "addresses, routes and neighbours are the VM's, and cannot be read from here")
        return None
    with suppress(NetnsNotFoundError, PrivilegeError, KernelError):
        return configuration.inside(record, trail.host)
    trail.unknown(
        "inside", f"routes and neighbours cannot be read: no name that is known leads to {record.spec.netns}"
    )
    return None
