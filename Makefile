# Two commands do everything on a fresh machine:
#   make demo   creates .venv, installs, and answers about a photo, a sound, a shape, a video, a mix
#   make test   creates or reuses .venv, installs what developers need, lints, type-checks, tests
PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
BIN      = $(VENV)/bin
PIP      = $(BIN)/python -m pip --disable-pip-version-check -q
TORCH    = $(shell grep '^torch==' constraints.txt)
WHISPER  = $(shell grep '^openai-whisper==' constraints.txt)
VISION   = torchvision==0.29.1
TVSHIM  ?= ../shared/tvshim.py

.PHONY: demo test lint types fast-tests slow-tests yolo-tests langgraph mcp1 docs serve-docs benchmark format clean

demo: $(VENV)/.base
	$(BIN)/python -m ibllm_tools.demo

test: lint types fast-tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# A file's tests share what they load, so a file stays with one worker; one thread for each.
fast-tests: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs -n $(WORKERS) --dist loadfile

slow-tests: $(VENV)/.dev
	$(BIN)/python -m pytest -q -rs -m slow

# ultralytics needs torchvision, which must not enter $(VENV): it breaks transformers beside CPU torch.
yolo-tests: $(VENV)/.dev
	@if [ -f "$(TVSHIM)" ]; then \
	  $(MAKE) --no-print-directory $(VENV)-yolo/.ready && \
	  TVSHIM="$(TVSHIM)" $(VENV)-yolo/bin/python -m pytest -q -rs -m slow tests/test_experts_yolo.py; \
	else \
	  echo "yolo-tests: skipped, no $(TVSHIM) that stands in for torchvision's operators (TVSHIM=FILE)"; \
	fi

# `langgraph dev` wants other versions of protobuf than the rest: an environment of its own.
langgraph: $(VENV)-langgraph/.ready

# langchain-mcp-adapters works with mcp 1 alone: a folder of its own, put before the rest.
mcp1: $(VENV)-mcp1/.ready

docs: $(VENV)/.dev
	$(BIN)/python -m mkdocs build --strict

serve-docs: $(VENV)/.dev
	$(BIN)/python -m mkdocs serve

benchmark: $(VENV)/.dev
	$(BIN)/python -m pytest -q -s -m benchmark tests/benchmarks

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-yolo $(VENV)-langgraph $(VENV)-mcp1 .mypy_cache .pytest_cache .ruff_cache dist site

# torch goes first and by its exact version, so that pip takes the CPU build where there is one.
$(VENV)/.base: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ibllm-tools needs Python 3.11 or newer, found " + sys.version.split()[0] + "; run `make PYTHON=/path/to/python3.11`")'
	@echo "Installing into $(VENV) (a few minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install $(TORCH)
	@$(PIP) install -c constraints.txt -e '.[demo]'
	@touch $@

# openai-whisper asks for triton too, which only a GPU can use.
$(VENV)/.dev: $(VENV)/.base
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@$(PIP) install -c constraints.txt more-itertools numba tiktoken
	@$(PIP) install --no-deps $(WHISPER)
	@touch $@

# An environment laid over $(VENV): what it installs wins, the rest is found there.
OVERLAY = $(BIN)/python -m venv $(@D) && $(BIN)/python -c "import pathlib, sysconfig; \
  home = sysconfig.get_paths()['purelib']; \
  over = next(pathlib.Path('$(@D)').glob('lib/python*/site-packages')); \
  (over / 'base.pth').write_text(f'import site; site.addsitedir({home!r})')"
OVERPIP = $(@D)/bin/python -m pip --disable-pip-version-check -q

$(VENV)-yolo/.ready: $(VENV)/.dev
	@$(OVERLAY)
	@$(OVERPIP) install --no-deps ultralytics ultralytics-thop opencv-python-headless polars \
	  polars-runtime-32 $(VISION)
	@touch $@

$(VENV)-langgraph/.ready: $(VENV)/.dev
	@$(OVERLAY)
	@$(OVERPIP) install -c constraints.txt 'langgraph-cli[inmem]'
	@touch $@

$(VENV)-mcp1/.ready: $(VENV)/.dev
	@$(PIP) install --no-deps --upgrade --target $(@D) 'mcp<2' langchain-mcp-adapters httpx-sse \
	  pydantic-settings python-dotenv sse-starlette
	@touch $@
