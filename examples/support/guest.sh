#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# Process 1 of a VM that has nothing but busybox. The kernel puts parameters of its command line that it does not
# know into the environment: ADDRESSES, with commas between them.
# Then it runs the commands from the second serial line, one a line, and returns the output and a line with the status.

/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /www
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod "/modules/$module"; done

ip link set lo up
for address in ${ADDRESSES//,/ }; do ip address add "$address" dev eth0; done
ip link set eth0 up
# An IPv6 address cannot be used until duplicate address detection has finished.
while ip address show dev eth0 | grep -q tentative; do usleep 50000; done
httpd -h /www

exec <>/dev/ttyS1 >&0 2>&0
stty raw -echo
printf '\n=== 0\n'
while read -r command; do
	sh -c "$command" </dev/null
	printf '\n=== %s\n' $?
done
