// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The few things that cffi or libbpf 1.1 cannot say: va_list, and programs on tcx hooks without a link. */

#include "shim.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void mzn_log(int level, const char *text);

/* Format one message of libbpf and hand it to Python. A verifier log comes as one message of any length, so it is
 * measured first. errno is libbpf's result channel and must survive the detour. */
static int mzn_print(enum libbpf_print_level level, const char *format, va_list args)
{
	int saved = errno;
	char *text = NULL;

	if (vasprintf(&text, format, args) >= 0) {
		mzn_log((int)level, text);
		free(text);
	}
	errno = saved;
	return 0;
}

void mzn_install_log(void)
{
	libbpf_set_print(mzn_print);
}

/* Members of union bpf_attr as Linux 6.6 has them, for BPF_PROG_ATTACH and BPF_PROG_DETACH, and for BPF_PROG_QUERY.
 * An older kernel looks at the members it knows, and takes the rest only as zeros. */
struct attach_attr {
	__u32 target_ifindex;
	__u32 attach_bpf_fd;
	__u32 attach_type;
	__u32 attach_flags;
	__u32 replace_bpf_fd;
	__u32 relative_fd;
	__aligned_u64 expected_revision;
};

struct query_attr {
	__u32 target_ifindex;
	__u32 attach_type;
	__u32 query_flags;
	__u32 attach_flags;
	__aligned_u64 prog_ids;
	__u32 count;
	__u32 pad;
	__aligned_u64 prog_attach_flags;
	__aligned_u64 link_ids;
	__aligned_u64 link_attach_flags;
	__aligned_u64 revision;
};

enum {
	F_REPLACE = 1 << 2,
	F_BEFORE = 1 << 3, /* without a relative program: before all others */
};

static int bpf(enum bpf_cmd command, void *attr, unsigned int size)
{
	return syscall(__NR_bpf, command, attr, size) < 0 ? -errno : 0;
}

int mzn_tcx_query(int ifindex, __u32 hook, __u32 *program_ids, __u32 *count, __u64 *revision)
{
	struct query_attr attr = {
		.target_ifindex = ifindex,
		.attach_type = hook,
		.prog_ids = (uintptr_t)program_ids,
		.count = *count,
	};
	int err = bpf(BPF_PROG_QUERY, &attr, sizeof(attr));

	if (!err) {
		*count = attr.count;
		*revision = attr.revision;
	}
	return err;
}

/* Refused with ESTALE if the hook is no longer as it was at `revision`. */
int mzn_tcx_attach(int ifindex, __u32 hook, int program, __u64 revision)
{
	struct attach_attr attr = {
		.target_ifindex = ifindex,
		.attach_bpf_fd = program,
		.attach_type = hook,
		.attach_flags = F_BEFORE,
		.expected_revision = revision,
	};

	return bpf(BPF_PROG_ATTACH, &attr, sizeof(attr));
}

/* In the same place, and refused with ENOENT if `expected` is not there any more. */
int mzn_tcx_replace(int ifindex, __u32 hook, int program, int expected)
{
	struct attach_attr attr = {
		.target_ifindex = ifindex,
		.attach_bpf_fd = program,
		.attach_type = hook,
		.attach_flags = F_REPLACE,
		.replace_bpf_fd = expected,
	};

	return bpf(BPF_PROG_ATTACH, &attr, sizeof(attr));
}

int mzn_tcx_detach(int ifindex, __u32 hook, int program)
{
	struct attach_attr attr = {
		.target_ifindex = ifindex,
		.attach_bpf_fd = program,
		.attach_type = hook,
	};

	return bpf(BPF_PROG_DETACH, &attr, sizeof(attr));
}
