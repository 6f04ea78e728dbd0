# make demo   a machine made by the playbook, two mails, two drafts; make demo-down removes it
# make test   lint, unit and integration tests, and the whole site in containers
# make help   all of it

PYTHON ?= python3.11
BIN := .venv/bin
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
# What is checked and formatted as Python.
SOURCES := agent ansible tests molecule benchmarks evals
COMPILE := --quiet --strip-extras --allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: help demo demo-down test test-arm64 lint unit soak soak-watch molecule eval bench bench-deploy bench-drafting bench-intake bench-sync bench-watch oracle docs lock clean

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: .venv/.installed ## The whole path, from a bare machine to an approved draft (set CLAUDE_API_KEY for Claude itself)
	@$(BIN)/python -m tests.lab.demo

demo-down: .venv/.installed ## Remove what `make demo` made
	@$(BIN)/python -m tests.lab down --name demo

test: lint .venv/.oracle ## Everything that CI runs
	$(BIN)/python -m tests.side_by_side unit molecule

lint: .venv/.installed ## ruff, mypy, yamllint, ansible-lint, zizmor
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy agent/cloud_agent tests/lab benchmarks evals
	$(BIN)/yamllint --strict .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --pedantic --quiet .github

unit: .venv/.oracle ## Unit, property and integration tests
	$(BIN)/pytest -q

SOAK_MINUTES ?= 60
soak: .venv/.installed ## Two clones, a remote and every fault, for SOAK_MINUTES (60)
	SOAK_MINUTES=$(SOAK_MINUTES) $(BIN)/pytest -q -s tests/integration/test_sync_states.py

soak-watch: .venv/.installed ## A mailbox, the watcher and every fault, for SOAK_MINUTES (60)
	SOAK_MINUTES=$(SOAK_MINUTES) $(BIN)/pytest -q -s tests/integration/test_watch_storm.py

SCENARIOS ?= default firewall fleet oracle upgrade
molecule: .venv/.oracle ## The acceptance tests and all else that machines made by the playbook have to show
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/molecule test $(SCENARIOS:%=--scenario-name=%)

test-arm64: .venv/.installed ## The whole site on an emulated arm64 machine: slow
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/molecule test --scenario-name=arm64

oracle: .venv/.oracle ## Oracle's SDK (0.6 GB), which `site.yml` makes the VM with when it has an API key

eval: .venv/.installed ## Scores of the gate and the screening on real mail; with CLAUDE_API_KEY set, of the drafts too
	$(BIN)/python -m evals

bench: .venv/.installed ## Times, downtime and memory on the machine of a running `make demo`
	$(BIN)/python -m benchmarks.machine

bench-sync: .venv/.installed ## A sync cycle against the plain git sequence, at 1,000, 10,000 and 50,000 files: about 10 minutes
	$(BIN)/python -m benchmarks.sync --resident
	$(BIN)/python -m benchmarks.sync --ssh --sizes 1000 50000

bench-watch: .venv/.installed ## From a new message in Dovecot to its mail and its draft: about 6 minutes
	$(BIN)/python -m benchmarks.watch

bench-deploy: .venv/.installed ## A run that changes nothing against a ping, and an upgrade, on the machine of a running `make demo`
	$(BIN)/python -m benchmarks.deploy

bench-drafting: .venv/.installed ## From a mail to its draft, with 10 and 10,000 decided mails: about 5 minutes
	$(BIN)/python -m benchmarks.drafting

bench-intake: .venv/.installed ## Messages a second through intake against the bare parser
	$(BIN)/python -m benchmarks.intake

docs: .venv/.installed ## docs/variables.md anew, from the roles' argument specs
	$(BIN)/python -m tests.variables

lock: .venv/.installed ## Pin again what requirements.in, agent/requirements.in and agent/requirements-alerts.in ask for
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile $(COMPILE) --output-file requirements.txt requirements.in
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile $(COMPILE) --output-file requirements-oracle.txt requirements-oracle.in
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile $(COMPILE) --generate-hashes \
	  --output-file agent/requirements.lock agent/requirements.in
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile $(COMPILE) --generate-hashes \
	  --constraint agent/requirements.lock --output-file agent/requirements-alerts.lock agent/requirements-alerts.in

clean: ## Remove the virtual environment and all caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .ansible

# Debian and Ubuntu keep the module that makes virtual environments in a package of its own.
.venv/.installed: requirements.txt agent/pyproject.toml
	@echo "setting up .venv from requirements.txt"
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -q -y $(PYTHON)-venv; }
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable agent
	@touch $@

# Not compiled: it is large, and little of it is used.
.venv/.oracle: .venv/.installed requirements-oracle.txt
	@echo "adding Oracle's SDK from requirements-oracle.txt"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements-oracle.txt
	@touch $@
