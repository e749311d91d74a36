# Loden: make help says what there is. On a fresh Debian 12 machine with Go, as root or
# with sudo, `make demo` and `make test` need nothing else.

GO      ?= go
BIN     := $(CURDIR)/bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
STATIC  := CGO_ENABLED=0 $(GO) build -trimpath
export PATH := $(PATH):/usr/sbin:/sbin

# Namespaces need root, or a kernel that gives them to users; sudo keeps the Go caches.
ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E env PATH="$$PATH")

.DEFAULT_GOAL := help
.PHONY: help
help: ## what there is to make
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: programs tools ## static binaries in bin/, CNI plugins in bin/cni/

.PHONY: programs
programs:
	@mkdir -p $(BIN)
	$(STATIC) -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/loden ./cmd/loden-cni ./cmd/loden-lab

.PHONY: tools
tools: $(BIN)/cni/bridge $(BIN)/etcd $(BIN)/etcdctl

$(BIN)/cni/bridge: test/tools/cni/go.mod test/tools/cni/go.sum
	test/tools/cni/build.sh $(BIN)/cni cnitool
	@touch $@

$(BIN)/etcd: test/tools/etcd/go.mod test/tools/etcd/go.sum
	@mkdir -p $(BIN)
	cd test/tools/etcd && GOWORK=off $(STATIC) -ldflags '-s -w' -o $@ go.etcd.io/etcd/server/v3

$(BIN)/etcdctl: test/tools/etcd/go.mod test/tools/etcd/go.sum
	@mkdir -p $(BIN)
	cd test/tools/etcd && GOWORK=off $(STATIC) -ldflags '-s -w' -o $@ go.etcd.io/etcd/etcdctl/v3

.PHONY: packages
packages:
	@test/tools/packages.sh

.PHONY: demo
demo: packages build ## a whole cluster on this machine, to look at; Ctrl-C removes it
	$(ROOT) $(BIN)/loden-lab $(DEMO)

.PHONY: unit
unit: $(BIN)/etcd ## what needs neither root nor other programs: seconds
	$(GO) test $$($(GO) list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | grep -v sandboxtest | cut -d' ' -f1)

.PHONY: test
test: packages page-packages build interop-programs ## everything: unit, property, fuzz seeds, real kernel, real etcd
	$(ROOT) $(GO) test -race -timeout 12m ./...
	cd test/bench/registry && GOWORK=off $(GO) test ./...
	cd test/page && GOWORK=off $(GO) test ./...

.PHONY: test-page page-packages
test-page: page-packages ## the page of a node in chromium; SHOTS=DIR keeps pictures of it
	cd test/page && GOWORK=off $(GO) test -count=1 ./... $(if $(SHOTS),-screenshots $(abspath $(SHOTS)))
page-packages:
	@test/page/packages.sh

.PHONY: test-registry
test-registry: ## the registry at length: 10,000 histories, 60 s outages, etcd 3.5 and 3.6
	@mkdir -p $(BIN)/etcd-3.5 $(BIN)/etcd-3.6
	cd test/tools/etcd35 && GOWORK=off $(STATIC) -o $(BIN)/etcd-3.5/etcd go.etcd.io/etcd/server/v3
	cd test/tools/etcd36 && GOWORK=off $(STATIC) -o $(BIN)/etcd-3.6/etcd go.etcd.io/etcd/server/v3
	LODEN_HISTORIES=10000 LODEN_OUTAGE=60s $(GO) test -count=1 -timeout 30m ./subnet/etcd
	LODEN_ETCD_BINARY=$(BIN)/etcd-3.5/etcd $(GO) test -count=1 -timeout 30m ./subnet/etcd
	LODEN_ETCD_BINARY=$(BIN)/etcd-3.6/etcd $(GO) test -count=1 -timeout 30m ./subnet/etcd

.PHONY: e2e
e2e: packages build ## only the system tests: whole clusters in namespaces
	$(ROOT) $(GO) test -race -timeout 12m -v ./test/system/

.PHONY: test-faults
test-faults: packages build ## the faults of docs/troubleshooting.md, injected one at a time: each is named with its remedy; minutes
	$(ROOT) $(GO) test -count=1 -timeout 20m -v ./test/faults -all

.PHONY: interop
interop: packages programs interop-programs ## the engine beside wireguard-go, Tailscale's fork: everything, minutes
	$(ROOT) $(GO) test -race -count=1 -timeout 12m -v ./test/interop -rekey

.PHONY: interop-programs
interop-programs: $(BIN)/bench/wireguard-go $(BIN)/interop/wireguard-tailscale

$(BIN)/interop/wireguard-tailscale: test/tools/wireguard-tailscale/go.mod test/tools/wireguard-tailscale/go.sum
	@mkdir -p $(BIN)/interop
	cd test/tools/wireguard-tailscale && GOWORK=off $(STATIC) -o $@ github.com/tailscale/wireguard-go

SOAK ?= 10m
SEED ?= 0
.PHONY: soak
soak: packages ## engines for SOAK (10m) through accidents drawn from SEED: no crash, race or leak
	$(ROOT) $(GO) test -race -count=1 -timeout 0 -v ./test/soak -soak $(SOAK) -seed $(SEED)

.PHONY: test-kernel
test-kernel: packages build ## kernel WireGuard, alone, mixed and beside the engine, under Debian's kernel in QEMU
	GO=$(GO) test/kernel/run.sh

.PHONY: image image-test
image: ## the container image, by buildah; ARCH=arm64 for another machine's
	VERSION=$(VERSION) ARCH=$(ARCH) deploy/image/build.sh
image-test: packages container-packages build ## the image, run as nodes, and the one for arm64 under QEMU
	$(ROOT) $(GO) test -tags image -timeout 30m -count=1 -v ./test/image/

.PHONY: container-packages
container-packages:
	@test/e2e/packages.sh

.PHONY: e2e-cri
e2e-cri: packages container-packages ## two nodes with a containerd each: pods made through CRI
	$(ROOT) $(GO) test -tags e2e -timeout 15m -count=1 -v ./test/e2e/

.PHONY: k8s-tools
k8s-tools: $(BIN)/k8s/kubelet $(BIN)/k8s/containerd $(BIN)/k8s/etcd

$(BIN)/k8s/kubelet: test/tools/k8s/go.mod test/tools/k8s/go.sum # the last that is built
	test/tools/k8s/build.sh $(BIN)/k8s
	@touch $@

$(BIN)/k8s/containerd: test/tools/containerd/go.mod test/tools/containerd/go.sum
	test/tools/containerd/build.sh $(BIN)/k8s
	@touch $@

$(BIN)/k8s/etcd: test/tools/etcd/go.mod test/tools/etcd/go.sum
	@mkdir -p $(BIN)/k8s
	cd test/tools/etcd && GOWORK=off $(STATIC) -ldflags '-s -w' -o $@ go.etcd.io/etcd/server/v3
	@touch $@

.PHONY: e2e-k8s
e2e-k8s: packages k8s-tools ## Kubernetes with two kubelets and our manifests; builds it: long the first time
	@test/k8s/packages.sh
	$(ROOT) $(GO) test -tags k8s -timeout 15m -count=1 -v ./test/k8s/

.PHONY: deploy-check
deploy-check: programs $(BIN)/etcd ## render and check the Kubernetes manifests, the chart and the systemd units
	deploy/check.sh

.PHONY: bench-cni bench-registry bench-firewall bench-dataplane bench-peers bench-scale bench-etcd
bench-cni: packages build ## attaching pods: loden-cni beside the bare reference plugins
	$(ROOT) $(GO) run ./test/bench/cni -bin $(BIN) -plugins $(BIN)/cni
bench-registry: ## etcd: loden's registry beside flannel's
	cd test/bench/registry && GOWORK=off $(GO) run .
bench-etcd: $(BIN)/etcd ## what clusters of 100 to 10,000 nodes cost etcd, and 10,000 nodes that come back after an outage
	cd test/bench/registry && GOWORK=off $(GO) run . -etcd $(BIN)/etcd $(ETCD)
bench-firewall: packages ## rules beside flannel's iptables manager: first start, idle, change, repair
	cd test/bench/firewall && GOWORK=off $(ROOT) $(GO) run .
bench-dataplane: packages bench-packages bench-programs ## encrypted tunnels: loden's engine beside wireguard-go, Tailscale's fork and nebula
	$(ROOT) $(GO) run ./test/bench/dataplane $(CONTENDERS) $(BENCH)
bench-peers: packages bench-programs ## 100, 1,000 and 10,000 peers: configure, dump, change one, memory
	$(ROOT) $(GO) run ./test/bench/dataplane $(CONTENDERS) -peers 100,1000,10000
bench-scale: packages bench-packages bench-programs $(BIN)/etcd ## a node beside 100 to 30,000 leases: start, a join, a burst, memory, disk; SCALE='-leases 1000 -out docs/scale'
	cd test/bench/scale && GOWORK=off $(GO) build -o $(BIN)/bench/scale .
	$(ROOT) $(BIN)/bench/scale -loden $(BIN)/bench/loden -wireguard-go $(BIN)/bench/wireguard-go -flannel -etcd $(BIN)/etcd $(SCALE)

# What the dataplane bench compares, with symbols so that profiles have names; BENCH is
# further flags of it, as in BENCH='-tests tcp1 -rounds 3'.
CONTENDERS = -loden $(BIN)/bench/loden -wireguard-go $(BIN)/bench/wireguard-go -tailscale $(BIN)/interop/wireguard-tailscale -nebula $(BIN)/bench/nebula

.PHONY: bench-programs bench-packages
bench-programs: $(BIN)/bench/nebula $(BIN)/bench/wireguard-go $(BIN)/interop/wireguard-tailscale
	$(STATIC) -ldflags '-X main.version=$(VERSION)' -o $(BIN)/bench/ ./cmd/loden
bench-packages:
	@test/bench/packages.sh

$(BIN)/bench/nebula: test/tools/nebula/go.mod test/tools/nebula/go.sum
	@mkdir -p $(BIN)/bench
	cd test/tools/nebula && GOWORK=off $(STATIC) -o $(BIN)/bench/ github.com/slackhq/nebula/cmd/nebula github.com/slackhq/nebula/cmd/nebula-cert

$(BIN)/bench/wireguard-go: test/tools/wireguard-go/go.mod test/tools/wireguard-go/go.sum
	@mkdir -p $(BIN)/bench
	cd test/tools/wireguard-go && GOWORK=off $(STATIC) -o $@ golang.zx2c4.com/wireguard

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, dead code, shape of the tree
	@files=$$(gofmt -l .); test -z "$$files" || { echo "not gofmt-ed: $$files" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags 'kernel image e2e k8s' ./backend ./test/...
	cd test/tools/lint && GOWORK=off $(GO) build -o $(BIN)/staticcheck honnef.co/go/tools/cmd/staticcheck
	$(BIN)/staticcheck ./...
	cd test/tools/lint && GOWORK=off $(GO) build -o $(BIN)/deadcode golang.org/x/tools/cmd/deadcode
	test/tools/deadcode.sh $(BIN)/deadcode
	$(GO) test ./test/shape/

.PHONY: fmt
fmt: ## format the code
	gofmt -w .

FUZZTIME ?= 30s
.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s)
	GO=$(GO) test/tools/fuzz.sh $(FUZZTIME)

.PHONY: docs
docs: programs ## the generated reference of the command line
	$(BIN)/loden docs docs/reference

# make install PREFIX=/usr DESTDIR=…: programs, CNI plugins, manual pages, shell completion.
PREFIX ?= /usr/local
.PHONY: man install
man: programs ## the manual pages, in bin/man/
	rm -rf $(BIN)/man && $(BIN)/loden man $(BIN)/man
install: build man ## install the programs, plugins, manual pages and shell completion below PREFIX (/usr/local)
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin lib/loden/cni share/man/man8 share/bash-completion/completions share/zsh/site-functions share/fish/vendor_completions.d)
	install -m 755 $(BIN)/loden $(DESTDIR)$(PREFIX)/bin/
	install -m 755 $(BIN)/loden-cni $(BIN)/cni/* $(DESTDIR)$(PREFIX)/lib/loden/cni/
	install -m 644 $(BIN)/man/*.8 $(DESTDIR)$(PREFIX)/share/man/man8/
	$(BIN)/loden completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/loden
	$(BIN)/loden completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_loden
	$(BIN)/loden completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/loden.fish

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)
