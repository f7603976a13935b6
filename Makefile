# The only tools assumed on the machine: make and Python 3.11 with its venv module.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
COMPILE = .local/lock/bin/pip-compile -qq --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-strip-extras --allow-unsafe $(LOCK_FLAGS)

MINUTES ?= 2

.PHONY: demo up test chaos bench recovery million screenshots check format lock help
.DEFAULT_GOAL := help

help: ## list these targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

demo: .venv/installed ## start everything, kill a worker in mid-flow, watch the flow go on, stop
	@$(BIN)/python -m local.demo

up: .venv/installed ## start everything and stay; prints the URLs and a login
	@$(BIN)/python -m local.up $(ARGS)

test: .venv/installed ## all test tiers, against PostgreSQL and Redis servers of their own
	@$(BIN)/python -m local.chromium
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@# how soon stacks recover is tested where nothing else runs
	@$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal --ignore=tests/acceptance
	@$(BIN)/python -m pytest tests/acceptance
endif

chaos: .venv/installed ## hundreds of flows while processes and servers are killed, frozen, cut off (MINUTES=10 SEED=1)
	@$(BIN)/python -m chaos --minutes=$(MINUTES) $(if $(SEED),--seed=$(SEED))

bench: .venv/installed ## flows beside plain Celery and others, on the same servers (ARGS="--only W1,W2 --systems flows,celery --reps 3")
	@$(BIN)/python -m bench $(ARGS)

recovery: .venv/installed ## how long each fault interrupts a flow, ten times each (ARGS="--only Redis")
	@$(BIN)/python -m bench.recovery $(ARGS)

million: .venv/installed ## how long the pages of the admin take with a million promises (ARGS=--plans)
	@$(BIN)/python -m bench.million $(ARGS)

screenshots: .venv/installed ## make the pictures of docs/admin.md anew (ALL=folder: every page, both themes, two widths)
	@$(BIN)/python -m local.chromium
	@$(BIN)/python -m pytest tests/browser/screenshots.py -q -p no:randomly

check: .venv/installed ## linters, types, layers, migrations, Django's own checks
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@# without a database it warns that it cannot compare with the applied migrations: that is not asked here
	@$(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run
	@$(BIN)/python manage.py check

format: .venv/installed ## format the code and sort its imports
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

lock: ## compile both lock files anew (LOCK_FLAGS=--upgrade for newer versions)
	@test -x .local/lock/bin/pip-compile || \
		{ $(PYTHON) -m venv .local/lock && .local/lock/bin/pip install -qq pip-tools; }
	@CUSTOM_COMPILE_COMMAND="make lock" $(COMPILE) --extra gateway --extra tracing --extra embedded --extra bench --extra dev -o requirements.lock pyproject.toml
	@CUSTOM_COMPILE_COMMAND="make lock" $(COMPILE) --extra gateway -c requirements.lock -o requirements-runtime.lock pyproject.toml

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	@echo "Installing into .venv from requirements.lock"
	@$(PYTHON) -m venv .venv
	@# newer pips resolve in half the time; each compiles on one core, compileall on all
	@$(BIN)/pip install -qq --upgrade pip
	@$(BIN)/pip install -qq --no-compile --require-hashes -r requirements.lock
	@$(BIN)/python -m compileall -qq -j0 .venv/lib
	@touch $@
