"""Every model with every guide: what must hold of any pair, and the table of pairs left out.

A new file in models/ or guides/ joins by being there. ``pytest -s -k table`` prints the table.
One fit of each pair is shared by all tests of the pair; pytest runs these one after the other.
"""

import copy
import functools

import numpy as np
import pyro
import pytest
import torch
from parts.steps import Sides
from parts.zoo import EVERY_TIME, refusal, zoo_lint, zoo_names, zoo_pair
from pyro import poutine

import ppl_vae
from ppl_vae.cli.pairs import NO_GUIDE
from ppl_vae.core.pair import Pair
from ppl_vae.core.sites import sample_sites, traces, unmasked_cells, with_role
from ppl_vae.core.supports import support_of
from ppl_vae.elbo.points import point_latents
from ppl_vae.zoo.catalog import zoo

NAMES = zoo_names()


def of_pairs(is_slow):
    """Parametrize a test over all pairs, of which those that ``is_slow`` picks run slow-marked."""
    marked = [pytest.param(n, marks=pytest.mark.slow if is_slow(*n) else []) for n in NAMES]
    return pytest.mark.parametrize("names", marked, ids="-".join, scope="module")


# Guides that differ from normal in a part alone run with few models every time; the table lints
# them with all. The traced step of linear is compared in compiled/test_equality.py.
every_pair = of_pairs(lambda model, guide: model not in EVERY_TIME.get(guide, (model,)))
every_pair_traced = of_pairs(
    lambda model, guide: guide == "linear" or model not in EVERY_TIME.get(guide, (model,))
)
pytestmark = [
    pytest.mark.filterwarnings("ignore:log_likelihood. k-hat"),
    pytest.mark.filterwarnings("ignore:site .*expected a baseline"),  # guides that draw, by default
]


EPOCHS = {"flow": 60, "categorical": 60, "bernoulli": 60}  # flows and scores learn slowly
LONG = {("table", "local"): 60}  # a row's own numbers move once in an epoch, among noise


class Fitted:
    """A pair, fitted for 48 steps, or for 240 where its guide learns slowly.

    Attributes:
        model, guide, data: The pair and its rows.
        unmoved: Names of the parameters that the fit left where they were.
        elbos: Estimates of the ELBO from three seeds, in nats per row: before the fit, and after.
        points: Latents that the guide gives as a point.
    """

    def __init__(self, names):
        self.model, self.guide, self.data = pair = zoo_pair(*names)
        before, elbos = self.parameters(), self.estimates()
        epochs = LONG.get(names, EPOCHS.get(names[1], 12))
        ppl_vae.fit(
            *pair, epochs=epochs, batch_size=16, compile=False, progress=False,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        )  # fmt: skip
        after = self.parameters()
        self.unmoved = [name for name, value in before.items() if torch.equal(value, after[name])]
        self.elbos = elbos, self.estimates()
        run = Pair.of(self.model, self.guide, "data")
        with run.quiet_run():
            self.points = point_latents(run, self.fields()) if self.guide else []

    def parameters(self):
        halves = {"model": self.model, "guide": self.guide or torch.nn.Module()}
        return {
            f"{role}.{name}": parameter.detach().clone()
            for role, half in halves.items()
            for name, parameter in half.named_parameters()
            if parameter.requires_grad
        }

    def estimates(self):
        pair = self.model, self.guide, self.data
        terms = [ppl_vae.elbo_terms(*pair, num_samples=10, seed=seed) for seed in range(3)]
        return np.array([table.sum(axis=1).mean() for table in terms])

    def fields(self, count=None):
        """The first rows as a mapping, as the model reads them."""
        fields = self.data if isinstance(self.data, dict) else {"x": self.data}
        return {name: values[:count] for name, values in fields.items()}

    def rows(self, count):
        """The first rows in the data's own form."""
        fields = self.fields(count)
        return fields if isinstance(self.data, dict) else fields["x"]

    def traces(self):
        """Traces of model and guide on all rows."""
        pair = Pair.of(self.model, self.guide, "data")
        with pair.quiet_run():
            return traces(pair, self.fields())


@functools.cache
def _fitted(names):
    return Fitted(names)


@pytest.fixture
def pair(names):
    """The fitted pair; a pair that does not fit together is skipped, with the reason."""
    if reason := refusal(*names):
        pytest.skip(reason)
    return _fitted(names)


@pytest.mark.parametrize("every_guide", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_table_of_models_and_guides(every_guide):
    """Every model has a guide, every guide a model, and every pair left out has a reason."""
    asked = [
        (model, guide)
        for model, guide in NAMES
        if every_guide or model in EVERY_TIME.get(guide, (model,))
    ]
    left_out = {names: reason for names in asked if (reason := refusal(*names))}
    columns = [*zoo("guides"), NO_GUIDE]
    width = max(map(len, zoo("models")))
    lines = ["", "  ".join([" " * width, *columns])]
    for model in zoo("models"):
        cells = [model.ljust(width)]
        for guide in columns:
            answer = "no" if (model, guide) in left_out else "yes"
            cells.append((answer if (model, guide) in asked else "").ljust(len(guide)))
        lines.append("  ".join(cells))
    lines += [f"{model} with {guide}: {reason}" for (model, guide), reason in left_out.items()]
    print("\n".join(lines))  # noqa: T201  read by people
    fit_together = [names for names in asked if names not in left_out]
    assert {model for model, _ in fit_together} == set(zoo("models"))
    assert {guide for _, guide in fit_together} >= set(zoo("guides"))


@every_pair
def test_lint_finds_nothing(pair, names):
    """A guide that draws discrete latents has no baseline by default, which lint warns of."""
    found = [each for each in zoo_lint(*names).findings if "a baseline" not in each.problem]
    assert found == []


@every_pair
def test_every_parameter_moves_and_the_elbo_rises_by_more_than_its_noise(pair):
    assert pair.unmoved == []
    before, after = pair.elbos
    assert after.min() > before.max()


@every_pair
def test_log_likelihood_is_not_below_the_elbo(pair):
    if pair.points:
        with pytest.raises(ValueError, match="point"):
            ppl_vae.log_likelihood(pair.model, pair.guide, pair.data)
        return
    scores = ppl_vae.log_likelihood(pair.model, pair.guide, pair.data, num_samples=50)
    assert np.isfinite(scores["log_prob"]).all()
    assert (scores["log_prob"] >= scores["elbo"] - 1e-5 * scores["elbo"].abs()).all()
    after = pair.elbos[1]
    assert scores["log_prob"].mean() >= after.mean() - np.ptp(after) - 1e-5 * abs(after.mean())


@every_pair
def test_a_reopened_pair_gives_the_same_numbers(pair, tmp_path):
    ppl_vae.save(pair.model, pair.guide, tmp_path / "run")
    reopened = ppl_vae.load(tmp_path / "run")
    columns = [
        ppl_vae.elbo_terms(*halves, pair.data, num_samples=10)
        for halves in ((pair.model, pair.guide), reopened)
    ]
    assert columns[0].equals(columns[1])


def assert_in_support(site, values):
    support = support_of(site["fn"])
    assert support is None or bool(support.check(values).all())


@every_pair
def test_replicates_have_the_shape_and_the_support_of_the_data(pair):
    observed = with_role(pair.traces()[0], "data")
    drawn = ppl_vae.posterior_predictive(pair.model, pair.guide, pair.data, num_samples=3)
    assert drawn.keys() == observed.keys()
    for name, values in drawn.items():
        assert values.shape == (3, *observed[name]["value"].shape)
        assert_in_support(observed[name], values)
        assert (values[0] != values[1]).any()


@every_pair
def test_the_pair_can_be_checked(pair):
    check = ppl_vae.predictive_check(pair.model, pair.guide, pair.data, num_samples=19)
    numbers = check.frame[["observed", "mean", "lower", "upper", "p_value"]].to_numpy()
    assert np.isfinite(numbers).all()
    sites = with_role(pair.traces()[0], "data")
    for name, ranks in check.pit.items():
        if name not in sites:
            assert np.isfinite(ranks).all()
            continue
        unmasked = unmasked_cells(sites[name]).flatten(1).numpy()
        rows = np.isfinite(ranks).reshape(len(unmasked), -1)  # of sequences a line for each step
        assert (rows == unmasked).all()


@every_pair
def test_batches_may_have_one_row_and_be_ragged(pair):
    model, guide = copy.deepcopy((pair.model, pair.guide))
    history = ppl_vae.fit(
        model, guide, pair.rows(17), epochs=1, batch_size=16, compile=False, progress=False
    )
    assert history.frame["step"].iloc[-1] == 2
    assert np.isfinite(history.frame["elbo"]).all()
    terms = [ppl_vae.elbo_terms(pair.model, pair.guide, pair.rows(n)) for n in (1, 17)]
    assert [table.shape for table in terms] == [(1, terms[0].shape[1]), (17, terms[0].shape[1])]


@every_pair
def test_two_particles_in_one_run_are_two_runs(pair):
    def in_a_plate(half):
        @functools.wraps(half.forward)  # the fields that the half reads
        def run(*args, **kwargs):
            with pyro.plate("particles", 2, dim=-2):
                half(*args, **kwargs)

        return run

    both = Pair.of(in_a_plate(pair.model), pair.guide and in_a_plate(pair.guide), "data")
    single = Pair.of(pair.model, pair.guide, "data")
    with both.quiet_run():
        model_trace, guide_trace = traces(both, pair.fields())
        together = sample_sites(model_trace)
        latents = with_role(model_trace, "latent")  # what the model sums out is not in the guide
        if pair.guide is not None:
            latents |= with_role(guide_trace, "latent", "auxiliary")
        for number in range(2):
            values = {name: site["value"][number] for name, site in latents.items()}
            half = poutine.condition(single.model, values)
            alone = sample_sites(poutine.trace(half).get_trace(pair.fields()))
            assert alone.keys() == together.keys()
            for name, site in alone.items():
                alone_shape = site["fn"].batch_shape or (1,)  # () outside the row plate
                assert together[name]["fn"].batch_shape == (2, *alone_shape)
                found = together[name]["fn"].log_prob(together[name]["value"])
                right = site["fn"].log_prob(site["value"])
                torch.testing.assert_close(found[number], right, rtol=1e-5, atol=1e-4)


@every_pair_traced
@pytest.mark.usefixtures("pair", "double")
def test_the_traced_step_is_the_eager_step_and_double_precision_reaches_every_number(names):
    model, guide, data = zoo_pair(*names)
    sides = Sides(model, guide, data)
    sides.shake()
    (losses, gradients) = sides.compare()
    halves = [half for half in (model, guide) if half is not None]
    numbers = [losses, *gradients, *(v for half in halves for v in half.state_dict().values())]
    assert {value.dtype for value in numbers if value.is_floating_point()} == {torch.float64}


@every_pair
def test_new_rows_and_expected_rows_have_the_form_of_the_data(pair):
    observed = with_role(pair.traces()[0], "data")
    new = ppl_vae.generate(pair.model, pair.guide, pair.data, num_samples=60)
    latents = with_role(pair.traces()[0], "latent")
    if not latents:
        with pytest.raises(ValueError, match="expected a latent to reconstruct"):
            ppl_vae.reconstruct(pair.model, None, pair.data)
    expected = ppl_vae.reconstruct(pair.model, pair.guide, pair.data) if latents else None
    for rows in [new] if expected is None else [new, expected]:
        assert type(rows) is type(pair.data)
        fields = rows if isinstance(rows, dict) else {"x": rows}
        shapes = {name: tuple(values.shape) for name, values in fields.items()}
        assert shapes == {name: (60, *v.shape[1:]) for name, v in pair.fields().items()}
        assert all(bool(values.isfinite().all()) for values in fields.values())
    new = new if isinstance(new, dict) else {"x": new}
    for name, values in new.items():
        assert values.dtype == pair.fields()[name].dtype
        if name in observed:
            assert_in_support(observed[name], values)


@every_pair
def test_codes_are_finite(pair):
    if not with_role(pair.traces()[0], "latent"):
        pytest.skip("a model with nothing latent has no codes")
    codes = ppl_vae.encode(pair.model, pair.guide, pair.data)
    finite = np.isfinite(codes.to_numpy())
    assert len(codes) == 60
    if finite.all():
        return
    steps = pair.data["x"].shape[1]  # a code for each step, and none after a sequence's end
    assert np.array_equal(finite.sum(1) * steps, finite.shape[1] * np.asarray(pair.data["lengths"]))
