# The same commands for people and CI. Each one installs what it needs.
.DEFAULT_GOAL := help
.PHONY: help setup setup-serve run test coverage breaks model sim demo agents soak fuzz bench ci lint \
        prose types \
        imports protos check-protos go-protos check-go ts-protos check-ts docs check-docs buf release-api foreign-stubs lock agentapi format \
        clean

BIN := .venv/bin
# The interpreter of .venv. Empty: the one that .venv has, or the first one that is found.
PYTHON ?=
export PYTHON
# Where it is set (in many containers), each process that is started compiles what it imports: the
# server takes 2 s of CPU for that, 0.6 s with what the first one has compiled.
unexport PYTHONDONTWRITEBYTECODE
# Directories that this checkout has: mypy refuses a path that does not exist.
TYPED := $(wildcard clients/python server tests bench demo tools)
# For all of the tests. A few tests are easier to read when they run one after the other.
# One process more than there are cores, because many tests wait for a time to pass.
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
IN_PARALLEL := --numprocesses $(WORKERS) --maxprocesses 4 --dist worksteal
# From 3.12 on Python counts lines itself, at a fraction of the C tracer's cost.
COVERAGE_CORE := import sys; print('sysmon' if sys.version_info >= (3, 12) else 'ctrace')

help: ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
	    awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

setup: ## Install the project and its development tools in .venv; PYTHON=python3.13 chooses
	@sh tools/setup.sh dev
	@sh tools/agentapi.sh ensure

# Serving needs no development tools and no AgentAPI.
setup-serve:
	@sh tools/setup.sh serve

run: setup-serve ## Serve on 127.0.0.1:50051 on an embedded Postgres
	@exec $(BIN)/tasklogs serve $(ARGS)

test: setup ## Run the tests; ARGS="tests/store -k fence" for some of them
	@$(BIN)/python -m pytest $(or $(ARGS),$(IN_PARALLEL)); code=$$?; sh tools/agentapi.sh left-out; exit $$code

# CI runs this instead of `test`. It also measures the processes that tests start.
coverage: setup ## Run the tests, and print how many lines of server/ and clients/python ran
	@rm -f .coverage .coverage.*
	@COVERAGE_CORE=$$($(BIN)/python -c "$(COVERAGE_CORE)") \
	    $(BIN)/coverage run -m pytest $(or $(ARGS),$(IN_PARALLEL)); code=$$?; \
	    $(BIN)/coverage combine --quiet && $(BIN)/coverage report; \
	    sh tools/agentapi.sh left-out; exit $$code

breaks: setup ## Break each rule in a copy of the code; its test must fail
	@$(BIN)/python -m tests.mutation $(ARGS)

model: setup ## Explore the models of the protocol with spin, whole and without each guard
	@$(BIN)/python -m tests.model $(ARGS)

sim: setup ## Simulate 100 processes and 1,000,000 tasks; ARGS="--help" for smaller runs
	@$(BIN)/python -m tests.sim $(ARGS)

demo: setup ## Show a live read, a pause, a snapshot read, a resume and a refused read
	@exec demo/run

agents: setup ## Install the real agents (npm and pip, 2 GB), and run them with a scripted model
	@mkdir -p .tools/agents && cp tests/agents/package.json tests/agents/package-lock.json .tools/agents
	@cd .tools/agents && npm ci --ignore-scripts --no-audit --no-fund
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then \
		$(BIN)/python -m venv .tools/agents/aider && \
		.tools/agents/aider/bin/pip install --quiet --requirement tests/agents/aider.txt; \
	else echo "without Aider: it needs a Python before 3.13"; fi
	@TASKLOGS_INSTALLED_AGENTS=$(CURDIR)/.tools/agents $(BIN)/python -m pytest tests/agents $(ARGS)

soak: setup ## Run everything under load and faults, then judge; ARGS="--minutes 30 --tasks 50"
	@$(BIN)/python -m tests.system.soak $(ARGS)

fuzz: setup ## Search for inputs that break a decoder; ARGS="cursors --seconds 600 --jobs 2"
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes \
	    --requirement requirements/fuzz.lock
	@$(BIN)/python -m tests.fuzz $(ARGS)

bench: setup ## Run the measurements and write bench/results/
	@exec $(BIN)/python -m bench $(ARGS)

ci: check-go check-ts
ci: lint imports buf check-protos check-docs types model coverage ## Run all checks, then the tests

lint: setup prose ## ruff: rules and format; the check of prose
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

prose: setup ## Check the width of prose, and for words that this project does not use
	@$(BIN)/python tools/check_prose.py --names

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

go-protos: setup ## Generate the Go stubs from protos/, with Go
	@$(BIN)/python tools/generate_go_stubs.py

check-go: setup ## Check the Go client: stubs, gofmt, go vet, staticcheck, tests
	@sh tools/check_go.sh

ts-protos: setup ## Generate the TypeScript stubs from protos/, with npm
	@sh tools/check_ts.sh install && $(BIN)/python tools/generate_ts_stubs.py

check-ts: setup ## Check the TypeScript client: stubs, tsc, eslint, tests
	@sh tools/check_ts.sh

docs: setup ## Write docs/api.md, the tables in docs/operations.md and the tree of packages
	@$(BIN)/python tools/generate_docs.py

check-docs: setup ## Fail if these differ from the code
	@$(BIN)/python tools/generate_docs.py --check

buf: setup ## buf: lint, and check for changes that break a released version of the API
	@sh tools/buf.sh

release-api: setup ## Keep the API as it is as a released version; ARGS="v0.1.0"
	@sh tools/release_api.sh $(ARGS)

foreign-stubs: setup ## Generate and compile the stubs for Go and TypeScript, where those are
	@sh tools/foreign_stubs.sh

lock: setup ## Write the locks in requirements/ again (UPGRADE=1: newest versions)
	@sh tools/lock.sh

agentapi: ## Try again to build the real AgentAPI with Go
	@sh tools/agentapi.sh force

clean: ## Remove everything that these commands made, including .venv
	@rm -rf .venv .coverage .coverage.* .tools .fuzz .sim dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
