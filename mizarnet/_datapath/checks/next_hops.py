# SPDX-License-Identifier: Apache-2.0
"""What the next hop of a network must be: an endpoint that this host knows, and that may forward if it is here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mizarnet._datapath.datapath import DataPath
from mizarnet._model import codec
from mizarnet._model.finding import Finding, FindingKind, Subject


def next_hop_findings(datapath: DataPath, endpoints: Mapping[bytes, bytes]) -> Iterator[Finding]:
    """Findings about the next hops of a data path's networks.

    Args:
        datapath: The data path.
        endpoints: Packed entries of the map ``endpoints``.
    """
    for key, value in datapath.maps.networks.items():
        hop = codec.next_hop(key, value)
        if hop is None:
            continue
        entry = endpoints.get(hop)
        if entry is None:
            yield _finding(datapath, key, hop, None, "has no entry here", "tell this host where it lives")
        elif not codec.may_forward(entry):
            text = "is an endpoint of this host that may not forward"
            yield _finding(datapath, key, hop, "not forwarding", text, "make it with forwarding=True")


def _finding(
    datapath: DataPath, network: bytes, hop: bytes, found: object, text: str, remedy: str
) -> Finding:
    vni, prefix = codec.unpack_network_key(network)
    via = codec.unpack_endpoint_key(hop).ip
    return Finding(
        FindingKind.NEXT_HOP_UNUSABLE,
        Subject("network", f"{vni}/{prefix}"),
        f"forwarding by {via}",
        found,
        f"its next hop {via} {text}, so its packets are dropped",
        remedy,
        tunnel=datapath.name,
        instance=datapath.meta_id,
    )
