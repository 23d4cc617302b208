# `make quickstart` and `make test` set everything up in .venv, without root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two steps: what the commands run on, and what the tests need besides.
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
DOCS_STAMP := $(VENV)/.installed-docs

.PHONY: setup setup-test setup-docs quickstart test test-system test-lowest test-heavy lint docs constraints clean

quickstart: setup
	$(BIN)/wavecity run quickstart

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/make_venv.py scripts/torch_cpu.py
	$(PYTHON) scripts/make_venv.py $(VENV)
	$(BIN)/python scripts/torch_cpu.py constraints.txt
	$(BIN)/python -m pip install -c constraints.txt -e ".[all]"
	touch $(STAMP)

setup-test: $(TEST_STAMP)

$(TEST_STAMP): $(STAMP)
	$(BIN)/python -m pip install -c constraints.txt -e ".[all,test]"
	touch $(TEST_STAMP)

# One thread a process, or they take each other's core. A test goes to whichever process is free.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations=30

test: setup-test
	$(PYTEST) -n 2 --dist worksteal -m "not system and not heavy"

# A file to a process: what its tests share (a run, a store) is made once.
test-system: setup-test
	$(PYTEST) -n 2 --dist loadfile -m "system and not heavy"

test-heavy: setup-test
	$(BIN)/python -m pytest -m heavy

# The lowest versions that pyproject.toml allows, in an environment of their own (Python 3.11, the lowest too). Left out is what
# tests compare with that needs newer packages: Sionna's wideband channels, TensorFlow; and the linters of the images.
LOWEST := .venv-lowest
LOWEST_STAMP := $(LOWEST)/.installed

$(LOWEST_STAMP): pyproject.toml constraints-lowest.txt scripts/make_venv.py scripts/torch_cpu.py
	$(PYTHON) scripts/make_venv.py $(LOWEST)
	$(LOWEST)/bin/python scripts/torch_cpu.py constraints-lowest.txt
	$(LOWEST)/bin/python -m pip install -c constraints-lowest.txt -e ".[all,test-core]"
	touch $(LOWEST_STAMP)

test-lowest: $(LOWEST_STAMP)
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -m "not system and not heavy" -n 2 --dist worksteal \
	    -k "not subcarriers_are_sionnas and not wideband_is_cir_to_ofdm_channel" \
	    --ignore tests/dataset/test_tf_data.py --ignore tests/flows/test_docker.py

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup-docs: $(DOCS_STAMP)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install -c constraints.txt -e ".[all,docs]"
	touch $(DOCS_STAMP)

# The site, in docs/_build/html. A broken link, a page that is in no table of contents, a reference to a name that does not
# exist or any other warning fails.
docs: setup-docs
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --nitpicky --quiet docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# Renews both files of versions from PyPI: everything at its newest, and what we name at its lowest. Then `make test lint` and
# `make test-lowest`, and commit them. pip itself stays out: an installation must not replace the pip that runs it.
UV := $(BIN)/uv pip compile pyproject.toml --quiet --no-annotate --no-emit-package pip \
    --python-version 3.11 --custom-compile-command "make constraints"

constraints:
	$(PYTHON) scripts/make_venv.py $(VENV)
	$(BIN)/python -m pip install --quiet "uv>=0.8"
	$(UV) --universal --fork-strategy fewest --all-extras --upgrade -o constraints.txt
	$(UV) --resolution lowest-direct --upgrade -o constraints-lowest.txt \
	    --extra generate --extra train --extra onnx --extra cloud --extra metrics --extra exchange --extra test-core

clean:
	rm -rf $(VENV) $(LOWEST) runs docs/_build
