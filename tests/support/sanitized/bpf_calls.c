// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Watches the memory that bpf(2) is given. The kernel reads and writes it, and libbpf, which is not instrumented,
 * makes the call: nothing else would notice a buffer that is too small, or gone. Preloaded behind libasan, in the
 * place of the C library's syscall().
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/bpf.h>

#include <sanitizer/asan_interface.h>

/* gcc's two sanitizers come as two libraries, and only libasan heeds log_path then: tell libubsan its path as well. */
__attribute__((constructor)) static void join_reports(void)
{
	void *ubsan = dlopen("libubsan.so.1", RTLD_NOW);
	void (*set_path)(const char *path) = ubsan ? dlsym(ubsan, "__sanitizer_set_report_path") : NULL;

	if (set_path)
		set_path(getenv("MIZARNET_REPORTS"));
}

typedef long (*system_call)(long number, ...);

static system_call next(void)
{
	static system_call found;

	if (!found)
		found = (system_call)dlsym(RTLD_NEXT, "syscall");
	return found;
}

/* Reads the first byte that is nobody's, if there is one: the sanitizer says what lies there, and ends the process. */
static void check(__u64 at, __u64 size)
{
	volatile char *strange = at && size ? __asan_region_is_poisoned((void *)at, size) : NULL;

	if (strange)
		(void)*strange;
}

static void check_path(__u64 path)
{
	if (path)
		check(path, strlen((const char *)path) + 1);
}

static bool read_map_info(int fd, struct bpf_map_info *info)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	memset(info, 0, sizeof(*info));
	attr.info.bpf_fd = fd;
	attr.info.info_len = sizeof(*info);
	attr.info.info = (__u64)info;
	return next()(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof(attr)) == 0;
}

/* What the kernel copies for one key (bpf_map_value_size() in kernel/bpf/syscall.c). */
static __u64 value_size(const struct bpf_map_info *info)
{
	switch (info->type) {
	case BPF_MAP_TYPE_PERCPU_HASH:
	case BPF_MAP_TYPE_LRU_PERCPU_HASH:
	case BPF_MAP_TYPE_PERCPU_ARRAY:
	case BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE:
		return (info->value_size + 7ull) / 8 * 8 * sysconf(_SC_NPROCESSORS_CONF);
	default:
		return info->value_size;
	}
}

static void check_element(const union bpf_attr *attr, bool has_value)
{
	struct bpf_map_info info;

	if (!read_map_info(attr->map_fd, &info))
		return;
	check(attr->key, info.key_size);
	if (has_value)
		check(attr->value, value_size(&info));
}

static void check_next_key(const union bpf_attr *attr)
{
	struct bpf_map_info info;

	if (!read_map_info(attr->map_fd, &info))
		return;
	check(attr->key, info.key_size);
	check(attr->next_key, info.key_size);
}

static void check_batch(const union bpf_attr *attr)
{
	struct bpf_map_info info;
	__u64 place;

	if (!read_map_info(attr->batch.map_fd, &info))
		return;
	/* The kernel remembers the number of a bucket or, in a prefix table, a key. */
	place = info.type == BPF_MAP_TYPE_LPM_TRIE ? info.key_size : sizeof(__u32);
	check(attr->batch.in_batch, place);
	check(attr->batch.out_batch, place);
	check(attr->batch.keys, (__u64)info.key_size * attr->batch.count);
	check(attr->batch.values, value_size(&info) * attr->batch.count);
}

static void check_test_run(const union bpf_attr *attr)
{
	check(attr->test.data_in, attr->test.data_size_in);
	check(attr->test.data_out, attr->test.data_size_out);
	check(attr->test.ctx_in, attr->test.ctx_size_in);
	check(attr->test.ctx_out, attr->test.ctx_size_out);
}

static void check_call(long command, const union bpf_attr *attr)
{
	switch (command) {
	case BPF_MAP_LOOKUP_ELEM:
	case BPF_MAP_UPDATE_ELEM:
		return check_element(attr, true);
	case BPF_MAP_DELETE_ELEM:
		return check_element(attr, false);
	case BPF_MAP_GET_NEXT_KEY:
		return check_next_key(attr);
	case BPF_MAP_LOOKUP_BATCH:
	case BPF_MAP_UPDATE_BATCH:
	case BPF_MAP_DELETE_BATCH:
		return check_batch(attr);
	case BPF_PROG_LOAD:
		return check(attr->log_buf, attr->log_size);
	case BPF_PROG_TEST_RUN:
		return check_test_run(attr);
	case BPF_PROG_QUERY:
		return check(attr->query.prog_ids, attr->query.prog_cnt * sizeof(__u32));
	case BPF_OBJ_GET_INFO_BY_FD:
		return check(attr->info.info, attr->info.info_len);
	case BPF_OBJ_PIN:
	case BPF_OBJ_GET:
		return check_path(attr->pathname);
	}
}

long syscall(long number, ...)
{
	long with[6];
	va_list rest;

	va_start(rest, number);
	for (int i = 0; i < 6; i++)
		with[i] = va_arg(rest, long);
	va_end(rest);
	if (number == SYS_bpf) {
		union bpf_attr attr;
		size_t given = (size_t)with[2];

		check(with[1], given);
		memset(&attr, 0, sizeof(attr)); /* a short one ends in zeros */
		memcpy(&attr, (void *)with[1], given < sizeof(attr) ? given : sizeof(attr));
		check_call(with[0], &attr);
	}
	return next()(number, with[0], with[1], with[2], with[3], with[4], with[5]);
}
