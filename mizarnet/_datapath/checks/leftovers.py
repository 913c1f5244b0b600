# SPDX-License-Identifier: Apache-2.0
"""What is left on a host of tunnels and endpoints that are gone, and that the kernel does not delete with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from mizarnet._datapath import shortcuts, switches
from mizarnet._datapath.host import Host
from mizarnet._datapath.private_netns import describe
from mizarnet._datapath.tunnel_device import unfinished
from mizarnet._model.finding import Finding, FindingKind, Subject


def left_switches(host: Host) -> Iterator[Finding]:
    """Findings for transit switches whose tunnels are gone."""
    for each in switches.find(host):
        if not each.has_owner():
            text = f"a transit switch's program is on {each.link.name}, and its tunnel is gone"
            yield Finding(
                FindingKind.SWITCH_LEFT,
                Subject("switch", each.link.name),
                None,
                each.standing.program_id,
                text,
                "TransitSwitch.detach() by the device's name removes it",
                instance=each.standing.meta_id,
            )


def left_shortcuts(host: Host) -> Iterator[Finding]:
    """Findings for shortcuts whose tunnels are gone."""
    for each in shortcuts.find(host):
        if not each.has_owner():
            text = f"a shortcut's program is on {each.link.name}, and its tunnel is gone"
            yield Finding(
                FindingKind.SHORTCUT_LEFT,
                Subject(each.KIND, each.link.name),
                None,
                each.standing.program_id,
                text,
                instance=each.standing.meta_id,
            )


def left_tunnels(host: Host) -> Iterator[Finding]:
    """A finding for the device of a tunnel whose maker died before it had its name."""
    link = unfinished(host)
    if link is not None:
        text = "it was to become a tunnel, and its maker died"
        subject = Subject("device", link.name)
        yield Finding(FindingKind.DEVICE_LEFT, subject, None, link.ifindex, text, instance=link.ifindex)


def left_namespaces(
    host: Host, names: Mapping[str, int], instances: Mapping[int, Collection[int] | None]
) -> Iterator[Finding]:
    """Findings for private namespaces whose endpoints are gone.

    Args:
        host: Host that they were made for.
        names: Names of private namespaces with the instances of their endpoints, read before the records were.
        instances: Instances of the endpoints of each tunnel, by the index of its device; None: they are not known.
    """
    living = {instance for each in instances.values() for instance in each or ()}
    for name, instance in names.items():
        if instance in living:
            continue  # it need not be entered
        found = describe(name)
        if found is None or found.cookie != host.cookie or instances.get(found.ifindex, ()) is None:
            continue
        text = "it was made for the endpoint of a VM, or a gateway, that is gone"
        subject = Subject("namespace", name)
        yield Finding(FindingKind.NAMESPACE_LEFT, subject, None, name, text, instance=found.instance)
