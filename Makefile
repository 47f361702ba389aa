# Every target sets up what it needs, once for each place that the project lies in: an environment cannot be moved.
SUPPORTED := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
NAMES := python3.11 python3.12 python3 python
PYTHON ?= $(shell for python in $(NAMES); do \
	$$python -c "$(SUPPORTED)" 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

.PHONY: help demo test bench lint docs compose viz mlflow notebook clean

## help: these lines
help:
	@sed -n 's/^## /  /p' Makefile

## demo: draw creatures, discover their parts, train, generate, evaluate (a few minutes)
demo: $(READY)
	$(BIN)/kedro run

## test: run the tests
test: $(READY) $(VENV)/.browser
	$(BIN)/pytest

## bench: measure every stage beside its baseline, into docs/benchmarks.md (about ten minutes; run nothing beside it)
bench: $(READY)
	$(BIN)/python benchmarks/suite.py

## lint: check style, format and types
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## docs: build the documentation's site, site/index.html
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

## compose: make creatures from parts in the browser, on port 7860
compose: $(READY)
	$(BIN)/kedro compose

## viz: see the pipeline, its tables and pictures in the browser
viz: $(READY)
	$(BIN)/kedro viz run

## mlflow: compare runs in the browser, on port 5000
mlflow: $(READY)
	$(BIN)/kedro runs

## notebook: open the notebooks in JupyterLab
notebook: $(VENV)/.notebook
	$(BIN)/jupyter lab notebooks

## clean: remove data, runs and the environment
clean:
	mkdir -p data
	find data -mindepth 1 -maxdepth 1 -not -name README.md -exec rm -rf {} +
	rm -rf $(VENV) mlflow.db mlruns mlartifacts .viz site

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c "$(SUPPORTED)" 2>/dev/null || { echo "Python 3.11 or 3.12 with venv is \
	needed, and was looked for as $(or $(PYTHON),$(NAMES)): install one or name it with make PYTHON=<path>."; exit 1; }
	@test "$$(cat $@ 2>/dev/null)" = "$(CURDIR)" || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing packages into $(VENV), for some minutes."
	@$(BIN)/python -m pip install $$(test -t 2 || echo --quiet) --constraint constraints.txt --editable '.[dev]'
	@echo "$(CURDIR)" > $@

# What the page is tested in; where there is none, and none can be had, those tests are skipped.
$(VENV)/.browser: $(READY)
	for name in chromium chromium-browser google-chrome; do command -v $$name && break; done || \
		timeout 300 $(BIN)/playwright install chromium || true
	touch $@

$(VENV)/.notebook: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[notebook]'
	touch $@

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@
