# `make quickstart` and `make test` do everything from a fresh clone; EXTRA=gpu for a GPU machine.
PYTHON ?= python3
EXTRA ?= cpu
VENV := .venv
BIN := $(VENV)/bin
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: setup quickstart test test-slow lint clean

setup: $(VENV)/.done-$(EXTRA)

$(VENV)/.done-$(EXTRA): .requirements/$(EXTRA).txt pyproject.toml
	test -e $@ || rm -rf $(VENV)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "uv>=0.9"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --compile-bytecode -r .requirements/$(EXTRA).txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	touch $@

quickstart: setup
	$(BIN)/emovec run manifests/quickstart.yaml

test: setup
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
