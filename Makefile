# Everything runs in .venv, made here from pyproject.toml and constraints.txt; Python 3.11+, make and a package index do.

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# 3.11 first: the versions in constraints.txt were tested on it. Each is run, for a name on the path may be an empty shim.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

.PHONY: help venv demo test lint report clean

help: ## Show this list.
	@sed -n 's/^\([a-z]*\):.*## /  make \1@/p' $(MAKEFILE_LIST) | column -t -s@ 2>/dev/null || \
		sed -n 's/^\([a-z]*\):.*## /  make \1  /p' $(MAKEFILE_LIST)

venv: $(VENV)/.ipse-core ## Make .venv with what ipse needs to run.

demo: $(VENV)/$(if $(PHOTOS),.ipse-core,.ipse-generate) ## Show what ipse does, in pictures; PHOTOS=folder works on your own.
	$(BIN)/ipse demo $(if $(PHOTOS),--photos "$(PHOTOS)") $(ARGS)

test: $(VENV)/.ipse-dev ## Run the tests; ARGS="-k images" picks some.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 $(ARGS)

lint: $(VENV)/.ipse-dev ## Check the style of the code.
	$(BIN)/ruff check src tests benchmarks

report: $(VENV)/.ipse-core ## Render the figures in README.md and docs/ from benchmarks/results/.
	$(BIN)/python benchmarks/report.py $(ARGS)

clean: ## Remove what builds and tests leave behind (not .venv).
	rm -rf build dist out .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say that an install came to its end, so that one cut short is taken up again.
$(VENV)/.ipse-core: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "ipse needs Python 3.11 or newer, and none was found." \
		"Install it, or run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "ipse needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1)." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
		echo "Cannot make $(VENV). On Debian and Ubuntu, install python3-venv first." >&2; exit 1; }
	@echo "Installing ipse into $(VENV) (a few minutes the first time) ..."
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.ipse-generate: $(VENV)/.ipse-core
	@echo "Installing what generating needs into $(VENV) (PyTorch: some minutes) ..."
	@$(INSTALL) -e '.[generate]'
	@touch $@

$(VENV)/.ipse-dev: $(VENV)/.ipse-core
	@echo "Installing what the tests need into $(VENV) ..."
	@$(INSTALL) -e '.[dev]'
	@touch $@
