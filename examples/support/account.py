# SPDX-License-Identifier: Apache-2.0
"""The experiments of the demonstration, and what it prints about them."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

import mizarnet as mz
from mizarnet import Verdict
from support import drawing
from support.containers import Containers

PING_SECONDS, TRANSFER_SECONDS = 5.0, 0.5
TRESPASS_PINGS, TRESPASS_SECONDS = 3, 0.3
REMARKS = {
    Verdict.ENCAPSULATED: "sent to the other host",
    Verdict.DELIVERED_LOCALLY: "never left the host",
    Verdict.NEIGHBOUR_ANSWERED: "ARP, answered on the spot",
    Verdict.ACCEPTED: "came from the other host",
    Verdict.ACCEPTED_LOCALLY: "came from the own host, ARP answers too",
    Verdict.COPIED: "of these, the kernel's own answers to pings",
    Verdict.OWN_ADDRESS_ASKED: "IPv6: is my own address free?",
    Verdict.FOREIGN_SOURCE: "IPv6 chatter of containers that have IPv4 only",
    Verdict.MULTICAST: "IPv6 chatter of containers that have IPv4 only",
    Verdict.NEIGHBOUR_UNKNOWN: "asked for an address of another tenant",
    Verdict.NO_DESTINATION: "sent to an address of another tenant",
}


class Account:
    """Runs the experiments, prints what happens, and remembers whether all was as expected."""

    def __init__(self, lab: mz.Lab) -> None:
        self._lab = lab
        self._containers = Containers()
        # What the kernel holds while there is no endpoint.
        self._programs = [host.agent.state() for host in lab.hosts]
        self._homes: dict[str, mz.LabHost] = {}
        self._checks: list[bool] = []

    def __enter__(self) -> Self:
        self._containers.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._containers.__exit__(kind, error, trace)

    def _expect(self, text: str, good: bool) -> None:
        self._checks.append(good)
        drawing.check(text, good)

    def _endpoints(self) -> list[mz.Endpoint]:
        return [endpoint for host in self._lab.hosts for endpoint in mz.Endpoint.list(host.agent)]

    def _stats(self) -> list[mz.Stats]:
        return [host.agent.stats() for host in self._lab.hosts]

    # -- the stage

    def draw(self) -> None:
        """The hosts, and why they talk as they do."""
        lab, hook = self._lab, self._lab.hosts[0].agent.hook.value
        print(f"mizarnet on Linux {os.uname().release}, {hook} hooks")
        print(f"Encapsulation: {lab.encap.value}, for {lab.encap_reason}")
        drawing.heading("Two hosts, two tenants, the same addresses")
        drawing.topology(lab.hosts)
        for host in lab.hosts:
            self._homes |= dict.fromkeys((each.name for each in mz.Endpoint.list(host.agent)), host)
        self._containers.start(self._endpoints())

    # -- traffic

    def ping_within_tenants(self) -> None:
        """Everybody to everybody of the same tenant."""
        drawing.heading("Ping within each tenant: best of three round trips, in milliseconds")
        tenants: dict[int, list[mz.Endpoint]] = {}
        for endpoint in self._endpoints():
            tenants.setdefault(endpoint.vni, []).append(endpoint)
        for vni, members in sorted(tenants.items()):
            rows = [[f"from {one.name}", *(self._ping(one, other) for other in members)] for one in members]
            drawing.table([f"VNI {vni}", *(f"to {member.name}" for member in members)], rows)
            silent = sum(cell == "none" for row in rows for cell in row)
            pairs = len(members) * (len(members) - 1)
            self._expect(f"VNI {vni}: {pairs - silent} of {pairs} pairs answered", not silent)

    def _ping(self, one: mz.Endpoint, other: mz.Endpoint) -> str:
        if one.name == other.name:
            return "-"
        answer = self._containers.order(one.name, "ping", to=str(other.ip), count=3, timeout=PING_SECONDS)
        if len(answer["trips"]) < 3:
            return "none"
        return f"{min(answer['trips']):.3f} {self._path(one, other)}"

    def _path(self, one: mz.Endpoint, other: mz.Endpoint) -> str:
        return "local" if self._homes[one.name] is self._homes[other.name] else "remote"

    def transfer(self) -> None:
        """TCP between neighbours on one host, then to the other host; the counters show the path."""
        drawing.heading(
            f"TCP, {TRANSFER_SECONDS} s each, and which way the packets went (before segmentation)"
        )
        ends = {endpoint.name: endpoint for endpoint in self._endpoints()}
        pairs = [("blue1", "blue2"), ("green3", "green4"), ("blue1", "blue3"), ("green4", "green1")]
        rows = [self._transfer(ends[one], ends[other]) for one, other in pairs]
        drawing.table(
            ["from", "to", "path", "Gbit/s", "delivered_locally", "encapsulated", "all arrived"], rows, left=3
        )
        self._expect("local transfers put nothing on the wire", all(row[5] == 0 for row in rows[:2]))
        self._expect("remote transfers were encapsulated", all(row[4] == 0 and row[5] for row in rows[2:]))
        self._expect("every byte arrived", all(row[6] == "yes" for row in rows))

    def _transfer(self, one: mz.Endpoint, other: mz.Endpoint) -> list[str | int]:
        before = self._stats()
        result = self._containers.order(one.name, "send", to=str(other.ip), seconds=TRANSFER_SECONDS)
        rise = [now.since(then) for now, then in zip(self._stats(), before, strict=True)]
        return [
            one.name,
            other.name,
            self._path(one, other),
            f"{8 * result['received'] / result['seconds'] / 1e9:.2f}",
            sum(host.agent[Verdict.DELIVERED_LOCALLY].packets for host in rise),
            sum(host.agent[Verdict.ENCAPSULATED].packets for host in rise),
            "yes" if result["sent"] == result["received"] else "no",
        ]

    # -- the other tenant

    def ask_for_names(self, address: str) -> None:
        """The same address, asked for from each tenant."""
        drawing.heading(f"Who is {address}? It depends on who asks")
        for endpoint in self._endpoints():
            if str(endpoint.ip) != "10.0.0.1":
                continue
            name = self._containers.order(endpoint.name, "who", to=address)["name"]
            tenant = endpoint.name.rstrip("0123456789")
            good = name == tenant + address.rpartition(".")[2]
            self._expect(f"{endpoint.name} asks {address} for its name: {name!r}", good)

    def trespass(self, tenant: str, target: mz.Endpoint) -> None:
        """Endpoints of ``tenant`` try to reach an address that only another one has."""
        drawing.heading(f"{tenant} tries {target.ip}, which only {target.name} of VNI {target.vni} has")
        friend = self._containers.order("green1", "ping", to=str(target.ip), count=3, timeout=PING_SECONDS)
        self._expect(f"green1 reaches {target.ip}", len(friend["trips"]) == 3)
        received = target.stats().received
        self._attempt(f"{tenant}1", target, Verdict.NEIGHBOUR_UNKNOWN, "asks for its MAC; no one answers")
        forged = ("neigh", "replace", str(target.ip), "lladdr", str(target.mac), "dev", target.ifname)
        self._lab.run(f"{tenant}2", "ip", *forged, "nud", "permanent")
        self._attempt(f"{tenant}2", target, Verdict.NO_DESTINATION, "knows its MAC, and sends")
        self._expect(f"{target.name} received nothing of it", target.stats().received == received)

    def _attempt(self, who: str, target: mz.Endpoint, reason: Verdict, how: str) -> None:
        before = self._lab.hosts[0].agent.stats()
        answer = self._containers.order(
            who, "ping", to=str(target.ip), count=TRESPASS_PINGS, timeout=TRESPASS_SECONDS
        )
        rise = self._lab.hosts[0].agent.stats().since(before).agent[reason].packets
        lost = TRESPASS_PINGS - len(answer["trips"])
        self._expect(
            f"{who} {how}: {lost} of {TRESPASS_PINGS} lost, drop reason {reason.name.lower()} +{rise}",
            lost == TRESPASS_PINGS and rise > 0,
        )

    # -- the books

    def show_counters(self) -> None:
        """Every verdict that was given, and no drop but the expected ones."""
        drawing.heading("What the programs decided, in packets")
        stats = self._stats()
        rows: list[list[str | int]] = []
        for program in ("agent", "guard"):
            for verdict in Verdict:
                counts = [getattr(host, program)[verdict].packets for host in stats]
                if any(counts):
                    rows.append([program, verdict.name.lower(), REMARKS.get(verdict, "?"), *counts])
        drawing.table(["program", "verdict", "", *(host.name for host in self._lab.hosts)], rows, left=3)
        drops = {verdict for host in stats for verdict in host.drops}
        unexpected = sorted(verdict.name.lower() for verdict in drops - REMARKS.keys())
        self._expect(f"drops without a remark: {', '.join(unexpected) or 'none'}", not unexpected)

    def compare_programs(self) -> None:
        """Programs and map memory with all endpoints are what they were without any."""
        drawing.heading("One program per hook, one set of maps, whatever the number of endpoints")
        for host, then in zip(self._lab.hosts, self._programs, strict=True):
            now, count = host.agent.state(), len(mz.Endpoint.list(host.agent))
            programs = ", ".join(f"{name} #{program_id}" for name, program_id in sorted(now.programs.items()))
            self._expect(
                f"{host.name}, 0 -> {count} endpoints: still {programs}", now.programs == then.programs
            )
            megabytes = f"{then.memory / 2**20:.1f} -> {now.memory / 2**20:.1f} MiB"
            self._expect(f"{host.name}, 0 -> {count} endpoints: maps {megabytes}", now.memory == then.memory)

    def conclude(self) -> int:
        """The exit status: zero if all was as expected."""
        failed = self._checks.count(False)
        verdict = f"{failed} NOT as expected" if failed else "all as expected"
        drawing.heading(f"{len(self._checks)} checks, {verdict}")
        return int(failed > 0)
