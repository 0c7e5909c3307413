"""The loop of ``fit``: seeds, held-out rows, how a fit ends, interrupts, schedules."""

import itertools
import math
import os
import signal
import threading

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.optim import lr_scheduler

from ppl_vae import build, fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.schedules import cyclical, linear
from ppl_vae.training.arguments import default_optimizer


def pair(seed=0):
    torch.manual_seed(seed)
    return BernoulliModel(64, 4), NormalGuide(64, 4)


def weights(*modules):
    return [p.detach().clone() for module in modules for p in module.parameters()]


def quick(model, guide, data, **settings):
    return fit(model, guide, data, **{"epochs": 3, "progress": False, **settings})


def test_training_raises_the_elbo_of_real_images(digits):
    history = quick(*pair(), digits, epochs=15, validation=0.2)
    frame = history.frame
    assert list(frame.columns) == [
        "epoch",
        "step",
        "elbo",
        "objective",
        "validation_elbo",
        "seconds",
    ]
    assert frame["epoch"].tolist() == list(range(1, 16))
    assert frame["step"].iloc[-1] == 15 * math.ceil((1797 - 359) / 128)
    assert frame["seconds"].is_monotonic_increasing
    assert frame["validation_elbo"].iloc[-1] > frame["validation_elbo"].iloc[0] + 8
    assert -30 < frame["elbo"].iloc[-1] < -18  # nats per row
    assert (history.stopped, history.best_epoch) == ("epochs", 15)
    assert "nats per row" in str(history)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_decides_the_fit_and_generators_are_restored(digits, seed):
    runs = []
    for noise in range(2):
        model, guide = pair()
        torch.manual_seed(noise)
        np.random.seed(noise)  # noqa: NPY002  the global generator is what is tested
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        history = quick(model, guide, digits[:300], validation=0.2, seed=seed)
        assert torch.equal(before[0], torch.get_rng_state())
        assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
        runs.append((weights(model, guide), history.frame.drop(columns="seconds")))
    assert all(torch.equal(a, b) for a, b in zip(runs[0][0], runs[1][0], strict=True))
    pd.testing.assert_frame_equal(runs[0][1], runs[1][1])


def test_different_seeds_and_no_seed_differ(digits):
    ends = []
    for seed in (0, 1, None, None):
        model, guide = pair()
        torch.manual_seed(len(ends))  # what the global generators hold
        quick(model, guide, digits[:300], seed=seed)
        ends.append(weights(model, guide)[0])
    assert not any(torch.equal(ends[i], ends[j]) for i in range(4) for j in range(i))


def test_every_epoch_has_every_row_once_in_a_new_order():
    batches = []

    def model(row):
        with pyro.plate("data", len(row)):
            batches.append(row.tolist())
            pyro.sample("row", dist.Normal(pyro.param("m", torch.zeros(())), 9.0), obs=row)

    rows = torch.arange(50.0)
    quick(model, None, rows, batch_size=16, epochs=2, seed=0)
    training = [batch for batch in batches if len(batch) in (16, 2)][-8:]
    assert [len(batch) for batch in training] == [16, 16, 16, 2] * 2
    epochs = [list(itertools.chain(*training[:4])), list(itertools.chain(*training[4:]))]
    assert sorted(epochs[0]) == sorted(epochs[1]) == rows.tolist()
    assert epochs[0] != epochs[1] != rows.tolist()


def test_a_batch_size_above_the_rows_means_one_full_batch(digits):
    history = quick(*pair(), digits[:100], batch_size=10_000)
    assert history.frame["step"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("form", ["fraction", "tensor", "frame"])
def test_held_out_rows_in_any_form(digits, form):
    held_out = {"fraction": 0.25, "tensor": digits[300:400], "frame": None}[form]
    data = digits[:300]
    if form == "frame":
        data, held_out = pd.DataFrame(data.numpy()), pd.DataFrame(digits[300:400].numpy())
    history = quick(*pair(), data, validation=held_out)
    assert history.frame["validation_elbo"].notna().all()


def test_patience_ends_the_fit_and_the_best_weights_are_restored(digits):
    model, guide = pair()
    snapshots = []

    def spoil(row, model, guide):
        snapshots.append(weights(model, guide))
        if row["epoch"] == 3:
            with torch.no_grad():
                model.decoder[0].weight.mul_(40.0)

    history = quick(
        model,
        guide,
        digits[:400],
        validation=0.3,
        epochs=50,
        patience=4,
        callbacks=[spoil],
        optimizer=lambda p: torch.optim.Adam(p, 1e-5),
    )
    assert (history.stopped, history.best_epoch, len(history.frame)) == ("patience", 3, 7)
    assert all(torch.equal(a, b) for a, b in zip(snapshots[2], weights(model, guide), strict=True))


def test_without_held_out_rows_the_last_weights_stay(digits):
    model, guide = pair()
    last = []
    history = quick(
        model, guide, digits[:200], callbacks=[lambda row, m, g: last.append(weights(m, g))]
    )
    assert history.best_epoch == 3
    assert history.frame["validation_elbo"].isna().all()
    assert all(torch.equal(a, b) for a, b in zip(last[-1], weights(model, guide), strict=True))


def test_a_callback_gets_the_rows_of_the_history_and_can_end_the_fit(digits):
    rows = []

    def stop(row, model, guide):
        rows.append(row)
        return row["epoch"] == 2

    history = quick(*pair(), digits[:200], epochs=9, callbacks=[stop, lambda *_: None])
    assert history.stopped == "callback"
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows == history.frame.to_dict("records") or all(
        math.isnan(row["validation_elbo"]) for row in rows
    )


def test_ctrl_c_ends_the_fit_and_restores_the_signal_handler(digits):
    def interrupt(row, model, guide):
        if row["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    model, guide = pair()
    history = quick(model, guide, digits, epochs=500, validation=0.1, callbacks=[interrupt])
    assert history.stopped == "interrupted"
    assert len(history.frame) in (2, 3)
    assert signal.getsignal(signal.SIGINT) is handler
    assert all(torch.isfinite(p).all() for p in weights(model, guide))


def test_ctrl_c_within_an_epoch_ends_the_fit_after_the_current_step(digits):
    class Interrupted(torch.optim.SGD):
        count = 0

        def step(self, closure=None):
            self.count += 1
            if self.count == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(closure)

    history = quick(*pair(), digits, optimizer=lambda p: Interrupted(p, lr=1e-5))
    assert history.stopped == "interrupted"
    assert history.frame["step"].tolist() == [5]
    assert -60 < history.frame["elbo"].iloc[-1] < -15


def test_fit_works_outside_the_main_thread(digits):
    histories = []
    thread = threading.Thread(target=lambda: histories.append(quick(*pair(), digits[:100])))
    thread.start()
    thread.join()
    assert len(histories[0].frame) == 3


def test_clip_norm_bounds_the_norm_of_all_gradients_together(digits):
    norms = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            grads = [p.grad for group in self.param_groups for p in group["params"]]
            norms.append(torch.cat([g.flatten() for g in grads]).norm().item())
            return super().step(closure)

    for clip_norm in (None, 5.0):
        norms.clear()
        quick(*pair(), digits[:200], clip_norm=clip_norm, optimizer=lambda p: Watched(p, lr=1e-6))
        assert all((norm <= 5.001) == (clip_norm == 5.0) for norm in norms)


@pytest.mark.parametrize("held_out", [None, 0.2])
def test_schedulers_step_once_an_epoch_and_get_the_loss(digits, held_out):
    rates = []
    made = {}

    def optimizer(parameters):
        made["optimizer"] = torch.optim.SGD(parameters, lr=1.0e-5)
        return made["optimizer"]

    quick(
        *pair(),
        digits[:200],
        optimizer=optimizer,
        validation=held_out,
        scheduler=lambda o: lr_scheduler.ExponentialLR(o, 0.1),
        callbacks=[lambda *_: rates.append(made["optimizer"].param_groups[0]["lr"])],
    )
    assert rates == pytest.approx([1e-6, 1e-7, 1e-8])
    quick(
        *pair(),
        digits[:200],
        optimizer=lambda p: torch.optim.SGD(p, lr=0.0),
        epochs=4,
        validation=held_out,
        scheduler=lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    )


def test_adam_is_the_default_and_fused(digits):
    model, guide = pair()
    optimizer = default_optimizer([*model.parameters(), *guide.parameters()])
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.defaults["fused"]
    assert optimizer.defaults["lr"] == 1e-3


def test_the_kl_weight_follows_its_schedule_and_the_history_is_unweighted(digits):
    steps = []

    def weight(step):
        steps.append(step)
        return 0.0

    still = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.0), "epochs": 1, "elbo": Trace_ELBO()}
    plain = quick(*pair(), digits[:256], **still)
    weighted = quick(*pair(), digits[:256], kl_weight=weight, **still)
    assert steps == [0, 1]
    assert weighted.frame["elbo"].iloc[0] == pytest.approx(plain.frame["elbo"].iloc[0], rel=1e-5)


def test_schedules_have_the_shapes_they_name():
    rise = linear(10, start=0.2)
    assert [rise(s) for s in (0, 5, 10, 99)] == pytest.approx([0.2, 0.6, 1.0, 1.0])
    waves = cyclical(10, ramp=0.5)
    assert [waves(s) for s in (0, 2, 5, 9, 10, 12)] == pytest.approx([0, 0.4, 1, 1, 0, 0.4])


def test_a_kl_weight_of_zero_lets_the_guide_collapse_to_a_point(digits):
    model, guide = pair()
    quick(model, guide, digits[:256], kl_weight=0.0, epochs=60)
    free = guide.encoder(digits[:256]).chunk(2, -1)[1].mean()
    model, guide = pair()
    quick(model, guide, digits[:256], kl_weight=20.0, epochs=60)
    pressed = guide.encoder(digits[:256]).chunk(2, -1)[1].mean()
    assert free < -1 < -0.1 < pressed


def test_maximum_likelihood_without_latents_is_exact():
    x = torch.randn(500) * 3 + 2

    def model(x):
        m = pyro.param("m", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(m, 3.0), obs=x)

    history = quick(
        model, None, x, epochs=60, batch_size=500, optimizer=lambda p: torch.optim.SGD(p, lr=0.01)
    )
    best = dist.Normal(x.mean(), 3.0).log_prob(x).mean()
    assert history.frame["elbo"].iloc[-1] == pytest.approx(float(best), abs=1e-4)


def test_raw_units_need_no_scaling_by_hand():
    """Wine: thirteen features from 0.1 to 1,680; the ELBO is that of the data as given."""
    from parts.extras import load_wine

    data = load_wine(as_frame=True).data
    model, guide = build(GaussianModel, data, latents=2), build(NormalGuide, data, latents=2)
    history = quick(
        model, guide, data, epochs=150, batch_size=64, optimizer=lambda p: torch.optim.Adam(p, 5e-3)
    )
    independent = (
        dist.Normal(torch.tensor(data.mean().to_numpy()), torch.tensor(data.std().to_numpy()))
        .log_prob(torch.tensor(data.to_numpy()))
        .sum(1)
        .mean()
    )
    assert history.frame["elbo"].iloc[-1] > float(independent) + 2


def test_a_loss_that_is_not_finite_stops_before_the_update(digits):
    model, guide = pair()

    def explode(row, model, guide):
        with torch.no_grad():
            model.decoder[0].weight.fill_(float("nan"))

    with (
        pytest.raises(ValueError, match=r"loss became nan at epoch 2, batch 0"),
        pyro.validation_enabled(False),
    ):
        quick(model, guide, digits[:200], callbacks=[explode])
    assert all(torch.isfinite(p).all() for p in guide.parameters())


def test_fit_gives_the_warnings_of_lint(digits):
    model, guide = pair()
    model.unused = torch.nn.Linear(2, 2)
    with pytest.warns(UserWarning, match="expected a gradient, got none"):
        quick(model, guide, digits[:100], epochs=1)


def test_progress_shows_the_held_out_elbo(digits, capsys):
    fit(*pair(), digits[:300], validation=0.2, epochs=3, progress=True)
    shown = capsys.readouterr().err
    assert "held-out ELBO -" in shown
    assert "nats/row" in shown


def test_numpys_numbers_are_taken_for_epochs_and_validation(digits):
    history = quick(*pair(), digits[:100], epochs=np.int64(2), validation=np.float32(0.2))
    assert len(history.frame) == 2


def test_an_error_of_a_callback_leaves_the_best_weights_in_the_pair(digits):
    class OutOfPatienceError(Exception):
        pass

    model, guide = pair()
    best = []

    def spoil(row, model, guide):
        if row["epoch"] == 2:
            best.extend(weights(model, guide))
            with torch.no_grad():
                model.decoder[0].weight.mul_(40.0)
        if row["epoch"] == 4:
            raise OutOfPatienceError

    with pytest.raises(OutOfPatienceError):
        quick(
            model,
            guide,
            digits[:400],
            validation=0.3,
            epochs=9,
            callbacks=[spoil],
            optimizer=lambda p: torch.optim.Adam(p, 1e-5),
        )
    assert all(torch.equal(a, b) for a, b in zip(best, weights(model, guide), strict=True))


def test_fits_in_several_threads_give_what_each_gives_alone(digits):
    alone = []
    for seed in range(3):
        model, guide = pair(seed)
        quick(model, guide, digits[:200])
        alone.append(weights(model, guide))
    pairs = [pair(seed) for seed in range(3)]
    threads = [
        threading.Thread(target=quick, args=(model, guide, digits[:200])) for model, guide in pairs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for expected, halves in zip(alone, pairs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected, weights(*halves), strict=True))
