// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The few things that cffi cannot say by itself: va_list, newer kernel structures, statfs and mount. */

#include "shim.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>

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

/* struct bpf_link_info of Linux 6.1 has no tcx member. Its ifindex lies where that of xdp does, and the attach type
 * follows; the room is for whatever a newer kernel fills in. */
int mzn_read_link_info(int fd, struct mzn_link_info *out)
{
	union {
		struct bpf_link_info info;
		__u8 room[256];
	} answer;
	__u32 size = sizeof(answer);
	int err;

	memset(&answer, 0, sizeof(answer));
	err = bpf_obj_get_info_by_fd(fd, &answer, &size);
	if (err)
		return err;
	out->type = answer.info.type;
	out->id = answer.info.id;
	out->prog_id = answer.info.prog_id;
	out->ifindex = answer.info.xdp.ifindex;
	memcpy(&out->attach_type, answer.room + offsetof(struct bpf_link_info, xdp.ifindex) + sizeof(__u32),
	       sizeof(__u32));
	return 0;
}

int mzn_mount_bpffs(const char *path)
{
	return mount("bpf", path, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") ? -errno : 0;
}

long mzn_filesystem_magic(const char *path)
{
	struct statfs facts;

	return statfs(path, &facts) ? -errno : (long)facts.f_type;
}
