"""``fit``: stochastic variational inference, step by step and epoch by epoch."""
