# Each target from nothing: `make demo`, `make test`, and while editing `make quick`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# What `make quick` leaves out: the slow tests, and files that take more than a second, because they
# fit or draw until a closed form is met, compile, kill fits, or start processes. A file is left in
# from every folder of tests/ but compiled/, where every test traces or compiles.
NOT_QUICK := \
  anomaly/test_conformal.py anomaly/test_detector.py anomaly/test_fitted_detector.py \
  anomaly/test_saved_detectors.py anomaly/test_scorer.py anomaly/test_scores.py \
  anomaly/test_step_scores.py anomaly/test_streams.py benchmarks/test_anomaly.py \
  benchmarks/test_anomaly_digits.py benchmarks/test_deep_mixture.py benchmarks/test_imputation.py \
  benchmarks/test_khat.py benchmarks/test_larger_than_memory.py benchmarks/test_mnist.py \
  benchmarks/test_scale.py benchmarks/test_score_file.py benchmarks/test_sequences.py \
  benchmarks/test_sklearn_interface.py benchmarks/test_step.py benchmarks/test_tables.py \
  benchmarks/test_topics.py benchmarks/test_vector_quantized.py benchmarks/test_zoo.py \
  checks/test_calibration.py checks/test_covariates.py checks/test_edge_cases.py \
  checks/test_p_values.py checks/test_planted_faults.py checks/test_predictive_checks.py \
  checks/test_privacy.py checks/test_sequences.py checks/test_user_statistics.py cli/test_audit.py \
  cli/test_columns.py cli/test_command_page.py cli/test_compare.py cli/test_evaluate.py \
  cli/test_fields.py cli/test_folders.py cli/test_impute.py cli/test_lint_fit.py \
  cli/test_list_new.py cli/test_processes.py cli/test_report.py cli/test_score.py \
  cli/test_sequence_files.py cli/test_start.py cli/test_tables.py cli/test_use.py \
  compat/test_of_torch.py compat/test_private_names.py compiled/test_blow_ups.py \
  compiled/test_cancelling_costs.py compiled/test_changes.py compiled/test_equality.py \
  compiled/test_faults.py compiled/test_few_channels.py compiled/test_fit.py \
  compiled/test_large_numbers.py compiled/test_live_failures.py compiled/test_many_steps.py \
  compiled/test_near_an_optimum.py compiled/test_reported_elbo.py compiled/test_sunk_expands.py \
  core/test_covariates.py core/test_effect_guides.py core/test_failed_sums.py \
  core/test_far_rows.py core/test_held_modules.py core/test_pair.py \
  core/test_plates_of_the_batch.py core/test_row_plate.py core/test_subsampled_plates.py \
  core/test_supports.py core/test_svi_scripts.py core/test_threads.py core/test_world.py \
  data/test_arrow.py data/test_columns.py data/test_mixed_frames.py data/test_mixed_tables.py \
  data/test_sequence_columns.py data/test_sequence_messages.py data/test_shuffle.py \
  data/test_stored.py docs/test_errors.py docs/test_pages.py docs/test_site.py \
  elbo/test_baselines.py elbo/test_bound_faults.py elbo/test_bounds.py elbo/test_fivo.py \
  elbo/test_global_latents.py elbo/test_log_density.py elbo/test_objectives.py \
  elbo/test_one_by_one.py elbo/test_refinement.py evaluation/test_annealing.py \
  evaluation/test_calibration_of_zoo.py evaluation/test_compare.py \
  evaluation/test_gradient_estimators.py evaluation/test_guide_calibration.py \
  evaluation/test_inference_gap.py evaluation/test_inference_gap_bad_input.py \
  evaluation/test_likelihood.py evaluation/test_particle_filter.py \
  evaluation/test_particle_pass.py evaluation/test_particle_terms.py evaluation/test_points.py \
  evaluation/test_rank_tests.py evaluation/test_summed_latents.py \
  evaluation/test_unreliable_leads.py examples/test_amortized_or_local.py \
  examples/test_autoencoders.py examples/test_banana.py examples/test_cell_counts.py \
  examples/test_codebook.py examples/test_convolutions.py examples/test_digits.py \
  examples/test_digits_without_labels.py examples/test_estimators.py examples/test_few_labels.py \
  examples/test_importance_sampling.py examples/test_mini.py examples/test_music.py \
  examples/test_pixel_likelihoods.py examples/test_ppca.py examples/test_priors.py \
  examples/test_scikit_learn.py examples/test_second_layer.py examples/test_sensors.py \
  examples/test_small_encoder.py examples/test_strange_rows.py examples/test_svi_script.py \
  examples/test_topics.py guides/test_amortized.py guides/test_delta.py guides/test_denoising.py \
  guides/test_sequence_guides.py imputation/test_far_tails.py imputation/test_forms.py \
  imputation/test_kinds.py imputation/test_linear_gaussian.py imputation/test_tables.py \
  latents/test_codes.py latents/test_disentanglement.py latents/test_generated_tables.py \
  latents/test_usage.py latents/test_usage_of_pairs.py linting/test_clean_pairs.py \
  linting/test_constants.py linting/test_coupling.py linting/test_likelihood.py \
  models/test_bayesian_decoder.py models/test_conditions.py models/test_deep_mixture.py \
  models/test_discrete.py models/test_exemplar.py models/test_flow_guide.py models/test_flows.py \
  models/test_images.py models/test_layers.py models/test_mixture_and_hmm.py models/test_models.py \
  models/test_not_missing_at_random.py models/test_pixels.py models/test_ppca.py \
  models/test_priors.py models/test_refusals.py models/test_semisupervised.py \
  models/test_sequences.py models/test_table.py models/test_topics.py \
  models/test_vector_quantized.py models/test_zoo.py nn/test_checked.py plots/test_plots.py \
  plots/test_predictive_plots.py predictive/test_drawn_posteriors.py predictive/test_forecasts.py \
  predictive/test_moments.py predictive/test_replicates.py report/test_audit_section.py \
  report/test_browser.py report/test_check_section.py report/test_content.py \
  report/test_examples.py report/test_file.py report/test_strange_section.py \
  saving/test_construction.py saving/test_integrity.py saving/test_locks.py saving/test_metrics.py \
  saving/test_own_code.py saving/test_record.py saving/test_resume.py saving/test_resume_kinds.py \
  saving/test_running_program.py saving/test_save_load.py saving/test_settings.py \
  sklearn_interface/test_check_estimator.py sklearn_interface/test_copies.py \
  sklearn_interface/test_density.py sklearn_interface/test_knobs.py \
  sklearn_interface/test_others.py sklearn_interface/test_pyod.py test_arguments.py test_arviz.py \
  test_bars.py test_callbacks.py test_packaging.py test_release.py test_uniform_counts.py \
  test_verdicts.py training/test_console.py training/test_convergence.py training/test_fit.py \
  training/test_large_gradients.py training/test_last_row.py training/test_like_lengths.py \
  training/test_one_elbo.py training/test_run_directory.py training/test_shards.py \
  training/test_world.py

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
