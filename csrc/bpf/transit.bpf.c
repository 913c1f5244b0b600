// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The one object of a host: its maps, once, and the programs that share them. */
#include <stdbool.h>
#include <stddef.h>

#include "agent.h"
#include "guard.h"
#include "switch.h"

/* BTF keeps only the types that something refers to; user space reads these enumerations there. */
const volatile struct {
	enum mzn_limit limit;
	enum mzn_program program;
	enum mzn_verdict verdict;
	enum mzn_place place;
	enum mzn_interface_flag interface_flag;
	enum mzn_kind kind;
	enum mzn_state state;
	enum mzn_layer layer;
	enum mzn_encap encap;
	enum mzn_switch_flag switch_flag;
} enumerations;

char license_name[] SEC("license") = "Dual BSD/GPL";
