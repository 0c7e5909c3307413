"""Amortized guides q(z given x): one family a file, meant to be copied and edited."""
