# Every command of daily work. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Extras to install. By default the tools of development, and a Java runtime where the machine has none.
ifndef EXTRAS
EXTRAS := dev$(shell [ -n "$${JAVA_HOME:-}" ] || command -v java >/dev/null || echo ,java)
endif

# More arguments for pytest, as in: make test PYTEST_ARGS='-x -k topology'
PYTEST_ARGS ?=

# Which tests instead of all, as in: make test TESTS=tests/unit
TESTS ?=

# A folder for JUnit's files, if they are wanted.
JUNIT ?=

# Tests of the whole machine's namespaces run alone. The others, which mostly wait, do not mind each other; those of the
# one Docker engine run one after the other in one worker (tests/conftest.py).
TWO_AT_ONCE := -n 2

# What make image shall make instead of all, as in: make image IMAGE_ARGS='--zookeeper 3.8.6'
IMAGE_ARGS ?=

# make soak: for how long, and from which seed on.
HOURS ?= 1
SEED ?= 1

.PHONY: help setup demo test faults lint chaos soak bench report image clean doctor

help: ## list these commands
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(STAMP) ## make .venv with everything that is needed (once; then it costs nothing)

demo: setup ## one switch dies under load: 20 seconds, and a page that says what happened
	@$(BIN)/zkchaos run switch-failure --topology dual-net

test: setup ## all tests: pure ones, ones with real servers, and the scenarios
ifneq ($(TESTS),)
	$(BIN)/pytest $(TESTS) $(PYTEST_ARGS)
else
	$(BIN)/pytest tests -m alone $(PYTEST_ARGS) $(if $(JUNIT),--junitxml=$(JUNIT)/alone.xml)
	$(BIN)/pytest tests -m "not alone and not long" $(TWO_AT_ONCE) $(PYTEST_ARGS) \
		$(if $(JUNIT),--junitxml=$(JUNIT)/rest.xml)
endif

faults: setup ## each fault alone and in mixtures, proved, on this kernel and in a user-mode one (20 minutes)
	$(BIN)/pytest tests -m long $(TWO_AT_ONCE) $(PYTEST_ARGS) \
		$(if $(JUNIT),--junitxml=$(JUNIT)/faults.xml)

lint: setup ## ruff and mypy, as strict as in CI
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

chaos: setup ## only the scenarios: tests marked `chaos`
	$(BIN)/pytest tests -m "chaos and not long" $(PYTEST_ARGS)

soak: setup ## `mixed` with one seed after another for HOURS (1), from SEED (1) on, until one is not valid
	@limit=$$(awk 'BEGIN { print int("$(HOURS)" * 3600) }'); \
	if [ "$$limit" -lt 1 ]; then echo "HOURS=$(HOURS) is not a number of hours above 0" >&2; exit 64; fi; \
	seed=$(SEED); \
	while [ $$SECONDS -lt $$limit ]; do \
		echo "seed $$seed, $$SECONDS of $$limit seconds gone"; \
		$(BIN)/zkchaos run mixed --seed $$seed || { code=$$?; echo "seed $$seed ended with exit code $$code"; exit $$code; }; \
		seed=$$((seed + 1)); \
	done; \
	echo "$$((seed - $(SEED))) runs, all valid"

bench: setup ## run every benchmark in benchmarks/
	@found=0; \
	for file in benchmarks/*.py; do \
		[ -e "$$file" ] || continue; \
		found=1; echo "== $$file"; $(BIN)/python "$$file"; \
	done; \
	[ $$found = 1 ] || echo "there are no benchmarks yet"

report: setup ## write the page of the latest run again, and say where it is
	@$(BIN)/zkchaos report latest

image: setup ## make the images of the Docker testbed from Debian packages: server, helper, toxiproxy
	@$(BIN)/zkchaos image $(IMAGE_ARGS)

doctor: setup ## what this machine can do, and what to do about the rest
	@$(BIN)/zkchaos doctor

# Before topology-%: a make older than 3.82 takes the first pattern that fits, a newer one the one that leaves least.
topology-%-down: setup ## remove it again
	@$(BIN)/zkchaos down $*

topology-%: setup ## bring a topology up with Docker Compose, and say how to break it: make topology-dual-net
	@$(BIN)/zkchaos up $*

clean: ## remove what was built and cached; runs and .venv are kept
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find harness tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The newest Python that can make virtual environments, else any that is new enough, with virtualenv.
$(STAMP): pyproject.toml
	@new='import sys; sys.exit(sys.version_info < (3, 11))'; \
	if ! $(BIN)/python -c "import pip; $$new" >/dev/null 2>&1; then \
		rm -rf $(VENV); \
		any=''; able=''; \
		for python in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
			"$$python" -c "$$new" >/dev/null 2>&1 || continue; \
			any=$${any:-$$python}; \
			if "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then able=$$python; break; fi; \
		done; \
		if [ -z "$$any" ]; then \
			echo 'zk-chaos-harness needs Python 3.11 or later, and none was found on PATH.' >&2; \
			echo 'Install it, or say where it is: make setup PYTHON=/path/to/python3' >&2; \
			exit 3; \
		elif [ -n "$$able" ]; then "$$able" -m venv $(VENV); \
		elif command -v virtualenv >/dev/null; then virtualenv --quiet --python "$$any" $(VENV); \
		else \
			echo "$$any cannot make a virtual environment: its module ensurepip is missing." >&2; \
			echo 'On Debian and Ubuntu: apt install python3-venv. Or install virtualenv.' >&2; \
			exit 3; \
		fi; \
	fi; \
	echo "Installing zk-chaos-harness[$(EXTRAS)] into $(VENV) with $$($(BIN)/python --version)"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'; \
	touch $(STAMP)
