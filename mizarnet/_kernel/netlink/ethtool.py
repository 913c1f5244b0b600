# SPDX-License-Identifier: Apache-2.0
"""The one setting of a driver that matters here, by the ioctl of old: its netlink twin needs another family."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct

_SIOCETHTOOL = 0x8946
_ETHTOOL_GGRO = 0x2B


def has_gro(device: str) -> bool:
    """Whether a device of the calling thread's namespace merges received packets; False if it cannot tell."""
    answer = array.array("I", [_ETHTOOL_GGRO, 0])
    address, _ = answer.buffer_info()
    request = struct.pack("16sP16x", os.fsencode(device), address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCETHTOOL, request)
        except OSError:
            return False
    return bool(answer[1])
