# Everything from a fresh clone; `make help` lists the targets. Go is assumed, the
# rest is looked for and, on Debian as root, installed.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

GO           ?= go
CLANG        ?= clang-14
WASI_SYSROOT ?= /usr
STATICCHECK  := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME     ?= 30s
ARGS         ?=

# Flags from outside (-race, -mod=vendor) need not suit both of our targets. No
# version stamp: git refuses to look into a clone that another user owns.
export GOFLAGS := -buildvcs=false

PACKAGES := gcc libc6-dev make git ca-certificates clang-14 lld-14 wasi-libc libclang-rt-14-dev-wasm32
WASM_CC  := $(CLANG) --target=wasm32-wasi --sysroot=$(WASI_SYSROOT) -O2
WASM_GO  := GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0 $(GO) build -trimpath

.PHONY: help deps build test demo night soak bench clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

deps: ## install what building needs, if it is missing
	@if ! command -v $(GO) >/dev/null; then
		echo "deps: no $(GO) in PATH: install Go 1.26 or newer" >&2
		exit 1
	fi
	tmp=$$(mktemp -d)
	trap 'rm -rf "$$tmp"' EXIT
	printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' >"$$tmp/probe.c"
	missing() {
		command -v git >/dev/null || echo "git"
		gcc -o "$$tmp/probe" "$$tmp/probe.c" >/dev/null 2>&1 || echo "a C compiler: gcc with libc6-dev"
		$(WASM_CC) -o "$$tmp/probe.wasm" "$$tmp/probe.c" >/dev/null 2>&1 ||
			echo "a C compiler for wasm32-wasi: $(CLANG) with lld-14, wasi-libc and libclang-rt-14-dev-wasm32"
	}
	lacks=$$(missing)
	if [ -z "$$lacks" ]; then exit 0; fi
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		export DEBIAN_FRONTEND=noninteractive
		apt-get update
		apt-get install -y --no-install-recommends $(PACKAGES)
		lacks=$$(missing)
		if [ -z "$$lacks" ]; then exit 0; fi
	fi
	sed 's/^/deps: missing /' <<<"$$lacks" >&2
	echo "deps: on Debian, as root: apt-get install $(PACKAGES)" >&2
	echo "deps: elsewhere: install the same and set CLANG and WASI_SYSROOT" >&2
	exit 1

build: deps ## bin/crowd, the sample programs as WebAssembly, and a native blur
	@mkdir -p bin
	$(GO) build -trimpath -o bin/crowd ./cmd/crowd
	$(GO) build -trimpath -o bin/blur ./programs/blur
	for p in blur hello wordcount count sum grep; do
		$(WASM_GO) -o bin/$$p.wasm ./programs/$$p
	done
	$(WASM_CC) -o bin/trivial.wasm programs/trivial/trivial.c

test: deps ## gofmt, vet, staticcheck and all tests
	@ugly=$$(gofmt -l .)
	if [ -n "$$ugly" ]; then
		printf 'gofmt: not formatted:\n%s\n' "$$ugly" >&2
		exit 1
	fi
	set -x
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) test -timeout 15m ./...

demo: build ## run the main job on a local network with a cheater (ARGS="--image FILE")
	@bin/crowd demo $(ARGS)

night: deps ## fuzz each target for FUZZTIME (30s), then the long simulations
	@failed=
	targets=$$($(GO) test -list '^Fuzz' ./... | awk '/^Fuzz/ { f[n++] = $$1 } /^ok/ { for (i = 0; i < n; i++) print $$2, f[i]; n = 0 }')
	while read -r pkg fuzz; do
		echo "== $$fuzz in $$pkg"
		$(GO) test -run '^$$' -fuzz "^$$fuzz\$$" -fuzztime $(FUZZTIME) "$$pkg" </dev/null || failed+=" $$fuzz"
	done <<<"$$targets"
	echo "== all tests, long"
	CROWD_NIGHT=1 $(GO) test -count=1 -timeout 8h ./... || failed+=" tests"
	if [ -n "$$failed" ]; then
		echo "night: failed:$$failed" >&2
		exit 1
	fi

soak: deps ## a local network under a mix of work for SOAK (30m); fails on a trend
	SOAK=$${SOAK:-30m} $(GO) test -count=1 -timeout 12h -v ./internal/soak

bench: deps ## all benchmarks
	$(GO) test -run '^$$' -bench . ./...

clean: ## remove what build made
	rm -rf bin
