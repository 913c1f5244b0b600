# SPDX-License-Identifier: Apache-2.0
"""Judges single arguments before any system call: each function returns the clean value or raises.

Raises ``InvalidTypeError`` for the wrong type and ``InvalidValueError`` for a value that can never be right.
"""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import TypeAlias, TypeVar, cast

from mizarnet._model.enumerations import Limit
from mizarnet.errors import InvalidTypeError, InvalidValueError

_T = TypeVar("_T")
IPAddress: TypeAlias = IPv4Address | IPv6Address
IPInterface: TypeAlias = IPv4Interface | IPv6Interface
IPNetwork: TypeAlias = IPv4Network | IPv6Network


def in_order(value: IPAddress | IPNetwork) -> tuple[int, int, int]:
    """What addresses and prefixes are sorted by: IPv4 before IPv6."""
    if isinstance(value, (IPv4Network, IPv6Network)):
        return value.version, int(value.network_address), value.prefixlen
    return value.version, int(value), value.max_prefixlen


IPV4_MAPPED = IPv6Network("::ffff:0:0/96")
SMALLEST_MTU = 68  # RFC 791; the kernel's ETH_MIN_MTU
SMALLEST_IPV6_MTU = 1280  # RFC 8200
LARGEST_MTU = 65535
NETNS_DIRECTORY = "/run/netns"
UNFINISHED = "mizarnet-new"
"""A tunnel's name until it is finished. Whoever dies before that leaves this one, and nothing that looks whole."""

_A = TypeVar("_A", bound=IPAddress | IPInterface | IPNetwork)
_I = TypeVar("_I", bound=Iterable[object])


def check_int(value: int, *, argument: str, low: int, high: int, hint: str = "") -> int:
    """``value`` itself, if it is an integer (no ``bool``) from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"{argument} must be an int, not {type(value).__name__}", argument=argument)
    if not low <= value <= high:
        # Python writes no integer of more than some thousand digits.
        shown = value if value.bit_length() <= 64 else f"of {value.bit_length()} bits"
        raise InvalidValueError(
            f"{argument} {shown} is not from {low} to {high}", argument=argument, value=value, hint=hint
        )
    return value


def check_str(value: str, *, argument: str) -> str:
    """``value`` itself, if it is a string that is not empty and has no NUL, newline or other control."""
    if not isinstance(value, str):
        raise InvalidTypeError(f"{argument} must be a str, not {type(value).__name__}", argument=argument)
    if not value:
        raise InvalidValueError(f"{argument} is empty", argument=argument, value=value)
    if not value.isprintable():
        raise InvalidValueError(
            f"{argument} {value!r} has characters that cannot be printed", argument=argument, value=value
        )
    return value


def check_bool(value: bool, *, argument: str) -> bool:
    """``value`` itself, if it is True or False."""
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{argument} must be a bool, not {type(value).__name__}", argument=argument)
    return value


def check_seconds(value: float, *, argument: str) -> float:
    """``value`` itself, if it is a time in seconds that the interpreter can wait for."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidTypeError(f"{argument} must be a number, not {type(value).__name__}", argument=argument)
    if not 0 <= value <= threading.TIMEOUT_MAX:
        text = f"{argument} must be 0 to {threading.TIMEOUT_MAX:g} seconds"
        raise InvalidValueError(text, argument=argument, value=value)
    return value


def check_path(path: str | os.PathLike[str], *, argument: str = "path") -> str:
    """A path as text, as the kernel can be asked for it."""
    where = _text_of(path, argument=argument, what="a str or a path")
    try:
        encoded = os.fsencode(where)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise InvalidValueError(f"{where!r} cannot be a path", argument=argument, value=where)
    return where


def _text_of(path: str | os.PathLike[str], *, argument: str, what: str) -> str:
    try:
        where = os.fspath(path)
    except TypeError:  # also of a path that has no text
        where = None
    if not isinstance(where, str):
        raise InvalidTypeError(f"{argument} must be {what}, not {type(path).__name__}", argument=argument)
    return where


def check_items(values: _I, *, argument: str, what: str) -> _I:
    """``values`` itself, if it can be gone through, and is no text and no bytes; the items are the caller's."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InvalidTypeError(
            f"{argument} must be a sequence of {what}, not {type(values).__name__}", argument=argument
        )
    return values


def check_all(values: Iterable[object], kind: type[_T], *, argument: str) -> list[_T]:
    """All items, each of which must be of a kind."""
    given = list(values)
    for each in given:
        if not isinstance(each, kind):
            raise InvalidTypeError(
                f"{argument} must have {kind.__name__} objects, not {type(each).__name__}", argument=argument
            )
    return cast("list[_T]", given)


def check_vni(vni: int) -> int:
    """A VNI: 1 to 2^24-1."""
    hint = "VNI 0 is not a network of its own" if vni == 0 else ""
    return check_int(vni, argument="vni", low=1, high=Limit.VNI_MAX, hint=hint)


def check_port(port: int) -> int:
    """A UDP port: 1 to 65535."""
    return check_int(port, argument="port", low=1, high=65535)


def check_mtu(mtu: int) -> int:
    """An MTU in bytes: 68 to 65535."""
    return check_int(mtu, argument="mtu", low=SMALLEST_MTU, high=LARGEST_MTU)


def check_device_name(name: str, *, argument: str = "name") -> str:
    """A device name as the kernel takes it: 1 to 15 bytes, no ``/``, ``:``, ``%`` or white space."""
    check_str(name, argument=argument)
    size = len(name.encode())
    longest = Limit.DEVICE_BYTES - 1
    if size > longest:
        raise InvalidValueError(
            f"{argument} {name!r} has {size} bytes, a device name has at most {longest}",
            argument=argument,
            value=name,
            hint="choose a shorter one",
        )
    if name in {".", "..", "all", "default"} or any(c in "/:%" or c.isspace() for c in name):
        raise InvalidValueError(f"{argument} {name!r} cannot be a device name", argument=argument, value=name)
    return name


def check_tunnel_name(name: str) -> str:
    """The name of a tunnel's device, which is none under which tunnels are made."""
    if check_device_name(name) == UNFINISHED:
        raise InvalidValueError(
            f"name {name!r} is that of tunnels that are being made", argument="name", value=name
        )
    return name


def check_endpoint_name(name: str) -> str:
    """An endpoint's name: printable text of at most 191 bytes in UTF-8."""
    check_str(name, argument="name")
    size, longest = len(name.encode()), Limit.NAME_BYTES - 1
    if size > longest:
        raise InvalidValueError(
            f"an endpoint's name has at most {longest} bytes, this one {size}", argument="name", value=name
        )
    return name


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels of an endpoint, in the order of their names: printable text, at most 128 bytes as they are kept."""
    if not isinstance(labels, Mapping):
        raise InvalidTypeError(
            f"labels must be a mapping of str to str, not {type(labels).__name__}", argument="labels"
        )
    for name, value in labels.items():
        check_str(name, argument="labels")
        if value != "":
            check_str(value, argument="labels")
    ordered = dict(sorted(labels.items()))
    size = len(pack_labels(ordered))
    if size > Limit.LABEL_BYTES:
        raise InvalidValueError(
            f"labels have {size} bytes, with two for each, and there is room for {Limit.LABEL_BYTES}",
            argument="labels",
            value=labels,
            hint="keep what is longer elsewhere, by the endpoint's name",
        )
    return ordered


def pack_labels(labels: Mapping[str, str]) -> bytes:
    """Labels as they are kept: no printable text has a tab or a newline."""
    return "".join(f"{name}\t{value}\n" for name, value in labels.items()).encode()


UNKNOWN_FEED = "?"
"""What the text for a feed begins with whose name nobody knows. No name begins so."""


def check_feed(feed: str) -> str:
    """A feed's name: printable text of at most 31 bytes in UTF-8 that does not begin with ``?``; empty: by hand."""
    if feed == "":
        return feed
    check_str(feed, argument="feed")
    size, longest = len(feed.encode()), Limit.FEED_BYTES - 1
    if size > longest:
        raise InvalidValueError(
            f"a feed's name has at most {longest} bytes, this one {size}", argument="feed", value=feed
        )
    if feed.startswith(UNKNOWN_FEED):
        raise InvalidValueError(
            f"feed {feed!r} begins with {UNKNOWN_FEED!r}, which stands for an unknown name",
            argument="feed",
            value=feed,
        )
    return feed


def _parse(
    value: object, parse: Callable[[str], _A], types: tuple[type[object], ...], argument: str, like: str
) -> _A:
    if isinstance(value, str):
        try:
            parsed = parse(value)
        except ValueError as error:
            raise InvalidValueError(
                f"{argument} {value!r}: {error}", argument=argument, value=value, hint=f"write it like {like}"
            ) from None
    elif isinstance(value, types):
        parsed = cast(_A, value)  # ``types`` are those that ``parse`` makes
    else:
        raise InvalidTypeError(
            f"{argument} must be a str like {like} or an ipaddress object, not {type(value).__name__}",
            argument=argument,
        )
    _refuse_mapped_or_scoped(parsed, argument)
    return parsed


def _refuse_mapped_or_scoped(value: IPAddress | IPInterface | IPNetwork, argument: str) -> None:
    if isinstance(value, (IPv4Address, IPv4Network)):
        return
    address = value.network_address if isinstance(value, IPv6Network) else value
    if IPv6Address(int(address)) in IPV4_MAPPED:
        raise InvalidValueError(
            f"{argument} {value} is an IPv4-mapped IPv6 address",
            argument=argument,
            value=value,
            hint="write the IPv4 address itself",
        )
    if address.scope_id is not None:
        raise InvalidValueError(f"{argument} {value} has a scope", argument=argument, value=value)


def check_address(value: str | IPAddress, *, argument: str = "ip") -> IPAddress:
    """An IPv4 or IPv6 address; IPv4-mapped and scoped ones are refused."""
    if isinstance(value, (IPv4Interface, IPv6Interface)):
        value = value.ip
    return _parse(value, ipaddress.ip_address, (IPv4Address, IPv6Address), argument, "10.0.0.5")


def check_host_address(value: str | IPAddress, *, argument: str = "ip") -> IPAddress:
    """An address that one host can have: not unspecified, loopback, multicast or reserved."""
    address = check_address(value, argument=argument)
    for kind in ("unspecified", "loopback", "multicast", "reserved"):
        # IPv6 calls most of its space "reserved"; only IPv4's class E is meant.
        if getattr(address, f"is_{kind}") and not (kind == "reserved" and address.version == 6):
            raise InvalidValueError(
                f"{argument} {address} is {kind}: no host can have it", argument=argument, value=value
            )
    return address


def check_interface(value: str | IPInterface | IPAddress, *, argument: str = "ip") -> IPInterface:
    """A host address with its on-link prefix, like ``10.0.0.5/24``; without one it is alone (/32, /128)."""
    if isinstance(value, (IPv4Address, IPv6Address)) and not isinstance(
        value, (IPv4Interface, IPv6Interface)
    ):
        value = ipaddress.ip_interface(value)
    interface = _parse(value, ipaddress.ip_interface, (IPv4Interface, IPv6Interface), argument, "10.0.0.5/24")
    check_host_address(interface.ip, argument=argument)
    network = interface.network
    if network.prefixlen < network.max_prefixlen - 1 and (
        interface.ip == network.network_address
        or (interface.version == 4 and interface.ip == network.broadcast_address)
    ):
        raise InvalidValueError(
            f"{argument} {interface} is the network's own or its broadcast address",
            argument=argument,
            value=value,
            hint="give a host's address with its prefix length",
        )
    return interface


def check_prefix(value: str | IPNetwork, *, argument: str = "prefix") -> IPNetwork:
    """A prefix without host bits, like ``10.0.0.0/24``."""
    return _parse(value, ipaddress.ip_network, (IPv4Network, IPv6Network), argument, "10.0.0.0/24")


def check_netns(value: str | os.PathLike[str]) -> str:
    """A network namespace: a name under ``/run/netns``, or another path, from the root."""
    netns = check_str(_text_of(value, argument="netns", what="a name or a path"), argument="netns")
    if "/" in netns:
        netns = _netns_path(netns)
    if netns in {"", ".", ".."} or len(netns.encode()) >= Limit.PATH_BYTES:
        raise InvalidValueError(f"netns {netns!r} cannot be a namespace", argument="netns", value=netns)
    return netns


def _netns_path(path: str) -> str:
    """A path from the root, or a name if it is one of a namespace that has a name."""
    if not path.startswith("/"):
        try:
            path = check_str(f"{os.getcwd()}/{path}", argument="netns")
        except OSError:
            text = f"netns {path!r} is relative to a working directory that is gone"
            raise InvalidValueError(text, argument="netns", value=path) from None
    # What is before ".." may be a link, which leads elsewhere.
    whole = "/" + "/".join(part for part in path.split("/") if part not in {"", "."})
    directory, _, name = whole.rpartition("/")
    return name if directory in {NETNS_DIRECTORY, f"/var{NETNS_DIRECTORY}"} else whole
