# SPDX-License-Identifier: Apache-2.0
"""S14: what the root of an endpoint's namespace can see and change, as transcripts of attempts and their outcomes.

Three kinds of root, one for each column: with all there is to networking (T2), with raw sockets only (T1), and root
of a user namespace of its own that the host has chosen to trust (T2). After each attempt everybody else still talks,
and programs, maps and devices of the hosts are as they were. Who may change the own device gains nothing by it
(``test_tenant_gains.py``), but for what no program can prevent (``test_classes.py``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import mizarnet as mz
from mizarnet._kernel.bpf import has_tcx
from tests.support.bystanders import Bystanders
from tests.support.intruder import Guise, tenant
from tests.support.standing import program_ids
from tests.world import RED, Tenants, World, new_namespace

GUISES = (Guise.ADMIN, Guise.RAW, Guise.ROOTLESS)

# Words in braces are told to the tenant, who could not know some of them. Where kernels differ, "/" has both answers.
SEES = """
                                                                   NET_ADMIN  | NET_RAW | rootless
    ip link show tunnel0                                          | ENODEV     | ENODEV  | ENODEV
    tc filter show dev eth0 egress                                | nothing    | nothing | nothing
    tc filter show dev eth0 ingress                               | nothing    | nothing | nothing
    > query("eth0", "tcx egress")                                 | {no_tcx}   | EPERM   | EPERM
    > query("eth0", "tcx ingress")                                | {no_tcx}   | EPERM   | EPERM
    > next_id("program")                                          | EPERM      | EPERM   | EPERM
    > next_id("map")                                              | EPERM      | EPERM   | EPERM
    > next_id("link")                                             | EPERM      | EPERM   | EPERM
    > open_id("program", {agent})                                 | EPERM      | EPERM   | EPERM
    > open_id("map", {endpoints})                                 | EPERM      | EPERM   | EPERM
    ls /sys/fs/bpf                                                | nothing    | nothing | nothing
    mkdir /run/bpf                                                | done       | done    | done
    mount -t bpf bpf /run/bpf                                     | EPERM      | EPERM   | EPERM/done
    ls /run/bpf                                                   | nothing    | nothing | nothing
    ls /run/netns                                                 | ENOENT     | ENOENT  | ENOENT
    > enter({host})                                               | EPERM      | EPERM   | EPERM
"""

CHANGES_ITS_DEVICE = """
                                                                   NET_ADMIN  | NET_RAW | rootless
    ip link set eth0 address 02:00:00:00:00:99                    | done       | EPERM   | done
    ip link set eth0 address {neighbour}                          | EADDRINUSE | EPERM   | EADDRINUSE
    ip link set eth0 down                                         | done       | EPERM   | done
    ip link set eth0 address {neighbour}                          | EADDRINUSE | EPERM   | EADDRINUSE
    ip link set eth0 address {own}                                | done       | EPERM   | done
    ip link set eth0 up                                           | done       | EPERM   | done
    ip link set eth0 type macvlan mode bridge                     | done       | EPERM   | done
    ip link set eth0 type macvlan mode vepa                       | done       | EPERM   | done
    ip link set eth0 type macvlan mode source                     | done       | EPERM   | done
    ip link set eth0 type macvlan mode passthru                   | EINVAL     | EPERM   | EINVAL
    ip link set eth0 type macvlan mode private                    | done       | EPERM   | done
    ip link set eth0 type macvlan bcqueuelen 1                    | done       | EPERM   | done
    ip link set eth0 mtu 9000                                     | EINVAL     | EPERM   | EINVAL
    ip link set eth0 mtu 1451                                     | EINVAL     | EPERM   | EINVAL
    ip link set eth0 mtu 1400                                     | done       | EPERM   | done
    ethtool -K eth0 tx off                                        | done       | EPERM   | done
    ip link set eth0 promisc on                                   | done       | EPERM   | done
    ip link set eth0 allmulticast on                              | done       | EPERM   | done
"""

ADDS = """
                                                                   NET_ADMIN  | NET_RAW | rootless
    ip address add 10.0.0.2/24 dev eth0                           | done       | EPERM   | done
    ip route add 192.0.2.0/24 dev eth0                            | done       | EPERM   | done
    ip neigh replace 10.0.0.2 lladdr {neighbour} dev eth0         | done       | EPERM   | done
    sysctl -w net.ipv4.ip_forward=1                               | done       | EPERM   | done
    ip link add link eth0 name m0 type macvlan mode private       | done       | EPERM   | done
    ip link add link eth0 name m1 type macvlan mode bridge        | done       | EPERM   | done
    ip link add link eth0 name m2 type macvlan mode vepa          | done       | EPERM   | done
    ip link add link eth0 name m3 type macvlan mode source        | done       | EPERM   | done
    ip link add link eth0 name m4 type macvlan mode passthru      | EINVAL     | EPERM   | EINVAL
    ip link add link eth0 name t0 type macvtap mode bridge        | done       | EPERM   | done
    ip link set m1 address {neighbour}                            | EADDRINUSE | ENODEV  | EADDRINUSE
    ip link set m1 up                                             | done       | ENODEV  | done
    ip link add br0 type bridge                                   | done       | EPERM   | done
    ip link set eth0 master br0                                   | done       | ENODEV  | done
    ip link set eth0 nomaster                                     | done       | EPERM   | done
    tc qdisc add dev eth0 root pfifo limit 1                      | done       | EPERM   | done
    tc qdisc add dev eth0 clsact                                  | done       | EPERM   | done
    tc filter add dev eth0 egress {all} action mirred {to_lo}     | done       | EPERM   | done
    tc qdisc del dev eth0 clsact                                  | done       | EPERM   | done
    > attach("eth0", "tcx egress")                                | {own_tcx}  | EPERM   | EPERM
    > attach("eth0", "generic XDP")                               | done       | EPERM   | EPERM
"""

LEAVES = """
                                                                   NET_ADMIN  | NET_RAW | rootless
    ip link set eth0 down                                         | done       | EPERM   | done
    ip link set eth0 name eth1                                    | done       | EPERM   | done
    ip link set eth1 up                                           | done       | ENODEV  | done
    ip link set eth1 netns /proc/self/fd/{elsewhere}              | done       | ENODEV  | EPERM
    ip netns add inner                                            | EPERM      | EPERM   | done
    ip link set eth1 netns inner                                  | ENOENT     | ENOENT  | done
    ip -netns inner link set eth1 up                              | ENOENT     | ENOENT  | done
"""

DELETES = """
                                                                   NET_ADMIN  | NET_RAW | rootless
    ip link del eth0                                              | done       | EPERM   | done
"""


def rows(transcript: str, guise: Guise, words: dict[str, object]) -> Iterator[tuple[str, list[str]]]:
    """The attempts of a transcript, each with what may come of it for one kind of root."""
    for line in transcript.strip().splitlines()[1:]:
        attempt, *outcomes = (part.strip() for part in line.format(**words).rsplit("|", 3))
        yield attempt, outcomes[GUISES.index(guise)].split("/")


@pytest.fixture(scope="module")
def net() -> Iterator[Tenants]:
    """Three tenants on two hosts."""
    with World("vxlan", max_endpoints=1024, max_local=64) as world:
        yield Tenants.on(world)


@pytest.fixture(scope="module")
def bystanders(net: Tenants) -> Iterator[Bystanders]:
    with Bystanders(net) as made:
        yield made


@pytest.fixture
def descriptors(net: Tenants) -> Iterator[dict[str, int]]:
    """Open namespaces that a tenant might come by: the host's, and one of nobody's."""
    spare = new_namespace("elsewhere")
    opened = {
        "host": os.open(net.first.namespace.path, os.O_RDONLY),
        "elsewhere": os.open(spare.path, os.O_RDONLY),
    }
    yield opened
    for descriptor in opened.values():
        os.close(descriptor)
    spare.delete()


def told(net: Tenants, own: mz.Endpoint, descriptors: dict[str, int]) -> dict[str, object]:
    """The words in braces."""
    agent = net.first.agent
    tcx = bool(has_tcx())
    return {
        **descriptors,
        "own": own.mac,
        "neighbour": net.blue2.endpoint.mac,
        "agent": program_ids(agent)["mzn_agent"],
        "endpoints": agent._datapath.maps.endpoints.id,
        "no_tcx": "nothing" if tcx else "EINVAL",
        "own_tcx": "done" if tcx else "EINVAL",
        "all": "protocol all u32 match u32 0 0",
        "to_lo": "egress redirect dev lo",
    }


@pytest.mark.parametrize("guise", GUISES, ids=lambda guise: str(guise.name).lower())
@pytest.mark.parametrize(
    "transcript",
    [
        pytest.param(SEES, id="sees", marks=pytest.mark.vm),
        pytest.param(CHANGES_ITS_DEVICE, id="changes its device"),
        pytest.param(ADDS, id="adds"),
        pytest.param(LEAVES, id="leaves"),
        pytest.param(DELETES, id="deletes"),
    ],
)
def test_every_attempt_has_its_outcome_and_nobody_else_notices(
    net: Tenants, bystanders: Bystanders, descriptors: dict[str, int], transcript: str, guise: Guise
) -> None:
    with tenant(net, guise, vni=RED, descriptors=tuple(descriptors.values())) as (root, own):
        bystanders.remember()
        wrong = []
        for attempt, outcomes in rows(transcript, guise, told(net, own, descriptors)):
            came = root.attempt(attempt)
            bystanders.assert_untouched(attempt)
            if came not in outcomes:
                wrong.append((attempt, came, outcomes))
    assert not wrong, "attempt, what came of it, what should have"


def _set(net: Tenants, *change: str) -> None:
    net.blue2.namespace.run("ip", "link", "set", "eth0", *change)


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        (("mtu", "1400"), ("mtu", "1450")),
        (("type", "macvlan", "mode", "bridge"), ("type", "macvlan", "mode", "private")),
    ],
)
def test_the_bystanders_would_notice(
    net: Tenants, bystanders: Bystanders, change: tuple[str, ...], undo: tuple[str, ...]
) -> None:
    bystanders.remember()
    _set(net, *change)
    with pytest.raises(AssertionError, match="on purpose"):
        bystanders.assert_untouched("on purpose")
    _set(net, *undo)
    bystanders.assert_untouched("all is well again")


def test_an_entry_that_changes_would_be_noticed(net: Tenants, bystanders: Bystanders) -> None:
    bystanders.remember()
    net.first.agent.endpoints[RED, "10.0.0.99"] = mz.Remote("192.0.2.2")
    with pytest.raises(AssertionError, match="on purpose"):
        bystanders.assert_untouched("on purpose")
    del net.first.agent.endpoints[RED, "10.0.0.99"]
