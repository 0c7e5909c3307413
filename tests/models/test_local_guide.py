"""The local guide: parameters for each row, no answer for others, and a way to fit those."""

import pytest
import torch

from ppl_vae import build, elbo_terms, fit, load, log_likelihood, refine, save
from ppl_vae.guides.local import LocalGuide
from ppl_vae.models.ppca import PPCAModel

pytestmark = pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")


def fitted():
    torch.manual_seed(0)
    model = PPCAModel(4, latents=2).requires_grad_(False)
    data = {"x": model.density().sample((30,)), "index": torch.arange(30)}
    guide = build(LocalGuide, data, latents=2)
    fit(
        model, guide, data, epochs=60, batch_size=30, compile=False, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 0.1),
    )  # fmt: skip
    return model, guide, data


def elbo(model, guide, data):
    return elbo_terms(model, guide, data, num_samples=100).sum(axis=1).to_numpy()


def test_each_row_has_its_own_posterior_and_other_rows_have_none(tmp_path):
    model, guide, data = fitted()
    exact = model.log_prob(data["x"]).numpy()
    assert (exact - elbo(model, guide, data)).mean() < 0.3  # a diagonal guide's gap; 3 before
    some = {name: values[[4, 2]] for name, values in data.items()}
    assert elbo(model, guide, some).shape == (2,)
    save(model, guide, tmp_path / "run", data=data)
    for half in (guide, load(tmp_path / "run")[1]):
        for other in ({**some, "x": some["x"] + 1}, {**some, "index": some["index"] + 1}):
            with pytest.raises(ValueError, match="expected the row that was fitted at each index"):
                log_likelihood(model, half, other)
        with pytest.raises(ValueError, match=r"indices from 0 to 29.*refine\(model, None, data\)"):
            log_likelihood(model, half, {**some, "index": some["index"] + 28})


def test_held_out_rows_are_refused_by_fit_and_fitted_by_refine():
    model, _, data = fitted()
    fresh = build(LocalGuide, data, latents=2)
    with pytest.raises(ValueError, match="so leave validation= out"):
        fit(model, fresh, data, validation=0.2, epochs=1, compile=False, progress=False)
    new = {"x": data["x"][:5] + 0.1, "index": torch.arange(5)}
    refined = refine(model, None, new, lr=0.1)
    exact = model.log_prob(new["x"]).numpy()
    assert (exact - elbo(model, refined, new)).mean() < 0.1


@pytest.mark.parametrize("argument", ["rows", "latents"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "a", True])
def test_sizes_without_a_meaning_are_refused_by_name(argument, value):
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        LocalGuide(**{"rows": 4, "latents": 2, argument: value})
