# SPDX-License-Identifier: Apache-2.0
"""What the tests share: hosts and containers as namespaces, traffic, frames, and a look for what leaked."""
