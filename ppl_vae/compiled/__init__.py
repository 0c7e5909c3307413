"""One graph of tensor operations instead of a function's Python, and its compilation."""
