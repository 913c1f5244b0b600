# SPDX-License-Identifier: Apache-2.0
"""Many processes at once: one maker of one endpoint, no errors with different ones, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter
from typing import Any

import mizarnet as mz
from tests.support.agreement import disagreements
from tests.support.crowd import Crowd
from tests.support.depth import depth
from tests.support.writers import KINDS, write_for
from tests.world import Host, World, quiet

CROWD, ROUNDS = 16, depth(6, 60)
MAKERS, EACH = 8, 40
WRITING_SECONDS = depth(3, 30)


def _create(agent: mz.TransitAgent, spec: mz.EndpointSpec) -> tuple[str, int]:
    """How it ended, and the endpoint's instance or the name of what is in the way."""
    try:
        made = mz.Endpoint.create(agent, spec)
    except mz.ExistsError as error:
        assert error.holder == spec.name
        assert "ip" in error.differences
        return "exists", 0
    return "created" if made.created else "found", made._record.instance


def test_one_name_has_one_maker(world: World) -> None:
    host, space = world.hosts[0], world.namespace("one")
    quiet(space)
    spec = mz.EndpointSpec(name="one", vni=7, ip="10.0.0.1/24", netns=space.name)
    with Crowd(host, CROWD, lambda agent, _, order: _create(agent, order)) as crowd:
        for _ in range(ROUNDS):
            told = crowd.at_once(spec)
            assert Counter(end for end, _ in told) == {"created": 1, "found": CROWD - 1}
            assert len({instance for _, instance in told}) == 1
            assert disagreements(host.agent, [space.name]) == []
            mz.Endpoint.delete_many(host.agent, ["one"])


def test_of_different_specifications_one_wins(world: World) -> None:
    host, space = world.hosts[0], world.namespace("one")
    quiet(space)

    def act(agent: mz.TransitAgent, number: int, _: object) -> tuple[str, int]:
        ip = f"10.0.0.{number + 1}/24"
        return _create(agent, mz.EndpointSpec(name="one", vni=7, ip=ip, netns=space.name))

    winners: Counter[int] = Counter()
    with Crowd(host, CROWD, act) as crowd:
        for _ in range(ROUNDS):
            told = crowd.at_once()
            assert Counter(end for end, _ in told) == {"created": 1, "exists": CROWD - 1}
            ends = [end for end, _ in told]
            winner = ends.index("created")
            assert str(mz.Endpoint.open(host.agent, "one").ip) == f"10.0.0.{winner + 1}"
            assert disagreements(host.agent, [space.name]) == []
            mz.Endpoint.delete_many(host.agent, ["one"])
            winners[winner] += 1
    print("won by", dict(winners))


def test_makers_of_different_endpoints_meet_no_error(world: World) -> None:
    host = world.hosts[0]
    spaces = [world.namespace(f"m{number}").name for number in range(MAKERS)]

    def act(agent: mz.TransitAgent, number: int, order: Any) -> int:
        if order == "create":
            for n in range(EACH):
                made = mz.Endpoint.create(
                    agent,
                    name=f"m{number}-{n}",
                    vni=7,
                    ip=f"10.0.{number}.{n + 1}",
                    netns=spaces[number],
                    ifname=f"e{n}",
                )
                assert made.created
        else:
            mz.Endpoint.delete_many(agent, [f"m{number}-{n}" for n in range(EACH)])
        return len(mz.Endpoint.list(agent, prefix=f"m{number}-"))

    with Crowd(host, MAKERS, act) as crowd:
        assert crowd.at_once("create") == [EACH] * MAKERS
        assert disagreements(host.agent, spaces) == []
        assert len(mz.Endpoint.list(host.agent)) == MAKERS * EACH
        assert crowd.at_once("delete") == [0] * MAKERS
    _assert_empty(host, spaces)


def test_nobody_among_many_writers_waits_for_ever(world: World) -> None:
    """The table of what ended how, and how long a call took at most, is printed."""
    written = write_for(world, WRITING_SECONDS)
    print(written)
    assert {*written.calls} == {f"{kind}: done" for kind in KINDS}
    host = world.hosts[0]
    assert all(host.agent.state().attached.values())
    _assert_empty(host, [])


def _assert_empty(host: Host, spaces: list[str]) -> None:
    assert disagreements(host.agent, spaces) == []
    assert mz.Endpoint.list(host.agent, dead=True) == []
