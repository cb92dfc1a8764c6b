# The kit's commands: demo, test, test-all, verify, lab, student, artifacts, figures. `install` and `slow` are steps of them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-all lab student artifacts figures install slow verify

PYTHON ?= python3.11
VENV ?= .venv
PROFILE ?= tiny
CASES ?=
COPIES ?=
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# Unpacked from a tar of `mmedlite bundle`: pip takes the wheels that lie here and asks no network.
ifneq ($(wildcard wheels),)
export PIP_NO_INDEX := 1
export PIP_FIND_LINKS := wheels
endif
SHA256SUM := $(if $(shell command -v sha256sum),sha256sum,shasum -a 256)
DAMAGED := These files are not as they were packed: unpack the tar again. If you changed them yourself, delete SHA256SUMS.

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# One thread: the same numbers on any number of cores; what can go side by side takes a process each.
export OMP_NUM_THREADS ?= 1

help:
	@echo "make demo [PROFILE=tiny] [CASES=TABLE] [COPIES=student]  install once, run the seven notebooks, check every number"
	@echo "make lab                  open the notebooks in Jupyter Lab"
	@echo "make student              write the students' and the instructor's copies of the notebooks anew"
	@echo "make test                 lint, types, unit tests, mutants, every notebook against its stored outputs"
	@echo "make test-all             make test and make verify, then the slow suites"
	@echo "make verify               score and count the stored answers again; a changed copy must be found"
	@echo "make artifacts            rebuild everything stored (up to 4 hours; resumes)"
	@echo "make figures              count the stored evidence again, draw it, fill README"

install: $(STAMP)

# torch comes first, held to the lock, so that a damaged download of the largest wheel shows at once.
$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found. Install Python 3.11, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@test ! -f SHA256SUMS || (set -o pipefail; $(SHA256SUM) -c SHA256SUMS | sed '/: OK$$/d') || { echo "$(DAMAGED)"; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --constraint requirements.lock "$$(grep '^torch==' requirements.lock)"
	$(PY) -m pip install --requirement requirements.lock
	$(PY) -m pip install --no-deps --no-build-isolation --editable .
	touch $@

demo: $(STAMP)
	@$(PY) -m mmedlite.demo --profile $(PROFILE) $(if $(CASES),--cases "$(CASES)") $(if $(COPIES),--copies $(COPIES))

lab: $(STAMP)
	$(PY) -m jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

student: $(STAMP)
	$(PY) -m mmedlite.copies

artifacts: $(STAMP)
	$(PY) -m figures.artifacts

figures: $(STAMP)
	$(PY) -m figures.evidence
	for script in figures/draw_*.py; do $(PY) -m "figures.$$(basename "$$script" .py)"; done
	$(PY) -m figures.mirror
	$(PY) -m figures.readme
	$(PY) -m mmedlite.copies

# The last notebook first: each must do without what the earlier ones make, from the stored reference run. The demo runs them in order.
test: $(STAMP)
	rm -rf reports runs/nbval
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pytest tests --ignore=tests/slow --ignore=tests/timed --ignore=tests/browser -n 2 --dist loadfile --junitxml=reports/tests.xml
	MMEDLITE_PROFILE=tiny MMEDLITE_RUN="$(CURDIR)/runs/nbval" $(PY) -m pytest -p tests.nbval_plugin --nbval --nbval-cell-timeout=900 \
		--nbval-kernel-startup-timeout=180 --junitxml=reports/notebooks.xml $$(ls -r notebooks/0*.ipynb)
	$(PY) tests/check_suites.py reports test

verify: $(STAMP)
	test -f data/phantoms/card.json || $(PY) -m data_prep phantoms
	$(PY) -m mmedlite verify artifacts
	$(PY) -m mmedlite store audit artifacts/opinions
	$(PY) -m mmedlite verify figures/data
	$(PY) tests/tamper.py

slow: $(STAMP)
	$(PY) -m pytest tests/timed --junitxml=reports/timed.xml
	$(PY) -m pytest tests/slow tests/browser -n 2 --dist loadfile --junitxml=reports/slow.xml
	$(PY) tests/check_suites.py reports all

test-all: test verify
	$(MAKE) slow
