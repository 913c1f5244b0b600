/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lets something happen to a process at one of its system calls: injector PID CALLS POINT SIGNAL HOLD ERRNO LASTING.
 * It attaches to PID, says "ready", and counts calls of all its threads, from the moment when one of them calls
 * getsid(BEGIN) until one calls getsid(END). CALLS says which: 1 those that change anything, END being the last of them,
 * 2 those that ask or make descriptors, 3 both. In front of call POINT the process gets SIGNAL, the thread is held for
 * HOLD milliseconds, and the call fails with ERRNO without being executed; 0 is none of each. If LASTING is 1, every
 * counted call from there on fails. With POINT 0 nothing happens, and each call is listed.
 *
 * A request to rtnetlink fails in the kernel's answer, not in the call: its type is made one that no kernel knows, and
 * the error number in the answer is replaced.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/netlink.h>
#include <linux/nsfs.h>
#include <linux/ptrace.h>
#include <linux/rtnetlink.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BEGIN = 0x7ffff001, END = 0x7ffff002 };
enum { CHANGES = 1, ASKS = 2 };
enum { UNKNOWN_MESSAGE = 0x3ff, THREADS = 4096, TICK = 5000 };

struct thread {
	pid_t id;
	int failing; /* errno that the present call is to return; 0: none */
	int refused; /* errno for the answer to its request; 0: none */
	unsigned long message; /* where the request of the present call is */
	bool restarted; /* whether the kernel will execute the last call once more */
	struct iovec answer; /* where the present call puts what it receives */
};

struct fault {
	long calls, point, signal, hold, number, lasting;
};

/* What is about to be done, in words. */
static char what[512];
static struct thread threads[THREADS];

/* glibc has the same constants under another type, and the two headers do not go together. */
static long trace(long request, pid_t thread, unsigned long address, unsigned long data)
{
	return syscall(SYS_ptrace, request, thread, address, data);
}

#ifdef __x86_64__
static void skip_call(pid_t thread)
{
	trace(PTRACE_POKEUSR, thread, offsetof(struct user, regs.orig_rax), -1UL);
}

static void answer_call(pid_t thread, long result)
{
	trace(PTRACE_POKEUSR, thread, offsetof(struct user, regs.rax), result);
}
#else
static void skip_call(pid_t thread)
{
	fprintf(stderr, "thread %d: calls fail on x86-64 only\n", thread);
	exit(5);
}

static void answer_call(pid_t thread, long result)
{
	(void)thread, (void)result; /* nothing was skipped */
}
#endif

static struct thread *thread_of(pid_t id)
{
	struct thread *each = threads;

	while (each->id && each->id != id)
		if (++each == threads + THREADS)
			exit(3);
	each->id = id;
	return each;
}

static bool copy(pid_t thread, unsigned long from, void *to, size_t size)
{
	struct iovec here = { to, size }, there = { (void *)from, size };

	return process_vm_readv(thread, &here, 1, &there, 1, 0) == (ssize_t)size;
}

static void put(pid_t thread, unsigned long to, void *from, size_t size)
{
	struct iovec here = { from, size }, there = { (void *)to, size };

	if (process_vm_writev(thread, &here, 1, &there, 1, 0) != (ssize_t)size)
		exit(4);
}

/* -- which calls count ---------------------------------------------------------------------------------------- */

static int say(int kind, const char *verb)
{
	snprintf(what, sizeof(what), "%s", verb);
	return kind;
}

static int say_path(int kind, const char *verb, pid_t thread, unsigned long path)
{
	size_t used = snprintf(what, sizeof(what), "%s ", verb);

	for (; used < sizeof(what) - 1; used++, path++)
		if (!copy(thread, path, what + used, 1) || !what[used])
			break;
	what[used] = '\0';
	return kind;
}

static int kind_of_bpf(unsigned int command)
{
#define NAMED(name) [BPF_##name] = #name
	static const char *const names[] = {
		NAMED(MAP_CREATE),	  NAMED(MAP_LOOKUP_ELEM),  NAMED(MAP_UPDATE_ELEM),
		NAMED(MAP_DELETE_ELEM),	  NAMED(MAP_GET_NEXT_KEY), NAMED(PROG_LOAD),
		NAMED(PROG_ATTACH),	  NAMED(PROG_DETACH),	   NAMED(PROG_TEST_RUN),
		NAMED(PROG_GET_FD_BY_ID), NAMED(MAP_GET_FD_BY_ID), NAMED(OBJ_GET_INFO_BY_FD),
		NAMED(PROG_QUERY),	  NAMED(BTF_LOAD),	   NAMED(MAP_LOOKUP_AND_DELETE_ELEM),
		NAMED(MAP_FREEZE),	  NAMED(MAP_LOOKUP_BATCH), NAMED(MAP_LOOKUP_AND_DELETE_BATCH),
		NAMED(MAP_UPDATE_BATCH),  NAMED(MAP_DELETE_BATCH), NAMED(LINK_CREATE),
		NAMED(LINK_UPDATE),	  NAMED(LINK_DETACH),	   NAMED(PROG_BIND_MAP),
	};
#undef NAMED
	const char *name = command < sizeof(names) / sizeof(*names) ? names[command] : NULL;

	snprintf(what, sizeof(what), "bpf %s", name ? name : "of another kind");
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
		return CHANGES;
	}
	return ASKS;
}

/* Of routing netlink every third of four types asks; other families' messages begin elsewhere. */
static int kind_of_message(struct thread *thread, unsigned long message, unsigned long length)
{
	struct nlmsghdr head;

	if (length < sizeof(head) || !copy(thread->id, message, &head, sizeof(head)) || head.nlmsg_len > length ||
	    head.nlmsg_type < RTM_BASE || head.nlmsg_type > RTM_MAX)
		return 0;
	snprintf(what, sizeof(what), "netlink message %u", head.nlmsg_type);
	thread->message = message;
	return head.nlmsg_type % 4 == RTM_GETLINK % 4 ? ASKS : CHANGES;
}

static bool first_part(pid_t thread, unsigned long at, struct iovec *part)
{
	struct msghdr message;

	return copy(thread, at, &message, sizeof(message)) && message.msg_iovlen &&
	       copy(thread, (unsigned long)message.msg_iov, part, sizeof(*part));
}

static int kind_of_parts(struct thread *thread, unsigned long at)
{
	struct iovec part;

	return first_part(thread->id, at, &part) ?
		       kind_of_message(thread, (unsigned long)part.iov_base, part.iov_len) :
		       0;
}

static int kind_of_write(pid_t thread, unsigned long descriptor)
{
	char link[64], path[256];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/%d/fd/%lu", thread, descriptor);
	length = readlink(link, path, sizeof(path) - 1);
	if (length < 0)
		return 0;
	path[length] = '\0';
	snprintf(what, sizeof(what), "write %s", path);
	return !strncmp(path, "/proc/", 6) && strstr(path, "sys/") ? CHANGES : 0;
}

/* Of those that change nothing only the ones that make a descriptor of a namespace's owner count. */
static int kind_of_ioctl(unsigned long request)
{
	snprintf(what, sizeof(what), "ioctl %lx", request);
	return request >> 16 ? CHANGES : request == NS_GET_USERNS ? ASKS : 0;
}

static int kind_of(struct thread *thread, unsigned long number, const __u64 *arguments)
{
	pid_t id = thread->id;

	switch (number) {
	case SYS_bpf:
		return kind_of_bpf(arguments[0]);
	case SYS_sendto:
		return kind_of_message(thread, arguments[1], arguments[2]);
	case SYS_sendmsg:
		return kind_of_parts(thread, arguments[1]);
	case SYS_write:
		return kind_of_write(id, arguments[0]);
	case SYS_openat:
		return arguments[2] & O_CREAT ? say_path(CHANGES, "create", id, arguments[1]) :
						say_path(ASKS, "open", id, arguments[1]);
	case SYS_mkdirat:
		return say_path(CHANGES, "mkdir", id, arguments[1]);
	case SYS_unlinkat:
		return say_path(CHANGES, "unlink", id, arguments[1]);
	case SYS_mknodat:
		return say_path(CHANGES, "mknod", id, arguments[1]);
#ifdef SYS_mkdir
	case SYS_mkdir:
		return say_path(CHANGES, "mkdir", id, arguments[0]);
	case SYS_unlink:
		return say_path(CHANGES, "unlink", id, arguments[0]);
	case SYS_mknod:
		return say_path(CHANGES, "mknod", id, arguments[0]);
#endif
	case SYS_mount:
		return say_path(CHANGES, "mount", id, arguments[1]);
	case SYS_umount2:
		return say_path(CHANGES, "umount", id, arguments[0]);
	case SYS_flock:
		return say(CHANGES, arguments[1] & LOCK_UN ? "unlock" : "lock");
	case SYS_unshare:
		return say(CHANGES, "unshare");
	case SYS_ioctl:
		return kind_of_ioctl(arguments[1]);
	case SYS_setns:
		return say(ASKS, "setns");
	case SYS_socket:
		return say(ASKS, "socket");
	case SYS_clone:
	case SYS_clone3:
		return say(ASKS, "start a thread");
	case SYS_pidfd_open:
	case SYS_pidfd_getfd:
		return say(ASKS, "copy a descriptor");
	case SYS_fcntl:
		return arguments[1] == F_DUPFD_CLOEXEC ? say(ASKS, "copy a descriptor") : 0;
	case SYS_getsid:
		return arguments[0] == END ? say(CHANGES, "end") : 0;
	}
	return 0;
}

/* -- what happens --------------------------------------------------------------------------------------------- */

static void on_tick(int number)
{
	(void)number; /* it interrupts waitpid(), which is all that it is for */
}

/* Interrupts the waiting every few milliseconds, as long as a thread is held. */
static void tick(long every)
{
	struct itimerval timer = { { 0, every }, { 0, every } };

	setitimer(ITIMER_REAL, &timer, NULL);
}

static long now(void)
{
	struct timeval time;

	gettimeofday(&time, NULL);
	return time.tv_sec * 1000 + time.tv_usec / 1000;
}

/* An unlock never fails in the kernel, and the marks are no calls of the verb. */
static bool may_fail(unsigned long number, const __u64 *arguments)
{
	return number != SYS_getsid && !(number == SYS_flock && arguments[1] & LOCK_UN);
}

static void refuse(struct thread *thread, unsigned long number, int with)
{
	unsigned short unknown = UNKNOWN_MESSAGE;

	if (number == SYS_sendto || number == SYS_sendmsg) {
		put(thread->id, thread->message + offsetof(struct nlmsghdr, nlmsg_type), &unknown, sizeof(unknown));
		thread->refused = with;
		return;
	}
	skip_call(thread->id);
	thread->failing = with;
}

/* Remembers where the answer to a refused request will be; libbpf asks for its length before it takes it. */
static void expect_answer(struct thread *thread, unsigned long number, const __u64 *arguments)
{
	thread->answer.iov_len = 0;
	if (number == SYS_recvfrom && !(arguments[3] & MSG_PEEK))
		thread->answer = (struct iovec){ (void *)arguments[1], arguments[2] };
	else if (number == SYS_recvmsg && !(arguments[2] & MSG_PEEK) &&
		 !first_part(thread->id, arguments[1], &thread->answer))
		thread->answer.iov_len = 0;
}

static void change_answer(struct thread *thread, long received)
{
	unsigned long at = (unsigned long)thread->answer.iov_base;
	struct nlmsghdr head;
	int error = -thread->refused;

	if (received < (long)sizeof(struct nlmsgerr) || thread->answer.iov_len < sizeof(struct nlmsgerr) ||
	    !copy(thread->id, at, &head, sizeof(head)) || head.nlmsg_type != NLMSG_ERROR)
		return;
	put(thread->id, at + NLMSG_HDRLEN, &error, sizeof(error));
	thread->refused = 0;
}

/* The kernel's ERESTARTSYS and the like, which a process never sees: some settings wait for the rtnl lock that way. */
static bool is_to_be_restarted(long result)
{
	return result <= -512 && result >= -516;
}

static void at_exit_of_call(struct thread *thread, long result)
{
	thread->restarted = is_to_be_restarted(result);
	if (thread->failing)
		answer_call(thread->id, -thread->failing);
	thread->failing = 0;
	if (thread->refused && thread->answer.iov_len)
		change_answer(thread, result);
	thread->answer.iov_len = 0;
}

/* Whether the thread, which stands in front of a system call, is to be held. */
static bool at_entry_of_call(struct thread *thread, pid_t process, const struct fault *fault, unsigned long number,
			     const __u64 *arguments)
{
	static bool counting;
	static long count;

	if (number == SYS_getsid && arguments[0] == BEGIN)
		counting = true;
	if (thread->refused)
		expect_answer(thread, number, arguments);
	if (!counting || thread->restarted)
		return false;
	if (number == SYS_getsid && arguments[0] == END)
		counting = false;
	if (!(kind_of(thread, number, arguments) & fault->calls))
		return false;
	if (++count == fault->point || !fault->point) {
		printf("%s\n", what);
		fflush(stdout);
	}
	if (count != fault->point && !(fault->lasting && count > fault->point))
		return false;
	if (fault->number && may_fail(number, arguments))
		refuse(thread, number, fault->number);
	if (count == fault->point && fault->signal)
		kill(process, fault->signal);
	return count == fault->point && fault->hold;
}

static bool is_held(struct thread *thread, pid_t process, const struct fault *fault)
{
	struct ptrace_syscall_info call;

	if (trace(PTRACE_GET_SYSCALL_INFO, thread->id, sizeof(call), (unsigned long)&call) < 0)
		return false;
	if (call.op == PTRACE_SYSCALL_INFO_ENTRY)
		return at_entry_of_call(thread, process, fault, call.entry.nr, call.entry.args);
	if (call.op == PTRACE_SYSCALL_INFO_EXIT)
		at_exit_of_call(thread, call.exit.rval);
	return false;
}

static void follow(pid_t process, const struct fault *fault)
{
	pid_t held = 0;
	long until = 0;
	int status;

	for (;;) {
		pid_t thread = waitpid(-1, &status, __WALL);
		int signal = 0;

		if (thread < 0 && errno == EINTR) {
			if (held && now() >= until) {
				tick(0);
				trace(PTRACE_SYSCALL, held, 0, 0);
				held = 0;
			}
			continue;
		}
		if (thread < 0 || (thread == process && !WIFSTOPPED(status)))
			return;
		if (!WIFSTOPPED(status))
			continue;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			if (is_held(thread_of(thread), process, fault)) {
				held = thread;
				until = now() + fault->hold;
				tick(TICK);
				continue;
			}
		} else if (!(status >> 16)) {
			signal = WSTOPSIG(status);
		}
		trace(PTRACE_SYSCALL, thread, 0, signal);
	}
}

/* Follows the threads that there are, none of which may make another meanwhile, and those that they will make. */
static bool seize_all(pid_t process)
{
	const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
	bool all = true;
	struct dirent *entry;
	char path[64];
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", process);
	tasks = opendir(path);
	if (!tasks)
		return false;
	while (all && (entry = readdir(tasks))) {
		pid_t thread = atoi(entry->d_name);

		if (thread)
			all = !trace(PTRACE_SEIZE, thread, 0, options) && !trace(PTRACE_INTERRUPT, thread, 0, 0);
	}
	closedir(tasks);
	return all;
}

int main(int count, char **arguments)
{
	struct sigaction action = { .sa_handler = on_tick };
	struct fault fault;
	pid_t process;

	if (count != 8)
		return 2;
	sigaction(SIGALRM, &action, NULL);
	process = atoi(arguments[1]);
	fault = (struct fault){ atol(arguments[2]), atol(arguments[3]), atol(arguments[4]),
				atol(arguments[5]), atol(arguments[6]), atol(arguments[7]) };
	if (!seize_all(process)) {
		perror("follow the process");
		return 1;
	}
	puts("ready");
	fflush(stdout);
	follow(process, &fault);
	return 0;
}
