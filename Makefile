# Every target sets up .venv by itself. Needs Python 3.11 or newer (PYTHON=… picks one), make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INPUT ?=
HOME_DIR ?=
DURATION ?= 3600
# Workers take turns on the cores; more threads in each only wait for one another.
JOBS ?= 4
BENCHMARKS := idle tui guard end_to_end xray ultrasound ingest receive listing growth scaling yielding three_nights

RUN_PACKAGES := -e . -e plugins/echo -e plugins/xray -e plugins/ultrasound -e plugins/ct
DEV_PACKAGES := -e '.[dev]' -e plugins/echo -e 'plugins/xray[train]' -e 'plugins/ultrasound[train]' -e 'plugins/ct[train]'
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c deploy/constraints.txt
# pip compiles what it copies, not what it links to; the daemon's children write no bytecode.
COMPILE := $(BIN)/python -m compileall -q clinic_ai plugins
RECIPE := pyproject.toml deploy/constraints.txt $(wildcard plugins/*/pyproject.toml)

.PHONY: demo run test check format bench soak torture clean

demo: $(VENV)/.run  ## drop real scans into a fresh home and show what becomes of them; INPUT=DIR for your own
	@$(BIN)/clinic-ai demo $(if $(INPUT),--input "$(INPUT)") $(if $(HOME_DIR),--home "$(HOME_DIR)")

run: $(VENV)/.run  ## run the daemon in the foreground; HOME_DIR=DIR picks its home (default ./home)
	@$(BIN)/clinic-ai init --home "$(or $(HOME_DIR),home)"
	@$(BIN)/clinic-ai run --home "$(or $(HOME_DIR),home)"

test: $(VENV)/.dev  ## the whole suite; JOBS=1 runs one test at a time
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations 40 --durations-min 10

check: $(VENV)/.dev  ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## every benchmark, each with its ratio to a named floor
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py; done

soak: $(VENV)/.dev  ## an hour of a steady trickle: does anything grow, is anything lost; DURATION=SECONDS
	$(BIN)/python benchmarks/soak.py --seconds $(DURATION)

torture: $(VENV)/.dev  ## hours of faults
	$(BIN)/python -m pytest -m torture --timeout=7200

$(VENV)/.run: $(RECIPE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV) …"
	@test -f $(VENV)/.dev || $(INSTALL) $(RUN_PACKAGES)
	@$(COMPILE)
	@touch $@

$(VENV)/.dev: $(RECIPE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV) for development …"
	@$(INSTALL) $(DEV_PACKAGES)
	@$(COMPILE)
	@touch $@

clean:
	rm -rf $(VENV) build dist
