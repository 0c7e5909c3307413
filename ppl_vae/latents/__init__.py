"""The latent space: codes of rows, rows from codes, and rows along lines between codes."""
