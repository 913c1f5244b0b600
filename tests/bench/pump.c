/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Has an XDP program transmit a frame from a device many times, by the kernel's test run with live frames (since 5.18):
 *
 *     pump PROGRAM_ID DEVICE COUNT <frame
 *
 * In the network namespace of the device, which needs an XDP program of its own. Frames go out in batches, and what
 * softirqs do with them is done on this CPU before the next batch. Prints the nanoseconds of all.
 */
#include <linux/bpf.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, ROOM = 2048, SECOND = 1000000000 };

static int call_bpf(enum bpf_cmd command, union bpf_attr *attr)
{
	int result = syscall(SYS_bpf, command, attr, sizeof(*attr));

	if (result < 0) {
		perror("bpf");
		exit(1);
	}
	return result;
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * SECOND + time.tv_nsec;
}

int main(int argc, char **argv)
{
	static unsigned char frame[ROOM];
	struct xdp_md context = { 0 };
	union bpf_attr attr;
	uint64_t started;

	if (argc != 4)
		return 2;
	context.data_end = fread(frame, 1, ROOM, stdin);
	context.ingress_ifindex = if_nametoindex(argv[2]);
	memset(&attr, 0, sizeof(attr));
	attr.prog_id = strtoul(argv[1], NULL, 10);
	attr.test.prog_fd = call_bpf(BPF_PROG_GET_FD_BY_ID, &attr);
	memset((char *)&attr + sizeof(attr.test.prog_fd), 0, sizeof(attr) - sizeof(attr.test.prog_fd));
	attr.test.data_in = (uintptr_t)frame;
	attr.test.data_size_in = context.data_end;
	attr.test.ctx_in = (uintptr_t)&context;
	attr.test.ctx_size_in = sizeof(context);
	attr.test.repeat = strtoul(argv[3], NULL, 10);
	attr.test.batch_size = BATCH;
	attr.test.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
	started = now();
	call_bpf(BPF_PROG_TEST_RUN, &attr);
	printf("%llu\n", (unsigned long long)(now() - started));
	return 0;
}
