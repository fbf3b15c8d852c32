# Every target creates .venv when it is absent and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Spinning OpenMP threads of several libraries would fight for the same cores.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test test-all lint bench clean

demo: $(VENV)/.installed
	$(BIN)/python -m uflow_edge.benchmarks.solar_cells --out demo

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-all: $(VENV)/.installed lint
	$(BIN)/python -m pytest -m "not gpu"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python -m uflow_edge.benchmarks.studies.tree_nfa
	$(BIN)/python -m uflow_edge.benchmarks.studies.roofline
	$(BIN)/python -m uflow_edge.benchmarks.studies.pipeline
	$(BIN)/python -m uflow_edge.benchmarks.studies.cold_start

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) dist demo
