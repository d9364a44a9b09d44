# make demo: set up and run the main job. make test: lint, types, tests. Stamps make each step run once.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(shell find lincon generators tasks tests benchmarks docs -name '*.py' -o -name '*.md') $(wildcard *.md) pyproject.toml

.PHONY: demo test lint types interop bench fuzz soak matrix lock dist sbom audit release clean

.stamps/env:
	$(PYTHON) -m venv .venv
	mkdir -p .stamps && touch $@

.stamps/install: .stamps/env pyproject.toml constraints.txt locked.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement locked.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[tasks,export,fast,parallel,dev]'
	touch $@

.stamps/lint: .stamps/install $(SOURCES)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/python .ci/house.py
	touch $@

.stamps/types: .stamps/install $(SOURCES)
	$(BIN)/mypy
	touch $@

.stamps/test: .stamps/lint .stamps/types
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
	touch $@

# timm's models need a torchvision that fits the torch at hand; its optimisers, which are tested, do not.
.stamps/interop: .stamps/install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[interop]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps timm
	touch $@

interop: .stamps/interop
	$(BIN)/python -m pytest tests/interop

runs/demo/table.md: .stamps/install
	$(BIN)/lincon compare --schemes vanilla,rpg,hash,random,sparse,dense,small --out runs/demo

lint: .stamps/lint
types: .stamps/types
test: .stamps/test
demo: runs/demo/table.md
	@cat runs/demo/table.md

bench: .stamps/install
	$(BIN)/python -m pytest benchmarks -o python_files='bench_*.py' -p no:randomly --benchmark-json=/dev/null
	$(BIN)/python -m benchmarks.grid --keep

fuzz: .stamps/install
	$(BIN)/python -m tests.hostile --count 10000

soak: .stamps/install
	$(BIN)/python -m tests.programs --count 1000
	$(BIN)/python -m tests.load --steps 2000 --inferences 10000

.stamps/release: .stamps/install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[release]'
	touch $@

matrix: .stamps/release
	$(BIN)/python -m benchmarks.matrix

lock: .stamps/release
	$(BIN)/python .ci/lock.py

# Name, version and licence of everything that is installed.
sbom: .stamps/release
	mkdir -p dist
	$(BIN)/cyclonedx-py environment .venv --pyproject pyproject.toml --output-file dist/sbom.cdx.json

# Fails too where the list of known weaknesses cannot be reached.
audit: .stamps/release
	$(BIN)/pip-audit --strict --requirement locked.txt --no-deps --disable-pip

dist: .stamps/release
	$(BIN)/python .ci/wheel.py

# Everything but the upload: docs/releases.md says what comes before and after.
release: test interop fuzz soak matrix dist sbom

clean:
	rm -rf .stamps .venv runs build dist *.egg-info
