"""One HTML page about a fit: what it measured, and what the model misses."""
