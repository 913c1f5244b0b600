# SPDX-License-Identifier: Apache-2.0
"""The notes of a host's gateways: each stands in the alias of the device that leads to the gateway's namespace.

That device is the host's own, made by us, and nobody in a container can reach it. It is the first thing of a gateway to
come and the last to go, and outlives the tunnel. So whatever died, the note tells what there was, and what is to be put
back.
"""

from __future__ import annotations

import re
import time
from collections.abc import Container, Mapping
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Self

import attrs

from mizarnet._kernel.netlink import IFINDEXES, Link, Session, dump_links, set_link
from mizarnet._model.arguments import IPInterface, IPNetwork
from mizarnet._model.enumerations import Limit, State

PREFIX = "mzg"
"""What the names of these devices begin with."""
LINKS: Mapping[int, IPNetwork] = {4: IPv4Network("169.254.96.0/19"), 6: IPv6Network("fd00:6d7a:6774::/112")}
"""The prefixes that the addresses between a host and its gateways are of, two for each gateway."""
MOST = 4096
"""Number of gateways that a host can have."""
_DEVICE = re.compile(rf"{PREFIX}[0-9a-f]+-[0-9a-f]+")
_NOTE = re.compile(
    r"mizarnet gateway tunnel=(?P<tunnel>\d+) vni=(?P<vni>\d+) state=(?P<state>\d) egress=(?P<egress>\d+) "
    r"port=(?P<port>\d+) nat=(?P<nat>[01]) access=(?P<host_access>[01]) forward=(?P<forwarding>\d+) "
    r"number=(?P<number>\d+) changed=(?P<changed>\d+) endpoint=(?P<key>[0-9a-f]{32}) space=(?P<instance>[0-9a-f]{1,16})"
    r"(?P<whole> ra=[0-9.]* on=[0-9.]*)?"
)
_RANGES: Mapping[str, Container[int]] = {
    "tunnel": IFINDEXES,
    "vni": range(1, Limit.VNI_MAX + 1),
    "state": frozenset(State),
    "egress": IFINDEXES,
    "port": range(1, 1 << 16),
    "forwarding": range(1 << 32),
    "number": range(MOST),
    "changed": range(1 << 64),
}
"""What the numbers of a note can be: any program may have written something like a note."""
_LONGEST = 254
_ROOM = 6
"""For what a note gets later: a later time, and other bits."""


@attrs.frozen
class Whole:
    """What was changed of a whole host, so that it forwards IPv6.

    Attributes:
        advertised: Indexes of devices that live on router advertisements, which a router takes only if told so.
        routers: Indexes of devices that forwarded IPv6 before; 0: those to come.
    """

    advertised: frozenset[int] = frozenset()
    routers: frozenset[int] = frozenset()

    def text(self) -> str:
        """What stands in a note."""
        ra, on = (".".join(map(str, sorted(each))) for each in (self.advertised, self.routers))
        return f" ra={ra} on={on}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """What a note tells."""
        ra, on = ((int(each) for each in part.split("=")[1].split(".") if each) for part in text.split())
        return cls(frozenset(ra), frozenset(on))


@attrs.frozen
class Note:
    """What is noted of a gateway.

    Attributes:
        tunnel: Index of the tunnel's device.
        vni: VNI that it leads out of.
        state: How far it has come.
        egress: Index of the device that it leads to.
        port: UDP port of the tunnel.
        nat: Whether what leaves gets an address of the host.
        host_access: Whether the tenant reaches the host's own services.
        forwarding: Changes of the egress device that are to be put back, as bits of ``forwarding.py``.
        number: Which of the host's gateways it is: its addresses follow from that.
        changed: Time at which the state was written, in nanoseconds of the boot clock.
        key: Key of the endpoint's record.
        instance: Random id of the endpoint, after which its namespace is named; 0: there is none yet.
        whole: What is to be put back of the whole host; None: nothing.
    """

    tunnel: int
    vni: int
    state: State
    egress: int
    port: int
    nat: bool
    host_access: bool
    forwarding: int
    number: int
    key: bytes
    instance: int = 0
    changed: int = attrs.field(default=0, eq=False)
    whole: Whole | None = None

    @property
    def device(self) -> str:
        """Name of the host's device that has the note."""
        return device_name(self.tunnel, self.vni)

    def address(self, version: int, *, inside: bool) -> IPInterface:
        """An address between the host and the gateway's namespace.

        Args:
            version: IP version.
            inside: Whether it is the gateway's; else the host's.
        """
        prefix = LINKS[version]
        packed = int(prefix.network_address) + 2 * self.number + inside
        length = prefix.max_prefixlen - 1
        if version == 4:
            return IPv4Interface((packed, length))
        return IPv6Interface((packed, length))

    def text(self) -> str:
        """The note as it stands in the alias, with the time of now."""
        return (
            f"mizarnet gateway tunnel={self.tunnel} vni={self.vni} state={int(self.state)} egress={self.egress} "
            f"port={self.port} nat={self.nat:d} access={self.host_access:d} forward={self.forwarding} "
            f"number={self.number} changed={time.clock_gettime_ns(time.CLOCK_BOOTTIME)} endpoint={self.key.hex()} "
            f"space={self.instance:x}{'' if self.whole is None else self.whole.text()}"
        )

    @property
    def fits(self) -> bool:
        """Whether the kernel keeps an alias of that length, also with an endpoint's id."""
        return len(attrs.evolve(self, instance=(1 << 64) - 1).text()) <= _LONGEST - _ROOM

    @classmethod
    def parse(cls, alias: str) -> Self | None:
        """The note in an alias; None if it is none."""
        found = _NOTE.fullmatch(alias)
        if found is None:
            return None
        texts = found.groupdict()
        key, instance = bytes.fromhex(texts.pop("key")), int(texts.pop("instance"), 16)
        whole = texts.pop("whole")
        numbers = {name: int(value) for name, value in texts.items()}
        if not all(numbers[name] in possible for name, possible in _RANGES.items()):
            return None
        nat, access = bool(numbers.pop("nat")), bool(numbers.pop("host_access"))
        state = State(numbers.pop("state"))
        return cls(
            **numbers,
            state=state,
            nat=nat,
            host_access=access,
            key=key,
            instance=instance,
            whole=Whole.parse(whole) if whole else None,
        )


def device_name(tunnel: int, vni: int) -> str:
    """Name of the host's device of a gateway.

    Args:
        tunnel: Index of the tunnel's device.
        vni: VNI that the gateway leads out of.
    """
    return f"{PREFIX}{tunnel:x}-{vni:x}"


@attrs.frozen
class Noted:
    """A note, and the device that has it.

    Attributes:
        note: The note.
        link: The device.
    """

    note: Note
    link: Link


def read_all(session: Session) -> list[Noted]:
    """The notes of all gateways of a host, by tunnel and VNI."""
    found = ((Note.parse(link.alias), link) for link in dump_links(session, kind="veth"))
    noted = [Noted(note, link) for note, link in found if note is not None]
    return sorted(noted, key=lambda each: (each.note.tunnel, each.note.vni))


def unnoted(session: Session) -> list[Link]:
    """Devices that were to have a note, and whose makers died before they wrote it."""
    named = (link for link in dump_links(session, kind="veth") if _DEVICE.fullmatch(link.name))
    return [link for link in named if Note.parse(link.alias) is None]


def write(session: Session, ifindex: int, note: Note, *, up: bool | None = None) -> None:
    """Write the note of a gateway.

    Args:
        session: Session of the host.
        ifindex: Index of the device that has the note.
        note: The note.
        up: Whether the device goes up or down with it, in the same message; None: it stays as it is.
    """
    set_link(session, ifindex, alias=note.text(), up=up)
