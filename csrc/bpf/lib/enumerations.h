/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* BTF keeps only the types that something refers to; user space reads these enumerations there. */
#ifndef MZN_ENUMERATIONS_H
#define MZN_ENUMERATIONS_H

#include <mizarnet/abi.h>

const volatile struct {
	enum mzn_limit limit;
	enum mzn_program program;
	enum mzn_verdict verdict;
	enum mzn_place place;
	enum mzn_sender_flag sender_flag;
	enum mzn_kind kind;
	enum mzn_state state;
	enum mzn_item_kind item_kind;
	enum mzn_shortcut shortcut;
	enum mzn_layer layer;
	enum mzn_encap encap;
	enum mzn_switch_flag switch_flag;
	enum mzn_wish wish;
	enum mzn_event_flag event_flag;
} enumerations;

#endif
