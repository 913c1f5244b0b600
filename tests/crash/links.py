# SPDX-License-Identifier: Apache-2.0
"""What one network namespace has: devices, addresses, routes and the programs on hooks, read with messages as bytes."""

from __future__ import annotations

import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import attrs

from mizarnet._kernel.bpf import Direction, TcxHook, has_tcx, query_filters
from mizarnet._kernel.rtnetlink import HEADER_BYTES, Flag, Rtm, Rtnl, attributes
from tests.crash.programs import program
from tests.support.namespace import enter

T = TypeVar("T")

_IFINFO, _IFADDR, _RTMSG = struct.Struct("=BxHiII"), struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")
# <linux/if_link.h>, <linux/if_addr.h>, <linux/rtnetlink.h>
_ADDRESS, _NAME, _MTU, _LINKINFO, _ALIAS, _XDP = 1, 3, 4, 18, 20, 43
_KIND, _XDP_ID = 1, 4
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_DESTINATION, _OUT, _GATEWAY = 1, 4, 5
_UP, _NOARP = 0x1, 0x80
_LINK_SCOPE = 253
_MAIN, _UNICAST = 254, 1
_COUNTED = re.compile(r"packets \d+ bytes \d+")
_MADE_OF_NUMBERS = re.compile(r"\b(host|tunnel|index|endpoint|changed|space)=[0-9a-f]+")
_OWN_MAC = ("macvlan", "macvtap")
_TUNNELS = ("vxlan", "geneve")
_WITH_HOOKS = {*_TUNNELS, "veth"}
"""Tunnels, and the underlay, where a shortcut may stand."""


@attrs.frozen
class Device:
    """A device, and the programs on its hooks by place."""

    index: int
    name: str
    kind: str
    fact: str
    programs: dict[str, int]


class Eye:
    """A thread that lives in a namespace and looks around.

    Attributes:
        label: What the namespace is called in facts.
        cookie: Its cookie.
    """

    def __init__(self, label: str, path: str) -> None:
        """Enter it."""
        self.label = label
        self._thread = ThreadPoolExecutor(1, initializer=enter, initargs=(path,))
        self._rtnl = self.call(Rtnl)
        self.cookie = self._rtnl.cookie()

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the namespace."""
        return self._thread.submit(function).result()

    def close(self) -> None:
        """Leave."""
        self._rtnl.close()
        self._thread.shutdown()

    def devices(self) -> list[Device]:
        """All devices."""
        return self.call(lambda: [*self._devices()])

    def facts(self, devices: list[Device]) -> Iterator[str]:
        """What devices, addresses and routes there are."""
        names = {each.index: each.name for each in devices}
        yield from (each.fact for each in devices)
        yield from self._addresses(names)
        for family in (socket.AF_INET, socket.AF_INET6):
            yield from self._routes(family, names)

    def rules(self) -> Iterator[str]:
        """The lines of the rules of nftables, without counts."""
        path = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
        listed = self.call(
            lambda: subprocess.run([path or "nft", "list", "ruleset"], capture_output=True, text=True)
        )
        return map(str.strip, _COUNTED.sub("", listed.stdout).splitlines())

    def setting(self, path: str) -> str:
        """A setting below ``/proc/sys/net``."""
        return self.call(Path("/proc/sys/net", path).read_text).strip()

    def _dump(self, question: Rtm, body: bytes) -> list[bytes]:
        return self._rtnl.request("look around", question, body, Flag.DUMP)

    def _devices(self) -> Iterator[Device]:
        for message in self._dump(Rtm.GETLINK, _IFINFO.pack(0, 0, 0, 0, 0)):
            _, _, index, flags, _ = _IFINFO.unpack_from(message, HEADER_BYTES)
            carried = attributes(message[HEADER_BYTES + _IFINFO.size :])
            name, info = _text(carried[_NAME]), attributes(carried.get(_LINKINFO, b""))
            kind = _text(info.get(_KIND, b""))
            programs = _on_hooks(index) if kind in _WITH_HOOKS else {}
            xdp = int.from_bytes(attributes(carried.get(_XDP, b"")).get(_XDP_ID, b""), "little")
            fact = " ".join(
                [
                    f"device {name} {kind}",
                    "up" if flags & _UP else "down",
                    "noarp" if flags & _NOARP else "arp",
                    f"mtu {int.from_bytes(carried[_MTU], 'little')}",
                    carried[_ADDRESS].hex(":") if kind in _OWN_MAC else "",
                    _MADE_OF_NUMBERS.sub(r"\1=…", _text(carried.get(_ALIAS, b""))),
                ]
            ).rstrip()
            yield Device(index, name, kind, fact, programs | ({"xdp": xdp} if xdp else {}))

    def _addresses(self, names: dict[int, str]) -> Iterator[str]:
        for message in self._dump(Rtm.GETADDR, _IFADDR.pack(0, 0, 0, 0, 0)):
            family, bits, _, scope, index = _IFADDR.unpack_from(message, HEADER_BYTES)
            carried = attributes(message[HEADER_BYTES + _IFADDR.size :])
            if scope != _LINK_SCOPE and index in names:
                address = socket.inet_ntop(family, carried.get(_IFA_LOCAL) or carried[_IFA_ADDRESS])
                yield f"address {address}/{bits} on {names[index]}"

    def _routes(self, family: int, names: dict[int, str]) -> Iterator[str]:
        body = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        for message in self._dump(Rtm.GETROUTE, body):
            _, bits, _, _, table, _, _, kind, _ = _RTMSG.unpack_from(message, HEADER_BYTES)
            carried = attributes(message[HEADER_BYTES + _RTMSG.size :])
            if (table, kind) != (_MAIN, _UNICAST):
                continue
            zero = bytes(4 if family == socket.AF_INET else 16)
            target = socket.inet_ntop(family, carried.get(_DESTINATION, zero))
            if target.startswith(("fe80:", "ff00:")):
                continue
            gateway = carried.get(_GATEWAY)
            via = f" via {socket.inet_ntop(family, gateway)}" if gateway else ""
            out = int.from_bytes(carried.get(_OUT, b""), "little")
            yield f"route {target}/{bits}{via} by {names.get(out)}"


def _on_hooks(index: int) -> dict[str, int]:
    """Ids of the programs on both sides of a device, of this package and of others."""
    found: dict[str, int] = {}
    for side in Direction:
        if has_tcx():
            found |= {f"{side.value}/tcx/{n}": each for n, each in enumerate(_tcx(index, side))}
        for each in query_filters(index)[side]:
            found[f"{side.value}/clsact/{each.priority}/{each.handle}"] = each.program_id
    return found


def _tcx(index: int, side: Direction) -> tuple[int, ...]:
    return TcxHook(index, side).query().program_ids


def hook_facts(device: Device) -> Iterator[str]:
    """What is on the hooks of a device, but for its build."""
    for place, number in device.programs.items():
        known = program(number)
        yield f"hook {place} of {device.name} runs {known.name if known else 'what is gone'}"


def build_facts(device: Device) -> Iterator[str]:
    """The builds of the programs on the hooks of a device."""
    for place, number in device.programs.items():
        known = program(number)
        if known is not None:
            yield f"hook {place} of {device.name} runs build {known.build.hex()}"


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode()
