# SPDX-License-Identifier: Apache-2.0
"""The same frame explained and sent: what is explained is what the programs of the hosts count."""
