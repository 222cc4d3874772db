# `make sample` shows the whole pipeline; `make check` is what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test files side by side, one thread each: more threads than cores slow each other down many times over. One process
# more than cores, 4 at most: some tests wait for a server or a process.
N_TEST_PROCESSES := $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() + 1))')
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(N_TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

.PHONY: help reader sample sample-product test test-fast check lint types format mutation clean

help:
	@echo "make reader     install only what \`python src/predict.py IMAGE\` needs to read packs: no torch"
	@echo "make sample     install, then run every stage on the embedded shop and model (sample_run/)"
	@echo "make sample-product  the same for structured answers (sample_product/)"
	@echo "make test       install, then run all tests"
	@echo "make test-fast  the tests without those marked slow"
	@echo "make check      ruff, mypy and all tests: what CI runs"
	@echo "make format     let ruff format the code"
	@echo "make mutation   mutation tests of the pure modules [MODULE=urls.py] [MINUTES=10 per module]"
	@echo "make clean      remove sample_run/, sample_product/ and caches (never your data)"

reader: $(VENV)/installed-reader
	@echo "Ready: $(BIN)/python src/predict.py IMAGE|FOLDER"

sample: $(VENV)/installed
	$(BIN)/python src/run_all.py --sample

sample-product: $(VENV)/installed
	$(BIN)/python src/run_all.py --sample --target product

test: $(VENV)/installed-dev
	$(PYTEST)

test-fast: $(VENV)/installed-dev
	$(PYTEST) -m "not slow"

check: lint types test

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# mutmut breaks one expression at a time and runs the module's tests; benchmarks/mutation.py lists the modules and
# records the results in benchmarks/results/mutation.json. Not part of CI: all modules take hours.
mutation: $(VENV)/installed-mutation
	nice $(BIN)/python benchmarks/mutation.py --minutes $(or $(MINUTES),10) $(if $(MODULE),--module $(MODULE) --show)

clean:
	rm -rf sample_run sample_product .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-reader: requirements-reader.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-reader.txt
	touch $@

$(VENV)/installed: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/installed-mutation: requirements-mutation.txt $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-mutation.txt
	touch $@
