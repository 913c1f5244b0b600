# SPDX-License-Identifier: Apache-2.0
"""The README's code does what the README says."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import mizarnet as mz
from tests.support.namespace import Namespace
from tests.support.outside import need_nftables
from tests.support.traffic import ping
from tests.world import TUNNEL, cable, new_namespace

README = Path(__file__).parent.parent.parent / "README.md"
HOST_1, HOST_2, LATER, WAY_OUT, SECOND, FEEDS, WHOLE, SPEC, METRICS, JOIN = re.findall(
    r"```python\n(.*?)```", README.read_text(), re.DOTALL
)


@pytest.fixture
def hosts() -> Iterator[tuple[Namespace, Namespace]]:
    """Two hosts with the addresses of the README."""
    with ExitStack() as undo:
        made = new_namespace("h1"), new_namespace("h2")
        for host in made:
            undo.callback(host.delete)
        cable(*made)
        for host in made:
            undo.callback(_delete_tunnel, host)
        yield made


def _delete_tunnel(host: Namespace) -> None:
    try:
        tunnel = mz.Tunnel.open(TUNNEL, netns=host.name)
    except mz.TunnelNotFoundError:
        return
    with tunnel:
        tunnel.delete(force=True)


@pytest.fixture
def containers() -> Iterator[tuple[Namespace, Namespace]]:
    """The README's containers."""
    with ExitStack() as undo:
        made = Namespace("web"), Namespace("db")
        for container in made:
            undo.callback(container.delete)
        yield made


def _run(host: Namespace, code: str) -> str:
    return host.run(sys.executable, "-c", code)


def test_two_hosts(hosts: tuple[Namespace, Namespace], containers: tuple[Namespace, Namespace]) -> None:
    for _again in range(2):
        for host, code in zip(hosts, (HOST_1, HOST_2), strict=True):
            _run(host, code)
    web, db = containers
    assert ping(web, "10.0.0.2")
    assert ping(db, "10.0.0.1")


def test_a_way_out(hosts: tuple[Namespace, Namespace], containers: tuple[Namespace, Namespace]) -> None:
    need_nftables()
    _run(hosts[0], HOST_1)
    _run(hosts[0], WAY_OUT)
    containers[0].run("ip", "route", "replace", "default", "via", "10.0.0.254")
    assert ping(containers[0], "192.0.2.2")


def test_a_later_process_adopts_and_deletes(
    hosts: tuple[Namespace, Namespace], containers: tuple[Namespace, Namespace]
) -> None:
    for host, code in zip(hosts, (HOST_1, HOST_2), strict=True):
        _run(host, code)
    assert ping(containers[0], "10.0.0.2")
    printed = _run(hosts[0], LATER)
    assert "encapsulated" in printed
    assert "10.0.0.1" in printed
    with pytest.raises(mz.TunnelNotFoundError):
        mz.Tunnel.open(TUNNEL, netns=hosts[0].name)


def test_a_second_network_and_a_call_from_asyncio(
    hosts: tuple[Namespace, Namespace], containers: tuple[Namespace, Namespace]
) -> None:
    _run(hosts[0], HOST_1)
    before = containers[0].run("ip", "route", "show", "default")
    _run(hosts[0], SECOND)
    assert "10.8.0.1/24" in containers[0].run("ip", "addr", "show", "eth1")
    assert containers[0].run("ip", "route", "show", "default") != before  # the first network has no gateway
    _run(hosts[0], f"{JOIN}\n\nasyncio.run(join(mz.TransitAgent.open('tunnel0'), 'db'))")
    assert "10.0.0.9/24" in containers[1].run("ip", "addr", "show", "eth0")


def test_a_feed_beside_a_script(
    hosts: tuple[Namespace, Namespace], containers: tuple[Namespace, Namespace]
) -> None:
    _run(hosts[0], HOST_1)
    changes, feed = _run(hosts[0], FEEDS).splitlines()
    assert changes.startswith("Changes(added=1, changed=0, removed=1, local=(), refused={})")
    assert changes.endswith("{'directory': 2, '': 2}") or changes.endswith("{'': 2, 'directory': 2}")
    assert feed == "directory"


def test_what_changed_behind_its_back_is_told_and_mended(
    hosts: tuple[Namespace, Namespace], containers: tuple[Namespace, Namespace]
) -> None:
    for host, code in zip(hosts, (HOST_1, HOST_2), strict=True):
        _run(host, code)
    containers[0].run("ip", "address", "flush", "dev", "eth0")
    printed = _run(hosts[0], WHOLE)
    comment = re.search(r"# (error: endpoint .*) \.\.\.", WHOLE)
    assert comment
    assert comment[1] in printed
    assert printed.endswith("\n\nok\n")
    assert ping(containers[0], "10.0.0.2")


def test_metrics_are_served(
    hosts: tuple[Namespace, Namespace], containers: tuple[Namespace, Namespace]
) -> None:
    _run(hosts[0], HOST_1)
    scrape = "import urllib.request as u\nprint(u.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
    told = _run(hosts[0], f"{METRICS}\n{scrape}").splitlines()
    assert 'mizarnet_up{tunnel="tunnel0"} 1.0' in told
    assert 'mizarnet_endpoint_sent_packets_total{endpoint="7/10.0.0.1",tunnel="tunnel0",vni="7"} 0.0' in told


def test_ten_lines_show_both_hosts() -> None:
    lines = [line for line in (HOST_1 + HOST_2).splitlines() if line]
    assert len(lines) == 10


def test_a_host_becomes_as_its_file_says(
    hosts: tuple[Namespace, Namespace], containers: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    (document,) = re.findall(r"```toml\n(.*?)```", README.read_text(), re.DOTALL)
    path = tmp_path / "host.toml"
    path.write_text(document)
    code = SPEC.replace('"host.toml"', repr(str(path)))
    first, second = _run(hosts[0], code), _run(hosts[0], code)
    assert "+ endpoint svc/web" in first
    assert "nothing to change" in second
