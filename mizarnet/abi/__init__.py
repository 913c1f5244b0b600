# SPDX-License-Identifier: Apache-2.0
"""What Python and the BPF programs share: the layouts of structures, and the records made of them."""
