# SPDX-License-Identifier: Apache-2.0
"""Two hosts with a VM's endpoint on the first, and containers next to it and on the other."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import attrs

import mizarnet as mz
from tests.world import Container, Host, World

VNI = 7
VM_ADDRESSES = ("10.0.0.1/24", "fd00::1/64")
GATEWAY, GATEWAY_IPV6 = "10.0.0.254", "fd00::fe"


@attrs.frozen(eq=False)
class Guests:
    """The containers ``near`` and ``far``, and the host of ``near`` and of the VMs."""

    world: World
    near: Container
    far: Container

    @classmethod
    def of(cls, world: World) -> Guests:
        near, far = (
            world.tell(
                world.add(host, world.namespace(label), vni=VNI, ip=(f"10.0.0.{n}/24", f"fd00::{n}/64"))
            )
            for host, label, n in zip(world.hosts, ("near", "far"), (2, 3), strict=True)
        )
        return cls(world, near, far)

    @property
    def host(self) -> Host:
        return self.world.hosts[0]

    @contextmanager
    def vm(self, **spec: Any) -> Generator[mz.Endpoint, None, None]:
        """A VM's endpoint that the other host knows, as long as the block lasts."""
        given = {"name": "vm", "ip": VM_ADDRESSES, "gateway": (GATEWAY, GATEWAY_IPV6), **spec}
        made = mz.Endpoint.create(self.host.agent, vni=VNI, kind="macvtap", **given)
        elsewhere = self.world.hosts[1].agent.endpoints
        keys = [mz.EndpointKey(VNI, address.ip) for address in made.addresses]
        elsewhere.update((key, mz.Remote(self.host.address)) for key in keys)
        try:
            yield made
        finally:
            made.delete()
            for key in keys:
                if key in elsewhere:
                    del elsewhere[key]
