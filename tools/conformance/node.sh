#!/usr/bin/env bash
# One of two nodes, as process 1 of its own namespaces: started by run.sh. The
# first is the control plane as well, and runs the suites.
set -eEuo pipefail
trap 'echo "conformance: node.sh:$LINENO: $BASH_COMMAND: exit $?" >&2' ERR
number=$1 work=$2 shared=$3 programs=$4 image=$5 out=$6 source=$7
shift 7
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
unset KUBECONFIG
readonly here=/node self=$((1 + number)) other=$((4 - number))
# Everything has both families; the suites use the one that comes first.
both() { if [ "${FAMILY:-4}" = 6 ]; then echo "$2,$1"; else echo "$1,$2"; fi; }
addrs=$(both 172.30.0.$self fd00:30::$self) services=$(both 10.96.0.0/16 fd00:96::/112) pods=$(both 10.244.0.0/16 fd00:244::/56)
server=https://$(both 172.30.0.2 "[fd00:30::2]" | cut -d, -f1):6443
step() { printf '%4ds node-%d: %s\n' "$SECONDS" "$number" "$*" >&2; }
die() { echo "conformance: $*" >&2; exit 1; }

# A root whose changes are thrown away: what follows writes anywhere.
new_root() {
	local root=$work/root dir
	mkdir -p "$root" "$work/upper" "$work/data"
	mount -t tmpfs -o mode=0755 upper "$work/upper"
	mkdir "$work/upper/files" "$work/upper/work"
	mount -t overlay -o "lowerdir=/,upperdir=$work/upper/files,workdir=$work/upper/work" overlay "$root"
	mount -t proc proc "$root/proc"
	mount -t sysfs sysfs "$root/sys"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs -o mode=0755 run "$root/run"
	mkdir -p "$root/run/lock" "$root$here/old"
	# What is large, and what may not be on an overlay.
	for dir in var/lib/kubelet var/lib/containerd var/lib/etcd var/log/pods; do
		mkdir -p "$work/data/$dir" "$root/$dir"
		mount --bind "$work/data/$dir" "$root/$dir"
	done
	for dir in programs out source shared; do
		mkdir "$root$here/$dir"
		mount --bind "${!dir}" "$root$here/$dir"
	done
	if [ -f "$image" ]; then
		touch "$root$here/image.tar"
		mount --bind "$image" "$root$here/image.tar"
	fi
	mount_cgroups "$root/sys/fs/cgroup"
	mount -t bpf -o mode=0700 bpf "$root/sys/fs/bpf"
	cd "$root"
	pivot_root . ".$here/old"
	umount -l "$here/old"
	cd /
	mount --make-rshared /
}

# The hierarchies as they are outside, but rooted in the node's own cgroup.
mount_cgroups() {
	local type dir options one
	if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then
		mount -t cgroup2 cgroup2 "$1"
		mkdir "$1/init"
		xargs -n1 <"$1/cgroup.procs" | while read -r one; do echo "$one" >"$1/init/cgroup.procs"; done
		sed 's/\b/+/;s/ / +/g' "$1/cgroup.controllers" >"$1/cgroup.subtree_control"
		return
	fi
	mount -t tmpfs -o mode=0755 cgroup "$1"
	while read -r _ dir type options _; do
		case $type:$dir in
		cgroup:/sys/fs/cgroup/*)
			one=$(tr , '\n' <<<"$options" | grep -vxE 'rw|ro|relatime|nosuid|nodev|noexec|clone_children|release_agent=.*' | paste -sd,)
			[[ $one != name=* ]] || one=none,$one
			mkdir "$1/${dir##*/}"
			mount -t cgroup -o "$one" cgroup "$1/${dir##*/}"
			;;
		cgroup2:/sys/fs/cgroup/*)
			mkdir "$1/${dir##*/}"
			mount -t cgroup2 cgroup2 "$1/${dir##*/}"
			;;
		esac
	done </proc/self/mounts
}

# The kubelet sets these, and they are the whole machine's: it finds them set.
hide_tunables() {
	local pair file
	mkdir "$here/tunables"
	for pair in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
		file=/proc/sys/${pair%=*}
		[ -e "$file" ] || continue
		echo "${pair#*=}" >"$here/tunables/${file##*/}"
		mount --bind "$here/tunables/${file##*/}" "$file"
	done
}

network() {
	hostname node-$number
	ip link set lo up
	await 20 "is wired" ip link show dev eth0
	ip link set eth0 up
	ip addr add 172.30.0.$self/24 dev eth0
	ip -6 addr add fd00:30::$self/64 dev eth0 nodad
	# The other node's pods are beyond it.
	ip route add 10.244.$other.0/24 via 172.30.0.$other
	ip -6 route add fd00:244:0:$other::/64 via fd00:30::$other
	ip route add default via 172.30.0.1
	ip -6 route add default via fd00:30::1
	echo 1 >/proc/sys/net/ipv4/ip_forward
	echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
	mkdir -p /etc/cni/net.d /opt/cni/bin
	cp /usr/lib/cni/{ptp,host-local,portmap,loopback} /opt/cni/bin/
	cat >/etc/cni/net.d/10-net.conflist <<-CNI
	{"cniVersion": "0.4.0", "name": "net", "plugins": [
	  {"type": "ptp", "ipMasq": false, "mtu": 1500, "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam",
	    "ranges": [[{"subnet": "10.244.$self.0/24"}], [{"subnet": "fd00:244:0:$self::/64"}]],
	    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}]}
	CNI
	printf '%s\n' "127.0.0.1 localhost" "172.30.0.2 node-1" "172.30.0.3 node-2" >/etc/hosts
	# There is no name server anywhere.
	rm -f /etc/resolv.conf
	echo "nameserver 127.0.0.1" | tee /etc/resolv.conf >/etc/node-resolv.conf
}

# start NAME COMMAND...: a daemon with its log.
declare -A pids
start() {
	local name=$1
	shift
	"$@" >"$here/out/node-$number/$name.log" 2>&1 </dev/null &
	pids[$name]=$!
}

alive() {
	local name
	for name in "${!pids[@]}"; do
		kill -0 "${pids[$name]}" 2>/dev/null || { tail -n 20 "$here/out/node-$number/$name.log" >&2; die "$name ended"; }
	done
}

# await SECONDS WHAT COMMAND...: until it succeeds.
await() {
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		alive
		[ $SECONDS -lt $end ] || { "$@" >&2 || true; die "waited in vain for $what"; }
		sleep 0.3
	done
	step "$what"
}

k() { kubectl --kubeconfig "$here/admin.conf" "$@"; }

kubeconfig() { # token
	cat <<-CONF
	{"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{"name": "c", "cluster": {"server": "$server", "certificate-authority": "$here/shared/pki/apiserver.crt"}}],
	 "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {"token": "$1"}}]}
	CONF
}

control_plane() {
	mkdir "$here/shared/pki"
	openssl ecparam -name prime256v1 -genkey -noout -out "$here/shared/pki/sa.key"
	cat >"$here/shared/pki/tokens.csv" <<-CSV
	admin-token,admin,admin,"system:masters"
	node-1-token,system:node:node-1,node-1,"system:nodes"
	node-2-token,system:node:node-2,node-2,"system:nodes"
	proxy-token,system:kube-proxy,proxy
	CSV
	start etcd etcd --data-dir=/var/lib/etcd --unsafe-no-fsync --log-level=error
	start kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=:: --advertise-address=${addrs%%,*} --secure-port=6443 \
		--cert-dir="$here/shared/pki" --service-cluster-ip-range=$services --service-account-issuer=https://kubernetes.default.svc \
		--service-account-key-file="$here/shared/pki/sa.key" --service-account-signing-key-file="$here/shared/pki/sa.key" --authorization-mode=Node,RBAC \
		--enable-admission-plugins=NodeRestriction --token-auth-file="$here/shared/pki/tokens.csv" --allow-privileged=true --kubelet-preferred-address-types=InternalIP
	await 120 "API server is ready" k get --raw /readyz
	start kube-controller-manager kube-controller-manager --kubeconfig="$here/admin.conf" --leader-elect=false --root-ca-file="$here/shared/pki/apiserver.crt" \
		--service-account-private-key-file="$here/shared/pki/sa.key" --kube-api-qps=200 --kube-api-burst=400 --bind-address=127.0.0.1
	start kube-scheduler kube-scheduler --kubeconfig="$here/admin.conf" --leader-elect=false --kube-api-qps=200 --kube-api-burst=400 --bind-address=127.0.0.1
}

runtime() {
	cat >"$here/containerd.toml" <<-TOML
	version = 2
	root = "/var/lib/containerd"
	state = "/run/containerd"
	[grpc]
	  address = "/run/containerd/containerd.sock"
	[plugins."io.containerd.grpc.v1.cri"]
	  sandbox_image = "registry.k8s.io/pause:3.10.1"
	  # Root need not have CAP_SYS_RESOURCE where this runs.
	  restrict_oom_score_adj = true
	  enable_unprivileged_ports = true
	  enable_unprivileged_icmp = true
	  [plugins."io.containerd.grpc.v1.cri".containerd]
	    snapshotter = "overlayfs"
	    default_runtime_name = "runc"
	    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
	      runtime_type = "io.containerd.runc.v2"
	      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
	        BinaryName = "$here/programs/runc"
	        SystemdCgroup = false
	  [plugins."io.containerd.grpc.v1.cri".cni]
	    bin_dir = "/opt/cni/bin"
	    conf_dir = "/etc/cni/net.d"
	TOML
	start containerd containerd --config "$here/containerd.toml"
	await 60 "containerd is ready" ctr version
	local tar
	for tar in "$here"/programs/images/*.tar "$here/image.tar"; do
		[ ! -f "$tar" ] || ctr -n k8s.io images import --no-unpack "$tar" >/dev/null
	done
}

kubelet_and_proxy() {
	kubeconfig node-$number-token >"$here/kubelet.conf"
	kubeconfig proxy-token >"$here/proxy.conf"
	cat >"$here/kubelet.yaml" <<-YAML
	apiVersion: kubelet.config.k8s.io/v1beta1
	kind: KubeletConfiguration
	authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
	authorization: {mode: AlwaysAllow}
	failCgroupV1: false
	cgroupDriver: cgroupfs
	containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
	resolvConf: /etc/node-resolv.conf
	clusterDomain: cluster.local
	clusterDNS: [10.96.0.10]
	maxPods: 250
	failSwapOn: false
	makeIPTablesUtilChains: false
	serializeImagePulls: false
	kubeAPIQPS: 200
	kubeAPIBurst: 400
	eventRecordQPS: 0
	imageGCHighThresholdPercent: 100
	imageGCLowThresholdPercent: 99
	evictionHard: {memory.available: "50Mi", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
	volumePluginDir: /var/lib/kubelet/volumeplugins
	YAML
	start kubelet kubelet --config="$here/kubelet.yaml" --kubeconfig="$here/kubelet.conf" --hostname-override=node-$number --node-ip=$addrs --v=2
	cat >"$here/proxy.yaml" <<-YAML
	apiVersion: kubeproxy.config.k8s.io/v1alpha1
	kind: KubeProxyConfiguration
	mode: nftables
	clientConnection: {kubeconfig: $here/proxy.conf}
	hostnameOverride: node-$number
	clusterCIDR: $pods
	conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
	YAML
	start kube-proxy kube-proxy --config="$here/proxy.yaml"
	await 180 "is ready" k wait --for=condition=Ready node/node-$number --timeout=1s
}

new_root
PATH=$here/programs:$PATH
hide_tunables
network
kubeconfig admin-token >"$here/admin.conf"
if [ $number = 1 ]; then
	control_plane
else
	await 180 "API server is ready" k get --raw /readyz
fi
runtime
kubelet_and_proxy
if [ $number = 2 ]; then
	while alive; do sleep 1; done
fi
await 180 "node-2 is ready" k wait --for=condition=Ready node/node-2 --timeout=1s
# What a reader of a failure asks for first.
collect() {
	k get pods -A -o wide >"$here/out/pods.txt" 2>&1 || true
	k get events -A >"$here/out/events.txt" 2>&1 || true
	k -n kube-system logs -l app.kubernetes.io/component=agent --all-containers --prefix --tail=-1 >"$here/out/sluice-agent.log" 2>&1 || true
}
trap collect EXIT
. "$here/source/tools/conformance/suites.sh"
for suite; do
	"suite_$suite"
done
exit "$failed"
