#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# The guest's process 1, twice: first as /init of the initial file system, where it puts the root together,
# then, started again by switch_root with the word "run", on that root, where it runs the command.
#
# The host's root arrives read-only by virtiofs; an overlay with a tmpfs on top makes it writable without
# touching the host.  A second share (/run/vm), writable, carries the command, its output and its status.

assemble_root() {
	/bin/busybox --install -s /bin
	mkdir -p /proc /sys /dev /host /changes /root
	mount -t proc proc /proc
	mount -t sysfs sysfs /sys
	mount -t devtmpfs dev /dev
	for module in $(cat /modules/order); do insmod "/modules/$module"; done

	mount -t virtiofs -o ro host /host
	mount -t tmpfs -o mode=755 changes /changes
	mkdir /changes/upper /changes/work
	mount -t overlay -o lowerdir=/host,upperdir=/changes/upper,workdir=/changes/work root /root
	for directory in proc sys dev; do mount --move "/$directory" "/root/$directory"; done
	mount -t tmpfs -o mode=755 run /root/run
	mkdir -p /root/run/vm /root/run/lock /root/run/netns
	mount -t virtiofs exchange /root/run/vm
	cp /init /root/run/init.sh
	# Not chroot: the kernel refuses user namespaces to a process in a chroot.
	exec switch_root /root /bin/sh /run/init.sh run
}

mount_the_rest() {
	mount -t bpf bpf /sys/fs/bpf
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	mount -t tracefs tracefs /sys/kernel/tracing
	mkdir -p /dev/pts /dev/shm /dev/net
	mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
	mount -t tmpfs -o mode=1777 shm /dev/shm
	ln -s /proc/self/fd /dev/fd
	ln -s /proc/self/fd/0 /dev/stdin
	ln -s /proc/self/fd/1 /dev/stdout
	ln -s /proc/self/fd/2 /dev/stderr
	# Opening the node loads the module; without it there is nothing to open.
	mknod /dev/net/tun c 10 200
	mkdir -p "/lib/modules/$(uname -r)" /mnt/out
	mount --bind "$VM_MODULES" "/lib/modules/$(uname -r)"
	mount --bind /run/vm/out /mnt/out
}

report() {
	sync
	echo "$1" >/run/vm/status.new
	mv /run/vm/status.new /run/vm/status
}

# Ends the run although the command goes on.  The stacks of blocked tasks tell a lost lock from slow work.
give_up() {
	sleep "$VM_TIMEOUT"
	echo w >/proc/sysrq-trigger
	report timeout
}

run_command() {
	# Pipes, not the files themselves: "echo >/dev/stderr" must append, and a file would be truncated.
	mkfifo /run/stdout /run/stderr
	cat </run/stdout >>/run/vm/stdout &
	pumps=$!
	cat </run/stderr >>/run/vm/stderr &
	pumps="$pumps $!"
	: >/run/vm/started
	setsid /bin/sh /run/vm/command </dev/null >/run/stdout 2>/run/stderr
	code=$?
	# A process left behind may hold the pipes open; the command's own output is through in a moment.
	(
		sleep 2
		kill $pumps
	) >/run/stop.log 2>&1 &
	wait $pumps
	report "$code"
}

if [ "$1" != run ]; then
	assemble_root
fi
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
. /run/vm/settings
mount_the_rest
ip link set lo up
echo vm >/proc/sys/kernel/hostname
give_up &
run_command
# The host ends the machine when it has read the status; process 1 must not exit before.
while :; do sleep 60; done
