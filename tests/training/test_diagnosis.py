"""A fit that stops being finite names the site, the batch, the row and the parameter."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule

from ppl_vae import fit, load
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.training.diagnosis import NotFiniteError

X = torch.randn(90, 4, generator=torch.Generator().manual_seed(0))
QUICK = {"epochs": 5, "batch_size": 32, "progress": False}


def failure(model, guide, data=X, **settings):
    with pytest.raises(NotFiniteError) as caught:
        fit(model, guide, data, **{**QUICK, **settings})
    return caught.value


@pytest.mark.parametrize("validate", [True, False])
def test_nan_in_one_cell_of_the_data(tmp_path, validate):
    """The cell changes after lint has read the data, as in a file that is written to."""
    data = np.memmap(tmp_path / "rows", dtype="float32", mode="w+", shape=(90, 4))
    data[:] = X.numpy()

    def plant(row, model, guide):
        data[37, 2] = np.nan

    with pyro.validation_enabled(validate):
        error = failure(GaussianModel(4, 2), NormalGuide(4, 2), data, callbacks=[plant])
    assert (error.culprit.half, error.culprit.site) == ("guide", "z")
    assert (error.culprit.row, error.culprit.rows) == (37, 1)
    assert "epoch 2, batch" in str(error)


class Breaks(torch.nn.Module):
    """NaN for the rows whose first feature is the largest, after some steps."""

    def __init__(self, after):
        super().__init__()
        self.inner, self.after, self.calls = torch.nn.Linear(4, 4), after, 0

    def forward(self, x):
        self.calls += self.training
        broken = self.training and self.calls > self.after
        return torch.where((x[..., :1] >= X[:, 0].max()) & broken, torch.nan, self.inner(x))


def test_nan_in_a_networks_output_after_some_steps():
    with pyro.validation_enabled(False):
        error = failure(GaussianModel(4, 2), NormalGuide(4, 2, encoder=Breaks(7)))
    assert (error.culprit.half, error.culprit.site) == ("guide", "z")
    assert error.culprit.row == int(X[:, 0].argmax())
    assert error.culprit.parameters == ()


class Collapsing(PyroModule):
    """A scale without a floor: it shrinks until the density overflows."""

    def __init__(self):
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            loc = torch.zeros(4)
            pyro.sample("x", dist.Normal(loc, self.log_scale.exp()).to_event(1), obs=0 * x)


@pytest.mark.parametrize("validate", [True, False])
def test_a_scale_that_shrinks_until_the_density_overflows(validate):
    with pyro.validation_enabled(validate), pytest.warns(UserWarning, match="one value"):
        error = failure(
            Collapsing(), None, epochs=500,
            optimizer=lambda p: torch.optim.SGD(p, 1e-2),
        )  # fmt: skip
    assert error.culprit.site in ("x", "?")
    assert "floor on the scales" in str(error)


class RootAtZero(PyroModule):
    """The loss is finite and its gradient is not: the root of |w| at w = 0, reached by one row."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(()))
        self.armed = False

    def forward(self, x):
        shift = self.w.expand(len(x)).clone()
        reach = x[..., 0] == X[:, 0].max()
        if self.armed and reach.any():
            shift[reach] = (self.w - self.w.detach()).abs().sqrt()
        with pyro.plate("data", len(x)):
            pyro.sample(
                "x", dist.Normal(shift[..., None], 1.0).expand([len(x), 4]).to_event(1), obs=x
            )


def test_a_gradient_that_is_not_finite():
    model = RootAtZero()

    def arm(row, model, guide):
        model.armed = row["epoch"] == 2

    error = failure(model, None, callbacks=[arm])
    assert "the gradient is no longer finite at epoch 3" in str(error)
    assert (error.culprit.site, error.culprit.row) == ("x", int(X[:, 0].argmax()))
    assert error.culprit.parameters == ("model.w",)
    assert torch.isfinite(model.w)


class Unlucky(PyroModule):
    """NaN where a latent is drawn far from 0: only the draws of that step tell which row."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(()))
        self.limit, self.row = 9.0, None

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            far = z > self.limit
            if far.any() and self.row is None:
                self.row = x[int(far.nonzero()[0]), 0].item()
            loc = torch.where(far, torch.nan, z * self.w)
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x[:, 0])


def test_the_diagnosis_repeats_the_draws_of_the_failed_step():
    model = Unlucky()

    def guide(x):
        loc = pyro.param("loc", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0))

    def lower(row, model, guide):
        model.limit = 2.0

    with pyro.validation_enabled(False):
        error = failure(model, guide, callbacks=[lower], epochs=30)
    assert (error.culprit.half, error.culprit.site) == ("model", "x")
    assert X[error.culprit.row, 0].item() == pytest.approx(model.row)


def test_the_last_finite_weights_are_restored_and_saved(tmp_path):
    model, guide = GaussianModel(4, 2), NormalGuide(4, 2)
    good = []

    def break_it(row, model, guide):
        good.append({name: value.clone() for name, value in model.state_dict().items()})
        if row["epoch"] == 3:
            with torch.no_grad():
                model.decoder[0].weight[0, 0] = torch.nan

    error = failure(model, guide, callbacks=[break_it], validation=0.2, run=tmp_path / "run")
    assert "model.decoder.0.weight" in str(error)
    assert "the weights are those of epoch" in str(error)
    assert error.culprit.parameters == ("model.decoder.0.weight",)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    again, _ = load(tmp_path / "run")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_weights_that_are_not_finite_are_replaced_by_the_last_snapshots(tmp_path, monkeypatch):
    from ppl_vae.saving import snapshots

    monkeypatch.setattr(snapshots, "SOONEST", 0.0)
    monkeypatch.setattr(snapshots, "SHARE", 0)
    model, guide = GaussianModel(4, 2), NormalGuide(4, 2)

    def explode(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda epoch: 1e-4 if epoch < 2 else 1e38
        )

    error = failure(
        model,
        guide,
        run=tmp_path / "run",
        scheduler=explode,
        optimizer=lambda p: torch.optim.SGD(p, lr=1.0),
    )
    assert "the weights are those of step 6" in str(error)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    again, _ = load(tmp_path / "run")
    assert all(value.isfinite().all() for value in again.state_dict().values())


def test_where_the_batch_gives_finite_values_again_the_error_says_so():
    class Once(PyroModule):
        """NaN in one call alone."""

        def __init__(self):
            super().__init__()
            self.w, self.armed = torch.nn.Parameter(torch.zeros(())), False

        def forward(self, x):
            loc, self.armed = torch.nan if self.armed else 0.0, False
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(self.w + loc, 1.0).expand([len(x)]), obs=x[:, 0])

    def arm(row, model, guide):
        model.armed = True

    with pyro.validation_enabled(False):
        error = failure(Once(), None, callbacks=[arm], compile=False)
    assert error.culprit is None
    assert "the same random state gave finite values, so no site can be named" in str(error)
