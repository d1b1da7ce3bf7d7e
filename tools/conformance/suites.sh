# What node.sh runs on the node. Sourced.

# sluice_up installs Sluice as a cluster's owner would, once.
sluice_up() {
	[ ! -d "$here/kustomize" ] || return 0
	local image
	image=$(ctr -n k8s.io images ls -q)
	image=$(grep -m1 /sluice: <<<"$image")
	mkdir "$here/kustomize"
	cat >"$here/kustomize/kustomization.yaml" <<-YAML
	resources: [../source/deploy/kustomize/base]
	images: [{name: sluice, newTag: "${image##*:}"}]
	YAML
	k apply -f "$here/programs/crds" >/dev/null
	k apply -k "$here/kustomize" >/dev/null
	await 180 "Sluice's DaemonSet is rolled out" k -n kube-system rollout status daemonset/sluice-agent --timeout=1s
	grep -q sluice-cni /etc/cni/net.d/* || die "sluice-cni is not chained"
}

# note SUITE RUN PASSED FAILED SKIPPED SECONDS
note() {
	printf '%s: %d passed, %d failed, %d skipped, in %ds\n' "$@" | tee -a "$here/out/results.txt" >&2
	[ "$3" = 0 ] || failed=1
}
failed=0

# network-policy-api's conformance, all features of the experimental channel.
suite_policyapi() {
	sluice_up
	local log=$here/out/policyapi.txt start=$SECONDS
	step "network-policy-api: ClusterNetworkPolicy"
	KUBECONFIG=$here/admin.conf policyapi.test -test.v -test.timeout 30m -test.run "^TestConformanceProfiles\$${POLICYAPI_RUN:+/$POLICYAPI_RUN}" ${POLICYAPI_FLAGS:---all-features} \
		--conformance-profiles=ClusterNetworkPolicy --organization=sluice-net --project=sluice --url=https://github.com/sluice-net/sluice \
		--version=main --contact=@sluice-net --additional-info="make test-conformance" --report-output="$here/out/policyapi-report.yaml" >"$log" 2>&1 || true
	count() { grep -cE "^ {8}--- $1: " "$log" || true; }
	local passed skipped bad
	passed=$(count PASS) bad=$(grep -cE '^ *--- FAIL: .*/.*/' "$log" || true)
	skipped=$(grep -cE '^ *--- SKIP: ' "$log" || true)
	grep -q '^ok\|^PASS' "$log" || [ "$bad" -gt 0 ] || bad=1
	grep -E '^ *--- (FAIL|SKIP)' "$log" >&2 || true
	note policyapi "$passed" "$bad" "$skipped" $((SECONDS - start))
}

# Kubernetes' own NetworkPolicy tests.
suite_netpol() {
	sluice_up
	local log=$here/out/netpol.txt start=$SECONDS line
	step "Kubernetes e2e: Netpol"
	netpol.test --kubeconfig="$here/admin.conf" --provider=skeleton --report-dir="$here/out/netpol" --ginkgo.timeout=60m --ginkgo.no-color --test.timeout=0 \
		--ginkgo.focus="${NETPOL_FOCUS:-\[Feature:NetworkPolicy\]|Netpol}" --ginkgo.skip="${NETPOL_SKIP:-}" >"$log" 2>&1 || true
	grep -E '^ *\[(FAIL|PANICKED|TIMEDOUT)' "$log" | sort -u >&2 || true
	line=$(grep -E '[0-9]+ Passed \| [0-9]+ Failed' "$log" | tail -1)
	[ -n "$line" ] || { tail -n 5 "$log" >&2; line="0 Passed | 1 Failed | 0 Pending | 0 Skipped"; }
	set -- $(grep -oE '[0-9]+ (Passed|Failed|Skipped)' <<<"$line" | cut -d' ' -f1)
	note netpol "$1" "$2" "$3" $((SECONDS - start))
}

# Cyclonus' generated policies, with pods reached at their own addresses, as
# there is no DNS server.
# A pod's packets to itself never leave it, whatever a policy says of them (the
# concept page of NetworkPolicy: "a Pod cannot block access to itself"), which
# Cyclonus knows as loopback.
suite_cyclonus() {
	sluice_up
	local log=$here/out/cyclonus.txt start=$SECONDS passed bad
	step "Cyclonus"
	KUBECONFIG=$here/admin.conf cyclonus generate --destination-type="${CYCLONUS_DESTINATION:-pod-ip}" --job-timeout-seconds=5 --ignore-loopback --perturbation-wait-seconds=1 \
		--pod-creation-timeout-seconds=180 --cleanup-namespaces --junit-results-file="$here/out/cyclonus.xml" ${CYCLONUS_FLAGS:-} >"$log" 2>&1 || true
	passed=$(grep -c '<testcase' "$here/out/cyclonus.xml" || true) bad=$(grep -c '<failure' "$here/out/cyclonus.xml" || true)
	[ "$passed" -gt 0 ] || { tail -n 5 "$log" >&2; bad=1; passed=1; }
	note cyclonus $((passed - bad)) "$bad" 0 $((SECONDS - start))
}
