# SPDX-License-Identifier: Apache-2.0
"""Every public object as a dictionary for JSON and as a table in a notebook, made of the real thing."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

import mizarnet as mz

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/json.md"
# Errors and enumerations are no objects of their own in JSON, a MAC address is text, and a key shows in its table.
SCALARS = (mz.MacAddress, mz.EndpointKey, mz.NetworkKey)


@pytest.fixture(scope="module")
def lab() -> Iterator[mz.Lab]:
    with mz.Lab(name="described") as lab:
        first, second = (host.agent for host in lab.hosts)
        for number in (11, 2, 1):
            name = f"e{number}"
            mz.Endpoint.create(first, name=name, vni=7, ip=f"10.0.0.{number}/24", netns=lab.container(name))
        mz.Endpoint.create(first, name="vm", vni=8, ip=["10.0.0.1/24", "fd00::1/64"], kind="macvtap")
        mz.Endpoint.create(second, name="far", vni=7, ip="10.0.0.30/24", netns=lab.container("far"))
        lab.publish()
        first.networks[7, "10.0.0.0/24"] = mz.Network(gateway="10.0.0.254", switches=[lab.hosts[1].address])
        mz.TransitSwitch.attach(first)
        for agent in (first, second):  # loads programs, which stay as long as the handle
            agent.explain("10.0.0.1", "10.0.0.2", vni=7, outer=lab.hosts[0].address)
        yield lab


def everything(lab: mz.Lab) -> Iterator[Any]:
    """One object of each public class at least."""
    host, agent = lab.hosts[0], lab.hosts[0].agent
    endpoint, switch = mz.Endpoint.open(agent, "e1"), mz.TransitSwitch.open(agent)
    yield from (
        lab,
        host,
        host.tunnel,
        host.tunnel.state(),
        agent,
        agent.state(),
        agent.state().shortcut,
        agent.stats(),
        agent.capacity,
    )
    yield from (
        agent.endpoints,
        agent.networks,
        agent.peers,
        *agent.endpoints.values(),
        *agent.networks.values(),
    )
    yield from (endpoint, endpoint.spec, endpoint.state(), endpoint.stats(), endpoint.stats().sent)
    yield from (*(endpoint.state().routes or ()), switch, switch.state(), mz.probe(), mz.probe().vxlan)
    yield agent.endpoints.columns()
    yield agent.endpoints.sync(
        {key: value for key, value in agent.endpoints.items() if isinstance(value, mz.Remote)}
    )
    with agent.events(passes=True) as events:
        lab.run("e1", "ping", "-c1", "-W5", "10.0.0.2")
        yield from (events, next(events))
    explained = mz.explain_path([each.agent for each in lab.hosts], endpoint, "10.0.0.30")
    yield from (explained, *explained.steps, agent.explain("e1", "10.0.0.30").left)
    lab.run("e1", "ip", "link", "set", "eth0", "mtu", "1000")
    with mz.Host.open(netns=host.netns) as seen:
        (finding,) = seen.check()
        yield from (seen, finding, finding.object, seen.health(), seen.repair([finding]))
        spec = mz.HostSpec.from_dict({"endpoints": [{**endpoint.spec.to_dict(), "mtu": 1300}]})
        plan = seen.plan(spec)
        yield from (spec, plan, *plan.changes)
    with mz.Endpoint.open(agent, "vm").open_tap() as tap:
        yield tap
    port = mz.Publish("tcp", 8080, "10.9.0.5", 80)
    with mz.deleting(
        mz.Gateway.create(agent, vni=9, egress=host.tunnel.underlay, ip="10.9.0.254/24", publish=[port])
    ) as gateway:
        yield from (gateway, gateway.state(), *gateway.publish)


def public_classes() -> set[type]:
    found = {getattr(mz, name) for name in mz.__all__}
    classes = {each for each in found if inspect.isclass(each)}
    return {each for each in classes if not issubclass(each, (Exception, mz.Encap.__base__, *SCALARS))}


class Table(HTMLParser):
    """The text of the cells, row by row, of well-formed tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.caption, self.rows, self._open = "", list[list[str]](), list[str]()
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1] == "caption":
            self.caption += data
        else:
            self.rows[-1].append(data)


def documented() -> dict[str, set[str]]:
    """Keys of each class on the page."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", text.partition(":")[0])) for name, text in rows}


def test_each_object_is_json_as_the_page_says_and_a_readable_table(lab: mz.Lab) -> None:
    seen: set[type] = set()
    pages = documented()
    for thing in everything(lab):
        seen.add(type(thing))
        form = json.loads(json.dumps(thing.to_dict()))
        assert form == thing.to_dict()
        if pages[type(thing).__name__]:
            assert set(form) == pages[type(thing).__name__], thing
        shown = Table(thing._repr_html_())
        assert shown.caption
        assert shown.rows
        text = " ".join(cell for row in shown.rows for cell in row)
        assert not re.search(r"b'|\w+\.[A-Z]{2}|IPv[46]\w+\(|<|mappingproxy|None", text), text
    assert seen >= public_classes()
    assert set(pages) == {each.__name__ for each in public_classes()}


def test_values_can_be_copied_and_sent_to_other_processes(lab: mz.Lab) -> None:
    values = {each for each in public_classes() if attrs.has(each)} - {mz.LabHost}  # which has handles
    for thing in everything(lab):
        if type(thing) in values:
            for other in (pickle.loads(pickle.dumps(thing)), copy.deepcopy(thing), copy.copy(thing)):
                assert attrs.astuple(other, recurse=False) == attrs.astuple(thing, recurse=False)


def test_rows_are_sorted_and_captions_say_where_and_how_many(lab: mz.Lab) -> None:
    agent = lab.hosts[0].agent
    shown = Table(agent.endpoints._repr_html_())
    assert shown.caption == "addresses on tunnel0 of described-h1: 6"
    assert [row[:2] for row in shown.rows[1:]] == [
        *(["7", f"10.0.0.{number}"] for number in (1, 2, 11, 30)),
        *(["8", ip] for ip in ("10.0.0.1", "fd00::1")),
    ]
    assert next(iter(agent.endpoints.to_dict())) == "7/10.0.0.1"
    listed = Table(cast("Any", mz.Endpoint.list(agent))._repr_html_())
    assert listed.caption == "endpoints on tunnel0 of described-h1: 4"
    assert [row[0] for row in listed.rows[1:]] == ["e1", "e11", "e2", "vm"]
    shown = Table(agent._repr_html_())
    assert ["addresses", "6 of 65,536"] in shown.rows
    assert ["endpoints of this host", "4 of 4,096"] in shown.rows
    tunnels = mz.Tunnel.list(netns="described-h1")
    assert Table(cast("Any", tunnels)._repr_html_()).rows[1][:2] == ["tunnel0", lab.encap.value]
    for each in tunnels:
        each.close()


def test_a_handle_that_is_closed_shows_why_it_shows_nothing(lab: mz.Lab) -> None:
    with mz.TransitAgent.open("tunnel0", netns="described-h1") as agent:
        views = (agent, agent.endpoints, agent.networks, agent.peers)
    for view in views:
        assert "closed" in Table(view._repr_html_()).rows[-1][-1]


def test_an_error_is_json_too(lab: mz.Lab) -> None:
    with pytest.raises(mz.ExistsError) as caught:
        mz.Endpoint.create(lab.hosts[0].agent, name="e1", vni=7, ip="10.0.0.9/24")
    form = json.loads(json.dumps(caught.value.to_dict()))
    assert form["error"] == "ExistsError"
    assert form["differences"]["ip"] == [["10.0.0.9/24"], ["10.0.0.1/24"]]
    with pytest.raises(mz.BulkError) as bulk:
        mz.Endpoint.create_many(
            lab.hosts[0].agent, [mz.EndpointSpec(vni=7, ip="10.0.0.40/24", netns="nowhere")]
        )
    assert bulk.value.to_dict()["failed"]["7/10.0.0.40"]["error"] == "NetnsNotFoundError"
