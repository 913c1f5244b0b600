# SPDX-License-Identifier: Apache-2.0
"""The kernel's state on a host and in the namespaces of its endpoints, as a set of facts."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress

from tests.crash.links import Device, Eye, build_facts, hook_facts
from tests.crash.programs import program
from tests.crash.tables import Dump, Places, Tables, dump, owners_of_private

NAMES = "/run/netns"
FORWARDING = "ipv4/conf/eth0/forwarding"
_TUNNELS = ("vxlan", "geneve")
_OF_GATEWAY = re.compile(r"\b(mz[gq])[0-9a-f]+-")
"""The name of a gateway's device, with the index of a tunnel that is made again and again."""

State = frozenset[str]


class Reader:
    """Reads the state of one host and of the namespaces of its endpoints."""

    def __init__(self, host: str, spaces: dict[str, str], *, rules: bool = False) -> None:
        """Look at a host's namespace, and at others by label and name; at rules of nftables, too, if asked to."""
        self._rules = rules
        self._host = Eye("host", f"{NAMES}/{host}")
        self._labels = {name: label for label, name in spaces.items()}
        self._eyes = [self._host, *(Eye(label, f"{NAMES}/{name}") for label, name in spaces.items())]

    @property
    def cookie(self) -> int:
        """Cookie of the host's namespace."""
        return self._host.cookie

    def close(self) -> None:
        """End looking."""
        for each in self._eyes:
            each.close()

    def read(self) -> State:
        """Everything that there is."""
        with ExitStack() as undo:
            seen = {eye: eye.devices() for eye in self._eyes}
            tunnels = [each for each in seen[self._host] if each.kind in _TUNNELS]
            dumps = {each.name: _dump_of(each) for each in tunnels}
            owners = {
                name: owner for each in dumps.values() for name, owner in owners_of_private(each).items()
            }
            for eye in self._private(owners):
                undo.callback(eye.close)
                seen[eye] = eye.devices()
            facts = (_OF_GATEWAY.sub(r"\1-", fact) for fact in self._facts(seen, dumps))
            return frozenset(_numbered(facts))

    def _facts(self, seen: dict[Eye, list[Device]], dumps: dict[str, Dump]) -> Iterator[str]:
        yield f"host forwarding {self._host.setting(FORWARDING)}"
        for eye, devices in seen.items():
            yield from (f"{eye.label} {fact}" for fact in eye.facts(devices))
            for device in devices:
                yield from (f"{eye.label} {fact}" for fact in (*hook_facts(device), *build_facts(device)))
            if self._rules:
                yield from (f"{eye.label} rule {fact}" for fact in eye.rules())
        places = Places(
            self._labels,
            {eye.cookie: eye.label for eye in seen},
            {(eye.cookie, each.index): each.name for eye, devices in seen.items() for each in devices},
        )
        for tunnel, entries in dumps.items():
            tables = Tables(entries, places, self._host.cookie)
            yield from (f"{tunnel} {table}: {fact}" for table, fact in tables.facts())
        yield from ("an empty name of a private namespace" for _ in _empty_names())

    def _private(self, owners: dict[str, str]) -> Iterator[Eye]:
        for name in _private_names():
            if os.path.ismount(f"{NAMES}/{name}"):
                with suppress(OSError):  # deleted meanwhile
                    yield Eye(owners.get(name, "private of nobody"), f"{NAMES}/{name}")


def _dump_of(device: Device) -> Dump:
    for number in device.programs.values():
        known = program(number)
        if known is not None and "meta" in known.map_ids:
            return dump(known.map_ids)
    return {}


def _private_names() -> list[str]:
    return sorted(name for name in os.listdir(NAMES) if name.startswith("mizarnet-"))


def _empty_names() -> list[str]:
    return [name for name in _private_names() if not os.path.ismount(f"{NAMES}/{name}")]


def _numbered(facts: Iterable[str]) -> Iterator[str]:
    """The same, with a number behind what is there more than once."""
    for fact, times in Counter(facts).items():
        yield from (fact if n == 1 else f"{fact} ({n})" for n in range(1, times + 1))


def difference(before: State, after: State) -> list[str]:
    """What came and what went, in words."""
    return [
        *(f"- {fact}" for fact in sorted(before - after)),
        *(f"+ {fact}" for fact in sorted(after - before)),
    ]
