/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traffic between two network namespaces, timed:
 *
 *   timer rr|stream|udp CLIENT SERVER ADDRESS PORT CPU_OF_CLIENT CPU_OF_SERVER SECONDS COUNT PRIORITY
 *
 * CLIENT and SERVER are paths of the namespaces. rr: one byte there and one back over TCP, again and again. stream: as
 * much as goes over COUNT connections. udp: datagrams of COUNT bytes, counted where they arrive. A CPU of -1 is any.
 * With a PRIORITY above 0 all of it runs in the real-time class SCHED_RR. What is measured comes as one line of JSON.
 * A rate is the median of those of slices of 10 ms: Linux takes a CPU from the real-time class for 50 ms of a second in
 * which something else waits for it, and a turn in which that happens is not slower than one in which it does not. The
 * congestion control is cubic, since others pace.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FLOWS = 16, CHUNK = 1 << 17, BATCH = 32, SAMPLES = 1 << 22, SLICES = 1 << 12 };
static const double WARM = 0.15, SLICE = 0.01;

/* What the processes share. */
struct shared {
	int ready, running;
	bool stop;
	unsigned long bytes[FLOWS], datagrams;
};

struct side {
	const char *netns;
	int cpu;
};

static struct shared *shared;
static struct side client, server;
static struct sockaddr_in place;
static int priority;
static char buffer[CHUNK];
static unsigned int samples[SAMPLES]; /* nanoseconds of each round trip */

static void die(const char *what)
{
	if (shared->stop)
		exit(0);
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void enter(const struct side *side)
{
	struct sched_param urgent = { .sched_priority = priority };
	int netns = open(side->netns, O_RDONLY);
	cpu_set_t cpus;

	if (netns < 0 || setns(netns, CLONE_NEWNET))
		die(side->netns);
	close(netns);
	if (priority && sched_setscheduler(0, SCHED_RR, &urgent))
		die("real-time class");
	CPU_ZERO(&cpus);
	if (side->cpu >= 0) {
		CPU_SET(side->cpu, &cpus);
		if (sched_setaffinity(0, sizeof(cpus), &cpus))
			die("CPU");
	}
}

static int tcp_socket(void)
{
	int made = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	if (made < 0 || setsockopt(made, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5))
		die("socket");
	setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return made;
}

static struct sockaddr_in at(int flow)
{
	struct sockaddr_in found = place;

	found.sin_port = htons(ntohs(place.sin_port) + flow);
	return found;
}

static int accepted(int flow)
{
	struct sockaddr_in here = at(flow);
	int listener = tcp_socket(), made, on = 1;

	if (bind(listener, (void *)&here, sizeof(here)) || listen(listener, 1))
		die("listen");
	__sync_fetch_and_add(&shared->ready, 1);
	made = accept(listener, NULL, NULL);
	if (made < 0)
		die("accept");
	setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return made;
}

static int connected(int flow)
{
	struct timeval patience = { .tv_sec = 3 };
	struct sockaddr_in there = at(flow);
	int made = tcp_socket();

	setsockopt(made, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(made, (void *)&there, sizeof(there)))
		die("connect");
	return made;
}

/* -- rates ------------------------------------------------------------------------------------------------------ */

static struct {
	double rates[SLICES], since;
	unsigned long before;
	size_t count;
} slices;

static void begin_slices(double time, unsigned long total)
{
	slices.since = time;
	slices.before = total;
}

static void slice(double time, unsigned long total)
{
	if (time - slices.since < SLICE || slices.count == SLICES)
		return;
	slices.rates[slices.count++] = (double)(total - slices.before) / (time - slices.since);
	begin_slices(time, total);
}

static int by_rate(const void *one, const void *other)
{
	double a = *(const double *)one, b = *(const double *)other;

	return a < b ? -1 : a > b;
}

static double median_rate(void)
{
	qsort(slices.rates, slices.count, sizeof(*slices.rates), by_rate);
	return slices.count ? slices.rates[slices.count / 2] : 0;
}

/* -- the servers ---------------------------------------------------------------------------------------------- */

static void answer(void)
{
	int peer = accepted(0);

	while (recv(peer, buffer, 1, 0) == 1 && send(peer, buffer, 1, MSG_NOSIGNAL) == 1)
		;
}

static void swallow(int flow)
{
	int peer = accepted(flow);
	ssize_t got;

	while ((got = recv(peer, buffer, sizeof(buffer), 0)) > 0)
		shared->bytes[flow] += (unsigned long)got;
}

static void count_datagrams(void)
{
	static struct mmsghdr messages[BATCH];
	static struct iovec parts[BATCH];
	static char rooms[BATCH][2048];
	int here = socket(AF_INET, SOCK_DGRAM, 0), room = 8 << 20;

	setsockopt(here, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	if (here < 0 || bind(here, (void *)&place, sizeof(place)))
		die("bind");
	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){ rooms[i], sizeof(rooms[i]) };
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	__sync_fetch_and_add(&shared->ready, 1);
	for (;;) {
		int got = recvmmsg(here, messages, BATCH, MSG_WAITFORONE, NULL);

		if (got > 0)
			shared->datagrams += (unsigned long)got;
	}
}

/* -- the clients ---------------------------------------------------------------------------------------------- */

static int by_time(const void *one, const void *other)
{
	unsigned int a = *(const unsigned int *)one, b = *(const unsigned int *)other;

	return a < b ? -1 : a > b;
}

static void ask(double seconds)
{
	int peer = connected(0);
	size_t count = 0;
	double last, end;

	for (end = now() + WARM; now() < end;)
		if (send(peer, buffer, 1, MSG_NOSIGNAL) != 1 || recv(peer, buffer, 1, 0) != 1)
			die("round trip");
	last = now();
	begin_slices(last, 0);
	for (end = last + seconds; last < end && count < SAMPLES;) {
		double next;

		if (send(peer, buffer, 1, MSG_NOSIGNAL) != 1 || recv(peer, buffer, 1, 0) != 1)
			die("round trip");
		next = now();
		samples[count++] = (unsigned int)((next - last) * 1e9);
		last = next;
		slice(next, count);
	}
	qsort(samples, count, sizeof(*samples), by_time);
	printf("{\"rate\": %.1f, \"p50\": %.3f, \"p99\": %.3f}\n", median_rate(), samples[count / 2] / 1e3,
	       samples[count * 99 / 100] / 1e3);
}

static void pour(int flow)
{
	int peer = connected(flow);

	__sync_fetch_and_add(&shared->running, 1);
	while (!shared->stop && send(peer, buffer, sizeof(buffer), MSG_NOSIGNAL) > 0)
		;
}

static unsigned long poured(int flows)
{
	unsigned long sum = 0;

	for (int flow = 0; flow < flows; flow++)
		sum += *(volatile unsigned long *)&shared->bytes[flow];
	return sum;
}

static void watch(double seconds, int flows)
{
	struct sched_param urgent = { .sched_priority = priority + 1 };
	double time;

	if (priority)
		sched_setscheduler(0, SCHED_RR, &urgent);
	for (double end = now() + 5; *(volatile int *)&shared->running < flows;) {
		if (now() > end)
			die("connections");
		usleep(1000);
	}
	usleep((useconds_t)(WARM * 1e6));
	time = now();
	begin_slices(time, poured(flows));
	for (double end = time + seconds; time < end;) {
		usleep((useconds_t)(SLICE * 1e6));
		time = now();
		slice(time, poured(flows));
	}
	printf("{\"rate\": %.4f}\n", median_rate() * 8 / 1e9);
}

static unsigned long counted(void)
{
	return *(volatile unsigned long *)&shared->datagrams;
}

static void flood(double seconds, int size)
{
	static struct mmsghdr messages[BATCH];
	struct iovec part = { buffer, (size_t)size };
	int here = socket(AF_INET, SOCK_DGRAM, 0);
	double end = now() + WARM, time;

	if (here < 0 || connect(here, (void *)&place, sizeof(place)))
		die("connect");
	for (int i = 0; i < BATCH; i++) {
		messages[i].msg_hdr.msg_iov = &part;
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	do {
		sendmmsg(here, messages, BATCH, 0);
		time = now();
	} while (time < end);
	begin_slices(time, counted());
	for (end = time + seconds; time < end;) {
		sendmmsg(here, messages, BATCH, 0);
		time = now();
		slice(time, counted());
	}
	printf("{\"rate\": %.0f}\n", median_rate());
}

/* -- all of it ------------------------------------------------------------------------------------------------- */

static pid_t child(const struct side *side)
{
	pid_t made = fork();

	if (made < 0)
		die("fork");
	if (made == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		enter(side);
	}
	return made;
}

int main(int argc, char **argv)
{
	pid_t children[2 * FLOWS];
	int made = 0, flows, count;
	const char *mode;
	double seconds;

	if (argc != 11)
		return 2;
	mode = argv[1];
	client = (struct side){ argv[2], atoi(argv[6]) };
	server = (struct side){ argv[3], atoi(argv[7]) };
	place = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(atoi(argv[5])) };
	seconds = atof(argv[8]);
	count = atoi(argv[9]);
	priority = atoi(argv[10]);
	flows = strcmp(mode, "stream") ? 1 : count;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || flows > FLOWS || inet_pton(AF_INET, argv[4], &place.sin_addr) != 1)
		return 2;
	for (int flow = 0; flow < flows; flow++) {
		children[made] = child(&server);
		if (children[made++])
			continue;
		if (!strcmp(mode, "rr"))
			answer();
		else if (!strcmp(mode, "udp"))
			count_datagrams();
		else
			swallow(flow);
		return 0;
	}
	while (*(volatile int *)&shared->ready < flows) {
		if (waitpid(-1, NULL, WNOHANG) > 0)
			return 1;
		usleep(1000);
	}
	for (int flow = 0; flow < flows && !strcmp(mode, "stream"); flow++) {
		children[made] = child(&client);
		if (!children[made++]) {
			pour(flow);
			return 0;
		}
	}
	if (!strcmp(mode, "stream")) {
		watch(seconds, flows);
	} else {
		enter(&client);
		if (!strcmp(mode, "rr"))
			ask(seconds);
		else
			flood(seconds, count);
	}
	shared->stop = true;
	fflush(stdout);
	for (int i = 0; i < made; i++) {
		kill(children[i], SIGKILL);
		waitpid(children[i], NULL, 0);
	}
	return 0;
}
