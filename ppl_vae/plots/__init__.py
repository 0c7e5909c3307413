"""Figures: one function for each question, which takes arrays and returns matplotlib axes.

Every function draws on the ``ax`` that it is given, or on a new figure, and can be read in grey.
A notebook prints the axes where a cell ends in such a call; a semicolon after the call prevents it.
"""

from ppl_vae.plots.anomalies import attribution_bars as attribution_bars
from ppl_vae.plots.anomalies import p_value_calibration as p_value_calibration
from ppl_vae.plots.anomalies import score_histogram as score_histogram
from ppl_vae.plots.anomalies import strange_images as strange_images
from ppl_vae.plots.columns import column_comparison as column_comparison
from ppl_vae.plots.coverage import interval_coverage as interval_coverage
from ppl_vae.plots.curves import learning_curves as learning_curves
from ppl_vae.plots.detection import precision_recall_curves as precision_recall_curves
from ppl_vae.plots.detection import roc_curves as roc_curves
from ppl_vae.plots.differences import difference_intervals as difference_intervals
from ppl_vae.plots.distances import distance_histogram as distance_histogram
from ppl_vae.plots.estimators import estimator_plane as estimator_plane
from ppl_vae.plots.gaps import gap_bars as gap_bars
from ppl_vae.plots.images import image_grid as image_grid
from ppl_vae.plots.importance import importance_map as importance_map
from ppl_vae.plots.maps import latent_map as latent_map
from ppl_vae.plots.overlays import density_overlay as density_overlay
from ppl_vae.plots.pit import pit_histogram as pit_histogram
from ppl_vae.plots.ranks import rank_differences as rank_differences
from ppl_vae.plots.reliability import elbo_bars as elbo_bars
from ppl_vae.plots.reliability import reliability as reliability
from ppl_vae.plots.statistic import statistic_histogram as statistic_histogram
from ppl_vae.plots.usage import usage_bars as usage_bars
from ppl_vae.plots.verdict import check_summary as check_summary
