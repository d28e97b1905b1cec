# make demo    the main job: train, compare out of sample, report     make test    the tests
# make check   format, lint, types, import arrows                     make bench   speed, as ratios
# make soak    what takes too long for every change: thousands of hostile inputs, kills, many seeds

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export OMP_NUM_THREADS ?= 1
CASES ?= 3000

.PHONY: demo test check bench soak clean

demo: $(READY)
	$(BIN)/allocgym compare --seeds 2

test: $(READY)
	$(BIN)/pytest -q -n 2 --dist worksteal

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_architecture.py

bench: $(READY)
	$(BIN)/python -m benchmarks

soak: $(READY)
	ALLOCGYM_FUZZ_CASES=$(CASES) $(BIN)/pytest -q -n 2 --dist worksteal tests/test_fuzz.py
	ALLOCGYM_LEDGER_CASES=1000 $(BIN)/pytest -q -n 2 --dist worksteal tests/test_ledger.py
	$(BIN)/pytest -q -n 2 --dist worksteal -m soak

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# made once, and again when the requirements change; the mark is set last
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "allocgym needs Python 3.11 or later; name one: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $(READY)
