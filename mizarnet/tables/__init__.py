# SPDX-License-Identifier: Apache-2.0
"""The tables of an agent as Python collections: live views that read and write the kernel's maps at each call."""

from __future__ import annotations

from mizarnet.tables._changes import Changes as Changes
from mizarnet.tables.endpoints import EndpointTable as EndpointTable
from mizarnet.tables.networks import NetworkTable as NetworkTable
from mizarnet.tables.peers import PeerSet as PeerSet
