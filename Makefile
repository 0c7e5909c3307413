# Each target from nothing: `make demo`, `make test`, and while editing `make quick`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# What `make quick` leaves out: the slow tests, and files that take long because they fit or draw
# until a closed form is met, compile, kill fits, or start processes. A file is left in from every
# folder of tests/ but compiled/, where every test traces or compiles.
NOT_QUICK := \
  benchmarks/test_deep_mixture.py benchmarks/test_mnist.py benchmarks/test_scale.py \
  benchmarks/test_step.py benchmarks/test_vector_quantized.py benchmarks/test_zoo.py \
  checks/test_calibration.py checks/test_planted_faults.py predictive/test_replicates.py \
  checks/test_p_values.py checks/test_user_statistics.py checks/test_predictive_checks.py \
  cli/test_check.py cli/test_command_page.py cli/test_evaluate.py cli/test_lint_fit.py \
  cli/test_list_new.py cli/test_report.py docs/test_pages.py docs/test_site.py \
  compiled/test_blow_ups.py compiled/test_changes.py compiled/test_equality.py \
  compiled/test_faults.py compiled/test_fit.py compiled/test_large_numbers.py \
  elbo/test_bounds.py elbo/test_global_latents.py elbo/test_objectives.py \
  evaluation/test_likelihood.py evaluation/test_summed_latents.py \
  examples/test_codebook.py examples/test_convolutions.py examples/test_digits.py \
  examples/test_pixel_likelihoods.py examples/test_ppca.py \
  examples/test_priors.py examples/test_svi_script.py \
  models/test_conditions.py models/test_images.py models/test_ppca.py models/test_priors.py \
  models/test_vector_quantized.py \
  latents/test_codes.py report/test_browser.py report/test_content.py \
  saving/test_integrity.py saving/test_locks.py saving/test_resume.py saving/test_resume_kinds.py \
  training/test_run_directory.py training/test_world.py \
  test_arviz.py test_packaging.py test_release.py

.PHONY: demo test quick slow docs dist lint types format clean

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/digits.py

# Everything that must hold, but the slow tests: under fifteen minutes on two idle cores.
test: lint
	$(PYTEST) -m "not slow"

# A look at every folder while editing, under a minute on two idle cores: no lint, and of the tests
# those of NOT_QUICK are left out. It does not stand in for `make test`.
quick: $(VENV)/test.stamp
	$(PYTEST) -m "not slow" $(NOT_QUICK:%=--ignore=tests/%)

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
