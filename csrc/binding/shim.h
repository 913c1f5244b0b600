// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#ifndef MZN_SHIM_H
#define MZN_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/if_link.h>
#include <linux/magic.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

/* Numbers of the kernel's stable interface. tcx came with Linux 6.6, so the headers of a 6.1 system lack its
 * enumerators, and an enumerator cannot be tested for by the preprocessor. */
#define MZN_LINK_TYPE_XDP BPF_LINK_TYPE_XDP
#define MZN_LINK_TYPE_TCX 11
#define MZN_TCX_INGRESS 46
#define MZN_TCX_EGRESS 47
#define MZN_ATTACH_XDP BPF_XDP
#define MZN_F_BEFORE (1U << 3)
#define MZN_BPFFS_MAGIC BPF_FS_MAGIC

/* The part of struct bpf_link_info that XDP and tcx links share. */
struct mzn_link_info {
	__u32 type;
	__u32 id;
	__u32 prog_id;
	__u32 ifindex; /* 0: the device is gone */
	__u32 attach_type; /* tcx only */
};

int mzn_read_link_info(int fd, struct mzn_link_info *out);
void mzn_install_log(void);
int mzn_mount_bpffs(const char *path);
long mzn_filesystem_magic(const char *path);

#endif
