# SPDX-License-Identifier: Apache-2.0
"""The one logger: at INFO it says what is changed in the kernel, a line for each change, and no secret."""

from __future__ import annotations

import logging

log = logging.getLogger("mizarnet")
