# make demo   sets up .venv and runs the whole job on synthetic phantoms
# make test   sets up .venv, lints and runs all tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: setup demo test lint clean

setup: $(VENV)/.installed

$(VENV)/.installed: setup.cfg constraints.txt
	@echo "installing autoseg and the tested versions of its dependencies into $(VENV); the first time downloads PyTorch"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One thread: tensors of tests are small, and threads that wait for each other cost more than they do.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" sh benchmarks/demo.sh $(DEMO)

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
