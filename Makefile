# Needs Python 3.11 or newer and make; everything else is set up here.
# The first that works: with pyenv, a name on the PATH may be one that `.python-version` forbids.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3 $$HOME/.pyenv/versions/3.*/bin/python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
BIN := .venv/bin

.PHONY: run tunnel test bench check docs lock

run: .venv/ready
	@$(BIN)/python -m webhook_app.dev.run

# A public address for the receiver on this machine; in a second terminal.
tunnel: .venv/ready
	@$(BIN)/python -m webhook_app.dev.tunnel

test: .venv/ready-for-tests
	@$(BIN)/python -m tests.browser
	@$(BIN)/python -m tests.pgbouncer
	@$(BIN)/python -m tests.promtool
	@$(BIN)/pytest -m "not slow" -n 2
	@# Those of a module one after the other: they share a product. Most of the time they wait.
	@$(BIN)/pytest -m "slow and not alone" -n 2 --dist loadgroup
	@$(BIN)/pytest -m "slow and alone"

# Takes an hour or more, and wants a machine on which nothing else runs. What it compares with is installed beside.
bench: .venv/ready-for-tests .venv-bench/ready
	@$(BIN)/python -m benchmarks

check: .venv/ready-for-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Writes what is made from the code: tables, the setup pages' events, app.json, the OpenAPI description.
docs: .venv/ready-for-tests
	@$(BIN)/python -m docs.builders
	@$(BIN)/python -m tests.providers.event_table

# Pins what requirements*.in name, with hashes. Needs pip-tools.
lock:
	pip-compile $(LOCK) requirements.in -o requirements.txt
	pip-compile $(LOCK) --allow-unsafe requirements-dev.in -o requirements-dev.txt
LOCK := --quiet --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.venv/ready: requirements.txt
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Setting up .venv (once) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

.venv/ready-for-tests: .venv/ready requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

.venv-bench/ready: benchmarks/requirements.txt benchmarks/peers/node-red/package.json
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@if command -v npm >/dev/null; then cd benchmarks/peers/node-red && npm install --silent --no-audit --no-fund; \
		else echo "npm is not installed: Node-RED will be missing from the table"; fi
	@touch $@
