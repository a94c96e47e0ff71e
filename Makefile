# Every target makes its own environment: a fresh clone needs Python 3.11 to 3.13 and a package index, nothing else.
# pip heeds its own PIP_* variables: which index, which certificates.
PYTHON ?= python3
BIN := .venv/bin
NEWEST := .venv-newest/bin
PIP := -m pip install --quiet --disable-pip-version-check
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= true

# two test processes of one thread each: what two cores hold
PROCESSES ?= 2
# whole files, in the order of tests/conftest.py: the long ones first, so that both processes end at about the same time
XDIST := -n $(PROCESSES) --dist loadfile --no-loadscope-reorder
PYTEST := $(BIN)/python -m pytest $(XDIST)

.PHONY: install quickstart check lint types suite test coverage test-fast test-slow test-newest test-runtime test-wheel bad-input hostile kills audit sbom docs clean

install: .venv/installed

.venv/installed: pyproject.toml constraints/cpu.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) -c constraints/cpu.txt -e ".[dev]"
	touch $@

.venv-newest/installed: pyproject.toml constraints/newest.txt
	test -x $(NEWEST)/python || $(PYTHON) -m venv .venv-newest
	$(NEWEST)/python $(PIP) -r constraints/newest.txt
	$(NEWEST)/python $(PIP) --no-deps -e .
	touch $@

quickstart: install  ## the whole job on bundled data: teacher, signals, student, int8, report
	$(BIN)/distill run recipes/quickstart.yaml

check: lint types  ## lint and types

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

suite: install
	$(PYTEST)

test: lint  ## the default suite, lint and types included: mypy runs on one core, and the tests begin beside it
	$(MAKE) --no-print-directory -j2 types suite

coverage: install  ## the default suite with line coverage: which lines no test runs
	$(PYTEST) --cov --cov-report=term-missing:skip-covered

test-fast: install  ## the inner loop: no whole exports, plans, ablations or trainings
	$(PYTEST) -m "not slow and not integration"

test-slow: install  ## real models, two processes, kills: minutes
	$(BIN)/python -m pytest -m slow

test-newest: .venv-newest/installed  ## the default suite on the newest packages, without optimum-intel
	$(NEWEST)/python -m pytest $(XDIST)

test-runtime: install  ## a clean environment without torch serves finished folders; prints its size
	$(BIN)/python -m tests.install.runtime

test-wheel: install  ## wheel and sdist, and a job from the wheel in a clean environment
	$(BIN)/python -m tests.install.wheel

bad-input: install  ## print what each kind of bad input says
	$(BIN)/python -m tests.slow.bad_input

hostile: install  ## hostile inputs on the real commands; goes on where it stopped
	$(BIN)/python -W ignore -m tests.slow.hostile_inputs

KILLS ?= 100
kills: install  ## SIGKILLs at random moments of a tiny run, each followed by the same command; goes on where it stopped
	$(BIN)/python -W ignore -m tests.slow.kills $(KILLS)

AUDIT := .venv-audit/bin
.venv-audit/installed:
	test -x $(AUDIT)/python || $(PYTHON) -m venv .venv-audit
	$(AUDIT)/python $(PIP) pip-audit cyclonedx-bom
	touch $@

audit: install .venv-audit/installed  ## known vulnerabilities of what is installed; asks the advisory service of PyPI
	$(BIN)/python -m pip freeze --exclude-editable > .venv-audit/requirements.txt
	$(AUDIT)/pip-audit --disable-pip --no-deps -r .venv-audit/requirements.txt

sbom: install .venv-audit/installed  ## what is installed, as a CycloneDX bill of materials: sbom.json
	$(AUDIT)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml -o sbom.json

docs: install  ## build the site into site/; a broken link fails
	$(BIN)/python $(PIP) -c constraints/cpu.txt -e ".[docs]"
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf .venv .venv-* sbom.json site build dist *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache
