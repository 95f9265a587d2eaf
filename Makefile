# The commands people type. No logic here: it is in e2e/.
SHELL := bash
export CARGO_TARGET_DIR := $(shell e2e/cargo-target)
firn = e2e/compiler && cargo build --package firn-e2e --bins && $(CARGO_TARGET_DIR)/debug
# What Firn is compared with must not be slow for want of an optimiser.
optimised = --config profile.dev.package.firn-e2e.opt-level=3 --config profile.dev.package.firn-oci.opt-level=3

.PHONY: demo test soak bench scale images cluster-up cluster-down

demo: ## the main job, on a real cluster of its own
	@$(firn)/firn-demo

test: ## everything that CI runs
	@e2e/compiler && cargo test --workspace --no-run && $(CARGO_TARGET_DIR)/debug/firn-test

soak: ## the stories of faults, again and again: ten rounds
	@e2e/compiler && cargo test --workspace --no-run && $(CARGO_TARGET_DIR)/debug/firn-test --soak

bench: ## what pushing takes, beside what others take; writes docs/benchmarks.md (BENCH: more arguments)
	@e2e/compiler && cargo build --package firn-e2e --bin firn-bench $(optimised) && $(CARGO_TARGET_DIR)/debug/firn-bench run $(BENCH)

scale: ## ten thousand images on the embedded cluster; writes docs/scale.md (SCALE: more arguments)
	@$(firn)/firn-scale $(SCALE)

images: ## Firn's own images as OCI layouts, pushed into the embedded cluster's registry
	@$(firn)/firn-cluster up && $(CARGO_TARGET_DIR)/debug/firn-install --images-only

cluster-up: ## the embedded cluster with its git server and registries
	@$(firn)/firn-cluster up

cluster-down: ## leaves nothing of it behind
	@$(firn)/firn-cluster down
