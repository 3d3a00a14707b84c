# MCP Sentinel. `make` or `make help` lists what there is.
#
# Everything is installed into .venv from the package index, with exact versions and hashes; nothing needs root.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help system install install-dev install-otel run test coverage check bench chaos conformance interop demo redaction-report costs sample-data \
        docs-settings lock clean

PACKAGES := git make python3 python3-venv
# The newest Python here that is at least 3.11 and can make virtual environments.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python3.14; do \
  $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { command -v $$python; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --no-deps --require-hashes --prefer-binary --no-compile
HOST ?= 127.0.0.1
PORT ?= 8000
TESTS ?= tests

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

system:
	@if [ -z "$(PYTHON)" ] || ! command -v git >/dev/null; then \
	  echo "MCP Sentinel needs these system packages (Python 3.11 or newer): $(PACKAGES)"; \
	  echo "On Debian and Ubuntu: apt install $(PACKAGES)"; exit 1; fi

install: system $(VENV)/.installed ## .venv with the pinned requirements
install-dev: system $(VENV)/.installed-dev ## the same, with what the tests and checks need
install-otel: install ## what runs it, and what traces need (SENTINEL_OTEL_ENDPOINT)
	@$(PIP) -r requirements-otel.txt

$(VENV)/bin/python:
	@$(MAKE) --no-print-directory system
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Needed: apt install $(PACKAGES)"; exit 1; }

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	@echo "Installing the requirements"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt | $(VENV)/bin/python
	@echo "Installing the requirements of the tests and checks"
	@$(PIP) -r requirements-dev.txt
	@touch $@ $(VENV)/.installed

run: install ## the gateway with a demo upstream, keys and an administrator (HOST=, PORT=)
	@exec $(BIN)/python manage.py serve --demo --host $(HOST) --port $(PORT)

test: install-dev ## the whole suite, with all it needs (TESTS=path for a part)
	@$(BIN)/python -m pytest -n 3 --dist loadgroup $(TESTS) || { echo "What failed beside other tests is run once more, alone."; \
	  $(BIN)/python -m pytest --last-failed --last-failed-no-failures none -p no:randomly $(TESTS); }

# Tests that run in pytest's own process: what other processes do is not measured. The floor is what it was last, and only rises.
IN_PROCESS := tests/core tests/audit tests/policies tests/proxy tests/sentinel tests/admin tests/api
coverage: install-dev ## how much of the code the tests of its parts run, with a floor
	@$(BIN)/python -m pytest -n 4 --dist loadgroup --cov --cov-report=term $(IN_PROCESS) --deselect tests/audit/redaction/test_cost.py

check: install-dev ## format, lint, types, import directions, migrations, the settings page
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py check --fail-level WARNING
	$(BIN)/python manage.py makemigrations --check --dry-run
	@$(BIN)/python -m core.conf.settings | diff docs/settings.md - || { echo "run: make docs-settings"; exit 1; }

bench: install-dev ## the published benchmark: direct, nginx, gateway, in turns
	@$(BIN)/python -m bench $(ARGS)

chaos: install-dev ## kills, hangs and full disks under load, and what the log says afterwards
	@$(BIN)/python -m tests.chaos $(ARGS)

conformance: install-dev ## the official MCP conformance suite, through the gateway
	@$(BIN)/python -m tests.conformance $(ARGS)

interop: install-dev ## real MCP servers and clients, directly and through the gateway; the tables of docs/interop.md
	@$(BIN)/python -m tests.interop $(ARGS)

demo: install ## before and after: a careless MCP server, alone and behind the gateway
	@$(BIN)/python demo/run.py $(ARGS)

redaction-report: install-dev ## how many labelled secrets are found, how many harmless texts are kept
	@$(BIN)/python -m tests.corpus.report --rounds 3 $(ARGS)

costs: install-dev ## search for inputs that are dear for their length (ARGS="--seconds 600")
	@$(BIN)/python -m tests.corpus.costs $(ARGS)

sample-data: install ## fill the log with realistic events (EVENTS=1000000)
	@$(BIN)/python -m bench.sample_data --events $(or $(EVENTS),1000000) $(ARGS)

docs-settings: install ## write docs/settings.md from the code
	@$(BIN)/python -m core.conf.settings > docs/settings.md

# --universal: one file for every supported Python and platform. Index addresses are left out.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
           --no-emit-find-links --no-annotate --no-header
lock: install-dev ## write requirements*.txt anew from the .in files
	@$(COMPILE) $(ARGS) requirements.in -o requirements.txt
	@$(COMPILE) $(ARGS) -c requirements.txt requirements-otel.in -o requirements-otel.txt
	@$(COMPILE) $(ARGS) -c requirements.txt -c requirements-otel.txt requirements.in requirements-otel.in requirements-dev.in -o requirements-dev.txt
	@! grep -nE '://|^-|/opt|@ ' requirements.txt requirements-otel.txt requirements-dev.txt || { echo "an address got into the lock files"; exit 1; }

clean: ## remove .venv and caches; var/ (your data) stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './var/*' -type d -exec rm -rf {} +
