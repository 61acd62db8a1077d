# make demo   sets up and explains real reviews        make test   sets up and passes every test
# make lint   formatting, style, types                 make benchmark   the CPU table, some minutes
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# One torch for everyone who works on this: a range lives in pyproject.toml.
TORCH  ?= torch==2.13.0

export HF_HUB_OFFLINE = 1

.PHONY: demo test lint format benchmark clean

demo: $(VENV)/.installed
	$(BIN)/hf-mambalrp demo --html out/demo.html

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmark: $(VENV)/.installed-dev
	$(BIN)/python examples/benchmarks/cpu.py

clean:
	rm -rf $(VENV) out

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable ".[dev]"
	touch $@ $(VENV)/.installed
