# Everything from a bare clone: Python >= 3.11 and make, nothing prepared.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test check clean

demo: $(STAMP) ## the main job on built-in data, in minutes
	$(BIN)/flyweight demo

test: $(STAMP) ## every test
	# These fork, which must come before anything in the same process has trained.
	$(BIN)/python -m pytest -q tests/benchmarks
	$(BIN)/python -m pytest -q -n auto --dist worksteal --ignore tests/benchmarks

check: $(STAMP) ## format, lint, types, layers
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) output

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("flyweight needs Python 3.11 or newer; set PYTHON=, found %d.%d" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
