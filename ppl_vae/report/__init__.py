"""The HTML report of a fit: what was fitted, how good the fit is, and what the model misses."""
