# SPDX-License-Identifier: Apache-2.0
"""What a gateway lacks, what is left of one, and what other software does to what gateways forward."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from mizarnet._datapath import age, forwarding, gateway_notes
from mizarnet._datapath.endpoints import configuration
from mizarnet._datapath.gateway_notes import Noted
from mizarnet._datapath.gateways import Gateways, fitness, networks, routes, rules, ruleset
from mizarnet._datapath.gateways.ruleset import INSIDE, OUTSIDE
from mizarnet._datapath.host import Host
from mizarnet._kernel import nftables
from mizarnet._kernel.netlink import DEFAULTS, Link, Session, get_link, list_addresses, list_routes
from mizarnet._kernel.nftables import Item
from mizarnet._model import codec
from mizarnet._model.arguments import IPNetwork
from mizarnet._model.codec import Record
from mizarnet._model.enumerations import State
from mizarnet._model.finding import Cure, Finding, FindingKind, Subject
from mizarnet._model.specs import Life
from mizarnet.errors import NetnsNotFoundError, UnsupportedError

_STATES = {State.MAKING: FindingKind.UNFINISHED, State.DELETING: FindingKind.ENDING}


def gateways_findings(gateways: Gateways) -> Iterator[Finding]:
    """Findings about each gateway of a data path."""
    for noted in gateways.all():
        yield from gateway_findings(gateways, noted)
    for record in gateways.bereft():
        yield _bereft_finding(gateways, record)


def _bereft_finding(gateways: Gateways, record: Record) -> Finding:
    """A finding about what is left of a gateway whose device on the host is gone, or lost its note."""
    subject, device = Subject("gateway", str(record.spec.vni)), "a device of the host"
    text = "its device on the host was deleted, or the note there overwritten"
    remedy = "Gateway.create() makes it anew"
    tunnel, instance = gateways.datapath.name, record.instance
    return Finding(FindingKind.GATEWAY_LEFT, subject, device, None, text, remedy, tunnel, instance)


def gateway_findings(gateways: Gateways, noted: Noted) -> Iterator[Finding]:
    """Findings about one gateway, but for what the host has for all of them."""
    state, tunnel = noted.note.state, gateways.datapath.name
    if state is not State.LIVE:
        if not age.is_young(state, noted.note.changed):
            text = f"it is being {'made' if state is State.MAKING else 'deleted'}, or the process that did it died"
            yield _finding(
                noted, _STATES[state], State.LIVE.name, state.name, text, tunnel=tunnel, cure=Cure.COLLECT
            )
        return
    record = gateways.record(noted)
    if record is None or gateways.life(noted) is not Life.LIVE:
        text = "its endpoint is gone, or the device of that"
        yield _finding(noted, FindingKind.GATEWAY_LEFT, "an endpoint", None, text, tunnel=tunnel)
        return
    yield from _of_egress(gateways.host, noted, record, tunnel)
    prefixes = fitness.prefixes(record.spec.ip, networks.of_vni(gateways.maps, noted.note.vni))
    yield from _of_pair(gateways.host, noted, record, tunnel)
    yield from _of_host_routes(gateways.host, noted, prefixes, tunnel)
    yield from _of_namespace(gateways.host, noted, record, prefixes, tunnel)
    yield from _of_entries(gateways, noted, record)


def left_gateways(host: Host) -> Iterator[Finding]:
    """Findings for gateways whose tunnels are gone, and for devices whose makers died before they wrote a note."""
    for link in gateway_notes.unnoted(host):
        subject, text = Subject("gateway", link.name), "it was to become a gateway, and its maker died"
        yield Finding(FindingKind.GATEWAY_LEFT, subject, "a note", None, text, instance=link.ifindex)
    for noted in gateway_notes.read_all(host):
        tunnel = get_link(host, ifindex=noted.note.tunnel)
        if tunnel is None or not tunnel.external:
            yield _finding(noted, FindingKind.GATEWAY_LEFT, "a tunnel", None, "its tunnel is gone")


def rules_findings(host: Host) -> Iterator[Finding]:
    """Findings about what the host has for all gateways; none without gateways."""
    if not any(each.note.state is State.LIVE for each in gateway_notes.read_all(host)):
        return
    subject = Subject("rules", f"{ruleset.FAMILY} {ruleset.TABLE}")
    try:
        if rules.host_differs(host):
            text = "the host's rules for gateways are not what these need"
            yield Finding(FindingKind.RULES_DIFFER, subject, "as the notes say", "other rules", text)
        yield from _foreign_chains(host)
    except UnsupportedError as missing:
        remedy = missing.hint or ""
        yield Finding(
            FindingKind.RULES_DIFFER, subject, "rules", None, missing.message, remedy, cure=Cure.NONE
        )


def _finding(
    noted: Noted,
    kind: FindingKind,
    wanted: object,
    found: object,
    text: str,
    remedy: str = "",
    *,
    tunnel: str = "",
    cure: Cure | None = None,
) -> Finding:
    subject, instance = Subject("gateway", str(noted.note.vni)), noted.link.ifindex
    return Finding(kind, subject, wanted, found, text, remedy, tunnel, instance, cure=cure)


def _versions(record: Record) -> list[int]:
    return sorted({each.version for each in record.spec.ip})


def _of_egress(host: Host, noted: Noted, record: Record, tunnel: str) -> Iterator[Finding]:
    egress = get_link(host, ifindex=noted.note.egress)
    if egress is None:
        text, remedy = "the device that it leads to is gone", "delete it, and create it with another egress="
        yield _finding(noted, FindingKind.UNDERLAY_GONE, "a device", None, text, remedy, tunnel=tunnel)
        return
    if not egress.up:
        text, remedy = f"{egress.name}, which it leads to, is down", f"ip link set {egress.name} up"
        yield _finding(noted, FindingKind.UNDERLAY_DOWN, "up", "down", text, remedy, tunnel=tunnel)
    yield from _of_forwarding(host, noted, egress, record, tunnel)


def _of_forwarding(host: Host, noted: Noted, egress: Link, record: Record, tunnel: str) -> Iterator[Finding]:
    for version in _versions(record):
        for device in (egress.name, noted.link.name):
            if not _forwards(host, device, version):
                text = f"{device} does not forward IPv{version}"
                yield _finding(noted, FindingKind.FORWARDING_OFF, device, version, text, tunnel=tunnel)


def _forwards(host: Host, device: str, version: int) -> bool:
    try:
        return not forwarding.needed_by_router(host, device, version)
    except UnsupportedError:
        return False  # nor does the whole host


def _of_pair(host: Host, noted: Noted, record: Record, tunnel: str) -> Iterator[Finding]:
    if not noted.link.up:
        text = f"{noted.link.name} is down"
        yield _finding(noted, FindingKind.DEVICE_DOWN, "up", "down", text, tunnel=tunnel)
        return
    there = {each.interface for each in list_addresses(host, ifindex=noted.link.ifindex)}
    for version in _versions(record):
        address = noted.note.address(version, inside=False)
        if address not in there:
            text = f"{noted.link.name} lacks {address}"
            yield _finding(noted, FindingKind.ADDRESS_LOST, str(address), None, text, tunnel=tunnel)


def _of_host_routes(
    host: Host, noted: Noted, prefixes: Sequence[IPNetwork], tunnel: str
) -> Iterator[Finding]:
    if noted.note.nat or not noted.link.up:
        return
    for prefix, other in routes.lacking_outside(host, noted.note, noted.link.ifindex, prefixes).items():
        text, cure = f"the host has no route to {prefix} by it", Cure.REPAIR
        if other is not None:
            text, cure = f"{text}, and one to {other} elsewhere: no answer gets back to {prefix}", Cure.NONE
        yield _finding(noted, FindingKind.ROUTE_LOST, prefix, other, text, tunnel=tunnel, cure=cure)


def _of_namespace(
    host: Host, noted: Noted, record: Record, prefixes: Sequence[IPNetwork], tunnel: str
) -> Iterator[Finding]:
    try:
        inside = configuration.inside(record, host)
    except NetnsNotFoundError as gone:
        # Its endpoint's device is in it, so it lives: the name is under another process's /run, or somebody removed it.
        text = f"its namespace is not to be seen from here: {gone.message}"
        remedy = (
            "use a process with the /run that has it; if none has, delete the gateway, and create it again"
        )
        yield _finding(
            noted,
            FindingKind.NAMESPACE_GONE,
            record.spec.netns,
            None,
            text,
            remedy,
            tunnel=tunnel,
            cure=Cure.NONE,
        )
        return
    with inside, suppress(UnsupportedError):  # which is told once, for the host's rules
        yield from _of_inner_end(inside, noted, record, tunnel)
        yield from _of_inner_forwarding(inside, noted, record, tunnel)
        for prefix in routes.lacking_inside(inside, prefixes):
            text = f"its namespace has no route to {prefix}"
            yield _finding(noted, FindingKind.ROUTE_LOST, prefix, None, text, tunnel=tunnel)
        publish = rules.published(inside)
        if publish is None or rules.differ_inside(host, inside, noted.note, publish):
            text = "the rules in its namespace are not what it needs"
            yield _finding(
                noted, FindingKind.RULES_DIFFER, "as the note says", "other rules", text, tunnel=tunnel
            )


def _of_inner_end(inside: Session, noted: Noted, record: Record, tunnel: str) -> Iterator[Finding]:
    end = get_link(inside, OUTSIDE)
    if end is None:
        text, remedy = f"its namespace has no {OUTSIDE}", "delete the gateway, and create it again"
        yield _finding(
            noted, FindingKind.DEVICE_GONE, OUTSIDE, None, text, remedy, tunnel=tunnel, cure=Cure.NONE
        )
        return
    if not end.up:
        text = f"{OUTSIDE} in its namespace is down"
        yield _finding(noted, FindingKind.DEVICE_DOWN, f"{OUTSIDE} up", "down", text, tunnel=tunnel)
        return
    there = {each.interface for each in list_addresses(inside, ifindex=end.ifindex)}
    found = list_routes(inside, ifindex=end.ifindex)
    ways = {each.gateway for each in found if not each.prefix_length}
    for version in _versions(record):
        address = noted.note.address(version, inside=True)
        if address not in there:
            text = f"{OUTSIDE} in its namespace lacks {address}"
            yield _finding(noted, FindingKind.ADDRESS_LOST, str(address), None, text, tunnel=tunnel)
        if noted.note.address(version, inside=False).ip not in ways:
            text = f"its namespace has no IPv{version} default route to the host"
            yield _finding(noted, FindingKind.ROUTE_LOST, DEFAULTS[version], None, text, tunnel=tunnel)


def _of_inner_forwarding(inside: Session, noted: Noted, record: Record, tunnel: str) -> Iterator[Finding]:
    # IPv4 asks the incoming device, IPv6 the namespace.
    devices = [each for each in (INSIDE, OUTSIDE) if get_link(inside, each) is not None]
    for version in _versions(record):
        for device in devices if version == 4 else ("all",):
            if not forwarding.is_on(inside, device, version):
                text = f"its namespace does not forward IPv{version}"
                text += f" that comes in by {device}" if version == 4 else ""
                wanted = f"{device} in its namespace"
                yield _finding(noted, FindingKind.FORWARDING_OFF, wanted, version, text, tunnel=tunnel)


def _of_entries(gateways: Gateways, noted: Noted, record: Record) -> Iterator[Finding]:
    for key, wanted in networks.leading(noted.note.vni, record.spec.ip):
        packed = codec.pack_network_key(key)
        entry = gateways.maps.networks.lookup(packed)
        if entry is None or codec.unpack_network(entry) != wanted:
            text = "this host's entry that leads to it is gone, or another one"
            yield _finding(
                noted, FindingKind.ENTRY_DIFFERS, packed.hex(), None, text, tunnel=gateways.datapath.name
            )


def _foreign_chains(host: Host) -> Iterator[Finding]:
    """Chains of others that drop whatever no rule of theirs accepts, and have no rule for gateways."""
    listed = nftables.read(host, "ruleset") or []
    for each in listed:
        chain = each.get("chain", {})
        own = (chain.get("family"), chain.get("table")) == (ruleset.FAMILY, ruleset.TABLE)
        if chain.get("hook") != "forward" or chain.get("policy") != "drop" or own:
            continue
        family, table, name = chain["family"], chain["table"], chain["name"]
        if family not in ("inet", "ip", "ip6") or _accepts_gateways(listed, family, table):
            continue
        place = f"{family} {table} {name}"
        yield Finding(
            FindingKind.FORWARD_DROPS,
            Subject("rules", place),
            "a rule that accepts what gateways forward",
            None,
            f"chain {name} of table {family} {table} drops what gateways forward",
            f"nft insert rule {place} iifname '{gateway_notes.PREFIX}*' accept; "
            f"nft insert rule {place} oifname '{gateway_notes.PREFIX}*' accept",
        )


def _accepts_gateways(listed: Iterable[Item], family: str, table: str) -> bool:
    """Whether some rule of a table accepts by the names of gateways' devices."""
    for each in listed:
        rule = each.get("rule", {})
        if (rule.get("family"), rule.get("table")) != (family, table):
            continue
        parts = rule.get("expr", [])
        if any("accept" in part for part in parts) and f"{gateway_notes.PREFIX}" in str(parts):
            return True
    return False
