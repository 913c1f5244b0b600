# SPDX-License-Identifier: Apache-2.0
"""What the kernel offers: what probe() says, and what each known kernel must have, lest tests vanish unseen."""

from __future__ import annotations

import os

import attrs
import pytest

import mizarnet as mz
from tests.support.process import UNPRIVILEGED, run_python
from tests.world import UNDERLAY, EncapName, cable, new_namespace

# Kernel series to what must be there; the tests choose by what probe() says.
KNOWN = {
    (6, 1): {"vxlan": True, "geneve": True, "tcx": False, "route_identity": False},
    (6, 12): {"vxlan": True, "geneve": True, "tcx": True, "route_identity": True},
    (6, 18): {"vxlan": True, "geneve": False, "tcx": True, "route_identity": True},
}


def series() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(minor)


@pytest.mark.vm
def test_a_known_kernel_offers_what_it_must() -> None:
    found = mz.probe()
    assert found.macvlan
    assert found.missing_privileges == ()
    for name, expected in KNOWN.get(series(), {"vxlan": True, "tcx": True}).items():
        if name == "geneve" and not expected:
            continue  # a build with it is welcome, the tests then use it
        assert bool(getattr(found, name)) is expected, name


@pytest.mark.vm
@pytest.mark.parametrize("name", ["vxlan", "geneve"])
def test_an_encapsulation_works_or_is_refused_by_name(name: EncapName) -> None:
    here, there = new_namespace("h1"), new_namespace("h2")
    try:
        cable(here, there)
        if getattr(mz.probe(), name):
            mz.Tunnel.create("tunnel0", encap=name, underlay=UNDERLAY, netns=here.name).close()
            return
        with pytest.raises(mz.UnsupportedError, match="encap=") as caught:
            mz.Tunnel.create("tunnel0", encap=name, underlay=UNDERLAY, netns=here.name)
        assert caught.value.feature == name
    finally:
        here.delete()
        there.delete()


def test_every_no_has_a_reason_and_a_way_out() -> None:
    found = mz.probe()
    for field in attrs.fields(mz.Features):
        feature = getattr(found, field.name)
        if isinstance(feature, mz.Feature):
            assert bool(feature.reason) is bool(feature.instead) is not feature.available
    assert str(found).startswith(f"kernel {os.uname().release}")
    assert "<table" in found._repr_html_()


def test_a_missing_privilege_is_named() -> None:
    output = run_python(
        """
        found = mz.probe()
        print(*found.missing_privileges)
        print(found.vxlan.available, found.vxlan.reason)
        print([line.split()[1] for line in str(found).splitlines() if line.startswith(("btf ", "tcx ", "vxlan "))])
        print("<td>vxlan</td><td>unknown</td>" in found._repr_html_())
        try:
            mz.Tunnel.create("tunnel0", encap="vxlan", underlay="lo", local="127.0.0.1")
        except mz.InvalidValueError:
            print("no system call")
        try:
            mz.Tunnel.create("tunnel0", encap="vxlan", underlay="lo", mtu=1000)
        except mz.MizarnetError as error:
            print(type(error).__name__)
        """,
        by=UNPRIVILEGED,
    )
    privileges, vxlan, answers, shown, early, late = output.splitlines()
    assert privileges == "CAP_NET_ADMIN CAP_SYS_ADMIN CAP_PERFMON CAP_BPF"
    assert vxlan == "None not known without CAP_NET_ADMIN"
    assert (answers, shown) == ("['yes', 'unknown', 'unknown']", "True")
    assert early == "no system call"
    assert late == "UnderlayNotFoundError"  # the loopback device has no global address


def test_root_of_another_user_namespace_is_told_that_nothing_is_known() -> None:
    program = "found = mz.probe(); print(len(found.missing_privileges), found.tcx.instead)"
    output = run_python(program, by=("unshare", "--map-root-user", "--net"))
    assert output.startswith("4 run it outside of this user namespace")


def test_a_kernel_without_btf() -> None:
    without = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /sys/kernel/btf && exec "$0" "$@"')
    output = run_python("print(mz.probe())", by=without)
    assert "btf                       no      the kernel has no BTF" in output
    assert "CONFIG_DEBUG_INFO_BTF=y" in output


def test_creating_without_privileges_changes_nothing() -> None:
    here, there = new_namespace("h1"), new_namespace("h2")
    try:
        cable(here, there)
        output = run_python(
            """
            try:
                mz.Tunnel.create("tunnel0", encap="vxlan", underlay="eth0")
            except mz.PrivilegeError as error:
                print(*error.missing)
            """,
            by=("nsenter", f"--net={here.path}", *UNPRIVILEGED),
        )
        assert output == "CAP_NET_ADMIN\n"
        assert "tunnel0" not in here.run("ip", "link")
    finally:
        here.delete()
        there.delete()


def test_a_namespace_that_does_not_exist() -> None:
    with pytest.raises(mz.NetnsNotFoundError):
        mz.probe("mzt-no-such")
