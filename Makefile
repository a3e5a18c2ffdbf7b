# All set-up is here: a machine needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check lock clean help

help:
	@echo "make demo   simulate a market, train, register, rank this week's batch"
	@echo "make test   run every check and the whole test suite"
	@echo "make check  ruff and mypy only"
	@echo "make lock   renew requirements.lock from pyproject.toml (needs uv)"
	@echo "make clean  remove the environment and what demo wrote"

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hitfinder needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(VENV) (a few minutes the first time)"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	@$(BIN)/hitfinder demo

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Compiled beforehand: tests start many processes, each of which would do it anew where PYTHONDONTWRITEBYTECODE is set.
test: check
	$(BIN)/python -m compileall -q src
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --all-extras --no-emit-index-url \
	  --custom-compile-command "make lock" pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
