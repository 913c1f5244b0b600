# SPDX-License-Identifier: Apache-2.0
"""What nftables would do with a packet in a namespace, as far as its rules can be judged without sending anything.

Of what else may drop it there, IPsec and iptables, it is only said that it is there.
"""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from mizarnet._datapath.walk.trail import Trail
from mizarnet._kernel.netlink import Chain, Expression, Session, count_policies, dump_links, list_chains
from mizarnet._kernel.refusals import explained
from mizarnet._kernel.rtnetlink import attributes
from mizarnet.errors import KernelError, PrivilegeError

# <linux/netfilter/nf_tables.h>
_META_PROTOCOL, _META_IIF, _META_OIF, _META_IIFNAME, _META_OIFNAME = 1, 4, 5, 6, 7
_META_NFPROTO, _META_L4PROTO = 15, 16
_NETWORK, _TRANSPORT = 1, 2
_CT_STATE = 0
_DATA_VALUE, _DATA_VERDICT = 1, 2
_WITHOUT_EFFECT = {"counter", "log"}
_DROP, _ACCEPT, _CONTINUE, _BREAK, _JUMP, _GOTO, _RETURN = 0, 1, -1, -2, -3, -4, -5
_COMPARE: Mapping[int, Callable[[bytes, bytes], bool]] = {
    0: bytes.__eq__,
    1: bytes.__ne__,
    2: bytes.__lt__,
    3: bytes.__le__,
    4: bytes.__gt__,
    5: bytes.__ge__,
}
_NAME_BYTES = 16
_DEEPEST = 16  # NFT_JUMP_STACK_SIZE
NEW, ESTABLISHED = 8, 2
"""State of the packet's connection: it is the first of its flow, or an answer."""
_INVALID, _UNTRACKED = 1, 64
_TRACKING_HOOKS, _TRACKING_PRIORITY = ("prerouting", "output"), -200
"""Where connection tracking stands: chains in front of it see a packet without a state."""
_UNTRACKING = {"notrack", "target"}
"""Parts that keep a packet from connection tracking, or may: a target of iptables can be CT."""
_LEGACY = ("ip_tables_names", "ip6_tables_names")


@attrs.frozen
class Packet:
    """A packet of IP, as a namespace's firewall sees it.

    Attributes:
        data: The packet, from its IP header on.
        into: Name of the device that it came in by; empty: it is the namespace's own.
        out: Name of the device that it leaves by; empty: it stays.
        state: State of its connection.
        unknown: Where bytes of what it carries are not known.
    """

    data: bytes
    into: str = ""
    out: str = ""
    state: int = NEW
    unknown: range = range(0)

    @property
    def version(self) -> int:
        """Version of IP."""
        return self.data[0] >> 4

    @property
    def protocol(self) -> int:
        """Number of what it carries."""
        return self.data[9] if self.version == 4 else self.data[6]

    @property
    def payload(self) -> bytes:
        """What it carries."""
        return self.data[(self.data[0] & 0xF) * 4 :] if self.version == 4 else self.data[40:]


def pass_through(
    trail: Trail, session: Session | None, packet: Packet, hooks: Sequence[str], where: str
) -> None:
    """Note what the firewall of a namespace does with a packet; nothing where there is none.

    Args:
        trail: Way of the packet.
        session: The namespace; None: it cannot be entered, which another step says.
        packet: The packet.
        hooks: Names of the hooks that it passes, in their order.
        where: The namespace, in words.
    """
    if session is None:
        return
    try:
        chains = list_chains(session)
        legacy, policies = session.run(_legacy_tables), _policies(session, hooks)
    except (KernelError, PrivilegeError) as refused:
        trail.unknown("firewall", f"the rules of {where} cannot be read: {refused.message}")
        return
    judge = _Judge(packet, chains, {link.name: link.ifindex for link in dump_links(session)})
    for chain in judge.base_chains(hooks):
        accepts = judge.accepts(chain)
        text = f"chain {chain.name} of table {chain.family} {chain.table} ({chain.hook}) in {where} drops it"
        remedy = f"nft list chain {chain.family} {chain.table} {chain.name}, there"
        if accepts is None:
            trail.unknown("firewall", f"{text}, unless a rule that is unsure lets it through", remedy=remedy)
        elif not accepts:
            trail.end("firewall", text, remedy=remedy)
    if judge.unsure:
        listed = "; ".join(dict.fromkeys(judge.unsure))
        trail.unknown(
            "firewall", f"{where} has rules that may drop it, and cannot be judged from here: {listed}"
        )
    elif judge.seen:
        trail.note("firewall", f"{judge.seen} chains of nftables in {where} let it through")
    if legacy:
        text = f"{where} has rules of iptables ({', '.join(legacy)}), which cannot be read by netlink"
        trail.unknown("firewall", text, remedy="iptables-legacy-save, there")
    if policies:
        text = f"{where} has IPsec policies ({', '.join(policies)}): what they do with it is not looked at"
        trail.unknown("ipsec", text, remedy="ip xfrm policy, there")


def _policies(session: Session, hooks: Sequence[str]) -> list[str]:
    """The directions of IPsec policies that a packet may meet on its way past some hooks."""
    found = count_policies(session)
    numbers = {
        "input": ("in", found.incoming),
        "forward": ("fwd", found.forwarded),
        "postrouting": ("out", found.outgoing),
    }
    return [numbers[hook][0] for hook in hooks if hook in numbers and numbers[hook][1]]


def _legacy_tables() -> list[str]:
    """Names of the tables of iptables that were used in the namespace, without nftables."""
    found: list[str] = []
    for name in _LEGACY:
        path = Path("/proc/thread-self/net") / name
        with explained(f"read {path}"):
            found += path.read_text().split() if path.exists() else []
    return sorted(set(found))


class _Unsure(Exception):
    """A part of a rule whose outcome hangs on what is not known here."""


class _Way(enum.Enum):
    """What became of the packet in a rule or a chain."""

    ACCEPT = "accept"
    DROP = "drop"
    ON = "on"
    RETURN = "return"


_ENDS = {"reject": _Way.DROP, "masq": _Way.ACCEPT}
"""Parts that end a rule as a verdict does."""


class _Judge:
    """Rules applied to one packet.

    Attributes:
        seen: How many base chains it passed.
        unsure: What could not be judged, in words. Such a rule is taken not to match.
        may_save: Whether one of these in the chain that is being passed may keep the packet from a drop behind it.
        untracked: Whether connection tracking leaves the packet alone; None: that cannot be known.
    """

    def __init__(self, packet: Packet, chains: Sequence[Chain], indexes: Mapping[str, int]) -> None:
        own = {"inet", "ip" if packet.version == 4 else "ip6"}
        self._packet = packet
        self._indexes = indexes
        self._chains = [each for each in chains if each.family in own]
        self.seen = 0
        self.unsure: list[str] = []
        self.may_save = False
        self.untracked: bool | None = False
        self._is_early = False  # of the chain that is being passed
        if packet.state == ESTABLISHED and self._may_untrack_questions():
            self.untracked = None  # an answer to what was not tracked belongs to no connection

    def _may_untrack_questions(self) -> bool:
        coming = [each for each in self._chains if each.hook == "prerouting" and _is_early(each)]
        return any(_may_untrack(rule) for chain in coming for rule in chain.rules)

    def base_chains(self, hooks: Sequence[str]) -> Iterator[Chain]:
        """The chains on some hooks, in the order in which the packet meets them."""
        for hook in hooks:
            there = [each for each in self._chains if each.hook == hook]
            yield from sorted(there, key=lambda each: each.priority)

    def accepts(self, chain: Chain) -> bool | None:
        """Whether a base chain lets the packet through; None: it does not unless a rule that is unsure does."""
        self.seen += 1
        self.may_save = False  # to be accepted by one base chain is no help in another
        self._is_early = _is_early(chain)
        way = self._through(chain, 0)
        accepts = chain.accepts if way in (_Way.ON, _Way.RETURN) else way is _Way.ACCEPT
        return None if self.may_save and not accepts else accepts

    def _through(self, chain: Chain, depth: int) -> _Way:
        for rule in chain.rules:
            try:
                way = self._apply(rule, chain, depth)
            except _Unsure as unsure:
                self.unsure.append(f"{chain.family} {chain.table} {chain.name} ({unsure})")
                self.may_save |= not _drops(rule)
                if self._is_early and not self.untracked and _may_untrack(rule):
                    self.untracked = None
                continue
            if way is not _Way.ON:
                return way
        return _Way.ON

    def _apply(self, rule: Sequence[Expression], chain: Chain, depth: int) -> _Way:
        registers: dict[int, bytes] = {}
        for each in rule:
            if each.name in _ENDS:
                return _ENDS[each.name]
            if each.name == "immediate" and not _number(each, 1):
                return self._verdict(attributes(attributes(each.members[2])[_DATA_VERDICT]), chain, depth)
            if each.name == "notrack":
                if self._is_early:  # one that is tracked already stays so
                    self.untracked = True
            elif each.name not in _WITHOUT_EFFECT and not self._matches(each, registers):
                return _Way.ON
        return _Way.ON

    def _verdict(self, members: Mapping[int, bytes], chain: Chain, depth: int) -> _Way:
        code = int.from_bytes(members[1], "big", signed=True)
        if code in (_DROP, _ACCEPT):
            return _Way.ACCEPT if code == _ACCEPT else _Way.DROP
        if code not in (_JUMP, _GOTO) or depth >= _DEEPEST:
            if code not in (_CONTINUE, _BREAK, _RETURN):
                raise _Unsure("queue")
            return _Way.RETURN if code == _RETURN else _Way.ON
        name = members[2].rstrip(b"\0").decode(errors="replace")
        target = next(
            each
            for each in self._chains
            if (each.family, each.table, each.name) == (chain.family, chain.table, name)
        )
        way = self._through(target, depth + 1)
        if code == _GOTO and way in (_Way.ON, _Way.RETURN):
            return _Way.RETURN
        return _Way.ON if way is _Way.RETURN else way

    def _matches(self, each: Expression, registers: dict[int, bytes]) -> bool:
        """Whether the rule goes on behind a part of it, which may read or write registers."""
        members = each.members
        if each.name == "cmp":
            wanted = attributes(members[3])[_DATA_VALUE]
            found = registers[_register(each, 1)]
            return _COMPARE[_number(each, 2)](found[: len(wanted)].ljust(len(wanted), b"\0"), wanted)
        if each.name == "bitwise" and not _number(each, 6):
            mask, flip = (attributes(members[at])[_DATA_VALUE] for at in (4, 5))
            found = registers[_register(each, 1)].ljust(len(mask), b"\0")
            parts = zip(found, mask, flip, strict=False)
            registers[_register(each, 2)] = bytes((value & keep) ^ turn for value, keep, turn in parts)
            return True
        value = self._value(each)
        if value is not None:
            registers[_register(each, 1)] = value
        return value is not None

    def _value(self, each: Expression) -> bytes | None:
        """What a part of a rule loads; None: the packet does not have it."""
        packet = self._packet
        if each.name == "payload" and 1 in each.members:
            base, at, length = (_number(each, number) for number in (2, 3, 4))
            data = {_NETWORK: packet.data, _TRANSPORT: packet.payload}.get(base)
            if data is None:
                raise _Unsure("link layer")
            if base == _TRANSPORT and at < packet.unknown.stop and packet.unknown.start < at + length:
                raise _Unsure("port that is not known")
            return data[at : at + length] if at + length <= len(data) else None
        if each.name == "ct" and 1 in each.members and _number(each, 2) == _CT_STATE:
            return self._state().to_bytes(4, sys.byteorder)
        if each.name == "meta" and 1 in each.members:
            known = self._meta().get(_number(each, 2))
            if known is not None:
                return known
        raise _Unsure(each.name)

    def _state(self) -> int:
        """State of the packet's connection in the chain that is being passed."""
        if self.untracked is None:
            raise _Unsure("state that is not known")
        if self.untracked:
            return _UNTRACKED
        return _INVALID if self._is_early else self._packet.state

    def _meta(self) -> Mapping[int, bytes]:
        packet = self._packet
        return {
            _META_PROTOCOL: b"\x08\x00" if packet.version == 4 else b"\x86\xdd",
            _META_IIF: self._indexes.get(packet.into, 0).to_bytes(4, sys.byteorder),
            _META_OIF: self._indexes.get(packet.out, 0).to_bytes(4, sys.byteorder),
            _META_IIFNAME: os.fsencode(packet.into).ljust(_NAME_BYTES, b"\0"),
            _META_OIFNAME: os.fsencode(packet.out).ljust(_NAME_BYTES, b"\0"),
            _META_NFPROTO: b"\2" if packet.version == 4 else b"\x0a",
            _META_L4PROTO: bytes([packet.protocol]),
        }


def _drops(rule: Sequence[Expression]) -> bool:
    """Whether all that a rule can do with a packet is to drop it."""
    return _code(rule) == _DROP or _ENDS.get(rule[-1].name) is _Way.DROP


def _may_untrack(rule: Sequence[Expression]) -> bool:
    """Whether a rule may keep a packet from connection tracking, by itself or by the chain that it jumps to."""
    return _code(rule) in (_JUMP, _GOTO) or any(each.name in _UNTRACKING for each in rule)


def _code(rule: Sequence[Expression]) -> int | None:
    """The verdict that ends a rule; None: it ends with another part, or has none."""
    if not rule or rule[-1].name != "immediate" or _number(rule[-1], 1):
        return None
    code = attributes(attributes(rule[-1].members[2])[_DATA_VERDICT])[1]
    return int.from_bytes(code, "big", signed=True)


def _is_early(chain: Chain) -> bool:
    """Whether a base chain stands in front of connection tracking."""
    return chain.hook in _TRACKING_HOOKS and chain.priority < _TRACKING_PRIORITY


def _number(each: Expression, member: int) -> int:
    return int.from_bytes(each.members.get(member, b""), "big")


def _register(each: Expression, member: int) -> int:
    """Offset of a register: there are four of 16 bytes, and the same sixteen as of 4 bytes."""
    number = _number(each, member)
    return (number - 1) * 16 if number <= 4 else (number - 8) * 4
