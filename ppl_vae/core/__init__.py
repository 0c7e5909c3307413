"""A model and a guide run on a batch, the sites in their traces, and passes over blocks of rows."""
