// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The one object of a host: its maps, once, and the programs that share them. */
#include "agent.bpf.c"
#include "guard.bpf.c"
#include "lib/enumerations.h"
#include "shortcut.bpf.c"
#include "switch.bpf.c"

char license_name[] SEC("license") = "Dual BSD/GPL";
