# `make` lists the targets. What a machine needs is installed by scripts/setup.sh, and only when something changed.
.DEFAULT_GOAL := help
.PHONY: help setup run demo test lint features bench test-sdk test-web models lock clean
PYTHON_ENV := .venv/bin/python
WORKERS ?= 2
# onnxruntime reports its use to Microsoft unless told not to.
export ORT_DISABLE_TELEMETRY := 1
LOCK := ../.venv/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
	--python-version 3.11 --universal --no-header

help: ## this list
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## install everything for running, developing and testing
	@scripts/setup.sh test

run: ## start the gateway on port 1337
	@scripts/setup.sh run
	@.venv/bin/voice-gateway serve

demo: ## a whole phone call with a demo agent, here in the terminal; no key, no network
	@scripts/setup.sh demo
	@.venv/bin/voice-gateway demo

test: lint ## style, types and every test
	$(PYTHON_ENV) -m pytest -n $(WORKERS)

lint: setup ## style and types only
	$(PYTHON_ENV) -m ruff check .
	$(PYTHON_ENV) -m ruff format --check .
	$(PYTHON_ENV) -m basedpyright

features: setup ## rows of docs/features.md that the last test run did not prove
	@$(PYTHON_ENV) scripts/features.py

bench: setup ## what a call costs and how fast it answers (ARGS="--calls 10,20")
	$(PYTHON_ENV) -m benchmarks.phone $(ARGS)

test-sdk: ## our scenarios with a build of the client: SDK=<folder with dist/index.js>
	@test -f "$(SDK)/dist/index.js" || { echo "usage: make test-sdk SDK=<folder with dist/index.js>" >&2; exit 2; }
	@scripts/setup.sh test
	SDK="$$(cd "$(SDK)" && pwd)" $(PYTHON_ENV) -m pytest tests/sdk

test-web: ## scenarios with a build of the web client: WEB=<folder with dist/core/index.js>
	@test -f "$(WEB)/dist/core/index.js" || { echo "usage: make test-web WEB=<folder with dist/core/index.js>" >&2; exit 2; }
	@scripts/setup.sh test
	WEB="$$(cd "$(WEB)" && pwd)" $(PYTHON_ENV) -m pytest tests/web

models: ## fetch the model files of the built-in engines
	@scripts/setup.sh models

lock: setup ## compile requirements/*.in to the locked *.txt (ARGS=--upgrade for newer versions)
	cd requirements && $(LOCK) $(ARGS) runtime.in -o runtime.txt
	cd requirements && $(LOCK) $(ARGS) dev.in -o dev.txt
	cd requirements && $(LOCK) $(ARGS) --no-deps models.in -o models.txt

clean: ## remove what set-up and tests made; keeps var/ (keys, recordings) and .env
	rm -rf .venv models build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
