# SPDX-License-Identifier: Apache-2.0
"""A way out of a VNI that was made by hand: whether its host keeps it from the ports of tunnels."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

from mizarnet._datapath.endpoints import LocalEndpoints
from mizarnet._datapath.gateways import networks, ruleset
from mizarnet._datapath.host import Host
from mizarnet._kernel import nftables
from mizarnet._kernel.nftables import Item
from mizarnet._model import codec
from mizarnet._model.arguments import IPAddress
from mizarnet._model.finding import Finding, FindingKind, Subject
from mizarnet.errors import MizarnetError

_TRANSLATIONS = ("masquerade", "snat")


def by_hand_findings(endpoints: LocalEndpoints) -> Iterator[Finding]:
    """Findings for routers of this host that lead VNIs out, where the host translates and lets them reach tunnels.

    Only what others than gateways wrote is looked at, and rules only on a host that has such a router.
    """
    hops = [*_own_ways_out(endpoints)]
    if not hops or not _is_open(endpoints):
        return
    for vni, via in hops:
        prefix = "::/0" if isinstance(via, IPv6Address) else "0.0.0.0/0"
        yield Finding(
            FindingKind.WAY_OUT_OPEN,
            Subject("network", f"{vni}/{prefix}"),
            "a rule that drops UDP to the ports of tunnels",
            None,
            f"{via} leads out by this host, which translates addresses, and no rule keeps what it sends from UDP port "
            f"{endpoints.maps.read_meta().port}: that would be a frame of any VNI",
            "drop it before any translation, in both IP versions, to every address; or use Gateway.create()",
            tunnel=endpoints.datapath.name,
            instance=endpoints.datapath.meta_id,
        )


def _own_ways_out(endpoints: LocalEndpoints) -> Iterator[tuple[int, IPAddress]]:
    for key, value in endpoints.maps.networks.items():
        vni, prefix = codec.unpack_network_key(key)
        via = codec.unpack_network(value).via
        if via is None or prefix.prefixlen or codec.network_feed(value) == networks.FEED.number:
            continue
        if endpoints.at(vni, via) is not None:
            yield vni, via


def _is_open(endpoints: LocalEndpoints) -> bool:
    listed = _rules(endpoints.host)
    translates = any(any(word in _text(rule) for word in _TRANSLATIONS) for rule in listed)
    return translates and not any(_guards(rule, endpoints.maps.read_meta().port) for rule in listed)


def _rules(host: Host) -> list[Item]:
    """The rules of others on a host; none where nftables, or its command, is missing."""
    try:
        listed = nftables.read(host, "ruleset") or []
    except MizarnetError:
        return []
    rules = [each["rule"] for each in listed if "rule" in each]
    return [rule for rule in rules if (rule["family"], rule["table"]) != (ruleset.FAMILY, ruleset.TABLE)]


def _guards(rule: Item, port: int) -> bool:
    """Whether a rule drops something by a tunnel's port; whatever else it asks for is its maker's to know."""
    text = _text(rule)
    return "dport" in text and str(port) in text and ("drop" in text or "reject" in text)


def _text(rule: Item) -> str:
    return str(rule.get("expr", "")).lower()
