// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#ifndef MZN_SHIM_H
#define MZN_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/if_link.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

/* Numbers of the kernel's stable interface. tcx came with Linux 6.6, so the headers of a 6.1 system lack its
 * enumerators, and an enumerator cannot be tested for by the preprocessor. */
#define MZN_TCX_INGRESS 46
#define MZN_TCX_EGRESS 47

void mzn_install_log(void);
int mzn_tcx_query(int ifindex, __u32 hook, __u32 *program_ids, __u32 *count, __u64 *revision);
int mzn_tcx_attach(int ifindex, __u32 hook, int program, __u64 revision);
int mzn_tcx_replace(int ifindex, __u32 hook, int program, int expected);
int mzn_tcx_detach(int ifindex, __u32 hook, int program);

#endif
