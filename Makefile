# Every recipe sets itself up in .venv; only Python >= 3.11 and make have to be there first.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL: # the recipes share .venv; tests and workers are parallel inside
.PHONY: help run setup test test-all storm mutants check docs lock clean FORCE

BIN := .venv/bin
# Install again when the requirements change, when options are given, or when the folder was moved.
NEEDS := pyproject.toml constraints.txt $(if $(PIP_ARGS),FORCE)
NEEDS += $(if $(filter-out $(wildcard .venv/.here),.venv/.here),FORCE)
NEEDS += $(if $(filter-out $(CURDIR),$(shell cat .venv/.here 2>/dev/null)),FORCE)
export PIP_ARGS PYTHON STUDY DATA PORT
# Packages are installed uncompiled (docs/decisions/0006): the first process that imports one keeps its
# bytecode for the next, where this is not set; else each start of a server takes seconds longer.
unexport PYTHONDONTWRITEBYTECODE

help: ## show this list
	@echo "lmtune: start with 'make run'; see README.md"; echo
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  benchmarks: $(or $(BENCHMARKS),none yet)"
	@echo "  options:    PYTHON=python3.12  PIP_ARGS='--extra-index-url URL' (any recipe)"
	@echo "              ONCE=1 STUDY=FILE DATA=FILE PORT=N (run)  ARGS='-k space' (test)  OUT=FILE QUICK=1 (bench)"

run: .venv/.run ## start server, worker and the quickstart study; serve until Ctrl-C (ONCE=1: until it ends)
	@exec $(BIN)/lmtune up $(if $(filter-out 0,$(ONCE)),--once) \
	  $${STUDY:+--study "$$STUDY"} $${DATA:+--data "$$DATA"} $${PORT:+--port "$$PORT"}

setup: .venv/.dev ## make .venv with everything: server, worker and the tools of this file
	@echo "set-up: done; 'make run' starts lmtune"

test: .venv/.dev ## run the tests but the slow ones; installs Chromium and PostgreSQL where it may
	@.ci/tools
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-all: .venv/.dev ## run every test, in three processes: they wait a lot
	@.ci/tools
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

storm: .venv/.dev ## break everything for real and count what is lost; SEED, TRIALS, FAULTS, DB=sqlite|postgres
	@.ci/tools
	@$(BIN)/python -m tests.chaos.storm $(if $(SEED),--seed $(SEED)) $(if $(TRIALS),--trials $(TRIALS)) \
	  $(if $(FAULTS),--faults $(FAULTS)) $(if $(DB),--db $(DB)) $(if $(SERVERS),--servers $(SERVERS)) $(ARGS)

check: .venv/.dev ## lint, format, types, import contracts, docs
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@bash -n $(wildcard .ci/*)
	@$(BIN)/python -m pytest --quiet tests/test_architecture.py tests/test_docs.py

mutants: .venv/.dev ## take out each guard of the protocol in turn; a named test must fail
	@$(BIN)/python -m tests.mutants $(ARGS)

BENCHMARKS = $(patsubst tests/benchmarks/%.py,bench-%,$(filter-out %/test_%.py,$(wildcard tests/benchmarks/[!_]*.py)))
bench-%: .venv/.dev ## run tests/benchmarks/%.py; OUT=FILE keeps its numbers
	@[ -e tests/benchmarks/$*.py ] || { echo "no such benchmark; there are: $(BENCHMARKS)" >&2; exit 2; }
	@$(BIN)/python -m tests.benchmarks.$* $(if $(OUT),--out "$(OUT)") $(ARGS)

docs: .venv/.dev ## write the parts of docs and README that are made of the code
	@$(BIN)/python -m studies.reference
	@$(BIN)/python -m tests.harness.lifecycle
	@$(BIN)/python -m tests.harness.tree

lock: .venv/.dev ## write constraints.txt anew from the newest releases that fit pyproject.toml
	@.ci/lock

clean: ## remove .venv, caches and build outputs; studies in .lmtune stay
	rm -rf .venv .venv.lock .venv-ray build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find studies service trainer tests -name __pycache__ -prune -exec rm -rf {} +

.venv/.run: $(NEEDS)
	@.ci/setup all
.venv/.dev: $(NEEDS)
	@.ci/setup dev
