"""The latent space: codes of rows, rows of codes, and paths between them."""
