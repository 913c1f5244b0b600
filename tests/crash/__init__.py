# SPDX-License-Identifier: Apache-2.0
"""The judge of "nothing lost, nothing left": a fault at every system call of every public verb.

A verb is called in a process of its own (`attempt`), which is killed, interrupted, held, forked or refused something
in front of one call (`plan`). Then it is called again, by name, by a new handle or by the same process, or undone
(`verbs`). After each step the kernel's state, read without the library's own reader (`state`), is compared with what it
was before and with what an undisturbed call gives (`judge`). Endpoints that have no part in it (`ground`) send
datagrams to each other all the time.
"""
