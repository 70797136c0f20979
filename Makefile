.DEFAULT_GOAL := help
.PHONY: help setup demo clients test test-lowest check proto release-descriptor docs fmt recovery reattach bench bench-quick bench-watch \
	bench-simulated sim fuzz chaos soak mutants clean

# The interpreter the environments are made with: any Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST))

setup: .venv/.stamp-dev .venv/.stamp-demo .venv-proto/.stamp ## install all that the other targets use

demo: .venv/.stamp-demo ## train a small model on this machine and see it survive
	$(BIN)/python examples/demo.py

NODE_CLIENT := examples/clients/node/node_modules/.stamp
clients: $(NODE_CLIENT) ## make the example clients in other languages ready to run: needs npm, g++ and gRPC for C++
	$(MAKE) --silent -C examples/clients/cpp

# Real processes mostly wait for one another, so more tests than cores run side by side.
# Clients whose language is not here are skipped by their tests.
JOBS ?= 3
HAS_NPM := $(shell command -v npm)
test: .venv/.stamp-dev .venv/.stamp-demo $(if $(HAS_NPM),$(NODE_CLIENT)) ## run the tests, JOBS=3 at a time; ARGS="-k name" narrows them down
	$(BIN)/pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

# What touches the wire, and real processes: the rest does not depend on these packages. And torchrun with our plug-in, which
# shares its process with a training stack that may pin an old protobuf.
LOWEST_TESTS := tests/wire tests/unit/rallypoint tests/unit/rallypoint_agent tests/process/test_run_nodes.py \
	tests/process/test_agent_loss.py tests/compat/test_torchrun_backend.py
test-lowest: .venv-lowest/.stamp ## run the tests of wire, processes and torchrun on the lowest allowed grpcio, protobuf, psutil
	.venv-lowest/bin/python -m pytest --numprocesses $(JOBS) --dist worksteal $(or $(ARGS),$(LOWEST_TESTS))

check: .venv/.stamp-dev .venv-proto/.stamp ## lint, types, layers, protos, freshness of generated code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/python tools/released.py check
	tools/proto.sh check
	$(BIN)/python tools/draw_states.py --check
	$(BIN)/python tools/draw_errors.py --check

proto: .venv-proto/.stamp ## regenerate common/rallypoint/v1 from protos/
	tools/proto.sh write

VERSION ?= $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' common/rallypoint/__init__.py)
release-descriptor: .venv/.stamp-dev ## keep protos/ as what release VERSION=X.Y.Z (by default this tree's) speaks
	$(BIN)/python tools/released.py write $(VERSION)

recovery: .venv/.stamp-dev .venv/.stamp-demo ## kill one gloo worker, N=20 times over, and count the recoveries
	PYTHONPATH=tests $(BIN)/python benchmarks/recovery.py $(N)

reattach: .venv/.stamp-dev ## restart the coordinator, N=3 times for each outage, and time the agents' return
	PYTHONPATH=tests $(BIN)/python benchmarks/reattach.py $(N)

bench: .venv/.stamp-dev .venv/.stamp-demo ## the scoreboard: all figures beside torchrun's and their targets; ONLY=rounds for one suite
	@PYTHONPATH=benchmarks:tests $(BIN)/python -m scoreboard $(foreach suite,$(ONLY),--only $(suite)) $(ARGS)

bench-quick: .venv/.stamp-dev .venv/.stamp-demo ## the scoreboard in minutes: few samples, it fails where a ratio is under 3
	@PYTHONPATH=benchmarks:tests $(BIN)/python -m scoreboard --quick $(foreach suite,$(ONLY),--only $(suite)) $(ARGS)

bench-watch: .venv/.stamp-dev ## time decisions with N=1000 watchers of the job and without any
	PYTHONPATH=tests $(BIN)/python benchmarks/watch.py $(N)

# A minute for each 10,000 agents and fleet.
SIMULATED := $(or $(N),10000)
bench-simulated: .venv/.stamp-dev ## what N=10000 simulated agents cost a coordinator: messages, bytes, records and CPU time for each event
	PYTHONPATH=benchmarks $(BIN)/python -m simulated_fleet 1x1000 1x$(SIMULATED) $$(($(SIMULATED) / 100))x100

SEEDS ?= 1000
BASE ?= 0
sim: .venv/.stamp-dev ## simulate SEEDS=1000 clusters from seed BASE=0 on, JOBS=3 at a time; WITH="lost journal": with this fault in each
	PYTHONPATH=tests $(BIN)/python -m simulation.run --seeds $(SEEDS) --base $(BASE) --jobs $(JOBS) $(if $(WITH),--with "$(WITH)")

fuzz: .venv/.stamp-dev ## INPUTS=1000000 of what comes from outside, from SEED=1, JOBS=3 at a time; it goes on where it stopped
	PYTHONPATH=tests $(BIN)/python -m fuzz.run --inputs $(or $(INPUTS),1000000) --seed $(or $(SEED),1) --jobs $(JOBS) \
		$(if $(TARGET),--target $(TARGET))

chaos: .venv/.stamp-dev ## N=100 random faults against real processes, and the timings; SEED=... chooses them again
	PYTHONPATH=tests $(BIN)/python -m chaos.run --drills --faults $(or $(N),100) $(if $(SEED),--seed $(SEED))

soak: .venv/.stamp-dev ## MINUTES=60 of random faults with AGENTS=200 real agents: nothing grows, every restart has its cause
	PYTHONPATH=benchmarks:tests $(BIN)/python -m soak --minutes $(or $(MINUTES),60) --agents $(or $(AGENTS),200) $(if $(SEED),--seed $(SEED))

mutants: .venv/.stamp-dev ## break the cores in each way that tests/mutants knows: the fast tests must notice
	PYTHONPATH=tests $(BIN)/python -m mutants.run $(ARGS)

docs: .venv/.stamp-dev ## redraw docs/states.md and docs/errors.md from the tables in the code
	$(BIN)/python tools/draw_states.py
	$(BIN)/python tools/draw_errors.py

fmt: .venv/.stamp-dev ## format Python and protos, apply the safe fixes
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(BIN)/buf format --write

clean: ## remove the environments, caches and build output
	rm -rf examples/clients/node/node_modules examples/clients/cpp/build
	rm -rf .venv .venv-lowest .venv-proto .fuzz .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache dist

# venv installs pip last: an environment without it is unfinished and made again.
.venv/bin/pip .venv-lowest/bin/pip .venv-proto/bin/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(@:/bin/pip=)

.venv/.stamp-dev: pyproject.toml | .venv/bin/pip
	$(BIN)/python $(PIP_INSTALL) --editable '.[dev]'
	@touch $@

# torch is large, so only what runs it waits for it.
.venv/.stamp-demo: .venv/.stamp-dev
	$(BIN)/python $(PIP_INSTALL) --editable '.[demo]'
	@touch $@

$(NODE_CLIENT): examples/clients/node/package.json examples/clients/node/package-lock.json
	cd $(@D)/.. && npm ci --no-progress
	@touch $@

.venv-lowest/.stamp: pyproject.toml tools/lowest.py | .venv-lowest/bin/pip
	.venv-lowest/bin/python tools/lowest.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python $(PIP_INSTALL) --constraint .venv-lowest/constraints.txt --editable '.[test,demo]'
	@touch $@

# An environment of its own: grpcio-tools of the generator's line does not go with newer grpcio-*.
.venv-proto/.stamp: tools/proto-requirements.txt | .venv-proto/bin/pip
	.venv-proto/bin/python $(PIP_INSTALL) --requirement $<
	@touch $@
