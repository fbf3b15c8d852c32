# Every target creates .venv when it is absent and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Spinning OpenMP threads of several libraries would fight for the same cores.
export OMP_WAIT_POLICY ?= passive

# A new or removed module changes its folder's time, which the strict editable install must follow.
ROOMS := runtime runtime/archive runtime/diffusion runtime/engines runtime/nfa runtime/page runtime/page/static runtime/purify \
    runtime/sinks runtime/sources export export/unet calibration training training/evaluation benchmarks benchmarks/forensics benchmarks/latency benchmarks/peers

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
	$(BIN)/python -m uflow_edge.benchmarks.tree_nfa
	$(BIN)/python -m uflow_edge.benchmarks.feature_cache
	$(BIN)/python -m uflow_edge.benchmarks.import_time
	$(BIN)/python -m uflow_edge.benchmarks.lowering
	$(BIN)/python -m uflow_edge.benchmarks.preprocess
	$(BIN)/python -m uflow_edge.benchmarks.roofline
	$(BIN)/python -m uflow_edge.benchmarks.pipeline
	$(BIN)/python -m uflow_edge.benchmarks.cold_start
	$(BIN)/python -m uflow_edge.benchmarks.diffusion_guidance
	$(BIN)/python -m uflow_edge.benchmarks.diffusion_batches

$(VENV)/.installed: pyproject.toml $(ROOMS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --config-settings editable_mode=strict
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info demo
