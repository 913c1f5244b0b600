# SPDX-License-Identifier: Apache-2.0
"""Identity by route: what frames carry at the transit agent, which of them it lets through, and which not."""
