# SPDX-License-Identifier: Apache-2.0
"""BPF objects, maps, programs and the hooks they stand on, typed, over libbpf.

Nothing here knows what the programs are for. `ObjectSpec` is what can still be chosen, `Object` what the
kernel holds. Every descriptor belongs to exactly one handle; closing a handle closes that and nothing else.

What survives the last descriptor: a program that stands on a hook, as long as its device, and every map that it
uses or that was bound to it.
"""

from __future__ import annotations

from mizarnet.bpf._lib import libbpf_version as libbpf_version
from mizarnet.bpf.btf import Member as Member
from mizarnet.bpf.btf import StructLayout as StructLayout
from mizarnet.bpf.clsact import ClsactPlace as ClsactPlace
from mizarnet.bpf.clsact import query_filters as query_filters
from mizarnet.bpf.features import Feature as Feature
from mizarnet.bpf.features import has_btf as has_btf
from mizarnet.bpf.features import has_kfuncs as has_kfuncs
from mizarnet.bpf.features import has_tcx as has_tcx
from mizarnet.bpf.frame_runner import FrameRunner as FrameRunner
from mizarnet.bpf.hook import Direction as Direction
from mizarnet.bpf.hook import device_exists as device_exists
from mizarnet.bpf.map import Map as Map
from mizarnet.bpf.map import MapType as MapType
from mizarnet.bpf.map import UpdateMode as UpdateMode
from mizarnet.bpf.object import Object as Object
from mizarnet.bpf.object import ObjectSpec as ObjectSpec
from mizarnet.bpf.program import Program as Program
from mizarnet.bpf.program import ProgramType as ProgramType
from mizarnet.bpf.program import TestRun as TestRun
from mizarnet.bpf.program import program_name as program_name
from mizarnet.bpf.ringbuf import RingBuffer as RingBuffer
from mizarnet.bpf.tcx import TcxHook as TcxHook
from mizarnet.bpf.tcx import TcxState as TcxState
from mizarnet.bpf.xdp import XdpHook as XdpHook
from mizarnet.bpf.xdp import XdpMode as XdpMode
from mizarnet.bpf.xdp import XdpState as XdpState
