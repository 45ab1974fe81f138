# make demo    set up, then run the whole way of the data on the demo world
# make test    set up, then check and test everything
# make chaos   set up, then kill -9 at random points, start again and compare, ROUNDS times
PYTHON ?= python3
BIN := .venv/bin
# torch's CPU build where the index offers one; a GPU machine sets its own: make TORCH=torch==2.13.0+cu130 ...
TORCH ?= $(shell grep ^torch== requirements.lock)

.PHONY: setup demo test check chaos docs clean

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "sayso needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(TORCH)
	DS_BUILD_OPS=0 $(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch .venv/ready

# Tests run in so many processes, a file of them in one. More than the cores there are would wait for each other.
PROCESSES ?= 2

# For tests: other people's readers, which bring packages that sayso does without (tests/others.lock says why).
.venv-others/ready: .venv/ready tests/others.lock
	$(PYTHON) -m venv .venv-others
	.venv-others/bin/pip install --quiet --no-deps --requirement tests/others.lock
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(.venv-others/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/sayso.pth
	touch .venv-others/ready

demo: setup
	$(BIN)/sayso demo --root demo-data

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: check .venv-others/ready
	$(BIN)/pytest --numprocesses $(PROCESSES) --dist loadfile

# Kill at random and compare, round after round: make chaos ROUNDS=100 SEED=7
ROUNDS ?= 100
chaos: setup
	$(BIN)/python -m tests.chaos --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

# The pages that are written by the code; a test checks that they are true.
docs: setup
	$(BIN)/python -m ops.docs docs

clean:
	rm -rf .venv .venv-others demo-data .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
