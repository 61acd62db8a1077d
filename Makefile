# make demo   sets up and explains real reviews        make test   sets up and passes every test
# make lint   formatting, style, types                 make benchmark   the CPU table, some minutes
# make test-releases   the model tests on older releases of transformers: the oldest supported and one in the middle
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# One torch for everyone who works on this: a range lives in pyproject.toml.
TORCH  ?= torch==2.13.0

# Older releases of transformers, each with what it needs beside the newest's environment.
RELEASES    := 4.57.6 5.16.1
WITH_4.57.6 := datasets==4.4.1 huggingface_hub==0.36.0 tokenizers==0.22.1 requests urllib3 charset-normalizer idna certifi
WITH_5.16.1 := huggingface_hub==1.31.0 httpx httpcore h11 anyio idna certifi
MODEL_TESTS := $(addprefix tests/test_,classification.py explain.py families.py models.py oracles.py oracles_mamba2.py parity.py \
	relevance.py state_spaces.py)

# A process a core.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

export HF_HUB_OFFLINE = 1

.PHONY: demo test test-releases lint format benchmark clean

demo: $(VENV)/.installed
	$(BIN)/hf-mambalrp demo --html out/demo.html

test: $(VENV)/.installed-dev
	$(PYTEST)

# In folders of their own beside the environment, which keeps the newest. peft has left the older ones behind.
test-releases: $(RELEASES:%=$(VENV)/.transformers-%)
	for release in $(RELEASES); do \
		PYTHONPATH=$(VENV)/transformers-$$release $(BIN)/python -c \
			"import sys, transformers; sys.exit(transformers.__version__ != '$$release')" && \
		PYTHONPATH=$(VENV)/transformers-$$release $(PYTEST) -k "not peft" $(MODEL_TESTS) || exit 1; \
	done

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

$(VENV)/.transformers-%: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/transformers-$* transformers==$* $(WITH_$*)
	touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable ".[dev]"
	touch $@ $(VENV)/.installed
