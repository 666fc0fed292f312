# Needs Python 3.11 or newer, git and make. Another interpreter: make PYTHON=python3.12 ...
PYTHON ?= python3

# make train ENV=HalfCheetah-v5 STEPS=1000000 ARGS="--seed 3"
ENV = Pendulum-v1
STEPS = 20000
ARGS =
unexport ENV STEPS ARGS

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
LOCK := .venv-lock

supported = $(shell $(PYTHON) -c 'import sys; print(sys.version_info >= (3, 11))' 2>/dev/null)
need_python = $(if $(filter True,$(supported)),,$(error maxent needs Python 3.11 or newer, and "$(PYTHON)" is not: try make PYTHON=python3.12))

.PHONY: help train test slow bench lock clean

help:
	@echo "make train   train an agent: ENV=$(ENV) STEPS=$(STEPS) ARGS=..."
	@echo "make test    lint, types, import direction, tests"
	@echo "make slow    the long tests"
	@echo "make bench   measure the speed"
	@echo "make lock    resolve requirements.lock anew (ARGS=--upgrade: to the newest versions)"
	@echo "make clean   remove the environment and the caches; runs stay"

train: $(VENV)/.ready
	$(BIN)/maxent train $(ENV) --steps $(STEPS) $(ARGS)

test: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow $(ARGS)

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/speed.py $(ARGS)

# A changed lock builds the environment anew: some packages (MuJoCo) do not survive an upgrade in place. Python compiles
# a module when it is first imported, and most never are: --no-compile leaves it to that.
$(VENV)/.locked: requirements.lock
	$(need_python)@echo "Setting up $(VENV); the first time takes a minute or two"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --no-compile --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.ready: $(VENV)/.locked pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# One file for every supported Python and platform; it names no index, so it installs from whichever pip is set up for.
lock: pyproject.toml
	$(need_python)@test -x $(LOCK)/bin/uv || { $(PYTHON) -m venv $(LOCK) && $(LOCK)/bin/python -m pip install -q uv; }
	$(LOCK)/bin/uv pip compile --universal --python-version 3.11 --extra all --extra dev --generate-hashes \
		--no-emit-index-url --no-header --quiet $(ARGS) --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) $(LOCK) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
