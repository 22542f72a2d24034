# k3nest. `make up` is the whole thing on one machine; `make help` lists the rest.
#
# Everything that is built lies in a cache outside the checkout (K3NEST_CACHE), so that a fresh
# clone builds warm; bin/k3nest is the one result in it.

CACHE   := $(or $(K3NEST_CACHE),$(HOME)/.cache/k3nest)
TARGET  := $(shell uname -m)-unknown-linux-gnu
# Compilers that were installed by hand are often missing from a bare shell's PATH.
EXTRA   := $(subst $() $(),:,$(wildcard $(HOME)/.cargo/bin /usr/local/go/bin))

export CARGO_TARGET_DIR := $(CACHE)/target
export K3NEST_CACHE     := $(CACHE)
export PATH             := $(if $(EXTRA),$(EXTRA):)$(PATH)

.DEFAULT_GOAL := help
.PHONY: help up down build test soak bench generate fmt lint clean

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

up: build ## Docker, images, host cluster, operator, sample cluster: whatever is missing
	bin/k3nest up

down: build ## remove what up has made
	bin/k3nest down

# Static, so that the operator's image is this one file: glibc's resolver works from files and DNS
# there. The target is named because without it the flag would reach procedural macros, which cannot
# be static.
build: ## the release binary, bin/k3nest
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $(TARGET)
	@mkdir -p bin
	@install $(CARGO_TARGET_DIR)/$(TARGET)/release/k3nest bin/.k3nest && mv bin/.k3nest bin/k3nest

test: ## every test there is; sets up what it needs
	e2e/test.sh

# Walks through the simulated world: a cluster that is edited, wounded, and let down by Docker, over and
# over. Only k3nest itself is compiled anew for it, optimised; all else is what `cargo test` has compiled.
# The first line names the seed. What fails is shrunk, and kept in proptest-regressions/.
N    ?= 20000
WALK := $(foreach it,opt-level=2 debug=false debug-assertions=false overflow-checks=true,--config profile.test.package.k3nest.$(it))
soak: ## N= random walks through the simulated world, from SEED= or any
	@seed=$(or $(SEED),$(strip $(shell od -An -N4 -tu4 /dev/urandom))); \
	  echo "again: make soak N=$(N) SEED=$$seed"; \
	  K3NEST_WALKS=$(N) K3NEST_WALKS_SEED=$$seed cargo test --locked --lib $(WALK) -- sim::converge_tests

# The flags and the target are those of `build`, so that what that has compiled is used again. More words
# for it: make bench ARGS='--only create --pairs 2 --sizes 1+0'
bench: build ## the measurements behind the README's numbers; half an hour on a quiet machine
	RUSTFLAGS="-C target-feature=+crt-static" K3NEST_BIN=$(CURDIR)/bin/k3nest \
	  cargo bench --locked --target $(TARGET) --bench measure -- $(ARGS)

generate: ## the custom resource definitions, from the types
	cargo run --quiet --locked -- crds >crds/.generated
	mv crds/.generated crds/k3sclusters.yaml

fmt: ## format the Rust code
	cargo fmt

lint: ## what CI says about the Rust code
	cargo fmt --check
	cargo clippy --all-targets --test e2e --test e2e_operator --test e2e_faults --locked -- -D warnings

# Images that containers use are kept, with Docker's message: `make down` first. In the cache only
# what these scripts put there is removed, whatever K3NEST_CACHE is.
clean: ## remove the images and caches that were built here
	-docker image ls --quiet --filter label=k3nest.dev/offline-image=true | sort -u | xargs -r docker image rm --force
	-docker image ls --quiet --filter label=k3nest.dev/operator-image=true | sort -u | xargs -r docker image rm --force
	rm -rf bin $(addprefix $(CACHE)/,target node-image nginx-image tools-image contract bin test)
