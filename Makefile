# Every target does its own set-up: a virtual environment in .venv with the pinned versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Ctrl-C in a search is answered by the search: it says how to resume.
export PIP_REQUIRE_VIRTUALENV := 1

.PHONY: help search test slow lint types wheel check bench bench-overheads bench-strategies faults clean

help:
	@echo "make search   search sparse ResNet-32s on real images and print the leaderboard (about 4 minutes)"
	@echo "make test     run the tests"
	@echo "make slow     run the tests that take longer"
	@echo "make check    lint, types, tests, and the wheel in a fresh environment"
	@echo "make bench    speed and memory, as ratios against Ray Tune and plain PyTorch (under 20 minutes on two cores)"
	@echo "make bench-overheads    what a search adds to training, and the cost of pruning (about 6 minutes)"
	@echo "make bench-strategies   strategies on objectives that cost nothing (about 10 minutes)"
	@echo "make faults   kill, stop, starve and damage searches and registries, and see that nothing is lost (about an hour)"
	@echo "make clean    remove the virtual environment and everything built"

$(VENV)/made: 
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "snas needs Python 3.11 or later; $(PYTHON) is older: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/developing: $(VENV)/installed
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/benchmarking: $(VENV)/developing
	$(PIP) install --constraint constraints.txt --editable '.[ray]'
	@touch $@

search: $(VENV)/installed
	$(BIN)/snas search --space resnet32 --strategy bayes

test: $(VENV)/developing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu"

slow: $(VENV)/developing
	$(BIN)/python -m pytest -m "slow and not gpu"

lint: $(VENV)/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/developing
	$(BIN)/mypy

# The wheel must work where the repository is not: built, installed in a fresh environment, used from another folder.
wheel: $(VENV)/developing
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel . >build/wheel/log 2>&1 || { cat build/wheel/log; exit 1; }
	@set -e; repository=$$(pwd); away=$$(mktemp -d); trap 'rm -rf "$$away"' EXIT; \
	$(PYTHON) -m venv "$$away/venv"; \
	"$$away/venv/bin/python" -m pip --disable-pip-version-check --quiet install \
		--constraint constraints.txt "$$repository"/build/wheel/*.whl; \
	cd "$$away"; \
	venv/bin/snas search --space lenet-300-100 --strategy random --samples 2 --epochs 1 --final-seeds 1 \
		--registry wheel.db --quiet --format json >result.json; \
	venv/bin/snas leaderboard --registry wheel.db

check: lint types test wheel

bench: $(VENV)/benchmarking
	$(BIN)/python benchmarks/run.py

bench-overheads: $(VENV)/developing
	$(BIN)/python benchmarks/overheads.py
	$(BIN)/python benchmarks/pruning_cost.py

bench-strategies: $(VENV)/developing
	$(BIN)/python benchmarks/strategies.py

# Whoever may mount (root) has real full disks; else files are limited in size.
faults: $(VENV)/developing
	nice -n 5 $(BIN)/python faults/run.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
