/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Everything is counted as lib/count.h does it, and noted. */
#ifndef MZN_DRY_RUN_COUNT_H
#define MZN_DRY_RUN_COUNT_H

#include "../lib/count.h"
#include "facts.h"

static __always_inline void note_verdict(__u32 program, __u32 verdict, __u32 bytes)
{
	struct dry_run *run = shared_run();

	if (!run)
		return;
	run->asked.verdicts += 1;
	run->asked.program = program;
	run->asked.verdict = verdict;
	run->asked.length = bytes;
}

static __always_inline void note_sent(__u32 slot, __u32 verdict, __u32 bytes)
{
	struct dry_run *run = shared_run();

	if (!run)
		return;
	run->asked.sent += 1;
	run->asked.sent_slot = slot;
	run->asked.sent_verdict = verdict;
	run->asked.sent_length = bytes;
}

static __always_inline void note_received(__u32 slot, __u32 bytes)
{
	struct dry_run *run = shared_run();

	if (!run)
		return;
	run->asked.received += 1;
	run->asked.received_slot = slot;
	run->asked.received_length = bytes;
}

static __always_inline void note_undelivered(__u32 slot, __u32 verdict, __u32 bytes)
{
	struct dry_run *run = shared_run();

	if (!run)
		return;
	run->asked.undelivered += 1;
	run->asked.undelivered_slot = slot;
	run->asked.undelivered_verdict = verdict;
	run->asked.undelivered_length = bytes;
}

#define count_verdict(program, verdict, bytes) \
	(note_verdict(program, verdict, bytes), count_verdict(program, verdict, bytes))
#define count_sent(slot, verdict, bytes) (note_sent(slot, verdict, bytes), count_sent(slot, verdict, bytes))
#define count_received(slot, bytes) (note_received(slot, bytes), count_received(slot, bytes))
#define count_undelivered(slot, verdict, bytes) \
	(note_undelivered(slot, verdict, bytes), count_undelivered(slot, verdict, bytes))

#endif
