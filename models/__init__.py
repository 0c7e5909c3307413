"""Generative models p(x, z): one prior and one likelihood a file, meant to be copied and edited."""
