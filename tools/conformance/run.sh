#!/usr/bin/env bash
# Runs upstream's own suites against Sluice on real nodes: see
# deploy/docs/conformance.md. Root only. The nodes live in namespaces and cgroups of
# their own and in a work folder below TMPDIR; nothing of them outlives this
# script, whatever ends it, but for empty cgroups and the work folder after a
# kill -9, which the next run removes.
#
#	run.sh PROGRAMS IMAGE OUT SUITE...
#
# PROGRAMS is what build.sh printed, IMAGE an archive of "make image" (or none),
# OUT a folder for logs and results. Suites are policyapi, netpol and cyclonus.
set -euo pipefail
mkdir -p "$3"
programs=$(realpath "$1") image=$(realpath "$2") out=$(realpath "$3")
shift 3
cd "$(dirname "$0")"
prefix=sluice-conformance
name=$prefix-$$

# hierarchies lists where cgroups are mounted.
hierarchies() { awk '$3 ~ /^cgroup2?$/ && $2 ~ /^\/sys\/fs\/cgroup/ {print $2}' /proc/self/mounts; }

drop_cgroups() { # name
	local dir try
	for dir in $(hierarchies); do
		for try in 1 2 3 4 5 6 7 8 9 10; do
			[ -d "$dir/$1" ] || break
			find "$dir/$1" -depth -type d -exec rmdir {} + 2>/dev/null && break
			sleep 0.2
		done
		[ ! -d "$dir/$1" ] || { echo "cgroup $dir/$1 stays: $(cat "$dir/$1/cgroup.procs")" >&2; return 1; }
	done
}

# awaited_child PID: the process that unshare makes, once it is in its namespaces.
awaited_child() {
	local child try
	for try in $(seq 100); do
		child=$(cat "/proc/$1/task/$1/children")
		if [ -n "$child" ] && [ "$(readlink "/proc/${child% }/ns/net")" != "$(readlink /proc/self/ns/net)" ]; then
			echo "${child% }"
			return
		fi
		sleep 0.1
	done
	echo "conformance: no node" >&2
	return 1
}

sweep() {
	local dir pid
	for dir in $(hierarchies | sed "s,$,/$prefix-*,") "${TMPDIR:-/tmp}/$prefix"-*; do
		[ -d "$dir" ] || continue
		pid=${dir##*/$prefix-} pid=${pid%%.*}
		[ ! -e "/proc/$pid" ] || continue
		case $dir in
		/sys/*) drop_cgroups "$prefix-$pid" ;;
		*) rm -rf --one-file-system "$dir" ;;
		esac
	done
}
sweep

nodes=()
finish() {
	local status=$? pid
	trap '' INT TERM HUP
	for pid in "${nodes[@]}"; do
		kill -KILL "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	drop_cgroups "$name" || status=1
	rm -rf --one-file-system "$work" || status=1
	exit "$status"
}
work=$(mktemp -d "${TMPDIR:-/tmp}/$name.XXXXXX")
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

new_cgroup() { # folder
	mkdir "$1"
	case $1 in
	*/cpuset/*) cat "${1%/*}/cpuset.cpus" >"$1/cpuset.cpus"; cat "${1%/*}/cpuset.mems" >"$1/cpuset.mems" ;;
	esac
}
mkdir -p "$work/shared"
for dir in $(hierarchies); do new_cgroup "$dir/$name"; done
# A node ends with its unshare, and that with this script.
for number in 1 2; do
	for dir in $(hierarchies); do new_cgroup "$dir/$name/$number"; done
	mkdir -p "$work/$number" "$out/node-$number"
	(
		for dir in $(hierarchies); do echo "$BASHPID" >"$dir/$name/$number/cgroup.procs"; done
		exec setpriv --pdeathsig KILL setsid unshare --fork --kill-child=KILL --pid --mount --net --uts --ipc --cgroup --propagation private \
			"$PWD/node.sh" $number "$work/$number" "$work/shared" "$programs" "$image" "$out" "$(realpath ../..)" "$@"
	) &
	nodes+=($!)
done
# The wire between them.
first=$(awaited_child "${nodes[0]}") second=$(awaited_child "${nodes[1]}")
ip link add eth0 netns "$first" type veth peer name eth0 netns "$second"
# Node 1 runs the suites. Node 2 ends only if something is wrong.
status=0
wait -n "${nodes[@]}" || status=$?
[ ! -e "/proc/${nodes[0]}" ] || { echo "conformance: node 2 ended" >&2; exit 1; }
exit $status
