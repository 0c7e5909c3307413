"""Predictive checks: statistics of the data beside those of replicated data sets."""
