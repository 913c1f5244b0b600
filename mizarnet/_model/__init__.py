# SPDX-License-Identifier: Apache-2.0
"""What the things of this library are: specifications, arguments, the numbers and layouts of abi.h, their codec."""
