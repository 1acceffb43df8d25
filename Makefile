# Two commands for a new user: `make demo` and `make test`. Each does all the set-up it needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

.PHONY: demo test test-device lint types check bench bench-quick bench-device clean

demo: $(READY)
	$(BIN)/closedform demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 -q

# The cases of the solver, the certificate, the optimizer and the digits on another device: make test-device DEVICE=cuda
DEVICE ?= cuda
test-device: $(READY)
	$(BIN)/python -m pytest -q --device $(DEVICE) tests

bench-device: $(READY)
	$(BIN)/python benchmarks/device.py --device $(DEVICE)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test

# Peers that are not part of the development set; without them the benchmark runs and names them.
PEERS := statsmodels lineax rlaopt torch_linear_regression 'dask[array]' threadpoolctl

bench: $(VENV)/.peers
	$(BIN)/python benchmarks/speed.py --json out/bench.json --page out/bench.html

bench-quick: $(VENV)/.peers
	$(BIN)/python benchmarks/speed.py --quick --json out/bench-quick.json --page out/bench-quick.html

$(VENV)/.peers: $(READY)
	for peer in $(PEERS); do $(BIN)/python -m pip install --quiet --constraint constraints.txt "$$peer" || true; done
	touch $@

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "closedform needs Python 3.11 or newer, this is " + sys.version'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
