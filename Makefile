# `make help` says what there is. A line with two hashes behind a target is what it shows.
VENV := .venv
BIN := $(VENV)/bin
export PYTHON
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := true
# Files stay with one worker, in the order of tests/conftest.py.
TESTS := $(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: help setup run test test-fast check format bench bench-train faults fuzz

help:   ## this list
	@sed -n 's/^\([a-z-]*\):.*## */  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

setup: $(VENV)/.setup-done   ## the environment in .venv, by the versions of constraints.txt

$(VENV)/.setup-done: constraints.txt pyproject.toml infra/setup.sh infra/packages.sh infra/build_lmplz.sh
	@bash infra/setup.sh $(VENV)

run: setup   ## the whole pipeline: from raw pages to a release
	@$(BIN)/headwater run

# Without a browser the tests that need one fail, and say so.
test: setup   ## the tests
	-@bash infra/chromium.sh
	$(TESTS)

# Without whole runs and what tests/conftest.py calls slow: some three minutes, for the change at hand.
test-fast: setup   ## the tests without whole runs: some three minutes
	$(TESTS) -m "not e2e and not slow"

# The readers of outside input over mutated inputs (READER=warc, http, robots, evidence or jsonl, COUNT executions each), and
# READER=properties: the property tests with examples that nobody has seen before. What one finds becomes a case of its own.
COUNT ?= 20000
SEED ?= $(shell date +%s)
fuzz: setup   ## readers of outside input over mutated inputs (READER, COUNT, SEED)
ifneq ($(READER),properties)
	$(BIN)/python -m tests.fuzz $(if $(READER),--reader $(READER)) --count $(COUNT) --seed $(SEED)
endif
ifeq ($(filter-out properties,$(READER)),)
	grep -rl hypothesis tests/flows tests/tasks tests/training | \
		xargs $(BIN)/python -m pytest -q --numprocesses 2 --hypothesis-profile default
endif

# Speed and quality beside peers; docs/benchmarks.md says what each table means. PAGES=FILE.warc.gz brings your own.
bench: setup   ## speed and quality beside peers (PAGES)
	$(BIN)/python -m tests.bench.bench_dedup
	$(BIN)/python -m tests.bench.bench_trace
	@for part in crawl extract structure filters perplexity decontaminate tokenizer pipeline; do \
		echo; echo "== $$part"; $(BIN)/python -m tests.bench.bench_$$part $(if $(PAGES),--pages $(PAGES)) || exit 1; done

# Minutes to an hour: training killed again and again (KILLS times), and states offloaded to a disk.
KILLS ?= 100
faults: setup   ## training killed at random moments (KILLS), and states on a disk
	KILLS=$(KILLS) $(BIN)/python -m pytest -q -s tests/faults/check_kills.py tests/faults/check_disk_offload.py

bench-train: setup   ## the trainer beside a plain loop and a minimal one, and its memory (an hour)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m tests.bench.bench_train
	$(BIN)/python -m tests.bench.bench_memory resident

check: setup   ## style, strict types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup   ## what `make check` would mend by itself, mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
