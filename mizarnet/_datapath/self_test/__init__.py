# SPDX-License-Identifier: Apache-2.0
"""The self-test of the programs: a few frames with known results, in dry runs on tables made for them.

It runs before an upgrade, in an object made of the same sources as the one to be attached, and touches no map of a data
path. The results are on both sides of what matters: frames that an endpoint may send or receive pass, and those that it
may not are dropped for the right reason.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from mizarnet._datapath.dry_run import DryRun, Outcome, object_path
from mizarnet._datapath.self_test.frames import Canned, frames
from mizarnet._datapath.self_test.host import HOSTS, Host
from mizarnet._kernel.bpf import uses_tcx
from mizarnet._kernel.objects import has_route_identity
from mizarnet._model.enumerations import Program, Verdict
from mizarnet.errors import SelfTestError

__all__ = ["check", "failures"]


def check(path: Path | None = None, *, route_identity: bool | None = None) -> None:
    """Run all frames, which takes about 60 ms.

    Args:
        path: Path of the object; None: the shipped one.
        route_identity: Whether the object's agent knows senders by the route of packets; None: whether this kernel
            lets programs read it.

    Raises:
        SelfTestError: A program treats a frame wrongly.
        LayoutError: The object was built from other headers than this package.
        VerifierError: The kernel's verifier rejected a program.
        BpfError: The kernel refused a frame.
        PrivilegeError: ``CAP_BPF``, ``CAP_NET_ADMIN`` or ``CAP_PERFMON`` is missing.
    """
    with closing(failures(path, route_identity=route_identity)) as found:
        for error in found:
            raise error


def failures(
    path: Path | None = None, *, route_identity: bool | None = None
) -> Generator[SelfTestError, None, None]:
    """Errors for all frames that are treated wrongly; arguments and other errors as for :func:`check`."""
    known = bool(has_route_identity()) if route_identity is None else route_identity
    for host in HOSTS:
        with DryRun.load(host.config.pack(), path or object_path(route_identity=known)) as dry_run:
            host.fill(dry_run.maps)
            for canned in frames(host):
                if _can_be(canned, known):
                    yield from _compare(host, canned, dry_run)


def _can_be(canned: Canned, route_identity: bool) -> bool:
    """Whether this kernel has what a frame takes: without tcx there is no shortcut, nor all that its helpers need."""
    if canned.program is Program.SHORTCUT and not uses_tcx():
        return False
    return route_identity or not canned.needs_route_identity


def _compare(host: Host, canned: Canned, dry_run: DryRun) -> Iterator[SelfTestError]:
    dry_run.set_devices(tunnel=canned.has_tunnel, moved=canned.moved)
    wanted = _readable(canned.wanted)
    found = _readable(dry_run.run(canned.program, canned.frame, canned.context, canned.facts))
    differing = [name for name in wanted if wanted[name] != found[name]]
    if differing:
        yield _error(canned, host, _text(wanted, differing), _text(found, differing))


def _error(canned: Canned, host: Host, wanted: str, found: str) -> SelfTestError:
    program, frame = canned.program.name.lower(), f"{canned.name} ({host.name})"
    return SelfTestError(
        f"the {program} treats a frame {frame} wrongly: {found}, not {wanted}",
        program=program,
        frame=frame,
        wanted=wanted,
        found=found,
        hint="do not use this build: reinstall mizarnet, or report this kernel",
    )


def _readable(outcome: Outcome) -> Mapping[str, object]:
    """The results that the program decides, by name; the rest of the context is the kernel's."""
    action, frame, context, asked = outcome
    decided = {"action": action, "frame": frame, "mark": context.mark, "priority": context.priority}
    return decided | {"token": context.token, "tstamp": context.tstamp} | asked._asdict()


def _text(values: Mapping[str, object], names: list[str]) -> str:
    return ", ".join(f"{name} {_value(name, values[name])}" for name in names)


def _value(name: str, value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if name in ("verdict", "sent_verdict"):
        return next((verdict.name for verdict in Verdict if verdict == value), str(value))
    return str(value)
