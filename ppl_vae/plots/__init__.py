"""Figures: one function for each question, which takes arrays and returns matplotlib axes.

Every function draws on the ``ax`` that it is given, or on a new figure, and can be read in grey.
"""

from ppl_vae.plots.coverage import interval_coverage
from ppl_vae.plots.curves import learning_curves
from ppl_vae.plots.images import image_grid
from ppl_vae.plots.maps import latent_map
from ppl_vae.plots.overlays import density_overlay
from ppl_vae.plots.pit import pit_histogram
from ppl_vae.plots.reliability import elbo_bars, reliability
from ppl_vae.plots.statistic import statistic_histogram
from ppl_vae.plots.verdict import check_summary

__all__ = [
    "check_summary",
    "density_overlay",
    "elbo_bars",
    "image_grid",
    "interval_coverage",
    "latent_map",
    "learning_curves",
    "pit_histogram",
    "reliability",
    "statistic_histogram",
]
