# SPDX-License-Identifier: Apache-2.0
"""BPF objects, maps, programs and the hooks they stand on, typed, over libbpf.

Nothing here knows what the programs are for. `ObjectSpec` is what can still be chosen, `Object` what the
kernel holds. Every descriptor belongs to exactly one handle; closing a handle closes that and nothing else.

What survives the last descriptor: a program that stands on a hook, as long as its device, and every map that it
uses or that was bound to it.
"""

from __future__ import annotations

from mizarnet._kernel.bpf._lib import libbpf_version as libbpf_version
from mizarnet._kernel.bpf._qdisc import query_filters as query_filters
from mizarnet._kernel.bpf.btf import Member as Member
from mizarnet._kernel.bpf.btf import StructLayout as StructLayout
from mizarnet._kernel.bpf.clsact import ClsactPlace as ClsactPlace
from mizarnet._kernel.bpf.fd import Fd as Fd
from mizarnet._kernel.bpf.features import YES as YES
from mizarnet._kernel.bpf.features import Feature as Feature
from mizarnet._kernel.bpf.features import has_btf as has_btf
from mizarnet._kernel.bpf.features import has_kfuncs as has_kfuncs
from mizarnet._kernel.bpf.features import has_tcx as has_tcx
from mizarnet._kernel.bpf.features import uses_tcx as uses_tcx
from mizarnet._kernel.bpf.frame_runner import FrameRunner as FrameRunner
from mizarnet._kernel.bpf.hook import Direction as Direction
from mizarnet._kernel.bpf.hook import device_exists as device_exists
from mizarnet._kernel.bpf.map import Map as Map
from mizarnet._kernel.bpf.map import MapShape as MapShape
from mizarnet._kernel.bpf.map import MapType as MapType
from mizarnet._kernel.bpf.map import MapTypes as MapTypes
from mizarnet._kernel.bpf.map import UpdateMode as UpdateMode
from mizarnet._kernel.bpf.object import Object as Object
from mizarnet._kernel.bpf.object import ObjectSpec as ObjectSpec
from mizarnet._kernel.bpf.program import Program as Program
from mizarnet._kernel.bpf.program import ProgramType as ProgramType
from mizarnet._kernel.bpf.program import TestRun as TestRun
from mizarnet._kernel.bpf.program import program_name as program_name
from mizarnet._kernel.bpf.program import with_program as with_program
from mizarnet._kernel.bpf.ringbuf import RingBuffer as RingBuffer
from mizarnet._kernel.bpf.tcx import TcxHook as TcxHook
from mizarnet._kernel.bpf.tcx import TcxState as TcxState
from mizarnet._kernel.bpf.xdp import XdpHook as XdpHook
from mizarnet._kernel.bpf.xdp import XdpState as XdpState
