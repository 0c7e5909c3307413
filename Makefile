# Each target from nothing: `make demo`, `make test`, and while editing `make quick`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# What `make quick` runs: files that take about a second at most, some of every folder of tests/ but
# compiled/, where every test traces or compiles. A file that is not named here runs in `make test`.
QUICK_FILES := \
  test_distributions.py test_docstring_examples.py test_markov.py anomaly/test_same_form.py \
  anomaly/test_scoring.py benchmarks/test_checks.py benchmarks/test_imputation.py \
  benchmarks/test_topics.py checks/test_site_pairs.py checks/test_statistics.py \
  checks/test_user_statistics.py cli/test_check.py compat/test_of_pyro.py \
  core/test_failed_runs.py core/test_observed_values.py core/test_row_plate.py \
  data/test_files.py data/test_rows.py data/test_schema.py distributions/test_mixed.py \
  docs/test_extensions.py elbo/test_moved.py elbo/test_particles.py elbo/test_within_family.py \
  evaluation/test_points.py evaluation/test_same_observations.py evaluation/test_summary.py \
  examples/test_mini.py examples/test_notebooks.py examples/test_shapes.py guides/test_delta.py \
  guides/test_multivariate_normal.py imputation/test_draws.py imputation/test_refusals.py \
  latents/test_summed_codes.py latents/test_traversals.py linting/test_errors.py \
  linting/test_estimators.py linting/test_sites.py models/test_likelihoods.py \
  models/test_local_guide.py nn/test_checked.py nn/test_convolutions.py nn/test_flow_layers.py \
  plots/test_anomaly_plots.py plots/test_pit_plots.py plots/test_style.py \
  predictive/test_factors.py predictive/test_global_draws.py predictive/test_memory.py \
  report/test_comparison_section.py report/test_findings.py report/test_run_facts.py \
  saving/test_old_runs.py sklearn_interface/test_parameters.py training/test_diagnosis.py \
  training/test_global_sum.py training/test_optimizers.py zoo/test_build.py

.PHONY: demo test quick slow docs dist lint types format clean

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/digits.py

# Everything that must hold, but the slow tests: under fifteen minutes on two idle cores.
test: lint
	$(PYTEST) -m "not slow"

# A look at every folder while editing, under a minute on two idle cores: no lint, and the tests of
# QUICK_FILES alone. It does not stand in for `make test`.
quick: $(VENV)/test.stamp
	$(PYTEST) -m "not slow" $(QUICK_FILES:%=tests/%)

# Long studies and soaks.
slow: $(VENV)/test.stamp
	$(PYTEST) -m slow

# The site, in build/site: every example runs as it is, which takes long the first time; with QUICK=1
# each runs with a short setting. Warnings are errors.
docs: $(VENV)/test.stamp
	QUICK=$(QUICK) $(BIN)/python -m sphinx -W --keep-going -q -b html -d build/doctrees docs build/site
	@echo "Open build/site/index.html"

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory types
	cd build/tree && ../../$(BIN)/lint-imports --config ../../pyproject.toml --cache-dir ../../.import_linter_cache

# Type checker and import rules see the packages as an installed wheel lays them out:
# models/ and guides/ inside ppl_vae/.
types: $(VENV)/test.stamp
	rm -rf build/tree && mkdir -p build/tree && cp -r ppl_vae build/tree/
	cp -r models guides build/tree/ppl_vae/
	cd build/tree && ../../$(BIN)/mypy --config-file ../../pyproject.toml \
	  --cache-dir ../../.mypy_cache -p ppl_vae

# Wheel and source archive in build/dist, each tried in an empty environment of $(PYTHON).
dist: $(VENV)/test.stamp
	rm -rf build/dist *.egg-info/SOURCES.txt
	$(BIN)/python -m build --outdir build/dist .
	$(BIN)/python scripts/smoke_test.py build/dist/* --python $(PYTHON)

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) (a few minutes, once)"
	$(PIP) -c constraints.txt -e '.[examples]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) (a few minutes, once)"
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@
