# SPDX-License-Identifier: Apache-2.0
"""Two hosts without anything on them, for plans, and what a plan has to do with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs

import mizarnet as mz
from mizarnet import FindingKind
from tests.support.namespace import Namespace
from tests.world import UNDERLAY, cable, new_namespace, quiet

ALL = ("create", "update", "replace", "delete")
OWNER = "svc/"
ADDRESSES = ("192.0.2.1", "192.0.2.2")


@attrs.frozen
class Fleet:
    """Two hosts without anything on them, and namespaces for containers."""

    spaces: tuple[Namespace, Namespace]
    hosts: tuple[mz.Host, mz.Host]
    inside: dict[str, Namespace]

    def spec(self, number: int = 0, **sections: Any) -> dict[str, Any]:
        """What a host shall have: a tunnel, and whatever is given."""
        return {"tunnel": {"encap": "vxlan", "underlay": UNDERLAY, "local": ADDRESSES[number]}, **sections}

    def endpoint(self, name: str, ip: str, **fields: Any) -> dict[str, Any]:
        """An endpoint in the namespace of that name."""
        space = self.inside[name.rpartition("/")[2]].name
        return {"name": name, "vni": 7, "ip": ip, "netns": space, **fields}

    def agent(self, number: int = 0) -> mz.TransitAgent:
        """The agent of a host, which is there by now."""
        (agent,) = self.hosts[number].agents()
        return agent


@contextmanager
def fleet_of_two() -> Iterator[Fleet]:
    """Two new hosts."""
    spaces = (new_namespace("h1"), new_namespace("h2"))
    inside = {name: new_namespace(name) for name in ("web", "app", "db")}
    for each in inside.values():
        quiet(each)
    try:
        cable(*spaces)
        with mz.Host.open(netns=spaces[0].name) as one, mz.Host.open(netns=spaces[1].name) as other:
            yield Fleet(spaces, (one, other), inside)
            for host in (one, other):
                host.clear(force=True)
    finally:
        for each in (*spaces, *inside.values()):
            each.delete()


def become(host: mz.Host, data: dict[str, Any], owner: str | None = OWNER, **how: Any) -> mz.Plan:
    """Plan, apply, and see that nothing is left to plan."""
    spec = mz.HostSpec.from_dict(data)
    plan = host.plan(spec, owner=owner)
    report = plan.apply(**how)
    assert report, str(report)
    again = host.plan(spec, owner=owner)
    assert not again, str(again)
    assert [each for each in host.check() if each.kind is not FindingKind.PEER_MISSING] == []
    return plan
