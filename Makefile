# The two commands of the README, and what continuous integration adds to them.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test lint docs

run: $(VENV)/installed
	$(BIN)/bench run --generators all --segmenters all

# Every test computes with one thread, so two at a time keep two cores busy; times are measured alone.
# Modules of minutes come first, so that none of them ends alone.
test: $(VENV)/installed-dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder --durations 40 \
		tests/integration tests/faults tests/browser tests/unit
	$(BIN)/python -m pytest tests/benchmarks

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation into site/; a warning is an error. The variable silences Material's notice that
# its support ends in May 2027.
docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable '.[dev]'
	touch $@
