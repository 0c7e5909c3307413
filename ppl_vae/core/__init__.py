"""A model and a guide run on a batch, and what their traces say of sites and plates."""
