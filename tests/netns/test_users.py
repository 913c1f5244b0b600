# SPDX-License-Identifier: Apache-2.0
"""What users of the host without its privileges can do with what stands on the hooks: nothing."""

from __future__ import annotations

import os

import pytest

import mizarnet as mz
from mizarnet._datapath import lock
from mizarnet._kernel.bpf import Map, Program
from tests.support.process import in_child, run_python
from tests.support.standing import program_ids
from tests.support.user import become_nobody_with
from tests.world import TUNNEL, Host

WITHOUT_SYS_ADMIN = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")


@pytest.mark.vm
def test_a_user_without_privileges_reaches_no_program_and_no_map(host: Host) -> None:
    programs = program_ids(host.agent).values()
    maps = [each.id for each in host.agent._datapath.maps.all()]

    def attempts() -> None:
        become_nobody_with()
        for open_id, numbers in ((Program.open_id, programs), (Map.open_id, maps)):
            for number in numbers:
                with pytest.raises(mz.PrivilegeError, match="CAP_SYS_ADMIN"):
                    open_id(number)

    assert programs
    in_child(attempts)


def test_a_user_without_privileges_cannot_hold_the_lock(host: Host) -> None:
    cookie = host.agent._datapath.host.cookie

    def attempts() -> None:
        become_nobody_with()
        with pytest.raises(PermissionError):
            os.listdir(lock.DIRECTORY)
        with pytest.raises(mz.PrivilegeError, match=f"{lock.DIRECTORY}.*run as root"), lock.locked(cookie):
            raise AssertionError("locked")

    host.agent.peers.add("203.0.113.0/24")
    assert (lock.DIRECTORY / f"{cookie:x}").stat().st_mode & 0o777 == 0o600
    assert lock.DIRECTORY.stat().st_mode & 0o777 == 0o700
    in_child(attempts)


@pytest.mark.vm
def test_who_lacks_cap_sys_admin_is_told_so(host: Host) -> None:
    """Whatever other capabilities there are: the kernel opens programs by id for nobody else."""
    program = """
        for call in (mz.TransitAgent.open, mz.Tunnel.open):
            try:
                call(sys.argv[1])
            except mz.PrivilegeError as refused:
                print(*refused.missing)
    """
    inside = ("nsenter", f"--net={host.namespace.path}", *WITHOUT_SYS_ADMIN)
    assert run_python(program, TUNNEL, by=inside) == "CAP_SYS_ADMIN\nCAP_SYS_ADMIN\n"
