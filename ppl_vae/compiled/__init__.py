"""A function of tensors as one graph of operations, traced and then compiled."""
