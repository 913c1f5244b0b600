# SPDX-License-Identifier: Apache-2.0
"""Many entries of ``agent.endpoints`` as columns, without an object for each."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from mizarnet._model import codec, layouts
from mizarnet._model.arguments import IPAddress, check_int
from mizarnet._model.enumerations import Limit, Place
from mizarnet._model.html import table
from mizarnet._model.layout import Layout, checked, cut
from mizarnet._model.public import public
from mizarnet.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from typing_extensions import Buffer

ADDRESS_BYTES = 16
_WORD = 4
_NOBODY = bytes(ADDRESS_BYTES)
_NATIVE = "@=" + {"little": "<", "big": ">!"}[sys.byteorder]
"""What a format may begin with, if its numbers have this machine's byte order."""


def _view(values: Buffer, argument: str) -> memoryview:
    try:
        return memoryview(values)
    except (TypeError, ValueError, BufferError) as refused:
        raise InvalidTypeError(
            f"{argument} must be an array or bytes: {refused}",
            argument=argument,
            hint="bytes, array.array and numpy's arrays are such",
        ) from None


def _to_vnis(values: Buffer) -> bytes:
    view = _view(values, "vnis")
    if view.itemsize != _WORD or view.format.lstrip(_NATIVE) not in ("I", "L", "i", "l"):
        raise InvalidTypeError(
            f"vnis must be whole numbers of 32 bits in this machine's byte order, not {view.format!r}",
            argument="vnis",
            hint='array.array("I", vnis) makes them, or numpy\'s uint32',
        )
    return view.tobytes()


def _to_addresses(values: Buffer) -> bytes:
    return _rows(values, "addresses")


def _to_hosts(values: Buffer) -> bytes:
    return _rows(values, "hosts")


def _rows(values: Buffer, argument: str) -> bytes:
    data = _view(values, argument).tobytes()
    if len(data) % ADDRESS_BYTES:
        raise InvalidValueError(
            f"{argument} has {len(data)} bytes, which are no rows of {ADDRESS_BYTES}",
            argument=argument,
            value=len(data),
            hint="an address has 16 bytes; an IPv4 address is mapped: ::ffff:192.0.2.1",
        )
    return data


@public
@attrs.frozen(eq=False, repr=False)
class EndpointColumns:
    """Entries of ``agent.endpoints`` as columns of the same length, for tables of many.

    ``agent.endpoints.columns()`` gives them, and ``update()``, ``sync()`` and ``apply()`` take them in place of a
    mapping. What is given is copied: ``bytes``, an ``array.array``, an array of numpy, or whatever else has bytes.

    Args:
        vnis: VNIs, as numbers of 32 bits in this machine's byte order.
        addresses: As below.
        hosts: As below.

    Attributes:
        addresses: Addresses of endpoints, 16 bytes each in network byte order. An IPv4 address is mapped, as in
            ``::ffff:10.0.0.5`` (RFC 4291, 2.5.5.2).
        hosts: Underlay addresses of their hosts, in the same form. Zeros stand for the host whose table was read; to
            write them is an ``InvalidValueError``.

    Raises:
        InvalidTypeError: An argument has no bytes, or VNIs have another width.
        InvalidValueError: The columns differ in length, or a number is no VNI.
    """

    _vnis: bytes = attrs.field(converter=_to_vnis)
    addresses: bytes = attrs.field(converter=_to_addresses)
    hosts: bytes = attrs.field(converter=_to_hosts)

    def __attrs_post_init__(self) -> None:
        for name, column in (("addresses", self.addresses), ("hosts", self.hosts)):
            rows = len(column) // ADDRESS_BYTES
            if rows != len(self):
                raise InvalidValueError(
                    f"{name} has {rows} rows, vnis {len(self)}", argument=name, value=rows
                )
        for vni in {*self.vnis}:
            check_int(vni, argument="vnis", low=1, high=Limit.VNI_MAX)

    @property
    def vnis(self) -> memoryview[int]:
        """VNIs, as numbers of 32 bits; read-only."""
        return memoryview(self._vnis).cast("I")

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._vnis) // _WORD

    def to_dict(self) -> dict[str, Any]:
        """The columns as lists in a form that JSON can hold: addresses as text, zeros as None."""
        addresses, hosts = (cut(column, ADDRESS_BYTES) for column in (self.addresses, self.hosts))
        return {
            "vnis": self.vnis.tolist(),
            "addresses": [str(codec.host_from(each)) for each in addresses],
            "hosts": [None if each == _NOBODY else str(codec.host_from(each)) for each in hosts],
        }

    def __repr__(self) -> str:
        return f"<EndpointColumns of {len(self):,} entries>"

    def _repr_html_(self) -> str:
        columns = self.to_dict()
        rows = zip(
            columns["vnis"], columns["addresses"], (host or "" for host in columns["hosts"]), strict=True
        )
        return table(f"EndpointColumns: {len(self):,}", ("vni", "address", "host"), [*rows])


def from_packed(keys: bytes, values: bytes) -> EndpointColumns:
    """The columns of packed ``mzn_endpoint_key`` and ``mzn_endpoint``; raises ``LayoutError`` for unknown ones."""
    for place in {*array("I", _PLACE.read(values))} - {*Place}:
        raise codec.unknown_place(place)
    return checked(
        EndpointColumns,
        _vnis=_VNI.read(keys),
        addresses=_ADDRESS.read(keys),
        hosts=_HOST.read(values),
    )


def pack(columns: EndpointColumns, pack_host: Callable[[IPAddress], bytes]) -> dict[bytes, bytes]:
    """The same packed; of entries with one key the last.

    Args:
        columns: The columns.
        pack_host: Packs a ``mzn_endpoint`` of a host.

    Raises:
        InvalidValueError: An entry is of the host that the columns were read from.
    """
    keys = _pack_keys(columns)
    hosts = list(cut(columns.hosts, ADDRESS_BYTES))
    known = {host: pack_host(_host_of(host)) for host in dict.fromkeys(hosts)}
    return dict(zip(cut(keys, layouts.ENDPOINT_KEY.size), map(known.__getitem__, hosts), strict=True))


def _pack_keys(columns: EndpointColumns) -> bytes:
    mapped, starts = columns.addresses.startswith, range(0, len(columns.addresses), ADDRESS_BYTES)
    families = array("I", [4 if mapped(codec.MAPPED, at) else 6 for at in starts]).tobytes()
    packed = bytes(len(columns) * layouts.ENDPOINT_KEY.size)
    for member, column in (
        (_VNI, columns.vnis.tobytes()),
        (_FAMILY, families),
        (_ADDRESS, columns.addresses),
    ):
        packed = member.written(packed, column)
    return packed


@attrs.frozen
class _Member:
    """Where a member of a structure stands, counted in the widest words that fit it.

    Attributes:
        code: Type of the words, of :mod:`array`.
        step: Words from one structure to the next.
        at: Words in front of the member.
        width: Words of the member.
    """

    code: str
    step: int
    at: int
    width: int

    @classmethod
    def of(cls, layout: Layout, path: str) -> _Member:
        leaf = next(leaf for leaf in layout.leaves() if leaf.path == path)
        word = math.gcd(layout.size, leaf.offset, leaf.size, 8)
        return cls({4: "I", 8: "Q"}[word], layout.size // word, leaf.offset // word, leaf.size // word)

    def read(self, packed: bytes) -> bytes:
        """The member of each of the structures, one behind the other."""
        words = array(self.code, packed)
        column = array(self.code, bytes(len(packed) // self.step * self.width))
        for word in range(self.width):
            column[word :: self.width] = words[self.at + word :: self.step]
        return column.tobytes()

    def written(self, packed: bytes, column: bytes) -> bytes:
        """The structures with another member; the reverse of :meth:`read`."""
        words, given = array(self.code, packed), array(self.code, column)
        for word in range(self.width):
            words[self.at + word :: self.step] = given[word :: self.width]
        return words.tobytes()


_VNI, _FAMILY, _ADDRESS = (
    _Member.of(layouts.ENDPOINT_KEY, path) for path in ("vni", "ip.family", "ip.words")
)
_PLACE, _HOST = (_Member.of(layouts.ENDPOINT, path) for path in ("place", "host"))


def _host_of(row: bytes) -> IPAddress:
    if row == _NOBODY:
        raise InvalidValueError(
            "hosts has a row of zeros: the entry is of the host that the columns were read from",
            argument="hosts",
            value=row,
            hint="leave it out, or name the host",
        )
    return codec.host_from(row)
