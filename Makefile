# Every target does its own set-up: a virtual environment in .venv with the pinned versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CASES := digits-cam breast-cancer-grad breast-cancer-cam digits-grad
JOBS ?= $(shell $(PYTHON) -c 'import os; print(min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))')

# Each worker is one thread: two processes of one thread finish more audits than one process of two.
export OMP_NUM_THREADS = 1

.PHONY: help demo test evidence choices study kill kdd21 strength bench bench-peer check clean

help:
	@echo "make demo      a small fixed demonstration on embedded data, and its report (minutes)"
	@echo "make test      linters, types, import floors and the whole test suite"
	@echo "make evidence  the same cases with enough targets and victims for a claim; resumable"
	@echo "make choices   the embedded cases' settings beside others, on a split of their own"
	@echo "make study     three budgets x two explainers x three attacks, and the README's dose-response picture; resumable"
	@echo "make kill      kill -9 a study's driver 50 times locally and 10 times on Ray, and check what is left"
	@echo "make bench     what crafting, training, whole audits and scheduling cost, as ratios within one run, into docs/performance.md (most of an hour)"
	@echo "make kdd21     the paper's experiments at their committed size (hours); needs DATA=folder and WEIGHTS=file"
	@echo "make strength  how far the strongest attack reaches and what its choices buy, as in docs/strength.md (many hours; ONLY=\"reach/digits-cam\" for one)"
	@echo "make bench-peer  the same work by adversarial-robustness-toolbox, in an environment of its own"
	@echo "make check     linters, types and import floors alone"
	@echo "make clean     delete runs and the virtual environment"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "encircle needs Python 3.11 or newer; run: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/encircle audit $(CASES) --set targets=3 --set victims=2 \
	  --jobs $(JOBS) --runs runs/demo --report runs/demo/report.html --exit-zero \
	  --title "Demonstration: how far can poisoned training data bend an explanation?"

evidence: $(READY)
	$(BIN)/encircle audit $(CASES) --set targets=16 --set victims=3 --set seed=1 \
	  --jobs $(JOBS) --runs runs/evidence --report runs/evidence/report.html --exit-zero \
	  --title "Evidence: how far can poisoned training data bend an explanation?"
	$(BIN)/python tools/evidence.py runs/evidence

# Settings are compared here, on another split (seed 3) and other targets than the evidence (seed 1).
choices: $(READY)
	$(BIN)/python tools/choices.py --run runs/choices --jobs $(JOBS)

study: $(READY)
	$(BIN)/encircle study run how-much --folder runs/how-much --exit-zero
	$(BIN)/python tools/study.py runs/how-much

kill: $(READY)
	$(BIN)/python tools/kill.py --local 50 --cluster 10

# One process at a time: figures are ratios within one process, but a busy machine spreads them.
bench: $(READY)
	$(BIN)/python -m benchmarks.crafting
	$(BIN)/python -m benchmarks.attacks
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.audits
	$(BIN)/python -m benchmarks.profiles
	$(BIN)/python benchmarks/jobs.py --cluster
	$(BIN)/python tools/performance.py

# Resumable, and each study by itself (ONLY="table1 table2"). docs/data.md says what to get.
kdd21: $(READY)
	$(BIN)/encircle reproduce kdd21 --preset standard --data "$(DATA)" --weights "$(WEIGHTS)" --folder runs/kdd21-standard $(addprefix --only ,$(ONLY))
	ENCIRCLE_DATA="$(DATA)" $(BIN)/python tools/recipes.py --weights "$(WEIGHTS)"
	$(BIN)/python tools/kdd21.py runs/kdd21-standard

# Resumable, and each run by itself (ONLY="reach/digits-cam ablation/digits-grad"; results/strength/commands.yaml has them all).
strength: $(READY)
	$(if $(DATA),ENCIRCLE_DATA="$(DATA)") $(BIN)/python tools/measure.py $(ONLY) $(if $(WEIGHTS),--weights "$(WEIGHTS)")

# A well-known toolkit on the same work, in an environment of its own.
bench-peer: $(READY)
	$(PYTHON) -m venv .venv-peer
	.venv-peer/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . "adversarial-robustness-toolbox==1.20.1"
	.venv-peer/bin/python -m benchmarks.peer
	$(BIN)/python tools/performance.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder -m "not timed"
	$(BIN)/python -m pytest -m timed

clean:
	rm -rf runs .venv .venv-peer
