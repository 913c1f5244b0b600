// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The one object of a host: its maps, once, and the programs that share them. */
#include <stdbool.h>
#include <stddef.h>

#include "agent.h"
#include "guard.h"
#include "lib/enumerations.h"
#include "switch.h"

char license_name[] SEC("license") = "Dual BSD/GPL";
