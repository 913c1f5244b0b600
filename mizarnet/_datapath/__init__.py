# SPDX-License-Identifier: Apache-2.0
"""What of ours lies in the kernel: hosts, the data path on a tunnel, the endpoints on it."""
