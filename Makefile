# Each target does all the set-up that it needs; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo test slow lint bench reproduce clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## make .venv and install lsap with the tested versions of everything

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing (PyTorch is large: some minutes on a slow line)"
	@$(BIN)/pip install --quiet uv && VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet -c constraints.txt -e '.[dev]' \
		|| $(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## train without and with alignment on rendered portraits, then open outputs/demo/report.html
	$(BIN)/python -m lsap.compare domain=demo

test: $(READY) ## the fast tests, two at a time
	$(BIN)/python -m pytest -n 2

slow: $(READY) ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: $(READY) ## style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## speed ratios on this machine: convolution forms, precisions
	$(BIN)/python -m lsap.bench

reproduce: $(READY) ## a table of the paper: make reproduce EXPERIMENT=table4_lambda [DOMAIN=demo]
	$(BIN)/python -m lsap.reproduce experiment=$(EXPERIMENT) domain=$(or $(DOMAIN),demo) save_to=experiments/$(EXPERIMENT)

clean: ## remove outputs, caches and builds (not .venv)
	rm -rf outputs build dist .pytest_cache .mypy_cache .ruff_cache multirun
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
