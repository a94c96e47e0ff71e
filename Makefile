# Every target makes its own environment: a fresh clone needs Python 3.11 and a package index, nothing else.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= true

# two test processes of one thread each: what two cores hold
PROCESSES ?= 2
PYTEST := $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile

.PHONY: install quickstart check test test-fast test-slow bad-input hostile docs clean

install: .venv/installed

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch>=2.9,<2.14"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

quickstart: install  ## the whole job on bundled data: teacher, signals, student, int8, report
	$(BIN)/distill run recipes/quickstart.yaml

check: install  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check  ## the default suite, lint and types included
	$(PYTEST)

test-fast: install  ## the inner loop: no whole exports, plans or ablations
	$(PYTEST) -m "not slow and not integration"

test-slow: install  ## real models, two processes, kills: minutes
	$(BIN)/python -m pytest -m slow

bad-input: install  ## print what each kind of bad input says
	$(BIN)/python -m tests.slow.bad_input

hostile: install  ## hostile inputs on the real commands; goes on where it stopped
	$(BIN)/python -W ignore -m tests.slow.hostile_inputs

docs: install  ## build the site into site/; a broken link fails
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf .venv site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
