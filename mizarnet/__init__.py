# SPDX-License-Identifier: Apache-2.0
"""An overlay network for containers and VMs: one tunnel device, one transit agent and one global map per host.

A name is imported with its first use. Imports run down the strata of ``docs/architecture.md`` only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mizarnet import aio as aio
    from mizarnet import metrics as metrics
    from mizarnet._datapath.loader import Capacity as Capacity
    from mizarnet._model.columns import EndpointColumns as EndpointColumns
    from mizarnet._model.enumerations import Program as Program
    from mizarnet._model.enumerations import Verdict as Verdict
    from mizarnet._model.enumerations import VerdictKind as VerdictKind
    from mizarnet._model.event import Event as Event
    from mizarnet._model.explanation import Crossing as Crossing
    from mizarnet._model.explanation import Explanation as Explanation
    from mizarnet._model.explanation import Step as Step
    from mizarnet._model.finding import Change as Change
    from mizarnet._model.finding import Cure as Cure
    from mizarnet._model.finding import Finding as Finding
    from mizarnet._model.finding import FindingKind as FindingKind
    from mizarnet._model.finding import Health as Health
    from mizarnet._model.finding import Report as Report
    from mizarnet._model.finding import Severity as Severity
    from mizarnet._model.finding import Subject as Subject
    from mizarnet._model.gateways import Publish as Publish
    from mizarnet._model.specs import KEEP as KEEP
    from mizarnet._model.specs import DefaultRoute as DefaultRoute
    from mizarnet._model.specs import Encap as Encap
    from mizarnet._model.specs import EndpointKey as EndpointKey
    from mizarnet._model.specs import EndpointSpec as EndpointSpec
    from mizarnet._model.specs import Hook as Hook
    from mizarnet._model.specs import Keep as Keep
    from mizarnet._model.specs import Kind as Kind
    from mizarnet._model.specs import Life as Life
    from mizarnet._model.specs import Local as Local
    from mizarnet._model.specs import MacAddress as MacAddress
    from mizarnet._model.specs import MacvlanMode as MacvlanMode
    from mizarnet._model.specs import Network as Network
    from mizarnet._model.specs import NetworkKey as NetworkKey
    from mizarnet._model.specs import Remote as Remote
    from mizarnet._model.specs import Route as Route
    from mizarnet._model.specs import Shortcut as Shortcut
    from mizarnet._model.specs import XdpMode as XdpMode
    from mizarnet._model.stats import Counter as Counter
    from mizarnet._model.stats import EndpointStats as EndpointStats
    from mizarnet._model.stats import Stats as Stats
    from mizarnet.agent import AgentState as AgentState
    from mizarnet.agent import ShortcutState as ShortcutState
    from mizarnet.agent import TransitAgent as TransitAgent
    from mizarnet.deletion import deleting as deleting
    from mizarnet.endpoint import Endpoint as Endpoint
    from mizarnet.endpoint import EndpointState as EndpointState
    from mizarnet.errors import AgentNotFoundError as AgentNotFoundError
    from mizarnet.errors import BpfError as BpfError
    from mizarnet.errors import BulkError as BulkError
    from mizarnet.errors import CapacityError as CapacityError
    from mizarnet.errors import ClosedError as ClosedError
    from mizarnet.errors import EndpointNotFoundError as EndpointNotFoundError
    from mizarnet.errors import EntryNotFoundError as EntryNotFoundError
    from mizarnet.errors import ExistsError as ExistsError
    from mizarnet.errors import ForeignEntryError as ForeignEntryError
    from mizarnet.errors import ForkedError as ForkedError
    from mizarnet.errors import GatewayNotFoundError as GatewayNotFoundError
    from mizarnet.errors import InUseError as InUseError
    from mizarnet.errors import InvalidTypeError as InvalidTypeError
    from mizarnet.errors import InvalidValueError as InvalidValueError
    from mizarnet.errors import KernelError as KernelError
    from mizarnet.errors import LayoutError as LayoutError
    from mizarnet.errors import LocalEndpointError as LocalEndpointError
    from mizarnet.errors import LockTimeoutError as LockTimeoutError
    from mizarnet.errors import MissingLibraryError as MissingLibraryError
    from mizarnet.errors import MizarnetError as MizarnetError
    from mizarnet.errors import MtuError as MtuError
    from mizarnet.errors import NetlinkError as NetlinkError
    from mizarnet.errors import NetnsNotFoundError as NetnsNotFoundError
    from mizarnet.errors import NotFoundError as NotFoundError
    from mizarnet.errors import OutdatedWarning as OutdatedWarning
    from mizarnet.errors import PrivilegeError as PrivilegeError
    from mizarnet.errors import SelfTestError as SelfTestError
    from mizarnet.errors import SpecError as SpecError
    from mizarnet.errors import StaleHandleError as StaleHandleError
    from mizarnet.errors import StalePlanError as StalePlanError
    from mizarnet.errors import SwitchNotFoundError as SwitchNotFoundError
    from mizarnet.errors import TunnelNotFoundError as TunnelNotFoundError
    from mizarnet.errors import UnderlayNotFoundError as UnderlayNotFoundError
    from mizarnet.errors import UnsupportedError as UnsupportedError
    from mizarnet.errors import UntrustedNamespaceError as UntrustedNamespaceError
    from mizarnet.errors import VerifierError as VerifierError
    from mizarnet.events import Events as Events
    from mizarnet.explain import explain_path as explain_path
    from mizarnet.features import Feature as Feature
    from mizarnet.features import Features as Features
    from mizarnet.features import probe as probe
    from mizarnet.gateway import Gateway as Gateway
    from mizarnet.gateway import GatewayState as GatewayState
    from mizarnet.host import Host as Host
    from mizarnet.hostspec import HostSpec as HostSpec
    from mizarnet.lab import Lab as Lab
    from mizarnet.lab import LabHost as LabHost
    from mizarnet.plan import Plan as Plan
    from mizarnet.switch import SwitchState as SwitchState
    from mizarnet.switch import TransitSwitch as TransitSwitch
    from mizarnet.tables import Changes as Changes
    from mizarnet.tables import EndpointTable as EndpointTable
    from mizarnet.tables import NetworkTable as NetworkTable
    from mizarnet.tables import PeerSet as PeerSet
    from mizarnet.tap import Tap as Tap
    from mizarnet.tunnel import Tunnel as Tunnel
    from mizarnet.tunnel import TunnelState as TunnelState

__version__ = "0.1.0"
__all__ = [
    "KEEP",
    "AgentNotFoundError",
    "AgentState",
    "BpfError",
    "BulkError",
    "Capacity",
    "CapacityError",
    "Change",
    "Changes",
    "ClosedError",
    "Counter",
    "Crossing",
    "Cure",
    "DefaultRoute",
    "Encap",
    "Endpoint",
    "EndpointColumns",
    "EndpointKey",
    "EndpointNotFoundError",
    "EndpointSpec",
    "EndpointState",
    "EndpointStats",
    "EndpointTable",
    "EntryNotFoundError",
    "Event",
    "Events",
    "ExistsError",
    "Explanation",
    "Feature",
    "Features",
    "Finding",
    "FindingKind",
    "ForeignEntryError",
    "ForkedError",
    "Gateway",
    "GatewayNotFoundError",
    "GatewayState",
    "Health",
    "Hook",
    "Host",
    "HostSpec",
    "InUseError",
    "InvalidTypeError",
    "InvalidValueError",
    "Keep",
    "KernelError",
    "Kind",
    "Lab",
    "LabHost",
    "LayoutError",
    "Life",
    "Local",
    "LocalEndpointError",
    "LockTimeoutError",
    "MacAddress",
    "MacvlanMode",
    "MissingLibraryError",
    "MizarnetError",
    "MtuError",
    "NetlinkError",
    "NetnsNotFoundError",
    "Network",
    "NetworkKey",
    "NetworkTable",
    "NotFoundError",
    "OutdatedWarning",
    "PeerSet",
    "Plan",
    "PrivilegeError",
    "Program",
    "Publish",
    "Remote",
    "Report",
    "Route",
    "SelfTestError",
    "Severity",
    "Shortcut",
    "ShortcutState",
    "SpecError",
    "StaleHandleError",
    "StalePlanError",
    "Stats",
    "Step",
    "Subject",
    "SwitchNotFoundError",
    "SwitchState",
    "Tap",
    "TransitAgent",
    "TransitSwitch",
    "Tunnel",
    "TunnelNotFoundError",
    "TunnelState",
    "UnderlayNotFoundError",
    "UnsupportedError",
    "UntrustedNamespaceError",
    "Verdict",
    "VerdictKind",
    "VerifierError",
    "XdpMode",
    "__version__",
    "deleting",
    "explain_path",
    "probe",
]

# Where the names are that are no errors.
_HOMES = {
    "mizarnet._datapath.loader": "Capacity",
    "mizarnet._model.columns": "EndpointColumns",
    "mizarnet._model.enumerations": "Program Verdict VerdictKind",
    "mizarnet._model.event": "Event",
    "mizarnet._model.explanation": "Crossing Explanation Step",
    "mizarnet._model.finding": "Change Cure Finding FindingKind Health Report Severity Subject",
    "mizarnet._model.gateways": "Publish",
    "mizarnet._model.specs": "DefaultRoute Encap EndpointKey EndpointSpec Hook KEEP Keep Kind Life Local MacAddress"
    " MacvlanMode Network NetworkKey Remote Route Shortcut XdpMode",
    "mizarnet._model.stats": "Counter EndpointStats Stats",
    "mizarnet.agent": "AgentState ShortcutState TransitAgent",
    "mizarnet.deletion": "deleting",
    "mizarnet.endpoint": "Endpoint EndpointState",
    "mizarnet.events": "Events",
    "mizarnet.explain": "explain_path",
    "mizarnet.features": "Feature Features probe",
    "mizarnet.gateway": "Gateway GatewayState",
    "mizarnet.host": "Host",
    "mizarnet.hostspec": "HostSpec",
    "mizarnet.lab": "Lab LabHost",
    "mizarnet.plan": "Plan",
    "mizarnet.switch": "SwitchState TransitSwitch",
    "mizarnet.tables": "Changes EndpointTable NetworkTable PeerSet",
    "mizarnet.tap": "Tap",
    "mizarnet.tunnel": "Tunnel TunnelState",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}
# Modules that are names of the root. ``from mizarnet import *`` leaves them out, since they import what few need.
_MODULES = ["aio", "metrics"]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"mizarnet.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF.get(name, "mizarnet.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
