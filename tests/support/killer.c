/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kills a process at one of its system calls that change anything: killer PID N. It attaches to PID, says "ready", and
 * counts such calls, of all its threads, from the moment when one of them calls getsid(BEGIN). The Nth is not executed:
 * the process dies in front of it. With N = 0 nobody dies, and each call is listed. getsid(END) is the last of them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/netlink.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BEGIN = 0x7ffff001, END = 0x7ffff002 };

/* What is about to be done, in words. */
static char what[512];

/* glibc has the same constants under another type, and the two headers do not go together. */
static long trace(long request, pid_t thread, unsigned long address, unsigned long data)
{
	return syscall(SYS_ptrace, request, thread, address, data);
}

static bool copy(pid_t thread, unsigned long from, void *to, size_t size)
{
	struct iovec here = { to, size }, there = { (void *)from, size };

	return process_vm_readv(thread, &here, 1, &there, 1, 0) == (ssize_t)size;
}

static void say(const char *verb, pid_t thread, unsigned long path)
{
	size_t used = snprintf(what, sizeof(what), "%s ", verb);

	for (; used < sizeof(what) - 1; used++, path++)
		if (!copy(thread, path, what + used, 1) || !what[used])
			break;
	what[used] = '\0';
}

static bool changes_bpf(unsigned int command)
{
	snprintf(what, sizeof(what), "bpf command %u", command);
	switch (command) {
	case BPF_MAP_CREATE:
	case BPF_MAP_UPDATE_ELEM:
	case BPF_MAP_DELETE_ELEM:
	case BPF_PROG_LOAD:
	case BPF_PROG_ATTACH:
	case BPF_PROG_DETACH:
	case BPF_BTF_LOAD:
	case BPF_MAP_LOOKUP_AND_DELETE_ELEM:
	case BPF_MAP_FREEZE:
	case BPF_MAP_LOOKUP_AND_DELETE_BATCH:
	case BPF_MAP_UPDATE_BATCH:
	case BPF_MAP_DELETE_BATCH:
	case BPF_LINK_CREATE:
	case BPF_LINK_UPDATE:
	case BPF_LINK_DETACH:
	case BPF_PROG_BIND_MAP:
		return true;
	}
	return false;
}

/* Of routing netlink every fourth type asks and is no change; other families' messages begin elsewhere. */
static bool changes_network(pid_t thread, unsigned long message, unsigned long length)
{
	struct nlmsghdr head;

	if (length < sizeof(head) || !copy(thread, message, &head, sizeof(head)) || head.nlmsg_len > length)
		return false;
	snprintf(what, sizeof(what), "netlink message %u", head.nlmsg_type);
	return head.nlmsg_type >= 16 && head.nlmsg_type <= 120 && head.nlmsg_type % 4 < 2;
}

static bool changes_by_message(pid_t thread, unsigned long at)
{
	struct msghdr message;
	struct iovec part;

	return copy(thread, at, &message, sizeof(message)) && message.msg_iovlen &&
	       copy(thread, (unsigned long)message.msg_iov, &part, sizeof(part)) &&
	       changes_network(thread, (unsigned long)part.iov_base, part.iov_len);
}

static bool changes_setting(pid_t thread, unsigned long descriptor)
{
	char link[64], path[256];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/%d/fd/%lu", thread, descriptor);
	length = readlink(link, path, sizeof(path) - 1);
	if (length < 0)
		return false;
	path[length] = '\0';
	snprintf(what, sizeof(what), "write %s", path);
	return !strncmp(path, "/proc/", 6) && strstr(path, "sys/");
}

static bool changes(pid_t thread, unsigned long number, const __u64 *arguments)
{
	switch (number) {
	case SYS_bpf:
		return changes_bpf(arguments[0]);
	case SYS_sendto:
		return changes_network(thread, arguments[1], arguments[2]);
	case SYS_sendmsg:
		return changes_by_message(thread, arguments[1]);
	case SYS_write:
		return changes_setting(thread, arguments[0]);
	case SYS_openat:
		say("create", thread, arguments[1]);
		return arguments[2] & O_CREAT;
	case SYS_mkdirat:
		say("mkdir", thread, arguments[1]);
		return true;
	case SYS_unlinkat:
		say("unlink", thread, arguments[1]);
		return true;
#ifdef SYS_mkdir
	case SYS_mkdir:
		say("mkdir", thread, arguments[0]);
		return true;
	case SYS_unlink:
		say("unlink", thread, arguments[0]);
		return true;
#endif
	case SYS_mount:
		say("mount", thread, arguments[1]);
		return true;
	case SYS_umount2:
		say("umount", thread, arguments[0]);
		return true;
	case SYS_flock:
		snprintf(what, sizeof(what), "flock");
		return true;
	case SYS_unshare:
		snprintf(what, sizeof(what), "unshare");
		return true;
	case SYS_getsid:
		snprintf(what, sizeof(what), "end");
		return arguments[0] == END;
	}
	return false;
}

/* Whether the thread, which stands in front of a system call, counts it as the one to die at. */
static bool is_last(pid_t thread, long wanted)
{
	static bool counting;
	static long count;
	struct ptrace_syscall_info call;

	if (trace(PTRACE_GET_SYSCALL_INFO, thread, sizeof(call), (unsigned long)&call) < 0 ||
	    call.op != PTRACE_SYSCALL_INFO_ENTRY)
		return false;
	if (call.entry.nr == SYS_getsid && call.entry.args[0] == BEGIN)
		counting = true;
	if (!counting || !changes(thread, call.entry.nr, call.entry.args))
		return false;
	if (++count == wanted || !wanted)
		printf("%s\n", what);
	return count == wanted;
}

static void follow(pid_t process, long wanted)
{
	int status;

	for (;;) {
		pid_t thread = waitpid(-1, &status, __WALL);
		int signal = 0;

		if (thread < 0 || (thread == process && !WIFSTOPPED(status)))
			return;
		if (!WIFSTOPPED(status))
			continue;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			if (is_last(thread, wanted))
				kill(process, SIGKILL);
		} else if (!(status >> 16)) {
			signal = WSTOPSIG(status);
		}
		trace(PTRACE_SYSCALL, thread, 0, signal);
	}
}

int main(int count, char **arguments)
{
	pid_t process;

	if (count != 3)
		return 2;
	process = atoi(arguments[1]);
	if (trace(PTRACE_SEIZE, process, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL) ||
	    trace(PTRACE_INTERRUPT, process, 0, 0)) {
		perror("follow the process");
		return 1;
	}
	puts("ready");
	fflush(stdout);
	follow(process, atol(arguments[2]));
	return 0;
}
