# SPDX-License-Identifier: Apache-2.0
"""A machine that does anything to a host, in any order, and a model in plain Python of what must be there then.

``deeds`` says what can be done, and what comes of it; ``ground`` is the host that it is done to; ``look`` reads the
kernel, and ``judge`` compares. What becomes of a deed to which something happens is in ``faults``.
"""
