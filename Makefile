PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
PACKAGES := rlkit algorithms buffers anchors schedules
SOURCES := $(PACKAGES) tests $(wildcard examples benchmarks docs)

.PHONY: help run test static check format clean

help:
	@echo 'make run    ARGS="train.steps=50"   train with ReMix (creates .venv first)'
	@echo 'make test   PYTEST_ARGS="-m ..."    run the tests'
	@echo 'make static                         formatting, lint, types, import contracts'
	@echo 'make check                          static, then test'
	@echo 'make format                         let ruff rewrite the sources'
	@echo 'PYTHON=python3.12 chooses the interpreter; PIP_ARGS passes options to pip, for example'
	@echo '  PIP_ARGS="--extra-index-url URL" for an index with a CPU-only torch'

run: $(VENV)/.installed
	$(BIN)/python -m rlkit.run algorithm=remix buffer=fifo anchor=kl_convex $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

static: $(VENV)/.installed-dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/mypy tests
	$(BIN)/pyright
	$(BIN)/lint-imports

check: static test

format: $(VENV)/.installed-dev
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rlkit needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/.installed
