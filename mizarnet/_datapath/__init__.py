# SPDX-License-Identifier: Apache-2.0
"""The objects of mizarnet in the kernel: hosts, tunnels, the data path on each tunnel, the endpoints on it."""
