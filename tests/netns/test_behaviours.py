# SPDX-License-Identifier: Apache-2.0
"""The self-tests of what the kernel is relied on to do: each says yes here, and no where the kernel does not.

A kernel that does not behave is made of stand-ins: a program in the place of one of the self-test's, or a ground that
leaves out or spoils one step.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sysconfig
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from mizarnet._kernel.behaviours import BEHAVIOURS, Behaviour, Ground, load, try_all, try_one
from mizarnet._kernel.bpf import (
    Direction,
    Feature,
    Map,
    Object,
    ObjectSpec,
    Program,
    TcxHook,
    XdpHook,
    has_tcx,
)
from mizarnet._kernel.netlink import Link, Session, anonymous_netns
from mizarnet._kernel.objects import has_route_identity
from mizarnet._model.specs import XdpMode
from mizarnet.features import probe

SOURCE = Path(__file__).with_name("misbehaving.bpf.c")
FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror")
NAMED = {behaviour.name: behaviour for behaviour in BEHAVIOURS}
BY_TCX = {"tcx_ends_the_chain", "tcx_compares"}
# Kernel series to what it does not offer; it behaves in everything else.
LACKING: dict[tuple[int, ...], set[str]] = {
    (6, 1): BY_TCX | {"macvlan_keeps_route"},
    (6, 12): set(),
    (6, 18): set(),
}


def series() -> tuple[int, ...]:
    return tuple(map(int, os.uname().release.split(".")[:2]))


# -- yes ---------------------------------------------------------------------------------------------------


@pytest.mark.vm
def test_this_kernel_behaves() -> None:
    found = try_all()
    assert found.keys() == NAMED.keys()
    lacking = LACKING.get(series(), set())
    assert {name: feature for name, feature in found.items() if bool(feature) is (name in lacking)} == {}
    for name in lacking:
        assert found[name].reason.startswith("the kernel has no "), name
        assert found[name].instead == NAMED[name].instead != "", name


@pytest.mark.vm
def test_probe_tells_it() -> None:
    found = probe()
    assert found.behaviours == try_all()
    for name, feature in found.behaviours.items():
        assert f"{name:25} {'yes' if feature else 'no'}" in str(found)
        assert name in found._repr_html_()
        assert bool(feature.reason) is bool(feature.instead) is not feature.available


def test_each_has_its_own_name_and_a_whole_sentence() -> None:
    assert len(NAMED) == len(BEHAVIOURS)
    assert all(each.sentence[0].isupper() and each.sentence.endswith(".") for each in BEHAVIOURS)
    assert all(bool(each.needs) is bool(each.instead) for each in BEHAVIOURS)


# -- no ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def misbehaving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-ins, compiled."""
    output = tmp_path_factory.mktemp("objects") / "misbehaving.bpf.o"
    include = f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"
    command = ["clang", *FLAGS, "-idirafter", include, "-c", str(SOURCE), "-o", str(output)]
    subprocess.run(command, check=True, timeout=60)
    subprocess.run(["llvm-strip", "-g", str(output)], check=True, timeout=60)
    return output


@pytest.fixture
def loaded() -> Iterator[Object]:
    """The programs of the self-tests."""
    with load(route_identity=bool(has_route_identity())) as made:
        yield made


@contextmanager
def with_stand_ins(path: Path, loaded: Object, names: Mapping[str, str]) -> Generator[Object, None, None]:
    """The programs and maps, with those that are named exchanged for stand-ins."""
    with ObjectSpec.open(path, name="misbehaving").load() as stand_ins:
        programs = {**stand_ins.programs, **loaded.programs}
        maps = {**stand_ins.maps, **loaded.maps}
        yield Object(
            maps={name: maps[names.get(name, name)] for name in loaded.maps},
            programs={name: programs[names.get(name, name)] for name in loaded.programs},
        )


def tried(name: str, loaded: Object, ground: Callable[[Session, Object], Ground] = Ground) -> Feature:
    with anonymous_netns() as netns:
        return try_one(NAMED[name], loaded, netns, ground=ground)


def assert_no(feature: Feature, behaviour: Behaviour, reason: str) -> None:
    """It says no for that ``reason``; where the kernel does not offer what it takes, for that one."""
    assert not feature
    if behaviour.needs and not (offered := behaviour.needs()):
        reason = offered.reason
    assert reason in feature.reason
    assert feature.instead


@pytest.mark.vm
@pytest.mark.parametrize(
    ("name", "stand_ins", "reason"),
    [
        (
            "tcx_ends_the_chain",
            {"answers_ok": "answers_next"},
            "answered: 3 of 3 frames on egress, 3 of 3 on ingress",
        ),
        ("devmap_follows_device", {"sees_device": "sees_number", "device": "number"}, "still there"),
        ("bounce_keeps_signature", {"bounces": "bounces_bare"}, "0 of 3 redirected frames"),
        ("local_redirect_keeps_mark", {"turns_in": "turns_in_bare"}, "0 of 3 redirected frames"),
        ("trie_respects_length", {"prefixes": "very_keys"}, "found {8: 0, 16: 16, 24: 0, 32: 32}"),
    ],
)
def test_no_with_a_stand_in(
    misbehaving: Path, loaded: Object, name: str, stand_ins: Mapping[str, str], reason: str
) -> None:
    with with_stand_ins(misbehaving, loaded, stand_ins) as spoilt:
        assert_no(tried(name, spoilt), NAMED[name], reason)


class WithoutFilters(Ground):
    def attach_filter(self, link: Link, direction: Direction, program: Program) -> None:
        if not has_tcx():
            super().attach_filter(link, direction, program)


class WithoutAttachments(Ground):
    def attach(self, link: Link, direction: Direction, program: Program) -> None:
        pass


class WithoutBinding(Ground):
    def bind(self, program: Program, bound: Map) -> None:
        pass


class AnyRevision(TcxHook):
    def attach(self, program: Program, *, revision: int) -> None:
        super().attach(program, revision=0)  # which asks for none


class AnyPredecessor(TcxHook):
    def replace(self, program: Program, *, expected: Program) -> None:
        first = Program.open_id(self.query().program_ids[0])
        assert first is not None
        with first:
            super().replace(program, expected=first)


class AnyXdpPredecessor(XdpHook):
    def replace(self, program: Program, *, expected: Program, mode: XdpMode) -> None:
        present = Program.open_id(self.query().generic)
        assert present is not None
        with present:
            super().replace(program, expected=present, mode=mode)


class CarelessAboutRevisions(Ground):
    def tcx(self, link: Link, direction: Direction) -> TcxHook:
        return AnyRevision(link.ifindex, direction)


class CarelessAboutPredecessors(Ground):
    def tcx(self, link: Link, direction: Direction) -> TcxHook:
        return AnyPredecessor(link.ifindex, direction)

    def xdp(self) -> XdpHook:
        return AnyXdpPredecessor(self.near.ifindex)


class WithoutRoutes(Ground):
    """What the packet socket sends is no stack's, and so has no route."""

    def say(self, stack_of: Session, link: Link) -> None:
        frame = b"\xff" * 6 + bytes(6) + b"\x08\x00" + bytes(46)
        with stack_of.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0) as speaker:
            speaker.sendto(frame, (link.name, 0x0800))


@pytest.mark.vm
@pytest.mark.parametrize(
    ("name", "ground", "reason"),
    [
        ("tcx_ends_the_chain", WithoutFilters, "did not run once the tcx programs were gone"),
        ("tcx_compares", CarelessAboutRevisions, "revision that had passed"),
        ("tcx_compares", CarelessAboutPredecessors, "not the expected one"),
        ("xdp_compares", CarelessAboutPredecessors, "not the expected one"),
        ("device_keeps_programs", WithoutAttachments, "left its hook"),
        ("device_keeps_programs", WithoutBinding, "a map that was bound to a program went"),
        ("macvlan_keeps_route", WithoutRoutes, "lost the route"),
        ("bounce_keeps_signature", WithoutAttachments, "0 of 3 redirected frames"),
    ],
)
def test_no_on_a_ground_that_lacks_something(
    loaded: Object, name: str, ground: type[Ground], reason: str
) -> None:
    assert_no(tried(name, loaded, ground), NAMED[name], reason)


@pytest.mark.vm
def test_no_while_something_outlives_the_device(loaded: Object) -> None:
    held: list[Program] = []

    class Holding(Ground):
        def attach(self, link: Link, direction: Direction, program: Program) -> None:
            super().attach(link, direction, program)
            again = Program.open_id(program.id)
            assert again is not None
            held.append(again)

    feature = tried("device_keeps_programs", loaded, Holding)
    for program in held:
        program.close()
    assert_no(feature, NAMED["device_keeps_programs"], "still there 3 s after the end of their device")


def test_a_kernel_that_refuses_is_no_error(loaded: Object) -> None:
    class Refused(Ground):
        def attach(self, link: Link, direction: Direction, program: Program) -> None:
            super().attach(link, direction, self.program("passes"))  # of the wrong type

    feature = tried("bounce_keeps_signature", loaded, Refused)
    assert_no(feature, NAMED["bounce_keeps_signature"], "it could not be tried: ")
