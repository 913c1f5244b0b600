# SPDX-License-Identifier: Apache-2.0
"""A host's specification: what it takes, and that every error of it is told at once, with its path and a remedy."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs
import pytest

import mizarnet as mz
from mizarnet import hostspec
from mizarnet._model.gateways import GatewaySpec
from mizarnet._model.specs import EndpointSpec, Network, Remote, Route

TUNNEL = {"encap": "vxlan", "underlay": "eth0"}
WEB = {"name": "web", "vni": 7, "ip": "10.0.0.1/24"}
APP = {"name": "app", "vni": 7, "ip": "10.0.0.2/24"}
NET = {"vni": 7, "prefix": "10.0.0.0/24"}
FAR = {"vni": 7, "ip": "10.0.0.9", "host": "192.0.2.2"}


def _tunnel(**changes: Any) -> dict[str, Any]:
    return {"tunnel": {**TUNNEL, **changes}}


def _web(**changes: Any) -> dict[str, Any]:
    return {"endpoints": [{**WEB, **changes}]}


def _net(**changes: Any) -> dict[str, Any]:
    return {"networks": [{**NET, **changes}]}


def _far(**changes: Any) -> dict[str, Any]:
    return {"remotes": [{**FAR, **changes}]}


OUT = {"vni": 7, "egress": "eth0", "ip": "10.0.0.254/24"}
PORT = {"protocol": "tcp", "port": 8080, "ip": "10.0.0.1", "to_port": 80}


def _gateway(**changes: Any) -> dict[str, Any]:
    return {"gateways": [{**OUT, **changes}]}


BAD: list[tuple[object, str, str]] = [
    ([], "", "must be a table"),
    ({"tunel": {}}, "tunel", "did you mean tunnel?"),
    ({"hosts": {}}, "hosts", "there are tunnel"),
    ({"gateways": [{"vni": 7, "egress": "eth0"}]}, "gateways[0].ip", "is missing"),
    (_gateway(egress="a b"), "gateways[0].egress", "cannot be a device name"),
    (_gateway(nat="yes"), "gateways[0].nat", "must be a bool"),
    (_gateway(publish=[{**PORT, "port": 0}]), "gateways[0].publish[0].port", "from 1 to 65535"),
    (_gateway(publish=[{**PORT, "protocol": "sctp"}]), "gateways[0].publish[0].protocol", "'tcp' or 'udp'"),
    (_gateway(publish=[PORT, PORT]), "gateways[0].publish", "published twice"),
    ({"gateways": [OUT, OUT]}, "gateways[1].vni", "gateways[0]"),
    ({"tunnel": []}, "tunnel", "must be a table"),
    ({"tunnel": {"underlay": "eth0"}}, "tunnel.encap", "is missing"),
    ({"tunnel": {"encap": "vxlan"}}, "tunnel.underlay", "is missing"),
    (_tunnel(encap="gre"), "tunnel.encap", "it is one of 'vxlan', 'geneve'"),
    (_tunnel(encap=4789), "tunnel.encap", "not int"),
    (_tunnel(underlay=""), "tunnel.underlay", "is empty"),
    (_tunnel(underlay="a" * 16), "tunnel.underlay", "choose a shorter one"),
    (_tunnel(name="tunnel/0"), "tunnel.name", "cannot be a device name"),
    (_tunnel(local="10.0.0.0.1"), "tunnel.local", "write it like"),
    (_tunnel(local="127.0.0.1"), "tunnel.local", "no host can have it"),
    (_tunnel(port=0), "tunnel.port", "from 1 to 65535"),
    (_tunnel(port="4789"), "tunnel.port", "must be an int"),
    (_tunnel(mtu=67), "tunnel.mtu", "from 68 to 65535"),
    (_tunnel(netns=7), "tunnel.netns", "a name or a path"),
    (_tunnel(mtuu=1400), "tunnel.mtuu", "did you mean mtu?"),
    ({"agent": {"hook": "xdp"}}, "agent.hook", "it is one of 'tcx', 'clsact'"),
    ({"agent": {"max_endpoints": 0}}, "agent.max_endpoints", "from 1 to"),
    ({"agent": {"max_local": True}}, "agent.max_local", "must be an int"),
    ({"agent": {"peers": []}}, "agent.peers", "is no field"),
    ({"switch": True}, "switch", "must be a table"),
    ({"switch": {"mode": "fast"}}, "switch.mode", "it is one of 'native', 'generic'"),
    ({"switch": {"underlay": 1}}, "switch.underlay", "must be a str"),
    ({"peers": "192.0.2.0/24"}, "peers", "must be a list"),
    ({"peers": ["192.0.2.0/24", "192.0.2.1/24"]}, "peers[1]", "host bits"),
    ({"peers": [7]}, "peers[0]", "must be a str"),
    ({"networks": {}}, "networks", "must be a list"),
    ({"networks": [7]}, "networks[0]", "must be a table"),
    ({"networks": [{"prefix": "10.0.0.0/24"}]}, "networks[0].vni", "is missing"),
    (_net(vni=0), "networks[0].vni", "VNI 0 is not a network of its own"),
    (_net(prefix="10.0.0.1/24"), "networks[0].prefix", "write it like 10.0.0.0/24"),
    (_net(gateway="10.0.1.1"), "networks[0].gateway", "is not in"),
    (_net(gateway="fd00::1"), "networks[0].gateway", "is not in"),
    (_net(via="10.0.0.5"), "networks[0].via", "a next hop is outside its prefix"),
    (_net(via="10.1.0.5", gateway="10.0.0.1"), "networks[0].via", "and not both"),
    (_net(switches=["192.0.2.1", "192.0.2.1"]), "networks[0].switches", "given twice"),
    (_net(switches=["192.0.2.1", "x"]), "networks[0].switches[1]", "write it like"),
    (_net(gatway="10.0.0.1"), "networks[0].gatway", "did you mean gateway?"),
    ({"networks": [NET, NET]}, "networks[1]", "is the same as networks[0]"),
    ({"endpoints": [{"ip": "10.0.0.1/24"}]}, "endpoints[0].vni", "is missing"),
    (_web(vni="7"), "endpoints[0].vni", "must be an int"),
    (_web(ip=[]), "endpoints[0].ip", "at least one address"),
    (_web(ip=["10.0.0.1/24", "10.0.0.0/24"]), "endpoints[0].ip[1]", "give a host's address"),
    (_web(ip=["10.0.0.1/24", "10.0.0.1/16"]), "endpoints[0].ip", "given twice"),
    (_web(mac="01:00:5e:00:00:01"), "endpoints[0].mac", "write it like"),
    (_web(kind="veth"), "endpoints[0].kind", "it is one of"),
    (_web(gateway="10.0.0.1"), "endpoints[0].gateway", "is the endpoint's own"),
    (_web(default_route=True), "endpoints[0].default_route", "not bool"),
    (_web(routes=[{"prefix": "x"}]), "endpoints[0].routes[0].prefix", "write it like"),
    (_web(routes=[{"prefix": "0.0.0.0/0"}]), "endpoints[0].routes", "give gateway="),
    (_web(routes=[{"gateway": "10.0.0.2"}]), "endpoints[0].routes[0].prefix", "is missing"),
    (_web(mtu=67), "endpoints[0].mtu", "from 68 to 65535"),
    (_web(ip="fd00::1/64", mtu=1279), "endpoints[0].mtu", "is below 1280"),
    (_web(forwarding="yes"), "endpoints[0].forwarding", "must be a bool"),
    (_web(labels={"a": 1}), "endpoints[0].labels", "must be a str"),
    (_web(labels={"a": "x" * 200}), "endpoints[0].labels", "there is room for 128"),
    (_web(ifname="all"), "endpoints[0].ifname", "cannot be a device name"),
    (_web(netns=""), "endpoints[0].netns", "is empty"),
    (_web(name="n" * 192), "endpoints[0].name", "at most 191 bytes"),
    ({"endpoints": [WEB, {**APP, "name": "web"}]}, "endpoints[1].name", "endpoints[0] (web)"),
    ({"endpoints": [WEB, {**APP, "ip": "10.0.0.1/16"}]}, "endpoints[1].ip", "endpoints[0] (web)"),
    (_far(host="0.0.0.0"), "remotes[0].host", "no host can have it"),
    (_far(ip="10.0.0.9/24"), "remotes[0].ip", "write it like"),
    ({"remotes": [FAR, {**FAR, "host": "192.0.2.3"}]}, "remotes[1]", "is the same as remotes[0]"),
    ({**_web(), **_far(ip="10.0.0.1")}, "remotes (7, 10.0.0.1)", "endpoints[0] (web)"),
]


@pytest.mark.parametrize(
    ("data", "path", "words"), BAD, ids=[f"{n}-{path}" for n, (_, path, _) in enumerate(BAD)]
)
def test_an_error_is_told_with_its_path_and_a_remedy(data: Any, path: str, words: str) -> None:
    with pytest.raises(mz.SpecError) as caught:
        mz.HostSpec.from_dict(data)
    assert list(caught.value.errors) == [path]
    assert words in caught.value.errors[path]
    assert caught.value.argument == path
    assert f"    {path}: " in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


SAME: list[tuple[dict[str, Any], str, str]] = [
    (
        {"endpoints": [WEB], "gateways": [{**OUT, "ip": "10.0.0.1/24"}]},
        "gateways[0].ip",
        "endpoints[0] (web)",
    ),
    ({"endpoints": [WEB], "gateways": [{**OUT, "name": "web"}]}, "gateways[0].name", "endpoints[0] (web)"),
    ({"gateways": [OUT], "remotes": [{**FAR, "ip": "10.0.0.254"}]}, "remotes (7, 10.0.0.254)", "gateways[0]"),
    (
        {"endpoints": [{**each, "mac": "02:00:00:00:00:01"} for each in (WEB, APP)]},
        "endpoints[1].mac",
        "endpoints[0] (web)",
    ),
]


@pytest.mark.parametrize(("data", "path", "words"), SAME, ids=[each[1] for each in SAME])
def test_endpoints_and_gateways_of_a_host_share_nothing(data: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(mz.SpecError) as told:
        mz.HostSpec.from_dict(data)
    assert words in told.value.errors[path]


def test_the_constructor_judges_and_converts() -> None:
    made = mz.HostSpec(
        peers=["192.0.2.0/24"],  # type: ignore[arg-type,list-item]
        networks={(7, "10.0.0.0/24"): Network()},
        remotes={(7, "10.0.0.9"): Remote("192.0.2.2")},
        endpoints=[EndpointSpec(vni=7, ip="10.0.0.1/24", gateway=(), labels={})],  # type: ignore[arg-type]
    )
    (spec,) = made.endpoints or ()
    assert made.given[spec.name] == {"vni", "ip", "gateway", "name"}
    assert made == mz.HostSpec.from_dict(made.to_dict())
    bad: list[dict[str, Any]] = [
        *(
            {each.name: 5}
            for each in attrs.fields(mz.HostSpec)
            if each.init and not each.name.startswith("given")
        ),
        {"tunnel": TUNNEL},
        {"endpoints": [WEB]},
        {"gateways": "x"},
        {"networks": {(7, "10.0.0.0/24"): FAR}},
        {"remotes": {7: Remote("192.0.2.2")}},
        {"peers": [None]},
    ]
    for sections in bad:
        with pytest.raises(mz.InvalidTypeError):
            mz.HostSpec(**sections)


class NoPath(os.PathLike[str]):
    def __fspath__(self) -> str:
        return 7  # type: ignore[return-value]


@pytest.mark.parametrize("path", [5, None, b"x.toml", "a\0b", "\ud800", NoPath()])
def test_what_can_be_no_path_is_refused(path: Any) -> None:
    for read in (mz.HostSpec.load, mz.HostSpec.fleet):
        with pytest.raises((mz.InvalidTypeError, mz.InvalidValueError)) as told:
            read(path)
        assert told.value.argument == "path"


@pytest.mark.parametrize("name", ["deep.json", "deep.toml"])
def test_a_file_that_nests_too_deep_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(("a = " if name.endswith("toml") else "") + "[" * 100_000)
    with pytest.raises(mz.SpecError):
        mz.HostSpec.load(tmp_path / name)


def test_gateways_of_a_fleet_share_no_address_and_may_share_a_name(tmp_path: Path) -> None:
    text = """
        tunnel = {{ encap = "vxlan", underlay = "eth0" }}
        hosts.a.tunnel.local = "192.0.2.1"
        hosts.a.gateways = [{{ vni = 7, egress = "eth0", ip = "10.0.0.254/24" }}]
        hosts.b.tunnel.local = "192.0.2.2"
        hosts.b.gateways = [{{ vni = 7, egress = "eth0", ip = "{}/24" }}]
        """
    path = tmp_path / "fleet.toml"
    path.write_text(text.format("10.0.0.253"))
    assert len(mz.HostSpec.fleet(path)) == 2
    path.write_text(text.format("10.0.0.254"))
    with pytest.raises(mz.SpecError) as told:
        mz.HostSpec.fleet(path)
    assert "hosts.a.gateways[0]" in told.value.errors["hosts.b.gateways[0].ip"]


def test_what_is_written_has_no_nulls() -> None:
    fields = {"netns": None, "mac": None, "gateway": None, "mtu": None, "labels": {}}
    data = {"endpoints": [{**WEB, **fields, "routes": [{"prefix": "10.9.0.0/16"}]}], "gateways": [OUT]}
    made = mz.HostSpec.from_dict(data)
    assert "null" not in json.dumps(made.to_dict())
    assert mz.HostSpec.from_dict(made.to_dict()) == made


def test_all_errors_are_told_at_once() -> None:
    merged: dict[str, Any] = {"tunnel": {"encap": "x", "underlay": 1}, "peers": [1, 2]}
    of_one = [data for data, path, _ in BAD if path.startswith("endpoints[0]")]
    merged["endpoints"] = [each for data in of_one if isinstance(data, dict) for each in data["endpoints"]]
    with pytest.raises(mz.SpecError) as caught:
        mz.HostSpec.from_dict(merged)
    told = caught.value.errors
    assert {"tunnel.encap", "tunnel.underlay", "peers[0]", "peers[1]"} <= told.keys()
    numbers = {path.partition(".")[0] for path in told if path.startswith("endpoints")}
    assert numbers == {f"endpoints[{number}]" for number in range(len(merged["endpoints"]))}


WHOLE = {
    "tunnel": {**TUNNEL, "name": "t0", "local": "192.0.2.1", "port": 4790, "mtu": 1400, "netns": "h1"},
    "agent": {"hook": "tcx", "max_endpoints": 100, "max_local": 10},
    "switch": {"underlay": "eth0", "mode": "generic"},
    "networks": [{**NET, "gateway": "10.0.0.254"}, {"vni": 7, "prefix": "0.0.0.0/0", "via": "10.0.0.1"}],
    "peers": ["192.0.2.0/24"],
    "endpoints": [
        {**WEB, "labels": {"a": "b"}, "forwarding": True, "mtu": 1300},
        {
            **APP,
            "ip": ["10.0.0.2/24", "fd00::2/64"],
            "routes": [{"prefix": "10.1.0.0/16", "gateway": "10.0.0.1"}],
        },
    ],
    "remotes": [FAR],
    "gateways": [{**OUT, "publish": [PORT], "name": "svc/out"}],
}


def test_a_specification_is_read_and_written(tmp_path: Path) -> None:
    spec = mz.HostSpec.from_dict(WHOLE)
    assert mz.HostSpec.from_dict(spec.to_dict()) == spec
    (tmp_path / "host.json").write_text(json.dumps(spec.to_dict()))
    assert mz.HostSpec.load(tmp_path / "host.json") == spec
    assert spec.endpoints is not None and spec.remotes is not None
    assert spec.given["web"] == {"name", "vni", "ip", "labels", "forwarding", "mtu"}
    assert spec.endpoints[1].routes == (Route("10.1.0.0/16", "10.0.0.1"),)
    assert "<table>" in spec._repr_html_()
    assert mz.HostSpec.from_dict({}) == mz.HostSpec() != mz.HostSpec.from_dict({"endpoints": []})
    assert mz.HostSpec.from_dict({"endpoints": []}).to_dict() == {"endpoints": []}
    in_code = mz.HostSpec(endpoints=(mz.EndpointSpec(vni=7, ip="10.0.0.1/24", mtu=1300),))
    assert in_code.given == {"7/10.0.0.1": {"name", "vni", "ip", "mtu"}}


def test_what_is_no_file_or_no_text_says_so(tmp_path: Path) -> None:
    with pytest.raises(mz.NotFoundError, match=r"none\.toml"):
        mz.HostSpec.load(tmp_path / "none.toml")
    for name, text, words in (
        ("a.toml", "x = [", "TOML"),
        ("a.json", "{", "JSON"),
        ("b.json", "[]", "table"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(mz.SpecError, match=words):
            mz.HostSpec.load(tmp_path / name)


FLEET = """
networks = [{vni = 7, prefix = "10.0.0.0/24", gateway = "10.0.0.254"}]
[tunnel]
encap = "vxlan"
underlay = "eth0"
[hosts.h1]
tunnel.local = "192.0.2.1"
endpoints = [{name = "web", vni = 7, ip = "10.0.0.1/24"}]
[hosts.h2]
tunnel = {local = "192.0.2.2", underlay = "eth1"}
endpoints = [{name = "app", vni = 7, ip = ["10.0.0.2/24", "fd00::2/64"]}]
[hosts.h3]
tunnel.local = "192.0.2.3"
"""


def test_a_fleet_has_each_hosts_remotes_and_peers(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    fleet = mz.HostSpec.fleet(tmp_path / "fleet.toml")
    assert [*fleet] == ["h1", "h2", "h3"]
    first, second, third = fleet.values()
    assert (
        first.tunnel and second.tunnel and first.remotes and second.remotes and third.remotes and first.peers
    )
    assert (first.tunnel.underlay, second.tunnel.underlay) == ("eth0", "eth1")
    assert {str(key.ip): str(each.host) for key, each in first.remotes.items()} == {
        "10.0.0.2": "192.0.2.2",
        "fd00::2": "192.0.2.2",
    }
    assert {str(key.ip) for key in second.remotes} == {"10.0.0.1"}
    assert len(third.remotes) == 3
    assert [*map(str, first.peers)] == ["192.0.2.2/32", "192.0.2.3/32"]
    assert first.networks == second.networks


@pytest.mark.parametrize(
    ("old", "new", "path", "words"),
    [
        ("[hosts.h1]\n", "[hosts.h1]\nendpoint = []\n", "hosts.h1.endpoint", "did you mean endpoints?"),
        ('encap = "vxlan"', 'encap = "x"', "tunnel.encap", "unknown"),
        ('underlay = "eth1"', "underlay = 1", "hosts.h2.tunnel.underlay", "must be a str"),
        ('name = "app"', 'name = "web"', "hosts.h2.endpoints[0].name", "hosts.h1.endpoints[0] (web)"),
        ("10.0.0.2/24", "10.0.0.1/24", "hosts.h2.endpoints[0].ip[0]", "hosts.h1.endpoints[0] (web)"),
        ('tunnel.local = "192.0.2.3"', "peers = []", "hosts.h3.tunnel.local", "is missing"),
        ("192.0.2.3", "192.0.2.1", "hosts.h3.tunnel.local", "host h1"),
        ("fd00::2/64", "x", "hosts.h2.endpoints[0].ip[1]", "write it like"),
    ],
)
def test_an_error_of_a_fleet_names_host_and_field(
    tmp_path: Path, old: str, new: str, path: str, words: str
) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET.replace(old, new))
    with pytest.raises(mz.SpecError) as caught:
        mz.HostSpec.fleet(tmp_path / "fleet.toml")
    assert path in caught.value.errors, caught.value.errors
    assert words in caught.value.errors[path]


def test_the_schema_in_the_package_has_the_fields_of_the_classes() -> None:
    schema = json.loads(files("mizarnet").joinpath("host.schema.json").read_text())
    assert schema["properties"].keys() == hostspec.SECTIONS.keys()
    classes: dict[str, tuple[type[Any], set[str]]] = {
        "tunnel": (hostspec.TunnelPart, set()),
        "agent": (hostspec.AgentPart, set()),
        "switch": (hostspec.SwitchPart, set()),
        "network": (Network, {"vni", "prefix"}),
        "endpoint": (EndpointSpec, set()),
        "route": (Route, set()),
        "remote": (Remote, {"vni", "ip"}),
        "gateway": (GatewaySpec, set()),
        "publish": (mz.Publish, set()),
    }
    assert schema["$defs"].keys() == classes.keys()
    for name, (cls, keys) in classes.items():
        fields = attrs.fields(cls)
        needed = {each.name for each in fields if each.default is attrs.NOTHING} | keys
        part = schema["$defs"][name]
        assert part["properties"].keys() == {each.name for each in fields} | keys, name
        assert set(part.get("required", ())) == needed, name
        assert part["additionalProperties"] is False


# A whole item of each kind, and where it stands in a specification.
_ENDPOINT = {"vni": 1, "ip": "10.0.0.1/24", "netns": "web"}
_GATEWAY = {"vni": 1, "egress": "eth0", "ip": "10.0.0.1/24"}
PARTS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "tunnel": ({"encap": "vxlan", "underlay": "eth0"}, lambda item: {"tunnel": item}),
    "agent": ({}, lambda item: {"agent": item}),
    "switch": ({}, lambda item: {"switch": item}),
    "network": ({"vni": 1, "prefix": "10.0.0.0/8"}, lambda item: {"networks": [item]}),
    "endpoint": (_ENDPOINT, lambda item: {"endpoints": [item]}),
    "route": ({"prefix": "10.1.0.0/16"}, lambda item: {"endpoints": [{**_ENDPOINT, "routes": [item]}]}),
    "remote": ({"vni": 1, "ip": "10.0.0.1", "host": "192.0.2.1"}, lambda item: {"remotes": [item]}),
    "gateway": (_GATEWAY, lambda item: {"gateways": [item]}),
    "publish": (
        {"protocol": "tcp", "port": 1, "ip": "10.0.0.2", "to_port": 1},
        lambda item: {"gateways": [{**_GATEWAY, "publish": [item]}]},
    ),
}


def test_the_schema_takes_null_where_a_specification_does() -> None:
    schema = json.loads(files("mizarnet").joinpath("host.schema.json").read_text())
    assert PARTS.keys() == schema["$defs"].keys()
    for name, (whole, place) in PARTS.items():
        mz.HostSpec.from_dict(place(whole))
        for field, kind in schema["$defs"][name]["properties"].items():
            assert _takes(place({**whole, field: None})) == _has_null(kind), f"{name}.{field}"
    for name, section in schema["properties"].items():
        assert _takes({name: None}) == _has_null(section), name


def _takes(data: dict[str, Any]) -> bool:
    try:
        mz.HostSpec.from_dict(data)
    except mz.SpecError:
        return False
    return True


def _has_null(schema: dict[str, Any]) -> bool:
    kinds = schema.get("type", [])
    return (
        "null" in ([kinds] if isinstance(kinds, str) else kinds)
        or None in schema.get("enum", ())
        or any(map(_has_null, schema.get("anyOf", ())))
    )
