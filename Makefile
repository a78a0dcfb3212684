# `make check` is what continuous integration runs. `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the last installation saw; entry points are written when the package is installed.
INSTALLED := $(VENV)/installed

.DEFAULT_GOAL := help

.PHONY: help
help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(INSTALLED)  ## Make .venv with onnxopt, editable, and what its development needs

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

.PHONY: check
check: lint types docscheck  ## Everything that must hold: lint, format, types, floors, docs, all tests
	$(BIN)/python -m pytest -n 2

.PHONY: slow
slow: venv  ## The slow tests too: whole models, files over 2 GB
	$(BIN)/python -m pytest -n 2 --slow

.PHONY: lint
lint: venv  ## Lint, format and import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

.PHONY: types
types: venv  ## Types, of the example plug-in too
	$(BIN)/mypy
	$(BIN)/mypy docs/generate.py docs/service/serve.py tests/plugin/onnxopt_example_plugin

.PHONY: test
test: venv  ## The tests, without the slow ones
	$(BIN)/python -m pytest

.PHONY: docs
docs: venv  ## Write the pages that follow from the code
	$(BIN)/python docs/generate.py

.PHONY: docscheck
docscheck: venv
	$(BIN)/python docs/generate.py --check

.PHONY: bench
bench: venv  ## Run the benchmarks, one per claim
	for file in $$(grep -l __main__ benchmarks/*.py); do $(BIN)/python $$file || exit 1; done

.PHONY: clean
clean:  ## Remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
