# make serve: install what is needed and start the gateway. make test: install what tests need and run everything.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2

.PHONY: serve test lint types bench wheel clean

serve: $(VENV)/.installed
	$(BIN)/mm-gateway serve $(ARGS)

test: $(VENV)/.installed-dev lint types
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	$(BIN)/pyright

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/compare.py $(ARGS)

wheel: $(VENV)/.installed-dev
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

# The stamps make a second run quick: nothing is installed while these files stay as they are.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(PIP) install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
