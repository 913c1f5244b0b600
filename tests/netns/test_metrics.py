# SPDX-License-Identifier: Apache-2.0
"""What Prometheus reads: the counters under names and labels as its conventions want them, whatever the agent does."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

import mizarnet as mz
from mizarnet import Program, Verdict, VerdictKind
from mizarnet.metrics import Collector, told_labels
from tests.frames import datagram
from tests.support.icmp import echo
from tests.support.traffic import send_frame
from tests.world import BLUE, TUNNEL, Container, EncapName, World

PAGE = Path(__file__).resolve().parents[2] / "docs/metrics.md"
OF_AGENT, OF_ENDPOINT = {"tunnel"}, {"tunnel", "vni", "endpoint"}
OF_VERDICT = {"verdict", "kind"}
LABELS = {
    "mizarnet_up": OF_AGENT,
    "mizarnet_endpoints": OF_AGENT,
    **{
        f"mizarnet_verdict_{unit}_total": OF_AGENT | {"program"} | OF_VERDICT for unit in ("packets", "bytes")
    },
    "mizarnet_lost_packets_total": OF_AGENT | {"counter"},
    **{
        f"mizarnet_endpoint_{way}_{unit}_total": OF_ENDPOINT
        for way in ("sent", "received")
        for unit in ("packets", "bytes")
    },
    "mizarnet_endpoint_labels": OF_ENDPOINT,
    "mizarnet_endpoint_drops_total": OF_ENDPOINT | OF_VERDICT,
    "mizarnet_endpoint_unexplained_drops_total": OF_ENDPOINT,
}
NOBODY, LOST = "10.0.0.99", "10.0.0.98"


@pytest.fixture(scope="module")
def world(encap: EncapName) -> Iterator[World]:
    with World(encap, hosts=2) as made:
        yield made


@pytest.fixture(scope="module")
def pair(world: World) -> tuple[Container, Container]:
    """Two containers that have talked; one has sent two frames to nobody, and one that got lost."""
    one, other = (world.container(host, BLUE, f"10.0.0.{n}/24") for n, host in enumerate(world.hosts, 1))
    assert echo(one.namespace, other.ip)
    one.host.agent.endpoints[BLUE, LOST] = mz.Remote("198.51.100.9")  # to which there is no route
    for to in (NOBODY, NOBODY, LOST):
        frame = datagram(one.mac, one.ip, to, destination_mac=one.mac)
        send_frame(one.namespace, one.endpoint.ifname, frame)
    return one, other


def scraped(*agents: mz.TransitAgent) -> dict[str, Metric]:
    """What a scrape of these agents says, by the name of the metric."""
    registry = CollectorRegistry()
    registry.register(Collector(*agents))
    return parsed(generate_latest(registry))


def parsed(text: bytes) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    """The value of the one sample with these labels among others."""
    family = families[name.removesuffix("_total")]
    (found,) = [each.value for each in family.samples if labels.items() <= each.labels.items()]
    return found


# -- names and labels --------------------------------------------------------------------------------------


@pytest.mark.vm
def test_names_units_and_labels_are_as_the_conventions_want_them(pair: tuple[Container, Container]) -> None:
    families = scraped(pair[0].host.agent)
    samples = {each.name: family for family in families.values() for each in family.samples}
    assert samples.keys() == LABELS.keys() - {
        "mizarnet_endpoint_labels",
        "mizarnet_endpoint_unexplained_drops_total",
    }
    for name, family in samples.items():
        assert (family.type == "counter") == name.endswith("_total")
        assert re.fullmatch(r"[A-Z].+\.", family.documentation)
        for each in family.samples:
            assert each.labels.keys() == LABELS[name]


def test_the_page_and_the_class_have_every_metric() -> None:
    page = re.findall(r"^\| `(mizarnet_\w+)` \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    assert {name: {"tunnel", *re.findall(r"`(\w+)`", labels)} for name, labels in page} == LABELS
    assert (
        set(re.findall(r"^    ``(mizarnet_\w+)`` ", Collector.__doc__ or "", re.MULTILINE)) == LABELS.keys()
    )


def test_the_number_of_series_is_bounded(pair: tuple[Container, Container]) -> None:
    families = scraped(pair[0].host.agent)
    for family in families.values():
        for each in family.samples:
            labels = each.labels
            assert labels.get("verdict", "passed").upper() in Verdict.__members__
            assert labels.get("kind", "passed") in {kind.value for kind in VerdictKind}
            assert labels.get("program", "agent") in {"agent", "guard", "switch", "shortcut"}
    of_verdicts = len(families["mizarnet_verdict_packets"].samples)
    assert of_verdicts == len(Program) * len(Verdict)
    assert len(families["mizarnet_endpoint_sent_packets"].samples) == 1


# -- values ------------------------------------------------------------------------------------------------


@pytest.mark.vm
def test_the_values_are_those_of_the_counters(pair: tuple[Container, Container]) -> None:
    one, _ = pair
    agent = one.host.agent
    families, stats = scraped(agent), agent.stats()
    assert value(families, "mizarnet_up") == value(families, "mizarnet_endpoints") == 1
    for program in ("agent", "guard", "switch", "shortcut"):
        for verdict, counter in getattr(stats, program).items():
            of = {"program": program, "verdict": verdict.name.lower(), "kind": verdict.kind.value}
            assert value(families, "mizarnet_verdict_packets_total", **of) == counter.packets
            assert value(families, "mizarnet_verdict_bytes_total", **of) == counter.bytes
    for name, packets in stats.lost.items():
        assert value(families, "mizarnet_lost_packets_total", counter=name) == packets
    assert stats.lost["tx_carrier_errors"] == 1
    counted = one.endpoint.stats()
    assert counted.sent.packets
    of = {"endpoint": one.endpoint.name, "vni": str(BLUE), "tunnel": f"{agent.tunnel.netns}/{TUNNEL}"}
    for way in ("sent", "received"):
        for unit in ("packets", "bytes"):
            wanted = getattr(getattr(counted, way), unit)
            assert value(families, f"mizarnet_endpoint_{way}_{unit}_total", **of) == wanted
    assert (
        value(families, "mizarnet_endpoint_drops_total", **of, verdict="no_destination", kind="operator") == 2
    )


def test_a_reason_that_made_room_for_others_is_a_metric_of_its_own(
    pair: tuple[Container, Container],
) -> None:
    """As if the kernel had done so: tests/netns/test_drop_reasons.py lets it."""
    one, _ = pair
    drops = one.host.agent._datapath.maps.drops
    entries = dict(drops.items())
    drops.delete_many(entries)
    families = scraped(one.host.agent)
    drops.update_many(entries)
    assert value(families, "mizarnet_endpoint_unexplained_drops_total", endpoint=one.endpoint.name) == 2
    assert families["mizarnet_endpoint_drops"].samples == []


def test_several_agents_are_told_apart(world: World, pair: tuple[Container, Container]) -> None:
    families = scraped(*(host.agent for host in world.hosts))
    for host, container in zip(world.hosts, pair, strict=True):
        of = {"tunnel": f"{host.namespace.name}/{TUNNEL}"}
        assert value(families, "mizarnet_up", **of) == 1
        assert (
            value(families, "mizarnet_endpoint_sent_packets_total", **of)
            == container.endpoint.stats().sent.packets
        )


def test_who_gives_no_agent_or_one_twice_is_told_so(world: World) -> None:
    agent = world.hosts[0].agent
    for call, error in (
        (lambda: Collector(), mz.InvalidValueError),
        (lambda: Collector(agent, agent), mz.InvalidValueError),
        (lambda: Collector(cast("Any", TUNNEL)), mz.InvalidTypeError),
        (lambda: Collector(*cast("Any", [agent]), port=1), mz.InvalidTypeError),
    ):
        with pytest.raises(error):
            cast("Callable[[], object]", call)()


# -- whatever becomes of the agent -------------------------------------------------------------------------


def test_a_scrape_goes_on_whatever_becomes_of_the_agent(encap: EncapName) -> None:
    """Over HTTP, where an error of the collector would be an answer without metrics."""
    with World(encap, hosts=1) as world, ExitStack() as served:
        host = world.hosts[0]
        world.container(host, BLUE, "10.0.0.1/24")
        with mz.TransitAgent.open(host.tunnel) as own:
            registry = CollectorRegistry()
            registry.register(Collector(own))
            server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
            for undo in (thread.join, server.server_close, server.shutdown):
                served.callback(undo)

            def names() -> dict[str, Metric]:
                with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
                    assert answer.status == 200
                    return parsed(answer.read())

            def assert_down() -> None:
                told = names()
                assert value(told, "mizarnet_up") == 0
                assert not any(family.samples for name, family in told.items() if name != "mizarnet_up")

            assert value(names(), "mizarnet_up") == value(names(), "mizarnet_endpoints") == 1
            host.agent.detach(force=True)
            assert_down()
            assert_down()
            with mz.TransitAgent.attach(host.tunnel):
                assert (value(names(), "mizarnet_up"), value(names(), "mizarnet_endpoints")) == (1, 0)
            host.tunnel.delete(force=True)
            assert_down()
        assert_down()  # closed


def test_only_the_first_failure_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    agent = mz.TransitAgent.open(world.hosts[0].tunnel)
    collector = Collector(agent)
    agent.close()
    for _ in range(3):
        [*collector.collect()]
    assert [record.message for record in caplog.records if "no metrics of" in record.message] == [
        f"no metrics of {world.hosts[0].namespace.name}/{TUNNEL}: the transit agent's handle is closed; open another "
        "with TransitAgent.open()"
    ]


def test_labels_that_become_one_name_are_told_apart() -> None:
    given = {"a-b": "1", "a.b": "2", "a_b_conflict1": "3", "ü": "4", "plain": "5"}
    assert told_labels(given) == {
        "label_a_b_conflict2": "1",
        "label_a_b_conflict3": "2",
        "label_a_b_conflict1": "3",
        "label__": "4",
        "label_plain": "5",
    }
