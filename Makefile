.DEFAULT_GOAL := help
.PHONY: help setup lint format test test-all test-versions demo docs clean

PYTHON ?= python3
BIN := .venv/bin

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | column -t -s '|'

setup: .venv/.done ## make .venv and install the project with its exact tested versions

# Python compiles what is imported; to compile all 22,000 files takes a third of the time of an installation.
.venv/.done: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@

lint: setup ## style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## mend style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test: setup ## the tests, but for the long ones: some minutes
	$(PYTEST) -m 'not slow'

test-all: setup ## all tests
	$(PYTEST)

test-versions: setup ## the tests at the lowest and at the newest versions that pyproject.toml allows: some minutes each
	for bound in lowest-direct highest; do \
		uv pip compile --quiet --resolution $$bound --extra dev pyproject.toml -o .venv-$$bound.txt && \
		$(PYTHON) -m venv --clear .venv-$$bound && \
		.venv-$$bound/bin/python -m pip install --quiet --requirement .venv-$$bound.txt && \
		.venv-$$bound/bin/python -m pip install --quiet --no-deps --editable . && \
		OMP_NUM_THREADS=1 .venv-$$bound/bin/python -m pytest --numprocesses 2 --dist worksteal -m 'not slow' || exit 1; \
	done

demo: setup ## train and test on the built-in sample, beside a bag-of-words baseline
	$(BIN)/python experiments/demo/demo.py

docs: setup ## build the documentation, to be opened without a network: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## remove everything that git does not know
	git clean -fdxq
