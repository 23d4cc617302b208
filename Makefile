# Two commands: `make quickstart` and `make test`. Both set everything up in .venv, without root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup quickstart test test-heavy lint clean

quickstart: setup
	$(BIN)/wavecity run quickstart

setup: $(STAMP)

$(STAMP): pyproject.toml scripts/make_venv.py
	$(PYTHON) scripts/make_venv.py $(VENV)
	$(BIN)/python -m pip install --quiet -e ".[all,test]"
	touch $(STAMP)

# Two processes, a file at a time: many tests wait for servers and workers. One thread each, or they take each other's core.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not heavy" -n 2 --dist loadfile

test-heavy: setup
	$(BIN)/python -m pytest -m heavy

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs
