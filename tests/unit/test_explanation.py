# SPDX-License-Identifier: Apache-2.0
"""What an explanation says of itself, and what is refused before anything is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, ip_address
from types import SimpleNamespace
from typing import Any, cast

import pytest

import mizarnet as mz
from mizarnet import Crossing, Explanation, Step, Verdict
from mizarnet._datapath.walk.flow import Flow, addresses_in
from mizarnet._model.explanation import joined
from mizarnet._model.question import Upper

Value, Type = mz.InvalidValueError, mz.InvalidTypeError
ENDPOINT = SimpleNamespace(spec=mz.EndpointSpec(vni=7, ip=["10.0.0.1/24", "fd00::1/64"], name="web"))
OTHER = SimpleNamespace(spec=mz.EndpointSpec(vni=8, ip="10.0.0.2/24", name="db"))
CROSSING = Crossing(
    "vxlan",
    4789,
    IPv4Address("192.0.2.1"),
    IPv4Address("192.0.2.2"),
    7,
    134,
    64,
    ("02:00:00:00:00:01",),
    "00ff" * 30,
)
FINE = Step("h1", "route", "to 10.0.0.2: on link")
BUT = Step("h1", "tunnel", "tunnel0, up", remark="its qdisc is pfifo", remedy="Host.repair()")
UNKNOWN = Step("h1", "inside", "not looked at", ok=None)
REFUSED = Step(
    "h2",
    "guard",
    "no entry (7, 10.0.0.2); b has 10.0.0.2 in VNI 8",
    ok=False,
    verdict=Verdict.NO_DESTINATION,
    remedy="agent.endpoints.update()",
)
PASSED = Step("h1", "agent", "entry (7, 10.0.0.2) -> 192.0.2.2", verdict=Verdict.ENCAPSULATED)


def ask(source: Any = "10.0.0.1", destination: Any = "10.0.0.2", /, **given: Any) -> Callable[[], object]:
    """The agent is judged last: here it is always wrong, and never reached."""
    return lambda: mz.TransitAgent.explain(cast("mz.TransitAgent", None), source, destination, **given)


def crossing(**wrong: object) -> Crossing:
    return Crossing.from_dict({**CROSSING.to_dict(), **wrong})


def without(value: Step | Explanation, name: str) -> dict[str, Any]:
    return {key: member for key, member in value.to_dict().items() if key != name}


FRAME = bytes(60)
WHOLE = Explanation((FINE,))
CASES: list[tuple[str, type[Exception], str, Callable[[], object]]] = [
    ("no source", Value, "source", ask(None, vni=7)),
    ("no destination", Value, "destination", ask("10.0.0.1", None, vni=7)),
    ("source as a number", Type, "source", ask(7, vni=7)),
    ("destination as bytes", Type, "destination", ask("10.0.0.1", b"x", vni=7)),
    ("empty name", Value, "source", ask("", vni=7)),
    ("mapped address", Value, "source", ask("::ffff:10.0.0.1", vni=7)),
    ("addresses without VNI", Value, "vni", ask()),
    ("VNI zero", Value, "vni", ask(vni=0)),
    ("VNI of another", Value, "vni", ask(ENDPOINT, vni=8)),
    ("two VNIs", Value, "destination", ask(ENDPOINT, OTHER)),
    ("two families", Value, "destination", ask("10.0.0.1", "fd00::1", vni=7)),
    ("unknown protocol", Value, "protocol", ask(vni=7, protocol="sctp")),
    ("protocol as a number", Type, "protocol", ask(vni=7, protocol=6)),
    ("ARP for IPv6", Value, "protocol", ask("fd00::1", "fd00::2", vni=7, protocol="arp")),
    ("neighbour discovery for IPv4", Value, "protocol", ask(vni=7, protocol="nd")),
    ("port of a ping", Value, "port", ask(vni=7, port=80)),
    ("port zero", Value, "port", ask(vni=7, protocol="tcp", port=0)),
    ("port as text", Type, "port", ask(vni=7, protocol="tcp", port="80")),
    ("size zero", Value, "size", ask(vni=7, size=0)),
    ("size of 17 bits", Value, "size", ask(vni=7, size=65536)),
    ("size of ARP", Value, "size", ask(vni=7, protocol="arp", size=100)),
    ("outer as a name", Value, "outer", ask(vni=7, outer="h2")),
    ("outer without VNI", Value, "vni", ask(ENDPOINT, "10.0.0.2", outer="192.0.2.2")),
    ("ARP from outside", Value, "protocol", ask(vni=7, protocol="arp", outer="192.0.2.2")),
    ("frame as text", Type, "frame", ask("web", None, frame="frame")),
    ("short frame", Value, "frame", ask("web", None, frame=bytes(13))),
    ("long frame", Value, "frame", ask("web", None, frame=bytes(16001))),
    ("frame of nobody", Value, "source", ask(None, None, frame=FRAME)),
    ("frame and destination", Value, "destination", ask("web", "10.0.0.2", frame=FRAME)),
    ("frame and port", Value, "port", ask("web", None, frame=FRAME, port=80)),
    ("frame and size", Value, "size", ask("web", None, frame=FRAME, size=80)),
    ("frame and protocol", Value, "protocol", ask("web", None, frame=FRAME, protocol="tcp")),
    (
        "frame from outside with source",
        Value,
        "source",
        ask("web", None, frame=FRAME, vni=7, outer="192.0.2.2"),
    ),
    ("no such argument", Type, "prot", ask(vni=7, prot="tcp")),
    ("path of text", Type, "agents", lambda: mz.explain_path(cast("Any", "agents"), "a", "b")),
    ("path of numbers", Type, "agents", lambda: mz.explain_path(cast("Any", [1]), "a", "b")),
    ("no member", Value, "data", lambda: Explanation.from_dict({})),
    ("no mapping", Type, "data", lambda: Explanation.from_dict(cast("Any", "text"))),
    ("steps as text", Type, "steps", lambda: Explanation.from_dict({"steps": "none"})),
    ("step as text", Type, "data", lambda: Explanation.from_dict({"steps": ["none"]})),
    ("unknown verdict", Value, "verdict", lambda: Step.from_dict({**FINE.to_dict(), "verdict": "maybe"})),
    *(
        (f"step without {name}", Value, "data", partial(Step.from_dict, without(FINE, name)))
        for name in ("ok", "verdict")
    ),
    *(
        (f"explanation without {name}", Value, "data", partial(Explanation.from_dict, without(WHOLE, name)))
        for name in ("left", "arrived")
    ),
    ("step with a wrong answer", Type, "ok", lambda: Step.from_dict({**FINE.to_dict(), "ok": 1})),
    ("no address", Value, "source", lambda: Crossing.from_dict({**CROSSING.to_dict(), "source": "here"})),
    ("no steps", Value, "steps", lambda: Explanation.from_dict({"steps": []})),
    ("two families", Value, "destination", lambda: crossing(destination="fd00::1")),
    *(
        (f"{name} of {value!r:.9}", Value, name, partial(crossing, **{name: value}))
        for name, values in {
            "port": (0, 65536),
            "vni": (0, -1, 1 << 24),
            "length": (-1, 1 << 40),
            "ttl": (0, -1, 256),
            "frame": ("zz" * 30, "0", "00" * 13, "00" * 16001),
        }.items()
        for value in values
    ),
]


@pytest.mark.parametrize(("error", "argument", "call"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_fits_nothing_is_refused_by_name(
    error: type[Exception], argument: str, call: Callable[[], object]
) -> None:
    with pytest.raises(error) as refused:
        call()
    assert cast("Any", refused.value).argument == argument


def test_an_explanation_without_an_end_is_true() -> None:
    found = Explanation((FINE, BUT, PASSED, UNKNOWN), left=CROSSING)
    assert found
    assert (found.ok, found.verdict, found.at) == (True, Verdict.ENCAPSULATED, "h1")
    assert (found.cause, found.remedy) == ("", "")
    assert found.page == "docs/verdicts/encapsulated.md"
    assert str(found).splitlines() == [
        " ok h1  route: to 10.0.0.2: on link",
        " ok h1  tunnel: tunnel0, up",
        "    but  its qdisc is pfifo",
        "    try  Host.repair()",
        " ok h1  agent: ENCAPSULATED   entry (7, 10.0.0.2) -> 192.0.2.2",
        " ?  h1  inside: not looked at",
    ]


def test_the_step_that_ends_it_says_why_and_where() -> None:
    found = Explanation((FINE, PASSED, REFUSED))
    assert not found
    assert (found.verdict, found.at) == (Verdict.NO_DESTINATION, "h2")
    assert found.cause == "guard: no entry (7, 10.0.0.2); b has 10.0.0.2 in VNI 8"
    assert found.remedy == "agent.endpoints.update()"
    assert str(found).splitlines()[-2:] == [
        " x  h2  guard: NO_DESTINATION   no entry (7, 10.0.0.2); b has 10.0.0.2 in VNI 8",
        "    try  agent.endpoints.update()    docs  docs/verdicts/no-destination.md",
    ]
    assert repr(found) == "<Explanation h2: guard: no entry (7, 10.0.0.2); b has 10.0.0.2 in VNI 8>"


def test_the_step_that_ends_it_is_marked_in_a_notebook() -> None:
    html = Explanation((FINE, attr := REFUSED))._repr_html_()
    assert html.count("<tr style=") == 1
    marked = html[html.index("<tr style=") :]
    assert "NO_DESTINATION" in marked
    assert attr.remedy in marked
    assert 'style="background' not in Explanation((FINE,))._repr_html_()


def test_it_is_the_same_after_a_way_through_json() -> None:
    for found in (Explanation((FINE, BUT, REFUSED), CROSSING, CROSSING), Explanation((UNKNOWN, PASSED))):
        assert Explanation.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_joined_halves_end_with_the_first_end() -> None:
    both = joined([Explanation((FINE,), left=CROSSING), Explanation((REFUSED,)), Explanation((PASSED,))])
    assert both.steps == (FINE, REFUSED)
    whole = joined([Explanation((FINE,), left=CROSSING), Explanation((PASSED,), arrived=CROSSING)])
    assert (whole.steps, whole.left) == ((FINE, PASSED), None)


@pytest.mark.parametrize("upper", Upper)
@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_is_as_long_as_it_was_asked_for(upper: Upper, version: int) -> None:
    ips = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}[version]
    source, destination = map(ip_address, ips)
    for size in (upper.headers(version), 1450, 9000):
        flow = Flow(7, source, destination, upper, 80, size)
        frame = flow.frame(by=bytes(6), to=b"\2" + bytes(5))
        assert len(frame) == 14 + size
        assert addresses_in(frame) == (source, destination)
    assert flow.reply().source == destination


@pytest.mark.parametrize(
    ("version", "upper", "asked", "answered"),
    [
        (4, Upper.ICMP, "0800", "0000"),
        (6, Upper.ICMP, "8000", "8100"),
        (4, Upper.UDP, "9c400050", "00509c40"),
        (6, Upper.TCP, "9c400050", "00509c40"),
    ],
)
def test_an_answer_is_no_second_question(version: int, upper: Upper, asked: str, answered: str) -> None:
    ips = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}[version]
    source, destination = map(ip_address, ips)
    flow = Flow(7, source, destination, upper, 80 if upper.has_ports else 0, 100)
    headers = [
        each.frame(by=bytes(6), to=bytes(6))[14 + (20 if version == 4 else 40) :]
        for each in (flow, flow.reply())
    ]
    assert [each[: len(asked) // 2].hex() for each in headers] == [asked, answered]
    if upper is Upper.TCP:
        assert [each[13] for each in headers] == [0x02, 0x12]  # SYN; SYN and ACK
