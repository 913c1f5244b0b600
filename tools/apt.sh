#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the given Debian packages that are missing; quick if none is.
set -eu

missing=
for package; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "No apt here: install the equivalents of$missing, then call make with APT=:" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "These packages are missing, and only root may install them: apt-get install$missing" >&2
	exit 1
fi

install() {
	apt-get -qq -o Acquire::Retries=3 update &&
		apt-get -qq -y -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
}

# A mirror may fail temporarily, and an index may be older than the packages that it names.
export DEBIAN_FRONTEND=noninteractive
echo "Installing:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for pause in 5 20 60; do
	# shellcheck disable=SC2086
	if install $missing >"$log" 2>&1 </dev/null; then
		exit 0
	fi
	sleep "$pause"
done
cat "$log" >&2
exit 1
