# SPDX-License-Identifier: Apache-2.0
"""The model's arithmetic. What the model makes of frames is in ``test_fixtures.py``."""

from __future__ import annotations

from tests.model.checksum import changed, internet_checksum


def test_checksums_are_those_of_the_standards() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D  # RFC 1071, section 3
    assert changed(0xDD2F, b"\x55\x55", b"\x32\x85") == 0x0000  # RFC 1624, section 4
    assert changed(0xFFFF, b"\x12\x34", b"\x12\x34") == 0x0000  # zero too, and equation 3 prefers this one
