#!/usr/bin/env bash
# Builds what the conformance node and its suites consist of, of the versions
# that the nested modules name, and prints the folder. All of it comes from Go
# modules, but for containerd, runc and bash, which are Debian's: their packages
# are unpacked, not installed. Cold this takes 20 minutes and more on two cores.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
version() { sed -n "s|^[[:space:]]*\(require \)\?$2 \(v[^ ]*\).*|\2|p" "$1/go.mod" | head -1; }
kube=$(version kube k8s.io/kubernetes) policy=$(version policyapi sigs.k8s.io/network-policy-api)
cyclonus=v0.5.6
# What is ours goes into the name, so that a change of it is built.
own=$(cat build.sh kube/*.go kube/go.mod kube/pause/*.go kube/sctp/*.go policyapi/go.mod | sha256sum | cut -c1-8)
apiserver=$(../apiserver/build.sh)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/sluice/conformance/$kube-policy-api-$policy-$own
mkdir -p "$dir/images" "$dir/crds"
exec 9>"$dir/.lock"
flock 9
export CGO_ENABLED=0
go=${GO:-go}
once() { # file, command that makes $1.new
	[ -e "$dir/$1" ] && return
	echo "building $1, once" >&2
	"${@:2}" >&2
	mv "$dir/$1.new" "$dir/$1"
}
stamp=k8s.io/component-base/version
minor=${kube#v1.}
flags=(-trimpath -ldflags "-s -w -X $stamp.gitVersion=$kube -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*} -X $stamp.gitTreeState=clean")
for program in kubelet kubectl kube-controller-manager kube-scheduler kube-proxy; do
	once $program "$go" build -C kube "${flags[@]}" -o "$dir/$program.new" k8s.io/kubernetes/cmd/$program
done
once agnhost "$go" build -C kube "${flags[@]}" -o "$dir/agnhost.new" k8s.io/kubernetes/test/images/agnhost
once pause "$go" build -C kube "${flags[@]}" -o "$dir/pause.new" ./pause
once netpol.test "$go" test -C kube -c -vet=off "${flags[@]}" -o "$dir/netpol.test.new" .
once policyapi.test "$go" test -C policyapi -c -vet=off -trimpath -ldflags "-s -w" -o "$dir/policyapi.test.new" sigs.k8s.io/network-policy-api/conformance
install_cyclonus() {
	GOBIN=$dir/gobin "$go" install -trimpath -ldflags "-s -w" github.com/mattfenwick/cyclonus/cmd/cyclonus@$cyclonus
	mv "$dir/gobin/cyclonus" "$dir/cyclonus.new"
}
[[ " $* " != *" cyclonus "* ]] || once cyclonus install_cyclonus
for program in etcd kube-apiserver; do
	[ -e "$dir/$program" ] || ln -f "$apiserver/$program" "$dir/$program" 2>/dev/null || cp "$apiserver/$program" "$dir/$program"
done
[ -e "$dir/crds/cnp.yaml" ] || install -m 644 "$("$go" list -C policyapi -m -f '{{.Dir}}' sigs.k8s.io/network-policy-api)/config/crd/experimental/policy.networking.k8s.io_clusternetworkpolicies.yaml" "$dir/crds/cnp.yaml"

debian() {
	local tmp p
	tmp=$(mktemp -d)
	cd "$tmp"
	apt-get update -qq
	apt-get download -qq containerd runc bash-static
	for p in *.deb; do dpkg -x "$p" .; done
	cp usr/bin/{containerd,containerd-shim-runc-v2,ctr} usr/sbin/runc bin/bash-static "$dir/"
	cd "$here"
	rm -rf "$tmp"
}
[ -e "$dir/bash-static" ] || debian >&2

# archive NAME PATH=FILE... -- CONFIG TAG...: an image of one layer, as "docker
# save" writes it.
archive() {
	local name=$1 tmp files=
	shift
	tmp=$(mktemp -d)
	while [ "$1" != -- ]; do
		install -D -m 755 "$dir/${1#*=}" "$tmp/root/${1%%=*}"
		files="$files ${1%%=*}"
		shift
	done
	# Upstream's pods run as whom they like, and write to /tmp.
	install -d -m 1777 "$tmp/root/tmp"
	tar -C "$tmp/root" --owner=0 --group=0 --mtime=@0 --sort=name -cf "$tmp/layer.tar" .
	printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
		"$("$go" env GOARCH)" "$2" "$(sha256sum "$tmp/layer.tar" | cut -d' ' -f1)" >"$tmp/config.json"
	shift 2
	printf '[{"Config":"config.json","RepoTags":[%s],"Layers":["layer.tar"]}]' "$(printf '"%s",' "$@" | sed 's/,$//')" >"$tmp/manifest.json"
	tar -C "$tmp" -cf "$dir/images/$name.tar.new" manifest.json config.json layer.tar
	mv "$dir/images/$name.tar.new" "$dir/images/$name.tar"
	rm -rf "$tmp"
}
path='"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]'
# One agnhost under the names that the suites ask for.
agnhost=registry.k8s.io/e2e-test-images/agnhost
[ -e "$dir/images/agnhost.tar" ] || archive agnhost agnhost=agnhost bin/bash=bash-static bin/sh=bash-static -- \
	"{\"Entrypoint\":[\"/agnhost\"],\"Cmd\":[\"pause\"],$path}" $agnhost:2.43 $agnhost:2.45 $agnhost:2.66.1
[ -e "$dir/images/pause.tar" ] || archive pause pause=pause -- "{\"Entrypoint\":[\"/pause\"],\"User\":\"65535:65535\",$path}" registry.k8s.io/pause:3.10.1
echo "$dir"
