"""Figures: arrays in, matplotlib Axes out, one function a question. Readable in grey."""

from ppl_vae.plots.curves import learning_curves
from ppl_vae.plots.images import image_grid
from ppl_vae.plots.maps import latent_map
from ppl_vae.plots.reliability import elbo_bars, reliability

__all__ = ["elbo_bars", "image_grid", "latent_map", "learning_curves", "reliability"]
