# The same commands for people and CI. Each one installs what it needs.
.DEFAULT_GOAL := help
.PHONY: help setup run test breaks demo soak fuzz bench ci lint types imports protos check-protos docs \
        check-docs buf lock agentapi format clean

BIN := .venv/bin
# Directories that this checkout has: mypy refuses a path that does not exist.
TYPED := $(wildcard clients/python server tests bench demo tools)
# For all of the tests. A few tests are easier to read when they run one after the other.
# One process more than there are cores, because many tests wait for a time to pass.
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
IN_PARALLEL := --numprocesses $(WORKERS) --maxprocesses 4 --dist worksteal

help: ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
	    awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

setup: ## Make .venv with the project and its development tools (idempotent)
	@sh tools/setup.sh
	@sh tools/agentapi.sh ensure

run: setup ## Serve on 127.0.0.1:50051 on an embedded Postgres
	@exec $(BIN)/tasklogs serve $(ARGS)

test: setup ## Run the tests; ARGS="tests/store -k fence" for some of them
	@$(BIN)/python -m pytest $(or $(ARGS),$(IN_PARALLEL)); code=$$?; sh tools/agentapi.sh left-out; exit $$code

breaks: setup ## Break each rule in a copy of the code; its test must fail
	@$(BIN)/python -m tests.mutation $(ARGS)

demo: setup ## Show a live read, a pause, a snapshot read, a resume and a refused read
	@exec demo/run

soak: setup ## Run everything under load and faults, then judge; ARGS="--minutes 30 --tasks 50"
	@$(BIN)/python -m tests.system.soak $(ARGS)

fuzz: setup ## Search for inputs that break a decoder; ARGS="cursors --seconds 600 --jobs 2"
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes \
	    --requirement requirements/fuzz.lock
	@$(BIN)/python -m tests.fuzz $(ARGS)

bench: setup ## Run the measurements and write bench/results/
	@exec $(BIN)/python -m bench $(ARGS)

ci: lint imports buf check-protos check-docs types test ## Run every check, then the tests

lint: setup ## ruff: rules and format
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

format: setup ## ruff: fix what it can, and format
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

types: setup ## mypy --strict
	@$(BIN)/mypy $(TYPED)

imports: setup ## import-linter: which package may import which
	@$(BIN)/lint-imports --no-logo

protos: setup ## Generate the Python stubs from protos/
	@$(BIN)/python tools/generate_stubs.py

check-protos: setup ## Fail if the committed stubs differ from protos/
	@$(BIN)/python tools/generate_stubs.py --check

docs: setup ## Write docs/api.md and the tables in docs/operations.md from the code
	@$(BIN)/python tools/generate_docs.py

check-docs: setup ## Fail if these differ from the code
	@$(BIN)/python tools/generate_docs.py --check

buf: setup ## buf: lint, and check for breaking changes since the last tag
	@sh tools/buf.sh

lock: setup ## Write the locks in requirements/ again (UPGRADE=1: newest versions)
	@sh tools/lock.sh

agentapi: ## Try again to build the real AgentAPI with Go
	@sh tools/agentapi.sh force

clean: ## Remove everything that these commands made, including .venv
	@rm -rf .venv .tools .fuzz dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
