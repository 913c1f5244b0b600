# SPDX-License-Identifier: Apache-2.0
"""An overlay network for containers and VMs: one tunnel device, one transit agent and one global map per host.

Imports run one way, left to right, and a contract keeps it so::

    errors, numbers, checks, values -> abi -> lock -> bpf | netlink, html -> feature, behaviours, private, tap
        -> maps -> loader -> dry_run -> self_test -> hooks -> survey -> attachment -> datapath
        -> tables, presence, leftovers -> tunnel -> install, upgrade, wiring -> agent -> switch | endpoint
        -> deleting, features -> lab
"""

from __future__ import annotations

from mizarnet.agent import AgentState as AgentState
from mizarnet.agent import TransitAgent as TransitAgent
from mizarnet.deleting import deleting as deleting
from mizarnet.endpoint import Endpoint as Endpoint
from mizarnet.endpoint import EndpointState as EndpointState
from mizarnet.errors import AgentNotFoundError as AgentNotFoundError
from mizarnet.errors import BpfError as BpfError
from mizarnet.errors import BulkError as BulkError
from mizarnet.errors import CapacityError as CapacityError
from mizarnet.errors import ClosedError as ClosedError
from mizarnet.errors import EndpointNotFoundError as EndpointNotFoundError
from mizarnet.errors import ExistsError as ExistsError
from mizarnet.errors import ForkedError as ForkedError
from mizarnet.errors import InUseError as InUseError
from mizarnet.errors import InvalidTypeError as InvalidTypeError
from mizarnet.errors import InvalidValueError as InvalidValueError
from mizarnet.errors import KernelError as KernelError
from mizarnet.errors import LayoutError as LayoutError
from mizarnet.errors import LocalEndpointError as LocalEndpointError
from mizarnet.errors import LockTimeoutError as LockTimeoutError
from mizarnet.errors import MizarnetError as MizarnetError
from mizarnet.errors import MtuError as MtuError
from mizarnet.errors import NetlinkError as NetlinkError
from mizarnet.errors import NetnsNotFoundError as NetnsNotFoundError
from mizarnet.errors import NotFoundError as NotFoundError
from mizarnet.errors import OutdatedWarning as OutdatedWarning
from mizarnet.errors import PrivilegeError as PrivilegeError
from mizarnet.errors import SelfTestError as SelfTestError
from mizarnet.errors import StaleHandleError as StaleHandleError
from mizarnet.errors import SwitchNotFoundError as SwitchNotFoundError
from mizarnet.errors import TunnelNotFoundError as TunnelNotFoundError
from mizarnet.errors import UnderlayNotFoundError as UnderlayNotFoundError
from mizarnet.errors import UnsupportedError as UnsupportedError
from mizarnet.errors import UntrustedNamespaceError as UntrustedNamespaceError
from mizarnet.errors import VerifierError as VerifierError
from mizarnet.features import Feature as Feature
from mizarnet.features import Features as Features
from mizarnet.features import probe as probe
from mizarnet.lab import Lab as Lab
from mizarnet.lab import LabHost as LabHost
from mizarnet.loader import Capacity as Capacity
from mizarnet.numbers import Program as Program
from mizarnet.numbers import Verdict as Verdict
from mizarnet.stats import Counter as Counter
from mizarnet.stats import EndpointStats as EndpointStats
from mizarnet.stats import Stats as Stats
from mizarnet.switch import SwitchState as SwitchState
from mizarnet.switch import TransitSwitch as TransitSwitch
from mizarnet.tables import Changes as Changes
from mizarnet.tables import EndpointTable as EndpointTable
from mizarnet.tables import NetworkTable as NetworkTable
from mizarnet.tables import PeerSet as PeerSet
from mizarnet.tap import Tap as Tap
from mizarnet.tunnel import Tunnel as Tunnel
from mizarnet.tunnel import TunnelState as TunnelState
from mizarnet.values import Encap as Encap
from mizarnet.values import EndpointKey as EndpointKey
from mizarnet.values import EndpointSpec as EndpointSpec
from mizarnet.values import Hook as Hook
from mizarnet.values import Kind as Kind
from mizarnet.values import Local as Local
from mizarnet.values import MacAddress as MacAddress
from mizarnet.values import Network as Network
from mizarnet.values import NetworkKey as NetworkKey
from mizarnet.values import Remote as Remote
