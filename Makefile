# Two commands matter: `make demo` and `make test`. Both build the environment on first use and reuse it afterwards.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= runs/demo

.DEFAULT_GOAL := help
.PHONY: help demo test lowest coverage docs lint types check browser lock sbom clean

# What was tested: every version and the hashes of its files. torch alone has no hash, since its build for a CPU and that for
# a GPU are two files of one version; what it needs besides (nvidia-*, triton) comes with it.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
define install
	$(PIP) --no-deps --require-hashes -r locks/$(1).txt
	$(PIP) -r locks/torch.txt
	$(PIP) --no-deps --no-build-isolation -e .
endef

# A file's tests share what they train, so each runs in one process; in the order of tests/conftest.py, the longest first.
# Compiled code is kept whatever the environment says, for tests begin dozens of processes.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 12

demo: $(VENV)/.installed ## an attack, a defence and a gamed score that is caught, on sample images; runs/demo/report.html
	$(BIN)/resolute demo --out $(OUT)

test: $(VENV)/.installed-dev browser ## run the full test suite on all cores, with doctests
	$(PYTEST)

# What touches every dependency: the files of tests whose libraries are few, and single tests of the others. What old
# libraries are told by newer ones is nothing that a user is told.
OLD := -W ignore::DeprecationWarning -W ignore::FutureWarning
LOWEST := runs/lowest/bin/python
LOWEST_TESTS := $(patsubst %,tests/test_%.py,ball images fidelity intervals agreement toml options table query hub libraries \
  onnx_files hostile_settings cli_check report training_reward) $(addprefix tests/test_, \
  certify.py::test_grid_noise_has_the_law_of_rounded_gaussian_noise \
  zoo.py::test_checkpoints_of_well_known_networks_load_by_themselves serve.py::TestJobs \
  cluster.py::test_the_command_line_starts_a_cluster_of_its_own onnx.py::test_a_torch_that_is_too_old_is_refused \
  studying.py::test_results_go_wherever_fsspec_goes)
# Without ONNX PyTorch may be older still.
OLD_TORCH_TESTS := $(patsubst %,tests/test_%.py,ball images fidelity intervals agreement resize hardener apgd restoration \
  training_reward) tests/test_onnx.py::test_a_torch_that_is_too_old_is_refused

lowest: ## install the lowest versions that are allowed into runs/lowest (6 GB), and run the tests of what uses them
	$(PYTHON) -m venv runs/lowest
	$(LOWEST) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r locks/lowest.txt
	$(LOWEST) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(LOWEST) -m pytest $(OLD) $(LOWEST_TESTS)
	$(LOWEST) -m pip uninstall --quiet --yes onnxscript torchvision
	$(LOWEST) -m pip install --quiet --disable-pip-version-check torch==2.4.0
	$(LOWEST) -m pytest $(OLD) $(OLD_TORCH_TESTS)

coverage: $(VENV)/.installed-dev browser ## the tests once more, counting the lines that none of them runs; a third slower
	$(PYTEST) --cov=resolute --cov-report=term-missing:skip-covered

docs: $(VENV)/.installed-dev ## build the site into runs/site; a warning is an error
	$(BIN)/python docs/site/build.py

lint: $(VENV)/.installed-dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## pyright, strict on src
	$(BIN)/basedpyright

check: test lint types ## everything that CI runs

# The report's tests drive a real browser. They skip with a reason where there is none and it cannot be installed.
browser:
	@command -v chromium >/dev/null || command -v chromium-headless-shell >/dev/null || command -v google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium-headless-shell >/dev/null; } \
	  || echo "no Chromium found: the browser tests of the report will be skipped"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml locks/run.txt locks/torch.txt | $(VENV)/bin/python
	$(call install,run)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml locks/test.txt locks/torch.txt | $(VENV)/bin/python
	$(call install,test)
	@touch $@ $(VENV)/.installed

# Keeps what is locked wherever pyproject.toml allows it; UPGRADE=--upgrade takes the newest.
UV := runs/tools/bin/uv pip compile pyproject.toml locks/build.in --python-version 3.11.5 --generate-hashes \
  --excludes locks/excluded.txt --no-annotate --no-header --quiet
TESTED := --universal --constraint locks/torch.txt --no-emit-package torch $(UPGRADE)

lock: ## write the locks again, after a change of pyproject.toml
	$(PYTHON) -m venv runs/tools && runs/tools/bin/python -m pip install --quiet --disable-pip-version-check 'uv<0.14'
	$(UV) $(TESTED) --output-file locks/run.txt
	$(UV) $(TESTED) --extra dev --output-file locks/test.txt
	$(UV) --upgrade --resolution lowest-direct --python-platform linux --extra dev --output-file locks/lowest.txt

sbom: $(VENV)/.installed ## software bill of materials (CycloneDX) of the environment, in runs/sbom.json
	$(PYTHON) -m venv runs/tools && runs/tools/bin/python -m pip install --quiet --disable-pip-version-check 'cyclonedx-bom>=7,<8'
	runs/tools/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible --output-file runs/sbom.json

clean: ## remove the environment, caches and results
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .coverage
