# SPDX-License-Identifier: Apache-2.0
"""The order of endpoints and gateways in a plan: whoever gives something up comes before whoever gets it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from mizarnet._model.gateways import GatewaySpec
from mizarnet._model.specs import EndpointSpec, MacAddress
from mizarnet.plan.step import AnyStep, Claims, Place, Step


def of_endpoint(spec: EndpointSpec) -> Claims:
    """What an endpoint has for itself: name, addresses, MAC, and in its namespace device, subnets, default routes."""
    mac = spec.mac or MacAddress.derive(spec.vni, spec.ip[0].ip)
    addresses = (("address", spec.vni, each.ip) for each in spec.ip)
    subnets = (("subnet", spec.netns, each.network) for each in spec.ip)
    # Where the gateway is left open it is that of the network, if there is one.
    gateways = (each.version for each in (spec.ip if spec.gateway is None else spec.gateway))
    routes = (("default", spec.netns, version) for version in gateways)
    device = ("device", spec.netns, spec.ifname)
    return frozenset([("name", spec.name), *addresses, ("MAC", mac), device, *subnets, *routes])


def of_gateway(spec: GatewaySpec) -> Claims:
    """What a gateway has for itself: addresses, MAC, name and published ports."""
    mac = MacAddress.derive(spec.vni, spec.ip[0].ip)
    addresses = (("address", spec.vni, each.ip) for each in spec.ip)
    ports = (("port", *each.key) for each in spec.publish)
    return frozenset([("name", spec.name), *addresses, ("MAC", mac), *ports])


def in_order(steps: Sequence[AnyStep]) -> list[AnyStep]:
    """Steps in the given order, but for those of endpoints and gateways that wait for another one."""
    movable = [each for each in steps if isinstance(each, Step) and (each.takes or each.frees)]
    ordered = iter(_Order(movable).run())
    places = {id(each) for each in movable}
    return [next(ordered) if id(each) in places else each for each in steps]


@attrs.define
class _Order:
    """One search for an order.

    Where several wait for each other, as with two that change addresses, one of them gives up what it has first.
    """

    steps: Sequence[Step]
    holders: dict[object, int] = attrs.field(factory=dict[object, int], init=False)
    now: dict[int, Step] = attrs.field(factory=dict[int, Step], init=False)
    waiting: list[int] = attrs.field(factory=list[int], init=False)
    done: list[int] = attrs.field(factory=list[int], init=False)
    ended: set[int] = attrs.field(factory=set[int], init=False)

    def run(self) -> list[Step]:
        """The steps in an order in which each can be made."""
        for at, step in enumerate(self.steps):
            self.now[at] = step
            self.holders.update(dict.fromkeys(step.frees, at))
        for at in range(len(self.steps)):
            self._visit(at)
        return [self.now[at] for at in self.done]

    def _visit(self, at: int) -> None:
        """Put a step behind those that it waits for. Chains may be long, so this calls itself nowhere."""
        todo: list[tuple[int, list[int]]] = []
        self._enter(at, todo)
        while todo:
            here, before = todo[-1]
            if not before:
                todo.pop()
                self.waiting.pop()
                self.done.append(here)
                self.ended.add(here)
                continue
            other = before.pop()
            if other in self.waiting:
                self._part(other, here)
            else:
                self._enter(other, todo)

    def _enter(self, at: int, todo: list[tuple[int, list[int]]]) -> None:
        if at not in self.ended:
            found = {self.holders[each] for each in self.steps[at].takes if each in self.holders}
            todo.append((at, sorted(found - {at}, reverse=True)))
            self.waiting.append(at)

    def _part(self, other: int, here: int) -> None:
        """Let ``other``, which waits for ``here``, give up first what that one gets."""
        circle = self.waiting[self.waiting.index(other) :]
        parted = self.now[other].parted
        if parted is None:
            return
        begin, later = parted()
        self.now[other] = attrs.evolve(later, takes=self.now[other].takes, frees=self.now[other].frees)
        self.now[here] = attrs.evolve(self.now[here], run=_after(begin, self.now[here].run))
        if later.change.action != "replace":
            return
        names = ", ".join(str(self.now[each].change.object) for each in circle)
        for each in circle:  # none of them can be made without the one that is made anew
            step = self.now[each]
            change = attrs.evolve(
                step.change,
                action="replace",
                reason=f"{step.change.reason}; {names} change places",
                interrupts=True,
            )
            self.now[each] = attrs.evolve(step, change=change, parted=None)


def _after(begin: Callable[[Place], object], run: Callable[[Place], object]) -> Callable[[Place], object]:
    def both(place: Place) -> None:
        begin(place)
        run(place)

    return both
