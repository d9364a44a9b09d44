# make demo: set up and run the main job. make test: lint, types, tests. make docs: the site, in build/docs.
# Stamps make each step run once.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(shell find lincon generators tasks tests benchmarks docs examples -name generated -prune -o \( -name '*.py' -o -name '*.md' \) -print) $(wildcard *.md) pyproject.toml

.PHONY: demo test long lint types interop bench fuzz soak docs examples matrix lock dist sbom audit release clean

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
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -m "not long"
	touch $@

long: .stamps/install
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m long tests

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

.stamps/docs: .stamps/install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# The site is built afresh, so that every example runs; warnings are errors, and no link leads nowhere.
docs: .stamps/docs
	rm -rf build/docs docs/generated
	$(BIN)/python -m sphinx -q -W --keep-going -j 2 -b html -d build/doctrees docs build/docs
	$(BIN)/python .ci/links.py build/docs

examples: .stamps/install
	for example in classifier adapter generator small_file; do $(BIN)/python examples/$$example.py || exit 1; done
	$(BIN)/python examples/decoder.py tests/golden/ring-0.safetensors

bench: .stamps/interop
	$(BIN)/python -m benchmarks.grid --tensors 1 50 --keep
	$(BIN)/python -m benchmarks.grid --generators dense sparse fastfood kronecker --threads 1 --keep
	$(BIN)/python -m benchmarks.steps --keep
	$(BIN)/python -m benchmarks.adapters --keep
	$(BIN)/python -m pytest benchmarks -o python_files='bench_*.py' -p no:randomly --benchmark-json=/dev/null

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
release: test long interop fuzz soak matrix dist sbom

clean:
	rm -rf .stamps .venv runs build dist docs/generated *.egg-info
