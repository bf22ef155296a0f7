# Thin names for real commands; each recipe is what you would type yourself.
.DEFAULT_GOAL := help
.PHONY: help run test test-long restart-test alerts-test ledger chaos chaos-quick fuzz bench instructions ceiling flamegraph pgo profile-build lint fmt setup stack
.NOTPARALLEL:

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build the release binary and serve on 127.0.0.1:8080, data in ./data
	cargo run --release

stack: ## the whole stack behind Nginx on 127.0.0.1:8080; ops/stack down stops it, ops/stack --help has the rest
	ops/stack up

test: setup lint ## install what tests need, lint, run every test (this is what CI runs)
	cargo test
	target/venv/bin/pytest -p no:cacheprovider -n 3 --dist worksteal ops/tests
	SNIP_TEST_STORE=postgres cargo test --test 'contract_*' --test seed --test process

test-long: ## the caches for a minute under load with Redis killed and started again, a million codes and links
	SNIP_TEST_LONG=1 cargo test --test cache -- --nocapture

alerts-test: ## let instances, store, Redis and Prometheus fail, and see the alerts reach the receiver and a Discord stand-in
	ops/alerts-test

ledger: ## kill optimized servers at random (SQLite 50 times, PostgreSQL 200, three servers 200), and hold the store to what clients were told
	SNIP_LEDGER_ROUNDS=50 cargo test --release --test ledger sqlite -- --nocapture
	SNIP_LEDGER_ROUNDS=200 cargo test --release --test ledger answered_click_is_in_postgres -- --nocapture
	SNIP_LEDGER_ROUNDS=200 cargo test --release --test ledger three_servers -- --nocapture

chaos: ## let every part fail on purpose under load, and write what came of it into docs/chaos-engineering.md (root)
	cargo build --release
	ops/chaos

chaos-quick: ## the short experiments alone, for each change (root)
	cargo build --release
	ops/chaos --quick

restart-test: ## restart servers under load, three ways with ten restarts a minute each; no request may fail
	cargo build --release
	loadtests/restart

fuzz: ## run each fuzz target for FUZZ_SECONDS, 600 when not set
	ops/ci/fuzz.sh $(or $(FUZZ_SECONDS),600)

bench: ## time a request's parts, the PostgreSQL client beside others, and the click journal: minutes (one: cargo bench --bench request)
	cargo bench --bench request --bench pg_select --bench journal

instructions: ## count the instructions of a request's parts and compare with benches/instructions.json (3 % may be added)
	ops/ci/instructions

ceiling: ## what a redirect costs beside Nginx's `return 302`, a bare loop, and others, in one run
	loadtests/ceiling

flamegraph: ## record where the time goes, as dated pictures in flamegraphs/
	flamegraphs/record

pgo: ## record anew how the program is used, which the compiler builds it by (after a change of the toolchain or of the hot path)
	ops/pgo/record

profile-build: ## an optimized binary that perf can walk: symbols and frame pointers, in target/profiling
	RUSTFLAGS="-C force-frame-pointers=yes" cargo build --profile profiling

lint: ## formatting, clippy and shellcheck, warnings are errors
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	shellcheck $$(git grep -lE '^#!.*\bbash$$')

fmt: ## format the code
	cargo fmt

setup: ## install what the tests need (Debian, Ubuntu); quick when all is there
	ops/ci/setup.sh
