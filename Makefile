# make figures   the environment, then every figure in the quick configuration (config/quick.yaml)
# make report    report.zip: all of them with captions, numbers and run times
# make test      the environment, then lint, types, unit tests and workflow tests
# make paper     every figure at the papers' scale

PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
BIN := .venv/bin
# Snakemake keeps a cache in the home folder and stops where that cannot be written: then it is kept here.
CACHE := $(shell d="$${XDG_CACHE_HOME:-$$HOME/.cache}/snakemake"; mkdir -p "$$d" 2>/dev/null && test -w "$$d" || echo XDG_CACHE_HOME="$(CURDIR)/.snakemake/cache")
SNAKEMAKE := env $(CACHE) $(BIN)/snakemake --cores $(CORES)
PYTEST := env $(CACHE) $(BIN)/python -m pytest --numprocesses $(CORES)

.PHONY: install figures report paper test lint types unit workflow format lock clean

install: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sigad needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

figures: install
	$(SNAKEMAKE) --configfile config/quick.yaml

report: figures
	$(SNAKEMAKE) --configfile config/quick.yaml --report report.zip

paper: install
	$(SNAKEMAKE)

test: lint types unit workflow
	@echo "==== lint, types, unit tests and workflow tests passed"

lint: install
	@echo "==== lint"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(SNAKEMAKE) --lint

types: install
	@echo "==== types"
	$(BIN)/ty check

unit: install
	@echo "==== unit tests"
	$(PYTEST) --ignore tests/workflow

workflow: install
	@echo "==== workflow tests"
	$(PYTEST) tests/workflow

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

# Writes requirements.lock anew from the environment as it is.
lock: install
	( echo "# Exact versions that the test suite runs with. Regenerate with: make lock"; \
	  $(BIN)/python -m pip freeze --exclude-editable | grep -v -i -E '^(pip|setuptools|wheel)==' | sed 's/+cpu$$//' ) > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:
	rm -rf .venv .snakemake build *.egg-info
