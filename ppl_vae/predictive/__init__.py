"""Replicated and new data: latents drawn, the model run on them, values in the form of the data."""
