# Every command sets up what it needs, in .venv: `make demo`, `make test`, `make bench`, `make bench-report`, `make kills`, ...
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-all test-oldest generated gpu gpu-check kills mutation ownership lint types bench bench-report clean

demo: .venv/ready
	$(BIN)/ref-bioplaus demo

PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test: .venv/ready lint types
	$(PYTEST)

# The tests that are marked slow, which mostly wait for a compiler; and all of them.
test-slow: .venv/ready
	$(PYTEST) -m slow

test-all: test test-slow

# The oldest versions that pyproject.toml permits, on the tests that touch what is not ours, but for those that take long.
TOUCHING := tests/project/test_oldest.py tests/project/test_security.py tests/library/test_naming.py \
	tests/library/test_optimizers.py tests/algorithms/test_calling.py tests/backends/test_backends.py \
	tests/backends/test_torch_graphs.py tests/conformance/test_exchange.py tests/conformance/test_pytest_plugin.py \
	tests/showing tests/experiments/commands tests/experiments/data tests/experiments/figures tests/experiments/spec
test-oldest: .venv-oldest/ready
	REF_BIOPLAUS_OLDEST=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 \
		.venv-oldest/bin/python -m pytest -n 2 $(TOUCHING) -k "not real and not resnet18 and not left_behind and not in_an_empty"

# A million comparisons of what a caller can still reach around compiled steps: all algorithms, modes and libraries.
ownership: .venv/ready
	REF_BIOPLAUS_LOOKS=12500 $(BIN)/python -m pytest -q -s tests/backends/test_ownership.py

# A run is killed 100 times at random moments, and loses nothing but the steps since its last checkpoint.
kills: .venv/ready
	REF_BIOPLAUS_KILLS=100 $(BIN)/python -m pytest -q tests/experiments/training/test_training.py -k sigkill

# Do the tests notice mistakes? Each of tests/mutation/faults.toml is put into a copy of the tree, and they are run on it.
# MUTATION="--modules-only" leaves out the whole suite; "--against tests/mutation/before.jsonl" compares with what was.
mutation: .venv/ready
	$(BIN)/python -m tests.mutation $(MUTATION)

# What can be proved of the backends for GPUs without one: all rows, architectures, kernels and precisions, for an hour or
# more, single-threaded. It goes on where it was (CHECK=--fresh begins anew) and writes tests/gpu_check/report.json and its
# table in backends/README.md.
gpu-check: .venv/ready
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 nice $(BIN)/python -m tests.gpu_check $(CHECK)
	$(BIN)/python -m tests.gpu_check.page backends/README.md

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

# Is the working tree slower than BASE? Both are measured now, in turns: three minutes on two cores. Exit code 1: slower,
# 3: it cannot tell (make says 2 of both; the last line has the word).
BASE ?= HEAD
bench: .venv/ready
	$(BIN)/python -m asv_bench.versus --base $(BASE)

# On a machine with an NVIDIA GPU: five and a half minutes, results in gpu/. GPU="--only speed --seconds 600", and so on.
gpu: .venv-gpu/ready
	.venv-gpu/bin/ref-bioplaus gpu $(GPU)

# Whatever files are made of the code: what is new of them, or with ALL=--all everything.
generated: .venv/ready
	$(BIN)/python -m ref_bioplaus.registry.readme README.md
	$(BIN)/python -m ref_bioplaus.conformance.proofs.coverage.table conformance/README.md
	$(BIN)/python -m tests.gpu_check.page backends/README.md
	$(BIN)/python -m ref_bioplaus.experiments.many.tidy ref_bioplaus/experiments/results
	$(BIN)/python -m ref_bioplaus conformance regenerate $(ALL)
	$(BIN)/python -m ref_bioplaus.experiments.demo.seeds $(ALL)

# Hours on two cores; REPORT="--workloads W1 --backends torch" measures a part and completes what is there.
bench-report: .venv/ready
	$(BIN)/python -m asv_bench.report $(REPORT)

.venv/ready: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt \
		-e ".[torch,jax,bench,test,gpu-check]"
	touch $@

.venv-oldest/ready: pyproject.toml .ci/constraints.txt .ci/oldest.py
	$(PYTHON) -m venv .venv-oldest
	$(PYTHON) .ci/oldest.py > .venv-oldest/oldest.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt \
		-c .venv-oldest/oldest.txt -e ".[torch,jax,bench,test]"
	touch $@

.venv-gpu/ready: pyproject.toml
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet --disable-pip-version-check -e ".[gpu]"
	touch $@

clean:
	rm -rf .venv .venv-oldest .venv-gpu build dist demo gpu *.egg-info .pytest_cache .mypy_cache .ruff_cache
