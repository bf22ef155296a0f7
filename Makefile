# Thin names for real commands; each recipe is what you would type yourself.
.DEFAULT_GOAL := help
.PHONY: help run test test-long ledger bench profile-build lint fmt setup
.NOTPARALLEL:

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build the release binary and serve on 127.0.0.1:8080, data in ./data
	cargo run --release

test: setup lint ## install what tests need, lint, run every test (this is what CI runs)
	cargo test
	SNIP_TEST_STORE=postgres cargo test --test 'contract_*' --test seed --test process

test-long: ## the caches for a minute under load with Redis killed and started again, a million codes and links
	SNIP_TEST_LONG=1 cargo test --test cache -- --nocapture

ledger: ## kill optimized servers at random (SQLite 50 times, PostgreSQL 200, three servers 200), and hold the store to what clients were told
	SNIP_LEDGER_ROUNDS=50 cargo test --release --test ledger sqlite -- --nocapture
	SNIP_LEDGER_ROUNDS=200 cargo test --release --test ledger answered_click_is_in_postgres -- --nocapture
	SNIP_LEDGER_ROUNDS=200 cargo test --release --test ledger three_servers -- --nocapture

bench: ## compare the PostgreSQL client with tokio-postgres and pgbench, one core each for client and server
	cargo bench --bench pg_select

profile-build: ## an optimized binary that perf can walk: symbols and frame pointers, in target/profiling
	RUSTFLAGS="-C force-frame-pointers=yes" cargo build --profile profiling

lint: ## formatting and clippy, warnings are errors
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

fmt: ## format the code
	cargo fmt

setup: ## install what the tests need (Debian, Ubuntu); quick when all is there
	ops/ci/setup.sh
