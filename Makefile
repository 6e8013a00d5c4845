# One way to do each thing; nothing to install first. `make` lists.

.DEFAULT_GOAL := help
CARGO ?= cargo

.PHONY: help
help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Build and start a development gateway on port 9620, with its data in ./data
	$(CARGO) run --locked -- dev

.PHONY: cluster
cluster: ## Start three gateways on one PostgreSQL and one Redis, behind port 9620; Ctrl-C ends everything
	$(CARGO) build --locked
	$(CARGO) run --locked --quiet --example cluster

# Where Debian keeps PostgreSQL is not on the path; `pg_config` may belong to the client library alone.
HAS_REDIS = command -v redis-server >/dev/null
HAS_POSTGRES = ls "$$(pg_config --bindir 2>/dev/null)/postgres" /usr/lib/postgresql/*/bin/postgres 2>/dev/null | grep -q .

.PHONY: servers
servers: ## Install what the tests start, where it is missing: PostgreSQL and Redis (apt-get)
	@if $(HAS_REDIS) && $(HAS_POSTGRES); then exit 0; fi; \
	command -v apt-get >/dev/null || { echo "install PostgreSQL and redis-server: there is no apt-get here" >&2; exit 1; }; \
	as_root=; if [ "$$(id -u)" != 0 ]; then as_root=sudo; fi; \
	if [ -n "$$as_root" ] && ! command -v sudo >/dev/null; then \
		echo "install the packages postgresql and redis-server: this needs root, and there is no sudo" >&2; exit 1; fi; \
	missing=; $(HAS_REDIS) || missing="redis-server"; $(HAS_POSTGRES) || missing="$$missing postgresql"; \
	echo "installing $$missing"; \
	$$as_root apt-get update -qq && $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing

.PHONY: servers-are-there
servers-are-there:
	@$(HAS_REDIS) || { echo "redis-server is missing and tests start it: make servers" >&2; exit 1; }
	@$(HAS_POSTGRES) || { echo "PostgreSQL is missing and tests start it: make servers" >&2; exit 1; }

.PHONY: test
test: servers-are-there ## Run every test; they start and stop what they need (make servers installs it)
	$(CARGO) test --locked --workspace

.PHONY: check
check: ## Format, lints, architecture test
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	cd bench && $(CARGO) fmt --all --check
	$(CARGO) test --locked --test it architecture::

.PHONY: postgres-is-there
postgres-is-there:
	@$(HAS_POSTGRES) || { echo "PostgreSQL is missing and the bench starts it: make servers" >&2; exit 1; }

.PHONY: bench
bench: postgres-is-there ## Measure on SQLite and on PostgreSQL against a bare proxy; writes target/figures/bench.json (about 6 minutes, and the build)
	$(CARGO) build --locked --release
	bench/run

.PHONY: bench-short
bench-short: postgres-is-there ## The same in about a minute: shows that the rig works, its figures are noise
	$(CARGO) build --locked --release
	bench/run --short

.PHONY: policies
policies: ## Run the tests of the built-in policies in the engine that serves
	$(CARGO) run --locked --quiet -- policy test

.PHONY: docs
docs: ## Build the source's documentation, with broken links denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

ROUNDS ?= 1000
.PHONY: rounds
rounds: servers ## Publish and call on three gateways, a thousand rounds under each fault; writes target/figures/rounds.json (about 10 minutes, and the build)
	rm -f target/figures/rounds.json
	TAPPASS_ROUNDS=$(ROUNDS) $(CARGO) test --locked --profile quick --test it cluster::rounds:: -- --nocapture --test-threads 1
