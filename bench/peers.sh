#!/usr/bin/env bash
# Installs what the benchmark measures Sluice against, and by, from Debian's packages:
# only what is missing, and without starting any service. What can't be
# installed is named, and the benchmark skips it with a reason.
set -uo pipefail
SUDO=$([ "$(id -u)" = 0 ] || echo sudo)
PATH=$PATH:/usr/sbin:/sbin

missing=
want() { # PROGRAM PACKAGE...
	command -v "$1" >/dev/null || missing="$missing ${*:2}"
}
want nft nftables
want iptables-restore iptables
want ipset ipset
want cc gcc libc6-dev
want pkg-config pkg-config
want ovs-vswitchd openvswitch-switch
want perf linux-perf
pkg-config --exists libdpdk 2>/dev/null || missing="$missing libdpdk-dev"
[ -n "$missing" ] || exit 0

echo "installing$missing"
policy=/usr/sbin/policy-rc.d # invoke-rc.d(8): 101 forbids to start services
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' | $SUDO tee $policy >/dev/null
	$SUDO chmod +x $policy
	trap '$SUDO rm -f $policy' EXIT
fi
$SUDO apt-get update -qq
for package in $missing; do
	$SUDO env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
		echo "cannot install $package: the benchmark goes on without it" >&2
done
exit 0
