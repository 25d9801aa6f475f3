# demo · test · lint · bench. PYTHON chooses the interpreter (3.11 is what the requirements are pinned for).
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
SAMPLES := samples
IMAGES ?= $(SAMPLES)
OUT ?= out
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint format bench clean

demo: $(VENV)/.runtime
	$(BIN)/python -m models.fetch mobilenet_thin
	@if [ "$(IMAGES)" = "$(SAMPLES)" ]; then $(BIN)/python -m models.samples $(SAMPLES); fi
	$(BIN)/python -m worker submit --local --out $(OUT) $(IMAGES)

test: $(VENV)/.dev
	$(BIN)/python -m models.fetch mobilenet_thin
	$(BIN)/python -m models.samples $(SAMPLES)
	$(BIN)/python -m pytest $(PYTEST)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python -m models.fetch mobilenet_thin
	$(BIN)/python -m models.samples $(SAMPLES)
	$(BIN)/python -m benchmarks.pipeline

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) $(OUT) $(SAMPLES)
