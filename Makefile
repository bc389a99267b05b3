# Each target sets up all it needs; CONTRIBUTING.md says how they fit together.

TARGET := $(or $(CARGO_TARGET_DIR),target)
LAB := $(TARGET)/release/isopath-lab
CARGO := cargo
# The sanitizers' flags are a nightly compiler's; the compiler itself is the one of the checks.
# There is no unsafe code in what is fuzzed, for which alone AddressSanitizer would be wanted.
FUZZ := RUSTC_BOOTSTRAP=1 cargo fuzz
FUZZ_SECONDS ?= 600

# The lab and its tests run the programs of this directory; the path is absolute because tests
# start them from other directories. What people run and what is measured is the release build;
# the tests run what the unit tests have built already, which spares them a second build.
export ISOPATH_BIN_DIR := $(abspath $(TARGET)/release)
TEST_TARGETS := test-build test-lab test-ipvs test-api test-browser
$(TEST_TARGETS): export ISOPATH_BIN_DIR := $(abspath $(TARGET)/debug)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help lab lab-down measure bench-speaker bench-dataplane bench-controller interop release check fmt clippy doc \
	test test-build test-unit test-mutations test-rules test-lab test-ipvs test-api test-browser test-leftovers \
	openapi sim check-fuzz fuzz fuzz-build

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: ## a whole cluster in network namespaces, until Ctrl-C (SWITCH, DIRECTORS, REAL_SERVERS)
	@scripts/setup build lab
	@$(MAKE) --no-print-directory release
	@$(LAB) up

lab-down: ## remove what a crashed lab left
	@if [ -x $(LAB) ]; then $(LAB) down; else echo "no lab was ever built here"; fi

measure: ## drain times and memory on FRR and BIRD, and the width of eight directors
	@scripts/setup build lab
	@$(MAKE) --no-print-directory release
	$(LAB) measure drain --switch frr
	$(LAB) measure drain --switch bird
	$(LAB) measure width --directors 8

bench-speaker: ## isopath, FRR and BIRD as the directors' speaker, side by side (REPS, BENCH=options)
	@scripts/setup build lab
	@$(MAKE) --no-print-directory release
	$(LAB) bench speaker --reps $(or $(REPS),10) --json $(TARGET)/bench-speaker.json $(BENCH)

bench-dataplane: ## services into the kernel beside ipvsadm and keepalived, connections that outlive a director (REPS, BENCH)
	@scripts/setup build lab bench
	@$(MAKE) --no-print-directory release
	$(LAB) bench dataplane --reps $(or $(REPS),10) --json $(TARGET)/bench-dataplane.json $(BENCH)

bench-controller: ## the controller under a thousand agents: reports, changes, restarts (BENCH=options)
	@scripts/setup build lab
	@$(MAKE) --no-print-directory release
	$(LAB) bench controller --json $(TARGET)/bench-controller.json $(BENCH)

interop: ## the speaker against FRR and BIRD in every form; writes the table of docs/OSPF.md
	@scripts/setup build lab
	@$(MAKE) --no-print-directory release
	$(LAB) interop --markdown docs/OSPF.md

release: ## build the release binaries
	$(CARGO) build --locked --release --workspace

check: fmt clippy doc check-fuzz ## formatting, lints, documentation, with warnings denied

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings

doc:
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --workspace --no-deps

test: ## everything: units, namespaces, IPVS, browser, and that nothing is left behind
	@scripts/setup build lab metrics api browser
	@$(MAKE) --no-print-directory test-build test-unit test-mutations test-rules test-lab test-ipvs \
		test-api test-browser test-leftovers

test-unit: test-build ## the unit tests, and the cores on a virtual clock
	$(CARGO) test --locked --workspace --no-fail-fast --lib --bins
	$(CARGO) test --locked --workspace --doc

# The programs and all that tests them, from inside and outside, in one go: cargo picks the
# dependencies' features by what it is asked to build, and would otherwise build most of them twice.
test-build:
	$(CARGO) build --locked --workspace --all-targets

sim: ## the protocol core on faulty networks (SEEDS=20000, or SEED=1234: one, with its trace)
	$(CARGO) test --locked --workspace --test simulator -- --nocapture

test-mutations: ## the core broken on purpose: the property that forbids it must notice
	$(CARGO) test --locked --workspace --features isopath-ospf/sabotage --test simulator mutation

check-fuzz:
	$(CARGO) fmt --manifest-path ospf-speaker/fuzz/Cargo.toml --check
	CARGO_TARGET_DIR=$(TARGET)/fuzz-check $(CARGO) check --locked --no-default-features \
		--manifest-path ospf-speaker/fuzz/Cargo.toml

fuzz-build: ## the fuzz targets, with libFuzzer (cargo install cargo-fuzz)
	$(FUZZ) build --sanitizer none --fuzz-dir ospf-speaker/fuzz

fuzz: ## each fuzz target for FUZZ_SECONDS (600)
	for target in ospf_packet ospf_lsa bfd_packet ospf_ops; do \
		mkdir -p ospf-speaker/fuzz/target/corpus/$$target; \
		$(FUZZ) run --sanitizer none --fuzz-dir ospf-speaker/fuzz $$target \
			ospf-speaker/fuzz/target/corpus/$$target ospf-speaker/fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 || exit 1; \
	done

test-rules: ## Prometheus' own tool on the rules, the configuration, and when each alert fires
	cd deploy/prometheus && promtool check rules isopath.rules.yml
	cd deploy/prometheus && promtool check config prometheus.yml
	cd deploy/prometheus/tests && promtool test rules alerts.test.yml

test-lab: test-build ## the simulator, the programs from outside, and clusters against FRR and BIRD, as root
	scripts/test-lab

test-ipvs: test-build ## what needs IPVS, on this kernel or in a virtual machine
	scripts/test-ipvs

test-api: test-build ## the API held against its own description (SEED, EXAMPLES)
	scripts/test-api $(ISOPATH_BIN_DIR)/isopathd $(SEED)

test-browser: test-build ## the dashboard in a headless browser
	web/tests/run $(ISOPATH_BIN_DIR)/isopathd

openapi: ## write docs/openapi.json anew from the handlers
	ISOPATH_WRITE_OPENAPI=1 $(CARGO) test --locked --package isopathd --lib -- the_document_is_the_one_that_is_kept

test-leftovers: ## fails if a lab left a namespace, a process or a file
	scripts/leftovers
