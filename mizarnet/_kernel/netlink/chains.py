# SPDX-License-Identifier: Apache-2.0
"""Rules of nftables in a network namespace, read over netlink: base chains, chains that they jump to, expressions."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Mapping

import attrs

from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.rtnetlink import HEADER_BYTES, Flag, Rtnl, attributes
from mizarnet.errors import NetlinkError

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GET_TABLE, _GET_CHAIN, _GET_RULE = _SUBSYSTEM | 1, _SUBSYSTEM | 4, _SUBSYSTEM | 7
_NFGENMSG = struct.Struct("=BBH")
"""``struct nfgenmsg``: family, version and a number that is zero here."""
_LENGTH = struct.Struct("=H")
_TABLE_NAME, _TABLE_FLAGS, _DORMANT = 1, 2, 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_NETFILTER_ACCEPT = 1
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_ABSENT = {errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT}
"""What the kernel says that has no nftables."""
HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
"""Names of the hooks, by number."""


@attrs.frozen
class Expression:
    """One part of a rule.

    Attributes:
        name: Name of its kind, such as ``"cmp"``.
        members: Its attributes, packed, by their numbers.
    """

    name: str
    members: Mapping[int, bytes]


@attrs.frozen
class Chain:
    """A chain with its rules.

    Attributes:
        family: Family of its table: ``"ip"``, ``"ip6"`` or ``"inet"``.
        table: Name of its table.
        name: Name of the chain.
        hook: Name of the hook that it stands on; empty: other chains jump to it.
        priority: Place among the chains of the hook, the lowest first.
        accepts: Whether it lets through what no rule decides.
        rules: The rules, each with its expressions.
    """

    family: str
    table: str
    name: str
    hook: str
    priority: int
    accepts: bool
    rules: tuple[tuple[Expression, ...], ...]


def list_chains(session: Session) -> list[Chain]:
    """The chains of a namespace that see packets of IP; none where the kernel has no nftables.

    Those of a table that is dormant see none: the kernel takes them off their hooks.

    Raises:
        PrivilegeError: ``CAP_NET_ADMIN`` over the namespace is missing.
        NetlinkError: The kernel refused.
    """
    return session.run(_list_chains)


def _list_chains() -> list[Chain]:
    try:
        with Rtnl(_NETLINK_NETFILTER) as netfilter:
            body = _NFGENMSG.pack(0, 0, 0)
            chains = netfilter.request("list the chains of nftables", _GET_CHAIN, body, Flag.DUMP)
            if not chains:
                return []
            rules = netfilter.request("list the rules of nftables", _GET_RULE, body, Flag.DUMP)
            tables = netfilter.request("list the tables of nftables", _GET_TABLE, body, Flag.DUMP)
    except NetlinkError as refused:
        if refused.errno in _ABSENT:
            return []
        raise
    dormant = {table for table, flags in map(_table, tables) if flags & _DORMANT}
    awake = [each for each in chains if (each[HEADER_BYTES], _attributes(each)[_CHAIN_TABLE]) not in dormant]
    by_chain: dict[tuple[int, bytes, bytes], list[tuple[Expression, ...]]] = {}
    for message in rules:
        found = _attributes(message)
        key = message[HEADER_BYTES], found[_RULE_TABLE], found[_RULE_CHAIN]
        by_chain.setdefault(key, []).append(tuple(_expressions(found.get(_RULE_EXPRESSIONS, b""))))
    return [_chain(each, by_chain) for each in awake if each[HEADER_BYTES] in _FAMILIES]


def _table(message: bytes) -> tuple[tuple[int, bytes], int]:
    """Family and name of a table, and its flags."""
    found = _attributes(message)
    return (message[HEADER_BYTES], found[_TABLE_NAME]), int.from_bytes(found[_TABLE_FLAGS], "big")


def _chain(message: bytes, rules: Mapping[tuple[int, bytes, bytes], list[tuple[Expression, ...]]]) -> Chain:
    family, found = message[HEADER_BYTES], _attributes(message)
    hook = attributes(found.get(_CHAIN_HOOK, b""))
    number = int.from_bytes(hook.get(_HOOK_NUMBER, b""), "big") if hook else None
    return Chain(
        family=_FAMILIES[family],
        table=_text(found[_CHAIN_TABLE]),
        name=_text(found[_CHAIN_NAME]),
        hook="" if number is None or number >= len(HOOKS) else HOOKS[number],
        priority=int.from_bytes(hook.get(_HOOK_PRIORITY, b""), "big", signed=True),
        accepts=int.from_bytes(found.get(_CHAIN_POLICY, b"\1"), "big") == _NETFILTER_ACCEPT,
        rules=tuple(rules.get((family, found[_CHAIN_TABLE], found[_CHAIN_NAME]), ())),
    )


def _attributes(message: bytes) -> dict[int, bytes]:
    return attributes(message, at=HEADER_BYTES + _NFGENMSG.size)


def _expressions(packed: bytes) -> Iterator[Expression]:
    """The elements of a list, which all have the same number."""
    at = 0
    while at + 4 <= len(packed):
        (length,) = _LENGTH.unpack_from(packed, at)
        found = attributes(packed[at + 4 : at + length])
        yield Expression(_text(found[_EXPRESSION_NAME]), attributes(found.get(_EXPRESSION_DATA, b"")))
        at += length + 3 & ~3


def _text(packed: bytes) -> str:
    return packed.rstrip(b"\0").decode(errors="replace")
