# Everything a fresh machine with Python >= 3.11, pip and make needs: `make demo` or `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= demo
# Workers use one thread each; spinning OpenMP threads would steal the other worker's core.
export OMP_WAIT_POLICY := PASSIVE
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test lint environment clean

demo: environment  ## the default comparison: nine methods, two sizes, two seeds, one table
	$(BIN)/peftkit compare --out $(OUT)

test: environment  ## the whole test suite, offline, on the CPU
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

environment: $(BIN)/.installed

# torch first: the version of constraints.txt exists as a CPU build, a newer one may bring CUDA.
$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bundled,metrics,image,audio,html,export]' --group dev
	touch $@

clean:
	rm -rf $(VENV) demo dist build
