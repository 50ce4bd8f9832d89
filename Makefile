# `make demo` and `make test` do all their own set-up; a second run starts at once.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.rewright-setup
STAMP_DOCS := $(VENV)/.rewright-setup-docs

.PHONY: help setup demo test test-all lint types imports docs format clean

help:
	@echo 'make demo      compile a small model both ways and show what happened'
	@echo 'make test      the tests, without the slow ones'
	@echo 'make test-all  the slow ones too'
	@echo 'make lint      ruff: lint and format'
	@echo 'make types     mypy'
	@echo 'make imports   import-linter: which part may import which'
	@echo 'make docs      the documentation as a site, in build/site'
	@echo 'make format    let ruff rewrite the files'
	@echo 'make setup     only create $(VENV)'
	@echo 'make clean     remove what was built, and caches'

setup: $(STAMP)

# setuptools first, at its pinned version: the editable install then builds with it, offline.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo '$(PYTHON) is older than 3.10: make PYTHON=/path/to/python3.10 $(MAKECMDGOALS)'; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools wheel
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/rewright demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m 'not slow'

test-all: $(STAMP)
	$(BIN)/python -m pytest -n 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports --no-cache

# What only the site needs is installed here, so that `make test` need not wait for it.
$(STAMP_DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[docs]'
	@touch $@

docs: $(STAMP_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'build/site/index.html; for the search, too: $(BIN)/python -m http.server -d build/site'

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist src/*.egg-info dump .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find ir passes frontends backends src tests -name __pycache__ -type d -prune -exec rm -rf {} +
