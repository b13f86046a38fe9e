# Linnaeus in plain verbs; `make help` lists them. Each installs what it needs, once.
#
#   make serve LINNAEUS_PORT=9000     every LINNAEUS_* setting is honored
#   make test PYTHON=python3.12       which Python makes the environment (3.11 or newer)
#   make serve DEVICE=cpu             cpu or gpu; else gpu where an NVIDIA driver answers

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
ifndef DEVICE
DEVICE := $(if $(shell nvidia-smi --list-gpus 2>/dev/null),gpu,cpu)
endif
TESTS ?= tests
WORKERS ?= auto
MINUTES ?= 25
ARGS ?=

BIN := $(VENV)/bin
RUN := $(BIN)/python -m
PIP := $(RUN) pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
# Bytecode, on every core where pip would take one. Some packages bring templates that no
# Python can compile.
COMPILE := $(RUN) compileall -qq -j 0 $(VENV)/lib || true
SERVICE := $(VENV)/.installed-$(DEVICE)
EVERYTHING := $(VENV)/.installed-$(DEVICE)-dev
PEERS := .venv-peers/.installed
LOWEST := .venv-lowest

.DEFAULT_GOAL := help
.PHONY: help install setup serve test test-lowest check format bench startup figures \
	cifar10-table image image-test constraints clean

help: ## this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | \
		awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

serve: $(SERVICE) ## the service and its page, on models/ (installs without torch)
	$(BIN)/linnaeus serve

install: $(SERVICE) ## what serving needs, without starting it

setup: $(EVERYTHING) ## everything: service, training, tests

# A file stays in one process, for its fixtures load models. More than four processes would
# only take memory.
test: $(EVERYTHING) ## the whole test suite; TESTS=tests/service for a part
	$(RUN) pytest $(TESTS) --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile

test-lowest: $(EVERYTHING) ## the same with the lowest versions that pyproject.toml allows
	$(RUN) venv $(LOWEST)
	$(RUN) deploy.lowest > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(LOWEST)/constraints.txt --editable '.[cpu,import,train,pretrained,dev]'
	$(LOWEST)/bin/python -m pytest $(TESTS) --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile

check: $(EVERYTHING) ## lint, formatting and types, without changing a file
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy classifier service training cli.py

format: $(EVERYTHING) ## put every file into the one format
	$(RUN) ruff check --fix
	$(RUN) ruff format

bench: $(EVERYTHING) $(PEERS) ## every serving goal, with our peers beside us (leave the machine alone)
	$(RUN) bench

startup: $(SERVICE) ## size of the installation and seconds to ready → docs/results/startup.json
	$(RUN) bench.startup

cifar10-table: $(EVERYTHING) ## nine networks on CIFAR-10 in MINUTES=25, ARGS=--again (meant for a GPU)
	$(RUN) training.cifar10_table --minutes $(MINUTES) $(ARGS)

figures: $(EVERYTHING) ## do the README's figures stand in docs/results/?
	$(RUN) pytest tests/project/test_figures.py

image: ## the container image (needs Docker or Podman); DEVICE=cpu or gpu
	deploy/build-image.sh $(DEVICE)

image-test: ## build the image and try the container, hardened, as it would run
	deploy/image-test.sh

constraints: $(EVERYTHING) ## write constraints.txt from what is installed and tested
	$(RUN) deploy.constraints

clean: ## forget the environment and every cache
	rm -rf $(VENV) .venv-peers $(LOWEST) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Linnaeus needs Python 3.11 or newer: make PYTHON=path/to/python" >&2; exit 1; }
	@# Debian's Python without python3-venv fails with half an environment, which would pass for one.
	$(PYTHON) -m venv $(VENV) || { rm -f $@; exit 1; }

$(SERVICE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the service ($(DEVICE)) into $(VENV) …"
	$(PIP) --editable '.[$(DEVICE)]'
	@$(COMPILE)
	@touch $@

$(EVERYTHING): $(SERVICE)
	@echo "Installing training and tests into $(VENV) …"
	$(PIP) --editable '.[$(DEVICE),import,train,pretrained,dev]'
	@$(COMPILE)
	@touch $@

# Their own environment: what decides speed (numpy, Pillow, ONNX Runtime, uvicorn …) has our
# versions there too, but BentoML needs another telemetry interface than FastAPI.
$(PEERS): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-peers
	grep -v '^opentelemetry' constraints.txt > .venv-peers/constraints.txt
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint .venv-peers/constraints.txt --editable '.[cpu,peers]'
	@touch $@
