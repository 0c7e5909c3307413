"""The bound of a particle filter: tighter than importance weighting on long sequences.

    FIVO_P  = E sum over t of log Z_t <= log p(x)         Z_t: P particles, see ``path_filter``
    FIVO_1  = ELBO,  and FIVO_P nears log p(x) as P grows

Of the weights of whole paths, ever fewer count the longer the paths are, and IWAE nears the ELBO.
A filter goes on from the states that explain the data so far, so that its bound loses a constant
for each step.

The gradient flows through the draws of the states and through their weights. It leaves out the
score of which particles were drawn anew, as Maddison et al. do: the term has the expectation that
makes the gradient unbiased, and a variance that drowns the rest.

Source: Maddison et al. (2017), sections 3 and 4, arXiv:1705.09279.
"""

from __future__ import annotations

from torch import Tensor

from ppl_vae.arguments import check_count
from ppl_vae.core.blocks import PROBE_ROWS
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, map_batch
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.elbo.objectives import RowBound
from ppl_vae.elbo.particle_bound import refuse_own_scales
from ppl_vae.elbo.path_filter import filtered
from ppl_vae.elbo.state_paths import StatePaths


class FIVO(RowBound):
    """The filtering variational objective, for sequences with a path of states (``MarkovPath``).

    Args:
        num_particles: P, states of each row at each step; 2 or more.

    Raises:
        ValueError: If P is not a whole number of at least 2.

    Example:
        >>> from ppl_vae import fit, sequences
        >>> from ppl_vae.guides.smoothing import SmoothingGuide
        >>> from ppl_vae.models.state_space import StateSpaceModel
        >>> data = sequences([torch.randn(4, 2) for _ in range(20)])
        >>> pair = StateSpaceModel(2), SmoothingGuide(2)
        >>> fit(*pair, data, elbo=FIVO(4), epochs=1, compile=False, progress=False).objective
        'FIVO'
    """

    def __init__(self, num_particles: int) -> None:
        check_count("num_particles", num_particles, 2)
        self.num_particles, self.vectorize_particles = int(num_particles), True
        self._paths: StatePaths | None = None

    @property
    def estimates_elbo(self) -> bool:
        """Whether the training loss is minus the ELBO in expectation: no, its bound is tighter."""
        return False

    def losses_and_surrogate(
        self, pair: Pair, batch: Batch, rows: int, kl_weight: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return minus the ELBO, the training loss, and the surrogate to differentiate.

        Args:
            pair: The model and the guide.
            batch: B rows.
            rows: N, the number of rows of the whole data set.
            kl_weight: The KL weight, a scalar; ``None`` means 1.

        Returns:
            Three scalars, in nats of the whole data set. The ELBO is that of one path for each row,
            at a KL weight of 1; the surrogate is the loss.
        """
        if self._paths is None:
            self._paths = self._checked_paths(pair, batch)
        paths = self._paths.on(batch)
        factor = rows / paths.rows
        # all padded steps: a recorded graph has the same steps for every batch of one shape
        found = filtered(
            paths, 1, self.num_particles, kl_weight=kl_weight, check=False, steps=paths.steps
        )
        loss = -factor * found.log_steps.sum().to(paths.drawn.dtype)
        return -factor * paths.whole.log_weights().sum(), loss, loss

    def _checked_paths(self, pair: Pair, batch: Batch) -> StatePaths:
        """Return the pair's paths, from a look at a few rows.

        Raises:
            ValueError: If the pair has other latents than one path, or draws without gradients, or
                observations that depend on more than the state of their own step.
        """
        few_rows = map_batch(batch, lambda field: field[:PROBE_ROWS])
        with pair.quiet_run():
            paths = StatePaths(pair, few_rows, "FIVO")
            of_rows = paths.on(few_rows)
            filtered(of_rows, 1, self.num_particles)
        self._check_sites(of_rows.whole)
        return paths

    @staticmethod
    def _check_sites(draw: Draw) -> None:
        """Raise if a site has a scale of its own, or a draw whose gradient would be wrong."""
        refuse_own_scales(draw, "FIVO")
        for name, site in draw.without_gradient().items():
            raise ValueError(
                f'site "{name}": expected a reparameterized path under FIVO, got states of '
                f"{type(site['fn'].first).__name__}, through which no gradient flows; use "
                "TraceGraph_ELBO"
            )
