# Postern. A newcomer needs two of these: make demo, make test.

SHELL := /bin/bash
GO    ?= go
# One set of flags everywhere, so that build and tests share what was compiled.
export GOFLAGS := -trimpath
# The documentation generator of urfave/cli is left out of the binary.
TAGS  := urfave_cli_no_docs
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
REPORTS := build/reports

.PHONY: help
help: ## what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build/postern, the demo's build/ledger and the bench's build/line
	$(GO) build -tags $(TAGS) -ldflags '$(LDFLAGS)' -o build/ ./cli/postern ./scripts/ledger $(if $(filter linux,$(shell $(GO) env GOOS)),./scripts/line)

.PHONY: demo
demo: build ## everything on this machine, until Ctrl-C; ARGS=--check tries it once
	build/postern demo --ledger build/ledger $(ARGS)

.PHONY: test
test: ## all tests that need neither root nor a browser
	$(GO) test -tags $(TAGS) ./...

# Without the command's scripts, which start each step as a process: what the processes run
# has tests in its own room.
.PHONY: race
race: ## the same under the race detector
	$(GO) test -race -skip '^TestScripts$$' -tags $(TAGS) ./...

# SUITE picks the tests whose names start so: road, browser, login, crash, cipher,
# isolation, certs, nat, survive. Without it all of them run, one suite after the other; the
# last two, which mostly wait, together.
SUITE  ?=
SUITES := Road Browser Login Crash Cipher Isolation Certs NAT Survive
suite   = $(if $(SUITE),$(shell printf '%s\n' $(SUITES) | grep -ix '$(SUITE)'),$(filter-out NAT Survive,$(SUITES)) '(NAT|Survive)')

.PHONY: e2e
e2e: ## real processes, namespaces and browsers; needs root; SUITE=road for one
	@[ -n "$(suite)" ] || { echo "make e2e: no suite is called $(SUITE): $(SUITES)" >&2; exit 2; }
	scripts/install-e2e
	@mkdir -p $(REPORTS)
	@set -e; for suite in $(suite); do \
		echo "== e2e suite $$suite"; \
		$(GO) test -count=1 -timeout 15m -parallel 12 -tags e2e,$(TAGS) -run "^Test$$suite" ./internal/e2e; \
	done

.PHONY: proof
proof: ## what a gateway can see and do, tried and told for a security reviewer; needs root
	scripts/install-e2e
	@mkdir -p $(REPORTS)
	@rm -f $(REPORTS)/proof.txt
	$(GO) test -count=1 -timeout 15m -tags e2e,$(TAGS) -run '^Test(Cipher|CertsEvil|CertsReplay|IsolationI5)' ./internal/e2e
	@printf '\nWhat a gateway of Postern %s can see and do, tried on %s\n\n' '$(VERSION)' "$$(date -u +'%Y-%m-%d')"
	@cat $(REPORTS)/proof.txt

# A number of inputs, and no time: go test may report the end of a time as a
# failure ("context deadline exceeded") when a worker is busy just then.
FUZZTIME ?= 5000x

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME, such as 10000x (inputs) or 5m
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; \
		done; \
	done

.PHONY: bench
bench: build ## what tunnel and road cost, as ratios; ARGS='-only tunnel' for a part
	-scripts/install-bench
	$(GO) run ./scripts/bench $(ARGS)

.PHONY: bench-profile
bench-profile: ## where the tunnel's CPU time goes, by package and function
	$(GO) run ./scripts/bench -profile $(REPORTS)/profiles -span 5s $(ARGS)

.PHONY: lint
lint: ## formatting, vet, staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "not formatted: $$unformatted" >&2; exit 1; }
	$(GO) vet -tags e2e,$(TAGS) ./...
	$(GO) tool -modfile=scripts/tools.mod staticcheck -tags e2e,$(TAGS) ./...

.PHONY: units
units: build ## have systemd judge the units in scripts/systemd
	scripts/check-units

# A version that Debian takes: without a tag, one below all releases.
PACKAGE_VERSION := $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-/+/g' | grep . || echo "0~$$(git log -1 --format=%cd --date=format:%Y%m%d 2>/dev/null || echo 0)+$$(git rev-parse --short HEAD 2>/dev/null || echo unknown)")

.PHONY: packages
packages: ## Debian packages in build/packages: amd64 with all roles, arm64 without coordinator
	@rm -rf build/packages build/package && mkdir -p build/packages build/package/amd64 build/package/arm64
	CGO_ENABLED=1 GOARCH=amd64 $(GO) build -tags $(TAGS) -ldflags '$(LDFLAGS)' -o build/package/amd64/ ./cli/postern
	CGO_ENABLED=0 GOARCH=arm64 $(GO) build -tags $(TAGS) -ldflags '$(LDFLAGS)' -o build/package/arm64/ ./cli/postern
	ARCH=amd64 LIBC='libc6 (>= 2.34)' PACKAGE_VERSION='$(PACKAGE_VERSION)' $(GO) tool -modfile=scripts/tools.mod nfpm package -f scripts/nfpm.yaml -p deb -t build/packages/
	ARCH=arm64 LIBC=libc6 PACKAGE_VERSION='$(PACKAGE_VERSION)' $(GO) tool -modfile=scripts/tools.mod nfpm package -f scripts/nfpm.yaml -p deb -t build/packages/
	scripts/check-packages

.PHONY: cross
cross: ## the node's program for other systems, without cgo
	@for target in windows/amd64 darwin/arm64 linux/arm64; do \
		echo "== $$target"; \
		CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} $(GO) build -tags $(TAGS) -o /dev/null ./cli/postern || exit 1; \
	done

.PHONY: check
check: lint test race fuzz cross units e2e ## what CI runs, no more, no less
	$(MAKE) demo ARGS=--check

.PHONY: clean
clean: ## remove what was built
	rm -rf build
