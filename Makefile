# Two commands for a new user: `make demo` and `make test`. Each does all the set-up it needs. `make help` lists the others.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
DOCS   := $(VENV)/.docs

.PHONY: help demo test test-device test-floor test-without-compiler test-sdist lint types check docs dist \
        bench bench-quick bench-device clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-24s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY)  ## the main job, on packaged data
	$(BIN)/closedform demo

# Three workers keep two cores busy while the processes and browsers that tests start are waited for. Files go to them in
# the order of their names: the smallest, the examples in the source, come last and even them out. Other packages' plugins
# for pytest are not asked: loading them takes seconds. What is compiled is kept, for the many processes that the tests start.
test: $(READY)  ## the whole test suite
	PYTHONDONTWRITEBYTECODE= PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 \
	    $(BIN)/python -m pytest -p xdist -p hypothesispytest -n 3 --dist loadfile --no-loadscope-reorder -q

DEVICE ?= cuda
test-device: $(READY)  ## what depends on a device, there: make test-device DEVICE=cuda
	$(BIN)/python -m pytest -q --device $(DEVICE) tests

bench-device: $(READY)  ## some problems beside torch.linalg.lstsq on a device
	$(BIN)/python benchmarks/device.py --device $(DEVICE)

lint: $(READY)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

check: lint types test  ## lint, types and tests

docs: $(DOCS)  ## the documentation, into out/site: every example is run, every link looked at
	$(BIN)/codespell
	$(BIN)/python docs/_tools/links.py
	MPLBACKEND=agg $(BIN)/python -m sphinx -W --keep-going -q -b html -d out/doctrees docs out/site
	$(BIN)/python docs/_tools/links.py out/site

$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

dist: $(READY)  ## source distribution and wheel, into dist
	$(BIN)/python -m pip install --quiet --constraint constraints.txt build
	$(BIN)/python -m build --outdir dist .

# Environments of their own, each made anew under out/.
FRESH   = rm -rf out/$@ && $(PYTHON) -m venv out/$@
INSTALL = out/$@/bin/python -m pip install --quiet

test-floor:  ## the suite on the oldest versions that are allowed
	$(FRESH)
	$(INSTALL) --constraint constraints-floor.txt '.[dev]'
	out/$@/bin/python -m pytest -q tests

test-without-compiler:  ## install and test where there is no C compiler
	$(FRESH)
	CC=none $(INSTALL) --constraint constraints.txt '.[dev]'
	out/$@/bin/closedform show-versions | grep 'compiled  *no'
	out/$@/bin/python -m pytest -q tests/engine tests/numerics tests/fit

test-sdist:  ## unpack the source distribution in dist and run its tests
	$(FRESH)
	tar -xzf dist/closedform-*.tar.gz -C out/$@ --strip-components=1
	cd out/$@ && bin/python -m pip install --quiet --constraint constraints.txt '.[dev]' && bin/python -m pytest -q

# Peers that are not part of the development set; without them the benchmark runs and names them.
PEERS := statsmodels lineax rlaopt torch_linear_regression 'dask[array]' threadpoolctl

bench: $(VENV)/.peers  ## the benchmark beside the peers; long
	$(BIN)/python benchmarks/speed.py --json out/bench.json --page out/bench.html

bench-quick: $(VENV)/.peers  ## a smaller one, minutes
	$(BIN)/python benchmarks/speed.py --quick --json out/bench-quick.json --page out/bench-quick.html

$(VENV)/.peers: $(READY)
	for peer in $(PEERS); do $(BIN)/python -m pip install --quiet --constraint constraints.txt "$$peer" || true; done
	touch $@

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "closedform needs Python 3.11 or newer, this is " + sys.version'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:  ## remove what was made
	rm -rf $(VENV) out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
