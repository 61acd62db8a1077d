# make demo   sets up and explains real reviews        make test   sets up and passes every test
# make lint   formatting, style, types                 make benchmark   the CPU table, some minutes
# make test-oldest   the model tests on the oldest supported transformers
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# One torch for everyone who works on this: a range lives in pyproject.toml.
TORCH  ?= torch==2.13.0

OLDEST := transformers==4.57.6 huggingface_hub==0.36.0 tokenizers==0.22.1 requests urllib3 charset-normalizer idna certifi

export HF_HUB_OFFLINE = 1

.PHONY: demo test test-oldest lint format benchmark clean

demo: $(VENV)/.installed
	$(BIN)/hf-mambalrp demo --html out/demo.html

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

# In a folder of its own beside the environment, which keeps the newest. peft has left this release behind.
test-oldest: $(VENV)/.oldest
	PYTHONPATH=$(VENV)/oldest $(BIN)/python -m pytest -k "not peft" tests/test_classification.py tests/test_explain.py \
		tests/test_models.py tests/test_relevance.py

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

$(VENV)/.oldest: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/oldest $(OLDEST)
	touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable ".[dev]"
	touch $@ $(VENV)/.installed
