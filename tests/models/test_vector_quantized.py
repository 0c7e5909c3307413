"""The pair with a codebook: the gradient of VQ-VAE, nearest codes, the prior, refusals."""

import itertools
import math

import numpy as np
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

from ppl_vae import (
    build,
    elbo_terms,
    encode,
    fit,
    generate,
    gradient_estimators,
    interpolate,
    lint,
    load,
    log_likelihood,
    reconstruct,
    save,
    traverse,
)
from ppl_vae.distributions import AutoregressiveCategorical
from ppl_vae.guides.nearest_code import NearestCodeGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.vector_quantized import VectorQuantizedModel

POSITIONS, CODES, SIZE, FEATURES = 3, 5, 2, 4
SIGMAS = {"sigma": 0.6, "code_sigma": 1.3}


def small_pair(seed=0, **how):
    """A pair with networks of one layer, whose data have a center and a spread."""
    torch.manual_seed(seed)
    about = {"loc": torch.full((FEATURES,), 2.0), "scale": torch.arange(1.0, 1 + FEATURES)}
    decoder, encoder = nn.Linear(POSITIONS * SIZE, FEATURES), nn.Linear(FEATURES, POSITIONS * SIZE)
    sizes = {"positions": POSITIONS, "codes": CODES, "size": SIZE, "decoder": decoder}
    model = VectorQuantizedModel(FEATURES, **{**SIGMAS, **sizes, **about, **how})
    return model, NearestCodeGuide(FEATURES, model, encoder=encoder, **about)


def rows(count=12):
    return 2 + 3 * torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(1))


def of_unit_size(vectors):
    return vectors / vectors.square().mean(-1, keepdim=True).sqrt()


def codes_of(model, guide, x):
    return torch.tensor(encode(model, guide, x)["k"]["mean"].to_numpy()).long()


@pytest.mark.usefixtures("double")
def test_the_gradient_is_that_of_the_loss_of_vq_vae():
    """Reconstruction, codebook and commitment, with stopped gradients, as the paper has them."""
    (model, guide), x = small_pair(), rows()
    y = (x - model.loc) / model.scale
    e = of_unit_size(guide.encoder(y).unflatten(-1, (POSITIONS, SIZE)))
    c = model.codebook[torch.cdist(e, model.codebook).argmin(-1)]
    output = model.decoder((e + (c - e).detach()).flatten(-2))
    beta = (SIGMAS["sigma"] / SIGMAS["code_sigma"]) ** 2
    loss = (y - output).square().sum()
    loss = loss + beta * (e.detach() - c).square().sum()  # the codebook term
    loss = loss + beta * (e - c.detach()).square().sum()  # the commitment
    loss = loss / (2 * SIGMAS["sigma"] ** 2)
    halves = [*guide.encoder.parameters(), model.codebook, *model.decoder.parameters()]
    expected = torch.autograd.grad(loss, halves)

    found = torch.autograd.grad(Trace_ELBO().differentiable_loss(model, guide, x), halves)
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("double")
def test_the_terms_are_log_densities_at_the_points():
    (model, guide), x = small_pair(), rows()
    terms = elbo_terms(model, guide, x)
    y = (x - model.loc) / model.scale
    e = of_unit_size(guide.encoder(y).unflatten(-1, (POSITIONS, SIZE)))
    c = model.codebook[codes_of(model, guide, x)]
    s, t = SIGMAS["code_sigma"], SIGMAS["sigma"]
    z = -(e - c).square().sum((1, 2)) / (2 * s**2) - POSITIONS * SIZE * math.log(
        s * math.sqrt(2 * math.pi)
    )
    error = (y - model.decoder(c.flatten(1))).square().sum(1)
    x_term = -error / (2 * t**2) - (model.scale * t * math.sqrt(2 * math.pi)).log().sum()
    np.testing.assert_allclose(terms["z"], z.detach())
    np.testing.assert_allclose(terms["x"], x_term.detach())
    np.testing.assert_allclose(terms["k"], -POSITIONS * math.log(CODES))
    assert terms.attrs["measure"] == "log joint density"


def test_encode_gives_the_nearest_code_of_every_position():
    (model, guide), x = small_pair(), rows(50)
    codes = encode(model, guide, x)
    e = torch.tensor(codes["z"]["mean"].to_numpy()).reshape(50, POSITIONS, SIZE)
    distances = (e[:, :, None] - model.codebook).square().sum(-1)  # (rows, positions, codes)
    np.testing.assert_array_equal(codes["k"]["mean"], distances.argmin(-1))
    assert codes.attrs["exact"]["k"]
    assert len(np.unique(codes["k"]["mean"])) > 1


def test_the_prior_is_normalized_and_draws_what_it_scores():
    torch.manual_seed(0)
    tensors = AutoregressiveCategorical.uniform(2, codes=3, hidden=4)
    fn = AutoregressiveCategorical(**{name: torch.randn_like(t) for name, t in tensors.items()})
    every = torch.tensor(list(itertools.product(range(3), repeat=2)))
    chances = fn.log_prob(every).exp()
    torch.testing.assert_close(chances.sum(), torch.tensor(1.0))
    drawn = fn.sample((20000,)) @ torch.tensor([3, 1])
    share = torch.bincount(drawn, minlength=9) / 20000
    torch.testing.assert_close(share, chances, atol=0.015, rtol=0)
    assert (chances / chances.reshape(3, 3).sum(1).repeat_interleave(3)).std() > 0.05


def test_the_prior_fitted_to_codes_has_the_frequencies_of_all_pairs_of_codes():
    random = torch.Generator().manual_seed(2)
    first = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), 400, True, generator=random)
    second = (first + (torch.rand(400, generator=random) < 0.25)) % 3  # mostly equal to the first
    codes = torch.stack([first, second], 1)
    model = VectorQuantizedModel(FEATURES, positions=2, codes=3)
    model.prior.requires_grad_()
    fit(
        model.code_prior, None, codes, epochs=300, batch_size=400, progress=False, compile=False,
        optimizer=lambda p: torch.optim.Adam(p, 0.01),
        scheduler=lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, 300),
    )  # fmt: skip
    every = torch.tensor(list(itertools.product(range(3), repeat=2)))
    found = AutoregressiveCategorical(**model.prior).log_prob(every).exp().detach()
    share = torch.bincount(codes @ torch.tensor([3, 1]), minlength=9) / 400
    torch.testing.assert_close(found, share, atol=2e-3, rtol=0)
    assert share.max() < 0.6


def test_fitting_the_prior_moves_nothing_else_and_generate_draws_from_it():
    (model, guide), x = small_pair(), rows(60)
    fit(model, guide, x, epochs=2, progress=False, compile=False)
    codes = codes_of(model, guide, x)
    before = {n: p.clone() for n, p in model.named_parameters() if not n.startswith("prior")}
    assert not any(p.requires_grad for p in model.prior.parameters())
    with pytest.raises(ValueError, match="nothing to train"):
        fit(model.code_prior, None, codes, progress=False)
    model.prior.requires_grad_()
    planted = torch.full_like(codes, 3)
    fit(
        model.code_prior, None, planted, epochs=60, progress=False, compile=False,
        optimizer=lambda p: torch.optim.Adam(p, 0.1),
    )  # fmt: skip
    for name, value in before.items():
        assert torch.equal(value, model.get_parameter(name))
    new = generate(model, guide, x, num_samples=50, expected=True)
    code = model.codebook[torch.full((POSITIONS,), 3)].flatten()
    only = (model.loc + model.scale * model.decoder(code)).detach()
    torch.testing.assert_close(new, only.expand(50, -1))


def test_more_than_half_of_the_codes_come_into_use():
    random = torch.Generator().manual_seed(3)
    centers = 4 * torch.randn(12, 6, generator=random)
    x = centers[torch.arange(480) % 12] + torch.randn(480, 6, generator=random)
    torch.manual_seed(0)
    model = build(VectorQuantizedModel, x, positions=2, codes=32)
    guide = build(NearestCodeGuide, x, model=model)
    fit(
        model, guide, x, epochs=15, batch_size=32, progress=False, compile=False,
        optimizer=lambda p: torch.optim.Adam(p, 3e-3),
    )  # fmt: skip
    assert len(codes_of(model, guide, x).unique()) > 16
    error = (reconstruct(model, guide, x) - x).square().mean()
    assert error < 0.5 * x.var(0).mean()


@pytest.mark.filterwarnings("error")
def test_images_have_a_code_for_each_place_of_a_grid_and_lint_finds_nothing():
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = build(VectorQuantizedModel, x, codes=6)
    guide = build(NearestCodeGuide, x, model=model)
    assert model.positions == 4
    assert lint(model, guide, x).findings == ()
    assert encode(model, guide, x)["k"]["mean"].shape == (20, 4)
    assert reconstruct(model, guide, x).shape == x.shape


def test_a_code_reaches_the_pixels_around_its_place_alone():
    torch.manual_seed(0)
    model = VectorQuantizedModel((1, 32, 32), codes=6)
    code = torch.randn(1, 64 * 8)
    moved = code.clone()
    moved[:, :8] += 1  # the upper left place
    changed = (model.decoder(moved) != model.decoder(code))[0, 0]
    assert changed[0, 0]
    assert not changed[20:].any()
    assert not changed[:, 20:].any()


def test_log_likelihood_refuses_both_points_and_says_why():
    model, guide = small_pair()
    message = r'site "k" and site "z": .* got points \(Delta\), which have a log joint density'
    with pytest.raises(ValueError, match=message):
        log_likelihood(model, guide, rows())


def test_a_guide_of_another_codebook_is_named():
    (model, _), (other, guide) = small_pair(), small_pair(codes=7)
    with pytest.raises(ValueError, match=r'module "guide.model": .* another VectorQuantizedModel'):
        fit(model, guide, rows(), progress=False)
    assert other.codes == 7


def test_what_does_not_fit_is_named():
    model, _ = small_pair()
    with pytest.raises(ValueError, match="model: expected a codebook and positions, got Normal"):
        NearestCodeGuide(FEATURES, NormalGuide(FEATURES))
    guide = NearestCodeGuide(FEATURES, model, encoder=nn.Linear(FEATURES, 7))
    with pytest.raises(ValueError, match=r"encoder: expected 3 positions .* got 7 outputs"):
        guide(rows())
    for wrong in ({"codes": 0}, {"positions": 0}, {"size": 0}, {"sigma": -1.0}, {"code_sigma": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            VectorQuantizedModel(FEATURES, **wrong)
    model.prior.requires_grad_()
    with pytest.raises(ValueError, match=r"whole numbers from 0 to 4.*row 1 with 5 in column 2"):
        fit(model.code_prior, None, torch.tensor([[0, 1, 2], [0, 1, 5]]), progress=False)


def test_codes_jump_where_latents_move():
    (model, guide), x = small_pair(), rows(2)
    line = interpolate(model, guide, x, steps=4)
    ends = reconstruct(model, guide, x)
    torch.testing.assert_close(line, ends.repeat_interleave(2, 0))
    still = traverse(model, guide, x, steps=3)  # z moves, and the decoder reads the code
    torch.testing.assert_close(still, ends[:1].expand_as(still))


def test_no_gradient_past_a_point_is_said_to_be_exact():
    model, guide = small_pair()
    found = gradient_estimators(model, {"nearest code": guide}, rows(), num_draws=2)
    assert found.frame["bias"].isna().all()


def test_a_fitted_prior_is_stored_with_the_run(tmp_path):
    x = rows(30)
    model = build(VectorQuantizedModel, x, positions=2, codes=4)
    guide = build(NearestCodeGuide, x, model=model)
    nn.init.normal_(model.prior["bias"])
    save(model, guide, tmp_path / "run")
    again = load(tmp_path / "run")
    assert again[1].model is again[0]
    torch.testing.assert_close(
        generate(*again, x, num_samples=9), generate(model, guide, x, num_samples=9)
    )
