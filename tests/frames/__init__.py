# SPDX-License-Identifier: Apache-2.0
"""Frames by the byte, made and read without the library.

Each function makes one header around what is given to it, so a frame reads from the inside out; `datagram` makes the
one that most tests want. All of them are right by default, checksums and lengths too. To make a frame wrong, say so
where there is a keyword for it, or put other bytes in with `patched`. Addresses are text, MACs are bytes.
"""

from tests.frames.internet import *
from tests.frames.link import *
from tests.frames.neighbours import *
from tests.frames.tunnel import *
from tests.frames.upper import *
