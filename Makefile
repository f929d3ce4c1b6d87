# Each command makes the environment in .venv if it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check benchmark torture fuzz coverage clean

demo: .venv/installed
	$(BIN)/seeking compare --epochs 12 --output runs/demo --overwrite

test: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --num-workers auto
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

# What a commit needs, in about three minutes: lint, types, quick tests.
check: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --num-workers auto
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal -m "not slow"

benchmark: .venv/installed
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/accelerations.py
	$(BIN)/python benchmarks/sync.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/input.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/derive.py
	$(BIN)/python benchmarks/checkpoint.py

torture: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/soak/test_torture.py --hypothesis-profile soak -rP

fuzz: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal --hypothesis-profile soak -rP -m fuzz
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/verification/test_contained.py --hypothesis-profile soak

coverage: .venv/installed
	$(BIN)/python benchmarks/coverage.py --output results/coverage.md

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; say which with make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv runs
