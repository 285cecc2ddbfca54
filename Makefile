# Everything a newcomer types. `make help` lists it; every target sets itself up first.
PYTHON ?= python3.11
VENV   := .venv
PY     := $(VENV)/bin/python
RML    := $(VENV)/bin/rml

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit lint format bench bench-sdk bench-text bench-router bench-experiments bench-chaos bench-ranking soak-text peers up down status lock clean test-kube step-image

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: ## make .venv and the Triton environment from the hash-pinned locks (seconds when already there)
	@$(PYTHON) scripts/setup_env.py
	@$(PY) scripts/setup_triton.py

demo: setup ## the main job on real data: notebook -> pipeline -> registry -> Triton -> answers (ARGS=--keep leaves the stack running)
	@$(PY) scripts/demo.py $(ARGS)

test: setup ## everything this machine can test, real servers included; ends with what was skipped and why
	@$(PY) -m pytest --durations=25 --durations-min=5

test-unit: setup ## the quick part of the tests
	@$(PY) -m pytest tests/unit

lint: setup ## ruff, mypy and the floor-plan guards
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(PY) -m pytest -q tests/unit/test_floor_plan.py

format: setup ## let ruff rewrite what it can
	@$(VENV)/bin/ruff check --fix-only -q .
	@$(VENV)/bin/ruff format -q .

bench: bench-sdk bench-text bench-router bench-ranking bench-experiments bench-chaos ## every benchmark

bench-sdk: setup ## what the SDK costs: capture, compile, first line of a step, environments
	@$(PY) -m benchmarks.sdk

bench-text: setup ## text models on this machine's cores: the article's steps, ours, what is served (FULL=1: more rounds, every model, peers)
	@$(if $(FULL),$(if $(findstring --no-peers,$(ARGS)),,$(PY) scripts/setup_peers.py ||)) true
	@$(PY) -m benchmarks.text $(if $(FULL),--full) $(ARGS)

bench-router: setup ## the door beside Triton alone, nginx, Envoy, a KServe transformer and Starlette: CPU per request, latency, rps
	@$(PY) scripts/setup_peers.py router
	@$(PY) -m benchmarks.router $(ARGS)

bench-experiments: setup ## simulated experiments: false alarms under peeking, power, sample-ratio checks, assignment, off-policy (ARGS="--runs 2000")
	@$(PY) -m benchmarks.experiments $(ARGS)

bench-chaos: setup ## moves, kills, a full disk and 3x overload under 1,000 requests a second: what clients notice
	@$(PY) -m benchmarks.chaos $(ARGS)

bench-ranking: setup ## how long one ranking of 100 to 10,000 candidates holds the door's event loop
	@$(PY) -m benchmarks.ranking $(ARGS)

peers: setup ## the other servers that bench-text FULL=1 compares with: .peers from its own locks (gigabytes)
	@$(PY) scripts/setup_peers.py

soak-text: setup ## many distinct texts through door and Triton, cache off; memory must stay flat (N=200000)
	@N=$(or $(N),200000) $(PY) -m benchmarks.text.soak

test-kube: setup ## pods on a real cluster: RML_TEST_KUBECONFIG, or one started beside the clone (root)
	@$(PY) -m pytest tests/kube

step-image: ## the image every step runs in, built from Debian and PyPI without a daemon (root): .build/step-image.tar
	@$(PYTHON) scripts/build_step_image.py $(ARGS)

up: setup ## start the local stack (MLflow, control plane, Triton, agent, door)
	@$(RML) up

down: ## stop the local stack
	@$(RML) down

status: ## show the local stack's parts, ports and health
	@$(RML) status

lock: setup ## resolve requirements/*.in again into hash-pinned locks
	@$(PY) scripts/lock.py

clean: ## remove what setup and the demo made (.venv, .triton, .peers, .build)
	rm -rf $(VENV) .triton .peers .build .mypy_cache .ruff_cache .pytest_cache .hypothesis
