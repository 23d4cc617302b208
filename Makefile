# `make quickstart` and `make test` set everything up in .venv, without root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup quickstart test test-system test-heavy lint clean

quickstart: setup
	$(BIN)/wavecity run quickstart

setup: $(STAMP)

$(STAMP): pyproject.toml scripts/make_venv.py
	$(PYTHON) scripts/make_venv.py $(VENV)
	$(BIN)/python -m pip install --quiet -e ".[all,test]"
	touch $(STAMP)

# One thread a process, or they take each other's core. A test goes to whichever process is free.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations=30

test: setup
	$(PYTEST) -n 2 --dist worksteal -m "not system and not heavy"

# A file to a process: what its tests share (a run, a store) is made once.
test-system: setup
	$(PYTEST) -n 2 --dist loadfile -m system

test-heavy: setup
	$(BIN)/python -m pytest -m heavy

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs
