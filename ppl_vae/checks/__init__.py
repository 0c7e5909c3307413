"""Predictive checks: statistics of the data beside statistics of replicated data sets."""
