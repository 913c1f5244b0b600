# SPDX-License-Identifier: Apache-2.0
"""Becoming a transit switch and ceasing to be one: what that changes on the host, and what it leaves."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from typing import Literal

import pytest

import mizarnet as mz
from mizarnet._kernel.bpf import Program, XdpHook
from mizarnet._kernel.netlink import add_address, create_bridge, read_sysctl, set_link, write_sysctl
from mizarnet._model.specs import XdpMode
from tests.support.native_xdp import attached, let_pass
from tests.support.process import finish, run_python, start_python
from tests.world import UNDERLAY, Host, World, device

Mode = Literal["auto", "native", "generic"]
SETTINGS = ("ipv4/conf/{}/forwarding", "ipv6/conf/{}/forwarding", "ipv6/conf/{}/accept_ra")
OFF = ("0", "0", "1")
"""The settings of a new device."""
ON = {4: ("1", "0", "1"), 6: ("0", "1", "2")}
"""Those of a transit switch: with forwarding on, 2 is what lets router advertisements in."""


@pytest.fixture(scope="module", params=[4, 6], ids=["over-ipv4", "over-ipv6"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def host(version: int) -> Iterator[Host]:
    """A host that a test may take apart."""
    with World("vxlan", hosts=1, ipv6=version == 6) as world:
        yield world.hosts[0]


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with let_pass(tmp_path_factory.mktemp("xdp")) as program:
        yield program


def settings(host: Host) -> tuple[str, ...]:
    return tuple(read_sysctl(host.tunnel._host, key.format(UNDERLAY)) for key in SETTINGS)


def programs(host: Host) -> list[int]:
    return host.tunnel._host.run(XdpHook(device(host.namespace, UNDERLAY).ifindex).query).program_ids


# -- forwarding --------------------------------------------------------------------------------------------

ENDS: list[Callable[[Host, mz.TransitSwitch], None]] = [
    lambda host, switch: switch.detach(),
    lambda host, switch: host.agent.detach(),
    lambda host, switch: host.agent.detach(force=True),
    lambda host, switch: host.tunnel.delete(),
    lambda host, switch: host.tunnel.delete(force=True),
]


@pytest.mark.parametrize("end", ENDS, ids=["switch", "agent", "agent by force", "tunnel", "tunnel by force"])
def test_forwarding_is_set_and_put_back(
    host: Host, version: int, end: Callable[[Host, mz.TransitSwitch], None]
) -> None:
    assert settings(host) == OFF
    switch = mz.TransitSwitch.attach(host.agent)
    assert settings(host) == ON[version]
    assert switch.state() == mz.SwitchState(attached=True, forwarding=True)
    end(host, switch)
    assert (settings(host), programs(host)) == (OFF, [])


@pytest.mark.parametrize("before", [("1", "1", "1"), ("1", "1", "0"), ("1", "1", "2")])
def test_forwarding_that_was_on_stays_on(host: Host, before: tuple[str, ...]) -> None:
    for key, value in zip(SETTINGS, before, strict=True):
        write_sysctl(host.tunnel._host, key.format(UNDERLAY), value)
    switch = mz.TransitSwitch.attach(host.agent)
    assert settings(host) == before
    switch.detach()
    assert settings(host) == before


@pytest.mark.parametrize("accept_ra", ["0", "2"])
def test_router_advertisements_that_were_chosen_stay_chosen(host: Host, version: int, accept_ra: str) -> None:
    write_sysctl(host.tunnel._host, f"ipv6/conf/{UNDERLAY}/accept_ra", accept_ra)
    switch = mz.TransitSwitch.attach(host.agent)
    assert settings(host) == (*ON[version][:2], accept_ra)
    switch.detach()
    assert settings(host) == ("0", "0", accept_ra)


# -- handles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_attach_again_adopts(host: Host, mode: Mode) -> None:
    with pytest.raises(mz.SwitchNotFoundError, match=r"TransitSwitch\.attach"):
        mz.TransitSwitch.open(host.agent)
    first = mz.TransitSwitch.attach(host.agent, mode=mode)
    there = programs(host)
    again, opened = mz.TransitSwitch.attach(host.agent), mz.TransitSwitch.open(host.agent)
    assert (first.created, again.created, opened.created) == (True, False, False)
    assert {each.mode.value for each in (first, again, opened)} == {mode}
    assert programs(host) == there
    first.detach()
    again.detach()  # succeeds if it is gone already
    with pytest.raises(mz.SwitchNotFoundError):
        mz.TransitSwitch.open(host.agent)
    assert not opened.state().attached


def test_a_given_argument_that_differs_is_named(host: Host) -> None:
    first = mz.TransitSwitch.attach(host.agent, mode="generic")
    assert not mz.TransitSwitch.attach(host.agent, underlay=UNDERLAY, mode="generic").created
    for argument, given in (("mode", {"mode": "native"}), ("underlay", {"underlay": "lo"})):
        with pytest.raises(mz.ExistsError, match=f"{argument} is") as refused:
            mz.TransitSwitch.attach(host.agent, **given)
        assert [*refused.value.differences] == [argument]
    assert first.state().attached


def test_detached_at_once_so_that_another_can_follow(host: Host) -> None:
    for number in range(6):
        switch = mz.TransitSwitch.attach(host.agent, mode="native" if number % 2 else "generic")
        assert switch.created
        switch.detach()
        assert programs(host) == []


def test_another_process_opens_and_detaches(host: Host) -> None:
    mz.TransitSwitch.attach(host.agent, mode="generic")
    program = """
        agent = mz.TransitAgent.open("tunnel0", netns=sys.argv[1])
        switch = mz.TransitSwitch.open(agent)
        print(switch.underlay, switch.mode.value, switch.state().attached)
        switch.detach()
        agent.close()
    """
    assert run_python(program, host.namespace.name).split() == [UNDERLAY, "generic", "True"]
    assert (settings(host), programs(host)) == (OFF, [])


# -- a process dies in the middle --------------------------------------------------------------------------

DYING = """
    import importlib
    module, _, name = sys.argv[2].rpartition(".")
    package = importlib.import_module(module if module.islower() else "mizarnet._kernel.bpf")
    owner = package if module.islower() else package.XdpHook
    real, left = getattr(owner, name), [int(sys.argv[3])]
    def dying(*args, **kwargs):
        result = real(*args, **kwargs)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    agent = mz.TransitAgent.open("tunnel0", netns=sys.argv[1])
    switch = mz.TransitSwitch.open(agent) if sys.argv[4] == "detach" else None
    setattr(owner, name, dying)
    switch.detach() if switch else mz.TransitSwitch.attach(agent)
"""
ATTACH_STEPS = [("mizarnet._datapath.switches._note", 1), ("mizarnet._datapath.forwarding.write_sysctl", 1),
                ("mizarnet._datapath.forwarding.enable", 1), ("XdpHook.attach", 1),
                ("mizarnet._datapath.switches._note", 2)]  # fmt: skip
DETACH_STEPS = [("XdpHook.detach", 1), ("mizarnet._datapath.forwarding.write_sysctl", 1),
                ("mizarnet._datapath.forwarding.restore", 1), ("mizarnet._datapath.switches._forget", 1)]  # fmt: skip


def die(host: Host, step: tuple[str, int], doing: str) -> None:
    status, output = finish(start_python(DYING, host.namespace.name, step[0], str(step[1]), doing))
    assert status == -signal.SIGKILL, output


def step_name(step: tuple[str, int]) -> str:
    return f"{step[0].rpartition('.')[2]} {step[1]}"


@pytest.mark.parametrize("step", ATTACH_STEPS, ids=step_name)
def test_killed_while_attaching(host: Host, version: int, step: tuple[str, int]) -> None:
    die(host, step, "attach")
    switch = mz.TransitSwitch.attach(host.agent)
    assert (switch.mode, switch.state()) == (XdpMode.NATIVE, mz.SwitchState(attached=True, forwarding=True))
    assert mz.TransitSwitch.open(host.agent).mode is XdpMode.NATIVE
    assert settings(host) == ON[version]
    switch.detach()
    assert (settings(host), programs(host)) == (OFF, [])


@pytest.mark.parametrize("step", DETACH_STEPS, ids=step_name)
def test_killed_while_detaching(host: Host, version: int, step: tuple[str, int]) -> None:
    mz.TransitSwitch.attach(host.agent)
    die(host, step, "detach")
    again = mz.TransitSwitch.attach(host.agent)
    assert again.state() == mz.SwitchState(attached=True, forwarding=True)
    assert settings(host) == ON[version]
    again.detach()
    assert (settings(host), programs(host)) == (OFF, [])


@pytest.mark.parametrize("step", [("mizarnet._datapath.forwarding.enable", 1)], ids=step_name)
def test_killed_and_taken_off_with_the_agent(host: Host, step: tuple[str, int]) -> None:
    die(host, step, "attach")
    host.agent.detach()
    assert settings(host) == OFF


# -- which hook, and who is there --------------------------------------------------------------------------


def test_automatic_mode_is_native_where_the_driver_can(host: Host) -> None:
    assert mz.TransitSwitch.attach(host.agent).mode is XdpMode.NATIVE


@pytest.mark.vm
def test_automatic_mode_falls_back(host: Host) -> None:
    """A bridge has no XDP of its own."""
    session = host.tunnel._host
    bridge = create_bridge(session, "br0")
    add_address(session, bridge.ifindex, ip_interface("203.0.113.1/24"))
    set_link(session, bridge.ifindex, up=True)
    with pytest.raises(mz.UnsupportedError) as refused:
        mz.TransitSwitch.attach(host.agent, underlay="br0", mode="native")
    assert refused.value.feature == "native_xdp"
    switch = mz.TransitSwitch.attach(host.agent, underlay="br0")
    assert (switch.mode, switch.underlay, switch.created) == (XdpMode.GENERIC, "br0", True)


@pytest.mark.parametrize("mode", ["auto", "native", "generic"])
@pytest.mark.parametrize("theirs", [XdpMode.NATIVE, XdpMode.GENERIC], ids=lambda mode: f"their-{mode.value}")
def test_another_program_is_left_alone(host: Host, passing: Program, theirs: XdpMode, mode: Mode) -> None:
    with attached(passing, host.namespace.name, UNDERLAY, theirs):
        with pytest.raises(mz.ExistsError, match="let_pass") as refused:
            mz.TransitSwitch.attach(host.agent, mode=mode)
        assert "let_pass" in refused.value.holder
        assert (settings(host), programs(host)) == (OFF, [passing.id])
        with pytest.raises(mz.SwitchNotFoundError):
            mz.TransitSwitch.open(host.agent)
    assert mz.TransitSwitch.attach(host.agent, mode=mode).created


def test_no_such_device(host: Host) -> None:
    with pytest.raises(mz.UnderlayNotFoundError, match="eth9"):
        mz.TransitSwitch.attach(host.agent, underlay="eth9")
    assert settings(host) == OFF
