# Every target works from a fresh checkout: it makes .venv, installs into it, and needs no activated environment.

# The interpreter that .venv is made with: Python 3.11 or 3.12.
PYTHON ?= $(shell for p in python3.11 python3 python3.12; do $$p -c '$(IS_USABLE)' 2>/dev/null && echo $$p && break; done)
# Extra words for the command that a target runs: make demo ARGS="clients=3 rounds=5", make test ARGS="-k privacy -x"
ARGS ?=

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
# A run's workers and the tests' many short processes would each compile the project again.
unexport PYTHONDONTWRITEBYTECODE

IS_USABLE := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
VENV := .venv
BIN := $(VENV)/bin
WORKERS := $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$(( n < 4 ? n + 1 : 4 )))
# Written last, so an install that broke off is taken up again.
INSTALLED := $(VENV)/.installed

.PHONY: help install demo federation test test-slow bench check audit format clean

help: ## Print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  PYTHON=...      the interpreter to make .venv with (now: $(PYTHON))'
	@echo '  ARGS="..."      extra words for the command of demo, federation, test, test-slow, bench, audit'
	@echo '  HBDP_DATA=...   the folder with the real images; tests that need it are skipped without it'

install: $(INSTALLED) ## Make .venv and install the project with everything that the other targets need

# One environment for all targets, with the dev extra: the runtime's own dependencies are nearly all of its size.
$(INSTALLED): pyproject.toml constraints.txt
	@if ! { $(BIN)/python -c '$(IS_USABLE)' && $(BIN)/python -m pip --version; } >/dev/null 2>&1; then \
	    if [ -z "$(PYTHON)" ]; then echo 'No Python 3.11 or 3.12 found. Name one: make PYTHON=/path/to/python3.11' >&2; exit 1; fi; \
	    echo 'Making $(VENV) with $(PYTHON)'; \
	    $(PYTHON) -m venv --clear $(VENV); \
	fi
	@echo 'Installing into $(VENV); the first time takes some minutes'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED) ## Five hospitals train under epsilon 1e12, are attacked, and get their report (in runs/)
	$(BIN)/python -m simulations.run clients=5 eps=1e12 $(ARGS)

federation: $(INSTALLED) ## A server and three hospitals as processes of their own, with TLS and keys (in runs/)
	$(BIN)/python -m scripts.deploy rehearse $(ARGS)

# A file's tests share what takes long to make, so files, not tests, are dealt to the processes, and in their order: dealt
# by how many tests they have, the files with few and long tests would come last. There is one more process than
# processors: many tests wait for other processes to start.
test: $(INSTALLED) ## Run the tests, on up to four processors
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(INSTALLED) ## Run the tests that take long, the wheel and the benchmarks among them
	$(BIN)/python -m pytest -m slow --timeout 3600 $(ARGS)

bench: $(INSTALLED) ## Measure what a private training step costs, beside plain SGD and Opacus (in runs/bench/)
	$(BIN)/python scripts/bench/dpsgd.py $(ARGS)

check: $(INSTALLED) ## Check style, formatting, types and the import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

# What exit codes mean is in the script; where pip-audit cannot be had, it checks what can be checked without, and says so.
audit: $(INSTALLED) ## Check the installed versions, licences and files, and look for known weaknesses
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[audit]' \
	    || echo 'pip-audit could not be installed' >&2
	$(BIN)/python scripts/audit.py $(ARGS)

format: $(INSTALLED) ## Format the code and repair what can be repaired
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

clean: ## Remove .venv, caches and builds (never runs/)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(wildcard hbdp_fed simulations configs scripts tests) -type d -name __pycache__ -prune -exec rm -rf {} +
