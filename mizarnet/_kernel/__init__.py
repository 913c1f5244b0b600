# SPDX-License-Identifier: Apache-2.0
"""How the kernel does it: eBPF objects, rtnetlink, and what of both this kernel has."""
