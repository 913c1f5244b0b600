#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# Process 1 of a VM that has nothing but busybox. The kernel puts what it does not know of its command line into
# the environment: ADDRESSES, with commas between them.
# Then it does what the second serial line says: a command a line, its output and a line with its status back.

/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /www
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod "/modules/$module"; done

ip link set lo up
for address in ${ADDRESSES//,/ }; do ip address add "$address" dev eth0; done
ip link set eth0 up
# An IPv6 address is of no use before the kernel is sure of it.
while ip address show dev eth0 | grep -q tentative; do usleep 50000; done
httpd -h /www

exec <>/dev/ttyS1 >&0 2>&0
stty raw -echo
printf '\n=== 0\n'
while read -r command; do
	sh -c "$command" </dev/null
	printf '\n=== %s\n' $?
done
