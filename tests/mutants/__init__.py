# SPDX-License-Identifier: Apache-2.0
"""Seeded bugs: the shipped sources with one mistake each, which fixtures and fuzz must notice."""
