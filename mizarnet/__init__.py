# SPDX-License-Identifier: Apache-2.0
"""An overlay network for containers and VMs: one tunnel device, one transit agent and one global map per host.

Imports run one way, left to right, and a contract keeps it so::

    errors, numbers, checks, values -> abi -> bpf | netlink -> html, store, stats, tables, presence, attachment
        -> tunnel -> wiring -> agent -> endpoint -> deleting, features, lab
"""
