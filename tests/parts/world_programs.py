"""What the processes of ``parts/worlds.py`` run. Each program runs on one process as well."""

import os
import signal
import warnings

import pyro
import pytest
import torch

from parts import pairs
from parts.paths import planted_model
from parts.worlds import checksum, rank, seed_by_rank, tell, weights_of
from ppl_vae import IWAE, fit, schedules
from ppl_vae.compat.of_torch import all_gather_flat, all_to_all_flat
from ppl_vae.core.world import World
from ppl_vae.training import stepper

torch.set_num_threads(1)

QUICK = {"epochs": 3, "batch_size": 24, "shards": 4, "progress": False, "seed": 5}


def decaying(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)


def by_plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)


FITS = {
    "Trace, eager": (pairs.gaussian, {"compile": False}),
    "Trace, traced": (pairs.gaussian, {}),
    "Trace, compiled": (
        pairs.gaussian,
        {"compile": True, "kl_weight": schedules.linear(4), "clip_norm": 1.0},
    ),
    "Graph": (pairs.sampled_class, {"compile": False}),
    "a network as baseline": (pairs.baseline, {}),
    "Enum": (pairs.mixture, {"scheduler": decaying, "validation": 0.3}),
    "IWAE": (pairs.bernoulli, {"elbo": IWAE(num_particles=3), "clip_norm": 0.5}),
    "a global latent": (pairs.with_global, {"scheduler": by_plateau}),
    "an autoguide": (pairs.with_autoguide, {"validation": 0.3, "patience": 2, "compile": False}),
    "batch normalization, eager": (pairs.batch_norm, {"compile": False}),
    "batch normalization, traced": (pairs.batch_norm, {"batch_size": 25}),
    "2 shards": (pairs.batch_norm, {"shards": 2, "clip_norm": 1.0}),
    "3 shards": (pairs.dropout, {"shards": 3, "batch_size": 23, "compile": False}),
    "no seed": (pairs.gaussian, {"seed": None, "compile": False}),
}
"""Fits of every kind, each with a ragged last batch: ``{name: (pair, arguments of fit)}``."""


def fitted(name, device="cpu", **more):
    """Fit one of ``FITS``; returns its checksum, its history and its kind of step."""
    make, options = FITS[name]
    pyro.clear_param_store()
    torch.manual_seed(0)
    model, guide, data = make()
    if rank():  # other initial weights than those of rank 0, which the fit must take
        seed_by_rank()
        model, guide, _ = make()
    model, guide = (h.to(device) if isinstance(h, torch.nn.Module) else h for h in (model, guide))
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a gradient that could be less noisy
        history = fit(model, guide, data, **{**QUICK, **options, **more})
    numbers = history.frame.drop(columns="seconds").to_numpy()
    return [weights_of(model, guide), checksum(torch.tensor(numbers)), history.step, history.shards]


def all_fits(*names):
    stepper.TRACED_FROM = 1
    tell({name: fitted(name) for name in names or FITS})


def fits_on_the_device(backend, *names):
    """Fit on one CUDA device, which all ranks share; the error of rank 1 is that of a fit alone."""
    torch.distributed.init_process_group(backend)
    stepper.TRACED_FROM = 1
    found = {name: fitted(name, "cuda") for name in names}
    quick = {**QUICK, "compile": False}

    def failing():
        fit(Failing(1).cuda(), pairs.Guide().cuda(), pairs.reals(), **quick)

    tell({**found, "an error of rank 1": end_of(failing)})
    torch.distributed.destroy_process_group()


def end_of_two_on_the_device():
    """Tell how a fit ends whose ranks have one CUDA device, where they meet by NCCL."""
    model, guide, data = pairs.gaussian()
    tell(end_of(lambda: fit(model.cuda(), guide.cuda(), data, **QUICK)))


def sums_by_nccl():
    """Send numbers through the collectives of a step by NCCL, with the one rank there can be."""
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl")
    sent, own = (torch.tensor(values, device="cuda") for values in ([0, 1, 2, 3], [4, 5]))
    both = [(all_to_all_flat, sent), (all_gather_flat, own)]
    tell([World().exchange(how, what, len(what)).tolist() for how, what in both])
    torch.distributed.destroy_process_group()


# How fits end, and what is shared


def end_of(work):
    """Return the class and the message of the error that a piece of work ends with."""
    try:
        work()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["", ""]


class Failing(pairs.Model):
    """Raises, or gives NaN, in a step of one rank; evaluations pass."""

    def __init__(self, on_rank=None, row=None):
        super().__init__()
        self.on_rank, self.row = on_rank, row

    def likelihood(self, out):
        if self.training and torch.is_grad_enabled() and self.on_rank == rank() == 1:
            raise RuntimeError("no memory on this rank")
        return super().likelihood(out)

    def forward(self, x):
        if self.row is not None and torch.is_grad_enabled():
            far = (x == self.row).all(1, keepdim=True)
            x = torch.where(far, x / 0, x)
        super().forward(x)


def failures():
    """Tell how fits end that fail on one rank, or cannot begin."""
    import ppl_vae

    quick = {**QUICK, "compile": False}
    data = pairs.reals()

    def begin(**options):
        data = options.pop("data", pairs.reals())
        return lambda: fit(pairs.Model(), pairs.Guide(), data, **{**quick, **options})

    def not_finite():
        torch.manual_seed(0)
        fit(Failing(row=data[35]), pairs.Guide(), data, **quick)

    def raising_callback(*_):
        raise RuntimeError("the disk is full")

    found = {
        "other data": end_of(begin(data=data + rank())),
        "another seed": end_of(begin(seed=rank())),
        "one shard": end_of(begin(shards=1)),
        "a pair with faults": end_of(begin(data=data[:1])),
        "an error of rank 1": end_of(lambda: fit(Failing(1), pairs.Guide(), data, **quick)),
        "an error of rank 1, 2 shards": end_of(
            lambda: fit(Failing(1), pairs.Guide(), data, **{**quick, "shards": 2})
        ),
        "not finite, 2 shards": end_of(
            lambda: fit(Failing(row=data[35]), pairs.Guide(), data, **{**quick, "shards": 2})
        ),
        "a callback": end_of(begin(callbacks=[raising_callback])),
        "not finite": end_of(not_finite),
        "another place": end_of(
            begin() if rank() else lambda: ppl_vae.predictive_check(*pairs.gaussian())
        ),
    }
    with ppl_vae.alone():
        found["not finite, alone"] = end_of(not_finite)
    tell(found)


def fit_events(path):
    """Tell what callbacks, Ctrl-C and the run directory do."""
    import ppl_vae
    from ppl_vae.report import page
    from ppl_vae.saving import storage

    quick = {**QUICK, "compile": False}
    model, guide, data = pairs.made(pairs.gaussian)
    calls = []

    def callback(row, model, guide):
        calls.append(row["epoch"])
        calls.append(len(ppl_vae.encode(model, guide, data)))  # on rank 0 alone
        with torch.no_grad():
            next(model.parameters()).add_(torch.rand(()))
        return row["epoch"] == 2

    if rank():

        def refuse(*_):
            raise AssertionError("rank 1 wrote a file")

        storage.write_whole = storage.write_tensors = storage.write_json = page.write_whole = refuse
    ppl_vae.save(model, guide, path + " saved", data=data)
    report = ppl_vae.write_report(model, guide, None, path + ".html")
    with pytest.raises(ValueError, match="exists; overwrite=True"):  # on every rank
        ppl_vae.write_report(model, guide, None, report)
    detector = ppl_vae.AnomalyDetector(model, guide, data, num_samples=5)
    detector.save(path + " detector")
    with pytest.raises(ValueError, match="detector"):
        detector.save(path + " detector")
    saved = ppl_vae.load(path + " saved", model=pairs.Model(), guide=pairs.Guide())
    same = weights_of(*saved) == weights_of(model, guide)
    history = fit(model, guide, data, callbacks=[callback], run=path, **quick)
    answer = {
        "calls": calls,
        "saved": same,
        "stopped": history.stopped,
        "weights": weights_of(model, guide),
    }
    loaded = ppl_vae.load(path, model=pairs.Model(), guide=pairs.Guide())
    answer["loaded"] = weights_of(*loaded)

    def pressed(step):
        if step == 4 and rank() == int(os.environ.get("WORLD_SIZE", "1")) - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    model, guide, data = pairs.made(pairs.gaussian)
    history = fit(model, guide, data, kl_weight=pressed, **quick)
    answer["interrupted"] = [history.stopped, history.frame["step"].tolist()]
    tell(answer)


def evaluated(size):
    """Return checksums of what the evaluations give, in blocks of ``size`` rows."""
    import ppl_vae
    from ppl_vae.core import blocks
    from ppl_vae.predictive import replicates

    blocks.LARGEST = size
    replicates.GROUP_NUMBERS = 5000
    model, guide, data = pairs.made(pairs.gaussian)
    data = torch.cat([data, data[:3] * 1e30])  # rows on which the pair overflows

    runs = []
    likelihood = pairs.Model.likelihood
    pairs.Model.likelihood = lambda self, out: [runs.append(1), likelihood(self, out)][1]

    def latent(x, latents):
        return (x - latents["z"][:, :1]).nanmean(0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        scores = ppl_vae.log_likelihood(model, guide, data, num_samples=30)
        codes = ppl_vae.encode(model, guide, data)
        rebuilt = ppl_vae.reconstruct(model, guide, data)
        strange = ppl_vae.anomaly_scores(model, guide, data, num_samples=30)
        walks = {
            "x": torch.linspace(-1, 1, 240).reshape(20, 4, 3),
            "lengths": 1 + torch.arange(20) % 4,
        }
        filtered = ppl_vae.log_likelihood(
            planted_model(), None, walks, num_samples=100, method="particle_filter"
        )
        other = pairs.made(pairs.gaussian)[1]
        compared = ppl_vae.compare({"a": (model, guide), "b": (model, other)}, data, num_samples=30)
        check = ppl_vae.predictive_check(
            model, guide, data[:40], num_samples=150, statistics=["built-in", latent]
        )
    pairs.Model.likelihood = likelihood
    frames = {
        "log_likelihood": scores, "encode": codes, "anomaly_scores": strange,
        "particle_filter": filtered, "compare": compared.rows.join(compared.frame, how="cross"),
        "check": check.frame.select_dtypes("number"),
        "features": check.features.select_dtypes("number"),
    }  # fmt: skip
    found = {name: checksum(torch.tensor(frame.to_numpy())) for name, frame in frames.items()}
    found["reconstruct"] = checksum(torch.as_tensor(rebuilt))
    found["pit"] = checksum(torch.tensor(check.pit["x"]))
    found["sample"] = checksum(*(torch.tensor(part) for part in check.sample["x"]))
    found["exact"] = codes.attrs["exact"]
    return found, len(runs)


def evaluations(size=7):
    tell(evaluated(size))


def kept_fit(path, dies_at=None, resume=False):
    """Fit with a snapshot after every step; rank 1 is killed before a step."""
    tell(kept(path, dies_at, resume=resume))


def kept(path, dies_at=None, resume=False):
    """Return what ``kept_fit`` tells."""
    from ppl_vae.saving import snapshots

    snapshots.SOONEST = snapshots.SHARE = 0
    stepper.TRACED_FROM = 1

    def weight(step):
        if step == dies_at and rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0 - 0.5**step

    return fitted("Trace, traced", run=path, resume=resume, kl_weight=weight, epochs=6)


def exchanges():
    """Tell what ranks exchange, and how they hear of faults."""
    from ppl_vae.core.shared_rows import exchange_rows
    from ppl_vae.core.world import world

    team, own = world(), 10 * rank()
    placed = [torch.tensor(float(own)), torch.tensor(own)]
    team.broadcast(placed, "weights")
    rows = torch.arange(5.0) + own
    answer = {
        "gathered": team.gather(torch.tensor([own, own + 1]), "numbers").tolist(),
        "texts": team.texts(f"é{rank()}", "texts"),
        "broadcast": [value.item() for value in placed],
        "rows": exchange_rows(
            team, {"a": rows}, [torch.tensor([0]), torch.tensor([1, 3]), torch.tensor([2, 4])]
        )["a"].tolist(),
        "seed": team.seed(None, "a seed"),
        "places": end_of(lambda: team.texts("", "there" if rank() else "here"))[1],
    }

    def lose():
        with team.together("a piece of work"):
            if rank():
                raise KeyError("lost")
            team.texts("", "elsewhere")

    answer["failed"] = end_of(lose)[1]
    answer["after"] = team.texts(str(rank()), "after a failure")
    tell(answer)


def stored_fit(folder, run=None, dies_at=None, resume=False):
    """Fit to Parquet files of which few row groups are in memory; may be killed before a step."""
    from ppl_vae import build, fit, read_data
    from ppl_vae.data import row_groups
    from ppl_vae.guides.normal import NormalGuide
    from ppl_vae.models.gaussian import GaussianModel
    from ppl_vae.saving import snapshots

    snapshots.SOONEST = snapshots.SHARE = 0
    row_groups.MEMORY = 1

    def weight(step):
        if step == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    rows = read_data(folder)
    torch.manual_seed(0)
    pair = build(GaussianModel, rows, latents=2), build(NormalGuide, rows, latents=2)
    history = fit(*pair, rows, epochs=3, batch_size=16, shards=2, seed=0, validation=0.2, run=run,
                  resume=resume, kl_weight=weight, progress=False, compile=False)  # fmt: skip
    numbers = history.frame.drop(columns="seconds").to_numpy()
    tell([weights_of(*pair), checksum(torch.tensor(numbers))])
