# SPDX-License-Identifier: Apache-2.0
"""Random frames before random tables: what the programs do is compared with what the model says."""
