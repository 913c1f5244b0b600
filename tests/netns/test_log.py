# SPDX-License-Identifier: Apache-2.0
"""The logger ``mizarnet`` says what is changed, each change once, and nothing where nothing is."""

from __future__ import annotations

import logging
import re

import pytest

import mizarnet as mz
from mizarnet._model import layouts
from mizarnet._model.codec import FIRST
from tests.world import UNDERLAY, World


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said since the last look, with N for each id of a program."""
    found = [record for record in caplog.records if record.name == "mizarnet"]
    assert {record.levelno for record in found} <= {logging.INFO}
    caplog.clear()
    return [re.sub(r"program \d+", "program N", record.getMessage()) for record in found]


def test_a_life_is_told_line_by_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mizarnet")
    host, inside = world.hosts[0], world.namespace("told")
    place = f"tunnel0 of {host.namespace.name}"
    agent = host.agent
    lines(caplog)
    made = mz.Endpoint.create(agent, name="web", vni=7, ip="10.0.0.1/24", netns=inside.name)
    agent.endpoints[7, "10.0.0.2"] = mz.Remote("192.0.2.77")
    agent.endpoints.sync({(7, "10.0.0.3"): mz.Remote("192.0.2.77")})
    agent.networks[7, "10.0.0.0/24"] = mz.Network()
    agent.peers.add("203.0.113.0/24")
    assert lines(caplog) == [
        f"endpoint 'web' created: 10.0.0.1/24 of VNI 7 in {inside.name}",
        f"endpoints on {place}: 1 written, 0 removed",
        f"endpoints on {place}: 1 written, 1 removed",
        f"networks on {place}: 1 written, 0 removed",
        f"peers of {place}: 203.0.113.0/24 added",
    ]
    mz.Endpoint.create(agent, made.spec)
    mz.TransitAgent.attach(host.tunnel).close()
    agent.endpoints.sync({(7, "10.0.0.3"): mz.Remote("192.0.2.77")})
    assert lines(caplog) == []
    made.delete()
    switch = mz.TransitSwitch.attach(agent, mode="generic")
    switch.detach()
    agent.detach()
    host.tunnel.delete()
    said = lines(caplog)
    assert said[:2] == [
        f"endpoint 'web' deleted: 10.0.0.1/24 of VNI 7 in {inside.name}",
        f"transit switch attached to {UNDERLAY}: generic XDP",
    ]
    assert f"transit switch detached from {UNDERLAY}" in said
    assert said[-1] == "tunnel0 deleted"
    assert re.fullmatch(r"guard/\w+ of tunnel0: program N detached", said[-2])


def test_the_life_of_a_vm_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mizarnet")
    agent = world.hosts[0].agent
    lines(caplog)
    vm = mz.Endpoint.create(agent, name="vm", vni=7, ip="10.0.0.9/24", kind="macvtap")
    vm.open_tap().close()
    vm.delete()
    assert lines(caplog) == [
        f"namespace {vm.netns} made",
        f"endpoint 'vm' created: 10.0.0.9/24 of VNI 7 in {vm.netns}",
        "endpoint 'vm' opened: eth0 set up",
        "endpoint 'vm' closed: eth0 set down",
        f"endpoint 'vm' deleted: 10.0.0.9/24 of VNI 7 in {vm.netns}",
    ]


def test_the_secrets_of_an_agent_are_not_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tunnel = world.hosts[0].tunnel
    world.hosts[0].agent.detach()
    with mz.TransitAgent.attach(tunnel) as agent:
        config = layouts.Config.unpack(agent._datapath.maps.config.lookup(FIRST) or b"")
    numbers = (config.mark_local, config.mark_bounced, int.from_bytes(config.token_bounced, "big"))
    words = {*map(str, numbers), *(f"{number:x}" for number in numbers), str(config.token_bounced)}
    assert caplog.text
    assert not any(word in caplog.text for word in words)
