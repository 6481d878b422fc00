# Everything one does with a checkout. `make` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SIMULATED ?=
# How many lanes the test suite runs in, side by side; it waits for machines most of its time.
LANES ?= 3

# What is installed: everything, or with SIMULATED=1 what the simulation needs (no libvirt, no root).
ifeq ($(SIMULATED),)
ROLES := python virtual images
INSTALLED := $(VENV)/.installed
EXTRAS := dev,libvirt
else
ROLES := python
INSTALLED := $(VENV)/.installed-simulated
EXTRAS := dev
DEMO_FLAGS := --simulated
endif

.DEFAULT_GOAL := help
.PHONY: help demo dev venv system test check bench types proto clean

help: ## list these commands
	@awk -F ': .*## ' '/^[a-z]+:.* ## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: system $(INSTALLED) ## a first machine, provisioned on this host (SIMULATED=1: without libvirt and root)
	@$(BIN)/mulligan demo $(DEMO_FLAGS)

dev: venv types ## everything to work on Mulligan: the environment, and the view of links for type checkers

venv: $(INSTALLED) ## the virtual environment, with this checkout in it

system: ## the Debian packages that are missing (root; SIMULATED=1: those of the simulation)
	@deploy/packages.sh $(PYTHON) $(ROLES)

test: ## the checks and the whole test suite, real parts included
	@deploy/packages.sh $(PYTHON) $(ROLES) test bench
	@$(MAKE) --no-print-directory check
	$(BIN)/pytest --numprocesses $(LANES) --dist loadscope --no-loadscope-reorder $(ARGS)

check: $(INSTALLED) types ## formatting, lint, strict types, import layers, the contract and its generated code
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	deploy/check_generated.sh $(VENV)

bench: ## the benchmarks, as ratios measured side by side (QUICK=1: small sizes; ONLY="watch claims"; PEERS=1; JSON=file)
	@deploy/packages.sh $(PYTHON) $(ROLES) test bench
	@$(MAKE) --no-print-directory $(INSTALLED)
	$(BIN)/python -m tests.bench $(ONLY) $(if $(QUICK),--quick) $(if $(JSON),--json $(JSON))

types: .types/mulligan/api ## the view of links through which type checkers see the packages

proto: $(INSTALLED) ## the generated code, made anew from proto/
	deploy/generate.sh $(VENV) proto

clean: ## what was built here: the environment, caches (not the state of `mulligan up`)
	rm -rf $(VENV) .types .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info

$(VENV)/.installed $(VENV)/.installed-simulated: pyproject.toml
	@deploy/packages.sh $(PYTHON) $(ROLES)
	@deploy/environment.sh $(PYTHON) $(VENV) $(EXTRAS)
	@touch $@

.types/mulligan/api:
	@mkdir -p .types/mulligan
	@ln -sfn ../../activities .types/mulligan/activities
	@ln -sfn ../../workflows .types/mulligan/workflows
	@ln -sfn ../../proto/mulligan/v1 .types/mulligan/v1
	@ln -sfn ../../api .types/mulligan/api
