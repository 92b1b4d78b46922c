# Two commands matter: `make demo` and `make test`. Everything lives in .venv and .payhub.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test check format lock clean
help:                 ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another with PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: .venv/installed ## start the real servers and watch real payments cross the hub (ARGS=--exit leaves at once)
	$(BIN)/payhub demo $(ARGS)

test: .venv/installed ## the whole suite on servers, ports and folders of its own (ARGS='-k sentence'; ARGS='-n 0': one file at a time)
	$(BIN)/pytest -n 2 $(ARGS)

check: .venv/installed ## lint, format, types, import rules, drawn = coded
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/payhub bpmn check

format: .venv/installed ## bring the code into the house's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: .venv/installed ## resolve the dependencies again into requirements.lock
	$(PYTHON) -m venv .venv/lock && .venv/lock/bin/pip install --quiet uv
	.venv/lock/bin/uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	  --extra dev --python-version 3.11 --universal pyproject.toml --output-file requirements.lock

clean: ## remove the environment and the local data
	rm -rf .venv .payhub
