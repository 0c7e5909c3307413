"""Tests of the estimators are skipped where scikit-learn is absent."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("sklearn") else ["test_*.py"]
