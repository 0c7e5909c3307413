"""Amortized guides: one family a file, meant to be copied and edited."""
