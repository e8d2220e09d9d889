# make run: the whole pipeline.  make test: the tests.  make check: style, types, import rings.
VENV := .venv
BIN := $(VENV)/bin
export PYTHON
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := true
# Files stay with one worker, in the order of tests/conftest.py.
TESTS := $(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup run test test-fast check bench fuzz

setup: $(VENV)/.setup-done

$(VENV)/.setup-done: constraints.txt pyproject.toml infra/setup.sh infra/packages.sh infra/build_lmplz.sh
	@bash infra/setup.sh $(VENV)

run: setup
	@$(BIN)/headwater run

# Without a browser the tests that need one fail, and say so.
test: setup
	-@bash infra/chromium.sh
	$(TESTS)

# Without whole runs and what tests/conftest.py calls slow: two minutes, for the change at hand.
test-fast: setup
	$(TESTS) -m "not e2e and not slow"

# The readers of outside input over mutated inputs (READER=warc, http, robots, evidence or jsonl, COUNT executions each), and
# READER=properties: the property tests with examples that nobody has seen before. What one finds becomes a case of its own.
COUNT ?= 20000
SEED ?= $(shell date +%s)
fuzz: setup
ifneq ($(READER),properties)
	$(BIN)/python -m tests.fuzz $(if $(READER),--reader $(READER)) --count $(COUNT) --seed $(SEED)
endif
ifeq ($(filter-out properties,$(READER)),)
	grep -rl hypothesis tests/flows tests/tasks tests/training | \
		xargs $(BIN)/python -m pytest -q --numprocesses 2 --hypothesis-profile default
endif

# Speed and quality beside peers; docs/benchmarks.md says what each table means. PAGES=FILE.warc.gz brings your own.
bench: setup
	$(BIN)/python -m tests.bench.bench_dedup
	$(BIN)/python -m tests.bench.bench_trace
	@for part in crawl extract structure filters perplexity decontaminate tokenizer pipeline; do \
		echo; echo "== $$part"; $(BIN)/python -m tests.bench.bench_$$part $(if $(PAGES),--pages $(PAGES)) || exit 1; done

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
