# Every target sets up what it needs, once.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test bench lint viz mlflow clean

## demo: draw creatures, discover their parts, train, generate, evaluate (about ten minutes)
demo: $(READY)
	DO_NOT_TRACK=true $(BIN)/kedro run

## test: run the tests
test: $(READY)
	$(BIN)/pytest

## bench: measure every stage beside its baseline, into docs/benchmarks.md (about ten minutes; run nothing beside it)
bench: $(READY)
	$(BIN)/python benchmarks/suite.py

## lint: check style and format
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

## viz: see the pipeline, its tables and pictures in the browser
viz: $(READY)
	$(BIN)/kedro viz run

## mlflow: compare runs in the browser, on port 5000
mlflow: $(READY)
	$(BIN)/kedro mlflow ui

## clean: remove data, runs and the environment
clean:
	mkdir -p data
	find data -mindepth 1 -maxdepth 1 -not -name README.md -exec rm -rf {} +
	rm -rf $(VENV) mlflow.db mlruns mlartifacts .viz

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
