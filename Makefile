# Every target creates .venv when it is absent and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Spinning OpenMP threads of several libraries would fight for the same cores.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test-fast test test-all coverage lint bench clean

demo: $(VENV)/.installed-dev
	$(BIN)/python -m uflow_edge.benchmarks.solar_cells --out demo

# Leaves out rooms and modules whose tests take minutes; tests that need more than the extra `train` are skipped.
test-fast: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow and not gpu and not long" tests/calibration tests/export/checkpoints tests/runtime tests/training tests/test_package.py

# Every extra is installed here: a missing one fails its tests instead of skipping them.
test test-all coverage: export UFLOW_EDGE_REQUIRE_EXTRAS = 1

test: $(VENV)/.installed-dev lint
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-all: $(VENV)/.installed-dev lint
	$(BIN)/python -m pytest -m "not gpu"

# A table of the modules, and the whole; TESTS names a part of the tests.
coverage: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow and not gpu" --cov --cov-report=term $(TESTS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	$(BIN)/python -m uflow_edge.benchmarks.studies.tree_nfa
	$(BIN)/python -m uflow_edge.benchmarks.studies.roofline
	$(BIN)/python -m uflow_edge.benchmarks.studies.pipeline
	$(BIN)/python -m uflow_edge.benchmarks.studies.cold_start

# The extras `test` and `dev`, each with a stamp of its own.
$(VENV)/.installed-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) dist demo
