# One way to do each thing; nothing to install first. `make` lists.

.DEFAULT_GOAL := help
CARGO ?= cargo

.PHONY: help
help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Build and start a development gateway on port 9620, with its data in ./data
	$(CARGO) run --locked -- dev

.PHONY: test
test: ## Run every test; they start and stop what they need
	$(CARGO) test --locked --workspace

.PHONY: check
check: ## Format, lints, architecture test
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	cd bench && $(CARGO) fmt --all --check
	$(CARGO) test --locked --test it architecture::

.PHONY: bench
bench: ## Measure against a bare proxy; prints the figures and writes target/figures/bench.json (about 5 minutes)
	$(CARGO) build --locked --release
	bench/run

.PHONY: bench-short
bench-short: ## The same in a minute: shows that the rig works, its figures are noise
	$(CARGO) build --locked --release
	bench/run --short

.PHONY: policies
policies: ## Run the tests of the built-in policies in the engine that serves
	$(CARGO) run --locked --quiet -- policy test

.PHONY: docs
docs: ## Build the source's documentation, with broken links denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
