# SPDX-License-Identifier: Apache-2.0
"""What the examples need beside mizarnet: traffic between containers, and reports of what happened."""
