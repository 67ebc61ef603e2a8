# Two commands do everything on a fresh machine:
#   make demo   creates .venv, installs, and answers about a photo, a sound, a shape, a video, a mix
#   make test   creates or reuses .venv, installs what developers need, lints, type-checks, tests
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip --disable-pip-version-check -q
TORCH   = $(shell grep '^torch==' constraints.txt)

.PHONY: demo test lint types fast-tests slow-tests benchmark format clean

demo: $(VENV)/.base
	$(BIN)/python -m ibllm_tools.demo

test: lint types fast-tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

fast-tests: $(VENV)/.dev
	$(BIN)/python -m pytest -q

slow-tests: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m slow

benchmark: $(VENV)/.dev
	$(BIN)/python -m pytest -q -s -m benchmark tests/benchmarks

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache dist

# torch goes first and by its exact version, so that pip takes the CPU build where there is one.
$(VENV)/.base: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ibllm-tools needs Python 3.11 or newer, found " + sys.version.split()[0] + "; run `make PYTHON=/path/to/python3.11`")'
	@echo "Installing into $(VENV) (a few minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install $(TORCH)
	@$(PIP) install -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@
