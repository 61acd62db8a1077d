# make demo   sets up and explains reviews and prompts  make test   sets up and passes every test
# make lint   formatting, style, types                 make benchmark   the CPU table, some minutes
# make docs   the API reference, out/docs/index.html
# make test-releases   the model tests on other releases of transformers: the oldest supported and later ones
# make test-newest     every test with today's newest releases of everything, in an environment of its own
# make test-peers      transformers' own model tests on our classes in place of its own
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# One torch for everyone who works on this, and one release of everything else: ranges live in pyproject.toml.
TORCH  ?= torch==2.13.0
CONSTRAINTS ?= constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet
CONSTRAINED := $(addprefix --constraint ,$(CONSTRAINTS)) $(addprefix --build-constraint ,$(CONSTRAINTS))

# Releases of transformers, each with what it needs beside the newest's environment. The one of constraints.txt is left
# out, for every test runs on it.
SUPPORTED   := 4.57.6 5.16.1 5.24.0
RELEASES    := $(filter-out $(shell sed -n 's/^transformers==//p' constraints.txt),$(SUPPORTED))
WITH_4.57.6 := datasets==4.4.1 huggingface_hub==0.36.0 tokenizers==0.22.1 requests urllib3 charset-normalizer idna certifi
WITH_5.16.1 := huggingface_hub==1.31.0 httpx httpcore h11 anyio idna certifi
MODEL_TESTS := $(addprefix tests/test_,checkpoints.py classification.py explain.py families.py models.py oracles.py oracles_mamba2.py forward_check.py \
	relevance.py state_spaces.py) $(wildcard tests/vision/test_vim_*.py tests/hybrids/test_hybrid_*.py)

# A process a core, and one more: tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

export HF_HUB_OFFLINE = 1
# Where it is set, every process of the tests would compile all of the package again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-releases test-newest test-peers lint format docs benchmark clean

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

test-newest:
	rm -rf .venv-newest
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=
	.venv-newest/bin/python tests/versions.py "make test-newest"

# The tests come with the source archive of the release that is installed.
test-peers: $(VENV)/peers/.unpacked
	PYTHONPATH=$$(echo $(VENV)/peers/transformers-*/):$(VENV)/peers/lib $(BIN)/python tests/peers/compare.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed-dev
	rm -rf out/docs
	$(BIN)/python tests/reference.py out/docs

benchmark: $(VENV)/.installed-dev
	$(BIN)/python examples/benchmarks/cpu.py

clean:
	rm -rf $(VENV) .venv-newest out

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade $(addprefix --constraint ,$(CONSTRAINTS)) pip

$(VENV)/.transformers-%: $(VENV)/.installed-dev
	$(INSTALL) --no-deps --target $(VENV)/transformers-$* transformers==$* $(WITH_$*)
	touch $@

$(VENV)/peers/.unpacked: $(VENV)/.installed-dev
	rm -rf $(VENV)/peers
	release=$$($(BIN)/python -c "from importlib.metadata import version; print(version('transformers'))") && \
	$(BIN)/python -m pip download --quiet --no-deps --no-binary transformers --dest $(VENV)/peers transformers==$$release && \
	$(BIN)/python -m tarfile --extract $(VENV)/peers/transformers-$$release.tar.gz $(VENV)/peers
	$(INSTALL) --no-deps --target $(VENV)/peers/lib parameterized==0.9.0
	touch $@

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(INSTALL) $(CONSTRAINED) "$(TORCH)" --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(INSTALL) $(CONSTRAINED) "$(TORCH)" --editable ".[dev]"
	touch $@ $(VENV)/.installed
