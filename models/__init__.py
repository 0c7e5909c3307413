"""Generative models: one readable file each, meant to be copied and edited."""
