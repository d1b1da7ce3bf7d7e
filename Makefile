# make demo   see it work: real traffic between pods in network namespaces
# make test   all tests that fit ten minutes, privileged ones included
# The build and the ordinary tests run as you; sudo is used where root is needed.

GO    ?= go
BIN   := bin/sluice
CNI   := bin/sluice-cni
SUDO  := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Tests that create network namespaces, load programs and open AF_XDP sockets.
PRIV  := ./xdpprog ./dataplane ./dataplane/xsk ./bench/netlab ./bench/traffic ./bench/report ./control/forward ./control/e2e ./tools/lab ./tools/demo ./tools/sluice
# Tests that have targets of their own below, with what they need.
OWN   := ./bench/scenario ./tools/deploytest ./tools/hubbletest ./tools/webtest
# What shares memory between goroutines, all but what only computes.
RACE  := $$($(GO) list ./dataplane/... ./control/... | grep -vE '/(e2e|policy|packet|flow|rule|filter|object)(/|$$)')
# Builds a test program, or some into a folder. check vets, once; go test would vet
# all that is linked anew for each way to build it. A debugger finds nothing in it.
TESTC := $(GO) test -c -vet=off -ldflags='-s -w'
FUZZTIME ?= 20s

.PHONY: all bench-peers bench-micro-baseline build deps demo test test-unit test-priv test-race test-oracles check fuzz bench bench-micro bench-acl test-zerocopy test-kernels qemu generate generate-check clean test-apiserver

all: build

build: $(BIN) $(CNI)

$(BIN): FORCE
	$(GO) build -o $@ ./tools/sluice
$(CNI): FORCE
	CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./tools/sluice-cni
FORCE:

demo: build
	$(SUDO) $(BIN) demo

test: check test-unit test-priv

check:
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt: $$out"; exit 1; }
	$(GO) vet ./...

# Everything that needs no root.
test-unit:
	$(GO) test -vet=off $$($(GO) list ./... | grep -vxF "$$($(GO) list $(PRIV) $(OWN))")

# Built as you, run as root from their own folders, so that test data is found.
# No privileged test may skip.
test-priv: build deps
	@mkdir -p bin/test
	$(TESTC) -o bin/test/ $(PRIV)
	@set -e; for pkg in $(PRIV); do \
		name=$$(basename $$pkg); began=$$(date +%s); \
		(cd $$pkg && $(SUDO) env REQUIRE_PRIV=1 SLUICE_BIN=$(CURDIR)/$(BIN) $(CURDIR)/bin/test/$$name.test -test.timeout 8m) || \
			{ echo "FAIL $$pkg"; exit 1; }; \
		echo "ok $$pkg $$(($$(date +%s) - began))s"; \
	done

# Every scenario and system of the benchmark, shortly, with real packets.
.PHONY: test-bench
test-bench: bench-peers
	$(MAKE) test-priv PRIV=./bench/scenario

# Programs that the privileged tests use as peers, from Debian's packages.
deps:
	@missing=; \
	for p in nft:nftables ethtool:ethtool ip:iproute2; do \
		PATH=$$PATH:/usr/sbin:/sbin command -v $${p%%:*} >/dev/null || missing="$$missing $${p##*:}"; \
	done; \
	[ -x /usr/lib/cni/ptp ] || missing="$$missing containernetworking-plugins"; \
	if [ -n "$$missing" ]; then \
		echo "installing$$missing"; \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

# What needs a real kube-apiserver and etcd, which are built once and kept
# below the user's cache: 6 to 20 minutes the first time.
test-apiserver: build
	@mkdir -p bin/test
	@set -e; dir=$$(GO=$(GO) tools/apiserver/build.sh); \
	set -x; SLUICE_APISERVER=$$dir REQUIRE_APISERVER=1 $(GO) test -timeout 8m ./control/source/kube; \
	$(TESTC) -o bin/test/cluster.test ./control/e2e; \
	cd control/e2e && $(SUDO) env REQUIRE_PRIV=1 REQUIRE_APISERVER=1 SLUICE_APISERVER=$$dir \
		$(CURDIR)/bin/test/cluster.test -test.run '^TestCluster' -test.timeout 8m

# 24 simulated hours of changes, 100 a second, as fast as they go: some 15 to 30
# minutes. test-unit has a short turn of it.
SOAK ?= 8640000
.PHONY: test-soak
test-soak:
	SLUICE_SOAK=$(SOAK) $(GO) test -run TestSoak -v -timeout 2h ./control/publish

# What the control loop takes: 5,000 pods and 1,000 policies in a real API
# server, 50,000 and 10,000 in a simulated one, a pod's start beside 250 pods.
.PHONY: bench-control
bench-control: build
	@mkdir -p bin/test
	@set -e; dir=$$(GO=$(GO) tools/apiserver/build.sh); \
	$(TESTC) -o bin/test/scale.test ./control/e2e; \
	cd control/e2e && $(SUDO) env REQUIRE_PRIV=1 REQUIRE_APISERVER=1 SLUICE_APISERVER=$$dir SLUICE_SCALE=full \
		$(CURDIR)/bin/test/scale.test -test.run '^TestScale|^TestClusterLatency' -test.v -test.timeout 20m

# Agents of this version and of another one in each other's place, under traffic.
# The other's tests are built once a revision, kept outside the tree.
OTHER ?= HEAD~60
.PHONY: test-upgrade
test-upgrade: deps
	@mkdir -p bin/test
	$(GO) test -c -o bin/test/upgrade.test ./control/e2e
	@set -e; rev=$$(git rev-parse --short=12 $(OTHER)); other=$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sluice/e2e-$$rev.test; \
	if [ ! -x $$other ]; then \
		tmp=$$(mktemp -d); trap 'rm -rf '$$tmp EXIT; mkdir -p $$(dirname $$other); \
		git archive $$rev | tar -x -C $$tmp; $(GO) test -C $$tmp -c -o $$other.new ./control/e2e; mv $$other.new $$other; \
	fi; \
	git log -1 --format='other: %h of %cs, %s' $$rev; cd control/e2e; \
	$(SUDO) env REQUIRE_PRIV=1 SLUICE_E2E_OTHER=$$other $(CURDIR)/bin/test/upgrade.test -test.run '^TestUpgrade$$' -test.v -test.timeout 8m

test-race:
	$(GO) test -race -short -vet=off $(RACE)

# What other projects' own code says, from nested modules: it is too much to
# build for every test run.
test-oracles:
	@set -e; for mod in tools/*-oracle; do \
		echo $$mod; (cd $$mod && $(GO) test -vet=all ./...); \
	done

# A short turn of every fuzz target of this module. Inputs that cover something new
# are kept where go test keeps them, below GOCACHE. What fails by nothing but the end
# of its time, as Go before 1.27 has it now and then (golang/go#75804), has another.
FUZZ ?= ./...
fuzz:
	@mkdir -p bin/fuzz
	@set -e; for pkg in $$($(GO) list -f '{{.ImportPath}}:{{.Dir}}' $(FUZZ)); do \
		dir=$${pkg#*:} pkg=$${pkg%%:*}; \
		targets=$$(cat /dev/null $$dir/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(f .*/\1/p'); \
		[ -n "$$targets" ] || continue; \
		$(GO) test -c -vet=off -fuzz . -o bin/fuzz/one.test $$pkg; \
		for f in $$targets; do for try in 1 2 3; do \
			echo "$$pkg $$f"; code=0; (cd $$dir && $(CURDIR)/bin/fuzz/one.test -test.run '^$$' -test.fuzz "^$$f\$$" -test.fuzztime $(FUZZTIME) \
				-test.fuzzminimizetime 10x -test.fuzzcachedir $$($(GO) env GOCACHE)/fuzz/$$pkg) >bin/fuzz/log 2>&1 || code=$$?; \
			cat bin/fuzz/log; [ $$code != 0 ] || break; \
			[ $$try != 3 ] && grep -q '^    context deadline exceeded$$' bin/fuzz/log && ! grep -q 'ailing input' bin/fuzz/log || exit $$code; \
		done; done; \
	done

# The stock hubble CLI against a lab's agent, and Hubble Relay between them. Built
# once a version, kept outside the tree.
HUBBLE_VERSION := $(shell sed -n 's,.*github.com/cilium/cilium \(v[^ ]*\).*,\1,p' tools/hubble/go.mod)
HUBBLE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sluice/hubble-$(HUBBLE_VERSION)
HUBBLE_RELAY := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sluice/hubble-relay-$(HUBBLE_VERSION)

$(HUBBLE) $(HUBBLE_RELAY):
	@mkdir -p $(dir $@)
	CGO_ENABLED=0 $(GO) build -C tools/hubble -trimpath -o $@.new github.com/cilium/cilium/$(patsubst %-$(HUBBLE_VERSION),%,$(notdir $@)) && mv $@.new $@

.PHONY: test-hubble
test-hubble: build $(HUBBLE) $(HUBBLE_RELAY)
	@mkdir -p bin/test
	$(TESTC) -o bin/test/hubbletest.test ./tools/hubbletest
	cd tools/hubbletest && $(SUDO) env REQUIRE_PRIV=1 SLUICE_BIN=$(CURDIR)/$(BIN) SLUICE_HUBBLE=$(HUBBLE) SLUICE_HUBBLE_RELAY=$(HUBBLE_RELAY) $(CURDIR)/bin/test/hubbletest.test -test.timeout 5m

# The container image for amd64 and arm64, without an engine: bin/image is an OCI
# layout; docker, containerd and podman load bin/sluice-image-*.tar.
.PHONY: image test-deploy deps-deploy
image:
	@mkdir -p bin
	$(GO) run ./tools/image/cmd -out bin

# The image, and the manifests and the chart: what they are made of, and what they
# do on a real API server and in a real container runtime. The runtime's seccomp
# profile comes from a package that is not installed.
SECCOMP := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sluice/seccomp.json
.PHONY: test-image test-containers
test-deploy:
	$(MAKE) test-image
	$(MAKE) test-containers

test-image: image
	SLUICE_IMAGE=$(CURDIR)/bin/image $(GO) test -vet=off -timeout 20m ./tools/image
	rm -rf bin/rendered; cd tools/deploy-oracle && SLUICE_IMAGE=$(CURDIR)/bin/image SLUICE_RENDERED=$(CURDIR)/bin/rendered $(GO) test -vet=off -count=1 ./...

# With what test-image has made.
test-containers: build deps deps-deploy
	@mkdir -p bin/test
	$(TESTC) -o bin/test/deploytest.test ./tools/deploytest
	@set -e; dir=$$(GO=$(GO) tools/apiserver/build.sh); set -x; \
	cd tools/deploytest && $(SUDO) env REQUIRE_PRIV=1 REQUIRE_APISERVER=1 SLUICE_APISERVER=$$dir SLUICE_BIN=$(CURDIR)/$(BIN) \
		SLUICE_IMAGE=$(CURDIR)/bin/image SLUICE_RENDERED=$(CURDIR)/bin/rendered SLUICE_SECCOMP=$(SECCOMP) $(CURDIR)/bin/test/deploytest.test -test.timeout 10m

# Upstream's own suites, on a node with kubelet, containerd and kube-proxy, from
# the image and the manifests. What that is made of is built once and kept below
# the user's cache: 20 minutes and more the first time.
SUITES ?= policyapi netpol
.PHONY: test-conformance
test-conformance: deps
	@mkdir -p bin/conformance
	$(GO) run ./tools/image/cmd -out bin/conformance -arch $$($(GO) env GOARCH)
	@set -e; dir=$$(GO=$(GO) tools/conformance/build.sh $(SUITES)); set -x; \
	$(SUDO) tools/conformance/run.sh $$dir bin/conformance/sluice-image-$$($(GO) env GOARCH).tar bin/conformance/out $(SUITES)

deps-deploy: $(SECCOMP)
	@command -v crun >/dev/null || { $(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends crun >/dev/null; }

$(SECCOMP):
	@mkdir -p $(dir $@)
	@set -e; tmp=$$(mktemp -d); cd $$tmp; $(SUDO) apt-get update -qq; apt-get download -qq golang-github-containers-common; \
	dpkg -x *.deb .; mv usr/share/containers/seccomp.json $@; rm -rf $$tmp

# The web page in a headless Chromium, over a lab with real traffic. With
# SLUICE_WEB_PICTURES=DIR the screenshots stay.
.PHONY: test-web
test-web: build deps-web
	@mkdir -p bin/test
	$(TESTC) -o bin/test/webtest.test ./tools/webtest
	cd tools/webtest && $(SUDO) env REQUIRE_PRIV=1 SLUICE_BIN=$(CURDIR)/$(BIN) SLUICE_CHROMIUM=$$(command -v chromium) \
		SLUICE_WEB_PICTURES=$(SLUICE_WEB_PICTURES) $(CURDIR)/bin/test/webtest.test -test.timeout 8m

.PHONY: deps-web
deps-web:
	@command -v chromium >/dev/null || { \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; }

# What is built once and kept below the user's cache.
.PHONY: prepare
prepare: $(HUBBLE)
	@GO=$(GO) tools/apiserver/build.sh

bench: build bench-peers
	$(SUDO) $(BIN) bench

# What Sluice is measured against, from Debian's packages.
bench-peers:
	bench/peers.sh

# Rings, parser, flow table, classifier, events and the whole burst, compared
# to the committed baseline; TAGS=pmc adds the CPU's counters, where it has them.
MICRO      := ./dataplane/xsk ./dataplane/packet ./dataplane/flow ./dataplane/event ./dataplane
MICRO_WHAT := ^Benchmark(Burst|Parse|KeyHash|Lookup|Track|Put|Process)$$
BENCHSTAT  := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
TAGS       ?=

bench-micro:
	@mkdir -p bin
	$(GO) test -tags '$(TAGS)' -run '^$$' -bench '$(MICRO_WHAT)' -benchtime 50ms -count 6 $(MICRO) > bin/micro.new
	$(GO) test -tags '$(TAGS)' -run '^$$' -bench '^BenchmarkClassify$$/^(1k|12k)$$' -benchtime 50ms -count 6 ./dataplane/classify >> bin/micro.new
	@mv bin/micro.new bin/micro.txt
	$(GO) run $(BENCHSTAT) $(wildcard bench/results/micro.txt) bin/micro.txt

# Takes the last bench-micro for the baseline of those to come.
bench-micro-baseline:
	cp bin/micro.txt bench/results/micro.txt

bench-acl:
	$(GO) run ./bench/acl/cmd

# AF_XDP zero-copy on virtio_net, and the matrix of kernels, in QEMU without KVM.
# Kernels are Debian's packages, cached, never installed. No root. For a kernel whose
# packages you have: go run ./tools/vm/cmd kernels -debs DIR.
test-zerocopy: qemu deps
	$(GO) run ./tools/vm/cmd zerocopy

test-kernels: qemu deps
	$(GO) run ./tools/vm/cmd kernels -o deploy/docs/kernels-results.md

# Built for arm64, and the tests of the shared rings and of what reads packets run
# by qemu's user-mode emulation: memory order and layouts are the machine's.
ARM64 := xsk packet flow classify
# Not as root: emulation knows no AF_XDP sockets, and the tests of those skip then.
PLAIN := $(shell [ "$$(id -u)" != 0 ] || echo setpriv --reuid=65534 --regid=65534 --clear-groups)
.PHONY: test-arm64 deps-arm64
deps-arm64:
	@command -v qemu-aarch64-static >/dev/null || { \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-user-static >/dev/null; }

test-arm64: deps-arm64
	@mkdir -p bin/arm64
	CGO_ENABLED=0 GOARCH=arm64 $(GO) build -trimpath -o bin/arm64/ ./tools/sluice ./tools/sluice-cni
	qemu-aarch64-static bin/arm64/sluice --help >/dev/null
	@set -e; for name in $(ARM64); do \
		CGO_ENABLED=0 GOARCH=arm64 $(TESTC) -trimpath -o bin/arm64/$$name.test ./dataplane/$$name; \
		(cd dataplane/$$name && echo "qemu-aarch64-static $$name.test" && $(PLAIN) env -u REQUIRE_PRIV HOME=/tmp qemu-aarch64-static $(CURDIR)/bin/arm64/$$name.test -test.short -test.timeout 8m); \
	done

qemu:
	@command -v qemu-system-x86_64 >/dev/null && command -v zstd >/dev/null || { \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			qemu-system-x86 seabios ipxe-qemu xz-utils zstd >/dev/null; }

# Needs clang 14 and libbpf's headers (Debian 12: clang llvm libbpf-dev).
generate:
	$(GO) generate ./xdpprog

generate-check: generate
	git diff --exit-code -- xdpprog

clean:
	rm -rf bin results
