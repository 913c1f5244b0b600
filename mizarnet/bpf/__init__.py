# SPDX-License-Identifier: Apache-2.0
"""BPF objects, maps, programs, links and pins, typed, over libbpf.

Nothing here knows what the programs are for. `ObjectSpec` is what can still be chosen, `Object` what the
kernel holds. Every descriptor belongs to exactly one handle; closing a handle closes that and nothing else.

What survives the last descriptor: a map or program that is pinned, attached or used by another program; a
link that is pinned; a clsact filter always, since it belongs to its device.
"""

from __future__ import annotations

from mizarnet.bpf._lib import libbpf_version as libbpf_version
from mizarnet.bpf.btf import Member as Member
from mizarnet.bpf.btf import StructLayout as StructLayout
from mizarnet.bpf.clsact import ClsactLink as ClsactLink
from mizarnet.bpf.clsact import attach_clsact as attach_clsact
from mizarnet.bpf.clsact import open_clsact as open_clsact
from mizarnet.bpf.clsact import query_clsact as query_clsact
from mizarnet.bpf.clsact import query_filters as query_filters
from mizarnet.bpf.features import Feature as Feature
from mizarnet.bpf.features import has_btf as has_btf
from mizarnet.bpf.features import has_kfuncs as has_kfuncs
from mizarnet.bpf.features import has_tcx as has_tcx
from mizarnet.bpf.link import Direction as Direction
from mizarnet.bpf.link import Link as Link
from mizarnet.bpf.link import XdpMode as XdpMode
from mizarnet.bpf.link import XdpState as XdpState
from mizarnet.bpf.link import attach_tcx as attach_tcx
from mizarnet.bpf.link import attach_xdp as attach_xdp
from mizarnet.bpf.link import query_tcx as query_tcx
from mizarnet.bpf.link import query_xdp as query_xdp
from mizarnet.bpf.map import Map as Map
from mizarnet.bpf.map import MapType as MapType
from mizarnet.bpf.map import UpdateMode as UpdateMode
from mizarnet.bpf.object import Object as Object
from mizarnet.bpf.object import ObjectSpec as ObjectSpec
from mizarnet.bpf.pin import ensure_bpffs as ensure_bpffs
from mizarnet.bpf.pin import make_pin_directory as make_pin_directory
from mizarnet.bpf.pin import unpin as unpin
from mizarnet.bpf.program import Program as Program
from mizarnet.bpf.program import ProgramType as ProgramType
from mizarnet.bpf.program import TestRun as TestRun
from mizarnet.bpf.program import program_name as program_name
from mizarnet.bpf.ringbuf import RingBuffer as RingBuffer
