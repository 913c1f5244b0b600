// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Errors for faults.py to make. Included into every C file of the sanitized extension by its compiler flags, so these
 * functions are there if, and only if, the sanitizers are in its code. */

/* Writes one byte behind `size` bytes at `at`. */
__attribute__((weak)) void mzn_fault_overrun(char *at, int size)
{
	at[size] = 1;
}

__attribute__((weak)) int mzn_fault_overflow(int most)
{
	return most + 1;
}
