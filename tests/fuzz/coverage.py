# SPDX-License-Identifier: Apache-2.0
"""Which verdicts a fuzz run must have seen: all that a program can come to, but for what a test run cannot bring about.

UNREADABLE is the one: it takes a kernel that has no memory left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from mizarnet import Verdict
from tests.model.case import ProgramName

ENOUGH = 100_000
"""Cases of a program after which each of its verdicts must have come up."""

UNDERSTANDING = frozenset(
    {
        Verdict.TRUNCATED, Verdict.VLAN_TAGGED, Verdict.UNKNOWN_ETHERTYPE, Verdict.BAD_IPV4, Verdict.BAD_IPV6,
        Verdict.EXTENSION_HEADERS,
    }
)  # fmt: skip

POSSIBLE: dict[ProgramName, frozenset[Verdict]] = {
    "agent": UNDERSTANDING
    | {
        Verdict.ENCAPSULATED, Verdict.DELIVERED_LOCALLY, Verdict.NEIGHBOUR_ANSWERED, Verdict.GATEWAY_ANSWERED,
        Verdict.BOUNCE_ADMITTED, Verdict.TUNNEL_OWN, Verdict.UNKNOWN_SENDER, Verdict.OVERSIZED,
        Verdict.FOREIGN_DEVICE, Verdict.FOREIGN_SOCKET, Verdict.REFLECTED, Verdict.NO_ORIGIN, Verdict.BAD_ARP,
        Verdict.ARP_SPOOFED, Verdict.OWN_ADDRESS_ASKED, Verdict.NEIGHBOUR_UNKNOWN, Verdict.FOREIGN_SOURCE,
        Verdict.BAD_ND, Verdict.ND_SPOOFED, Verdict.MULTICAST, Verdict.HAIRPIN, Verdict.NO_DESTINATION,
        Verdict.NO_SWITCH, Verdict.TUNNEL_KEY_REFUSED, Verdict.HOP_LIMIT, Verdict.BAD_OFFLOAD,
    },
    "guard": UNDERSTANDING
    | {
        Verdict.ACCEPTED, Verdict.ACCEPTED_LOCALLY, Verdict.BOUNCED, Verdict.NO_TUNNEL_KEY, Verdict.FOREIGN_LOCAL,
        Verdict.GENEVE_OPTIONS, Verdict.FOREIGN_PEER, Verdict.BAD_ARP, Verdict.BAD_ND, Verdict.MULTICAST,
        Verdict.TUNNEL_MAC, Verdict.SOURCE_IS_LOCAL, Verdict.NO_DESTINATION, Verdict.OUTER_HOP_LIMIT,
        Verdict.TUNNEL_KEY_REFUSED,
    },
    "switch": frozenset(
        {
            Verdict.BOUNCED, Verdict.PASSED, Verdict.PASSED_CHECKSUM, Verdict.PASSED_OTHER_INTERFACE,
            Verdict.PASSED_NO_NEIGHBOUR, Verdict.PASSED_FORWARDING_OFF, Verdict.PASSED_NO_ROUTE,
        }
    ),
}  # fmt: skip


def gaps(verdicts: Counter[tuple[ProgramName, Verdict]], cases: dict[ProgramName, int]) -> Iterator[str]:
    """What should have come up, or should not."""
    for program, count in cases.items():
        seen = {verdict for of, verdict in verdicts if of == program}
        if count >= ENOUGH:
            missing = sorted(POSSIBLE[program] - seen)
            yield from (f"the {program} never came to {verdict.name}" for verdict in missing)
        surprising = sorted(seen - POSSIBLE[program])
        yield from (
            f"the {program} came to {verdict.name}, which is not among its verdicts" for verdict in surprising
        )
