"""What one training step costs: ppl_vae's fit, Pyro's SVI, PyTorch by hand, NumPyro.

    -ELBO of a batch, its gradient, one Adam update        milliseconds a step

A "work" is a pair with its sizes; a "contestant" is a program that trains the pair of a work.

Every contestant shuffles, gathers its batches by index and returns the loss; ``products alone``
computes the matrix products of a step and nothing else; convolutions have no such row. All
contestants of all works run in turn, in a new random order each round, so that a noisy machine
disturbs all of them alike. The first epoch of a round warms up and is left out. A ratio compares
times of the same round. On a busy machine add ``--threads 1``: at these sizes two threads spend
much of a step waiting for each other.

The last batch of an epoch is smaller where the batch size does not divide the rows. It is timed
like the others: ``fit`` traces it, PyTorch runs it as written, NumPyro compiles it. With
``--data-rows 19968`` there is no smaller batch. The table has the losses of the last epoch: they
agree, except for the random draws and for Adam's state, which every call of ``fit`` begins anew.

    python benchmarks/step.py [--works vae-128x30 ...] [--rounds 7] [--threads 1] [--tiny] [--busy]

NumPyro (``pip install -e .[bench]``) is optional. Works are in ``step_works.py``,
contestants on torch in ``step_torch.py``, those on NumPyro in ``step_numpyro.py``. A new contestant
is a function that takes a ``Work`` and returns a function ``epoch()``; it is decorated with
``timed`` and listed in ``contestants``.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import importlib.util
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyro
import torch
from json_lines import ResultLines
from pyro.infer import TraceEnum_ELBO, TraceGraph_ELBO
from step_torch import (
    Laps,
    by_hand,
    preparations,
    products_alone,
    svi,
    traced_step,
    whole_fit,
)
from step_works import ClassWork, ConvWork, LabelWork, Work

from ppl_vae.training.stepper import CHECKED_EVERY

OURS, TRACED, EAGER = "ppl_vae.fit, compiled", "ppl_vae, traced", "ppl_vae.fit, eager"
OURS_BF16 = "ppl_vae.fit, compiled, bf16"
SVI = "Pyro SVI"
HAND, HAND_COMPILED = "PyTorch by hand", "PyTorch by hand, compiled"
JITTED, SCANNED = "NumPyro, jit a step", "NumPyro, scan an epoch"
PRODUCTS = "products alone"

# Peers with which ``fit`` is compared; where a peer has several contestants, the fastest counts.
PEERS = {SVI: (SVI,), "by hand": (HAND, HAND_COMPILED), "NumPyro": (JITTED, SCANNED)}

WORKS = (
    Work("vae-128x30", asked={SVI: 10, "by hand": 3.5, "NumPyro": 1.15}),
    Work(
        "vae-128x784", features=784, hidden=400, epochs=1,
        asked={SVI: 2.2, "by hand": 1.25, "NumPyro": 1.0},
    ),
    Work(
        "vae-512x784", rows=512, features=784, hidden=200, epochs=4,
        asked={SVI: 2.4, "by hand": 1.15, "NumPyro": 1.1},
    ),
    Work("vae-8-particles", particles=8, asked={"by hand": 2.3, "NumPyro": 1.8}),
    ClassWork("class-graph", objective=TraceGraph_ELBO, asked={SVI: 25}),
    ClassWork("class-enum", objective=TraceEnum_ELBO, asked={SVI: 7, "NumPyro": 1.2}),
    LabelWork("few-labels", objective=TraceEnum_ELBO),
    ConvWork(
        "conv-128x28x28", features=784, hidden=32, data_rows=4096, epochs=1,
        asked={"by hand": 1.1},
    ),
)  # fmt: skip
# With compiler=False the compiled contestants run as written, under the same names.
TINY = {
    "rows": 8, "features": 6, "hidden": 5, "latents": 3, "data_rows": 60,
    "compiler": False, "asked": {},
}  # fmt: skip


def contestants(work: Work) -> dict[str, Callable[[Work], Laps]]:
    """Return the contestants of a work: ``{name: function that prepares it}``."""
    field: dict[str, Callable[[Work], Laps]] = {
        OURS: functools.partial(whole_fit, compiled=True),
        TRACED: traced_step,
        EAGER: functools.partial(whole_fit, compiled=False),
        SVI: svi,
    }
    if not isinstance(work, ConvWork):  # its products are inside convolutions
        field[PRODUCTS] = products_alone
    if not isinstance(work, ClassWork):
        field[OURS_BF16] = functools.partial(whole_fit, compiled=True, bf16=True)
        field[HAND] = lambda work: by_hand(work, False)
        field[HAND_COMPILED] = lambda work: by_hand(work, True)
    if compares_numpyro(work) and has_numpyro():
        peers = importlib.import_module("step_numpyro")
        field |= {JITTED: peers.jitted, SCANNED: peers.scanned}
    return field


def compares_numpyro(work: Work) -> bool:
    """Return whether a work's pair is written in NumPyro too."""
    return work.objective is not TraceGraph_ELBO and not isinstance(work, (ConvWork, LabelWork))


def has_numpyro() -> bool:
    """Return whether NumPyro and what it needs are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("jax", "numpyro", "funsor"))


def measure(works: Sequence[Work], rounds: int) -> pd.DataFrame:
    """Run all contestants of all works in turn, and return their times.

    Returns:
        One row per round and contestant: ``work, contestant, round, milliseconds`` a step
        (median of the round's epochs), ``loss`` of the last epoch in nats per row.
    """
    field = [
        (work, name, build(work)) for work in works for name, build in contestants(work).items()
    ]
    records = []
    for number in range(rounds):
        for work, name, laps in random.Random(number).sample(field, len(field)):
            seconds, loss = laps(work.epochs)
            if not math.isfinite(loss) and name != PRODUCTS:
                raise ValueError(f"{work.name}, {name}: the loss is {loss}")
            step = 1e3 * pd.Series(seconds).median() / work.steps
            records.append((work.name, name, number, step, loss))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    pyro.clear_param_store()
    return pd.DataFrame(records, columns=["work", "contestant", "round", "milliseconds", "loss"])


def summarize(rounds: pd.DataFrame) -> pd.DataFrame:
    """Return medians and quartiles over rounds: of the time, and of its ratio to ``fit``'s."""
    keys = ["work", "round"]
    ours = rounds.loc[rounds["contestant"] == OURS, [*keys, "milliseconds"]]
    paired = rounds.merge(ours, on=keys, suffixes=("", "_ours"))
    paired["ratio"] = paired["milliseconds"] / paired["milliseconds_ours"]
    columns = {
        f"{column}{suffix}": (column, functools.partial(pd.Series.quantile, q=level))
        for column in ("milliseconds", "ratio")
        for suffix, level in (("", 0.5), ("_low", 0.25), ("_high", 0.75))
    }
    groups = paired.groupby(["work", "contestant"], as_index=False, sort=False)
    table = groups.agg(**columns).merge(groups["loss"].last())
    names = [work.name for work in WORKS]
    return table.sort_values(
        ["work", "milliseconds"],
        key=lambda column: column.map(names.index) if column.name == "work" else column,
        ignore_index=True,
    )


def show(table: pd.DataFrame) -> None:
    """Print the table: one row for each contestant, the fastest of each work first."""
    print(
        f"\n{'work':17}{'contestant':28}{'ms a step':>10}  {'quartiles':17}"
        f"{'of ours':>8}  {'quartiles':15}{'loss, nats/row':>15}"
    )
    for row in table.itertuples():
        spread = f"{row.milliseconds_low:.3f} - {row.milliseconds_high:.3f}"
        ratios = f"{row.ratio_low:.2f} - {row.ratio_high:.2f}"
        loss = "-" if math.isnan(row.loss) else f"{row.loss:.3f}"
        print(
            f"{row.work:17}{row.contestant:28}{row.milliseconds:10.3f}  {spread:17}"
            f"{row.ratio:8.2f}  {ratios:15}{loss:>15}"
        )


def compare(table: pd.DataFrame, works: Sequence[Work]) -> pd.DataFrame:
    """Return how many times faster ``fit`` is than the best contestant of each peer.

    Returns:
        Columns ``work, peer, contestant, ratio, ratio_low, ratio_high, asked``; ``asked`` is the
        ratio that is aimed at, or NaN. For ``products alone`` the ratio is the time of ``fit`` over
        the time of the products.
    """
    records = []
    for work in works:
        times = table[table["work"] == work.name].set_index("contestant")
        for peer, names in PEERS.items():
            present = [name for name in names if name in times.index]
            if present:
                best = min(present, key=lambda name: times["milliseconds"].loc[name])
                row = times.loc[best, ["ratio", "ratio_low", "ratio_high"]].tolist()
                records.append((work.name, peer, best, *row, work.asked.get(peer, math.nan)))
        if PRODUCTS in times.index:
            floor = times.loc[PRODUCTS, ["ratio", "ratio_high", "ratio_low"]]
            records.append((work.name, PRODUCTS, PRODUCTS, *(1 / floor).tolist(), math.nan))
    columns = ["work", "peer", "contestant", "ratio", "ratio_low", "ratio_high", "asked"]
    return pd.DataFrame(records, columns=columns)


def show_ratios(ratios: pd.DataFrame) -> None:
    """Print how many times faster ``fit`` is, and whether the ratio aimed at is met."""
    print(f"\n{OURS}: times faster than the best contestant of each peer")
    for row in ratios.itertuples():
        spread = f"{row.ratio_low:.2f} - {row.ratio_high:.2f}"
        if row.peer == PRODUCTS:
            print(f"{row.work:17}takes {row.ratio:.2f} times {PRODUCTS} ({spread})")
            continue
        asked = "" if math.isnan(row.asked) else f"; asked {row.asked:g}"
        if asked:
            asked += ", met" if row.ratio >= row.asked else ", MISSED"
        print(f"{row.work:17}{row.ratio:6.2f} x {row.contestant} ({spread}){asked}")


def show_preparations(table: pd.DataFrame, works: Sequence[Work]) -> None:
    """Print what preparing the steps costs, and after how many steps that is repaid."""
    print("\nseconds to trace and to compile the step, comparisons with the eager step included")
    for work in works:
        times = table[table["work"] == work.name].set_index("contestant")["milliseconds"]
        seconds = preparations(work)
        saved = times[EAGER] - times[TRACED]
        line = f"{work.name:17}traced {seconds['traced']:.2f} s, "
        line += f"repaid {_repaid(seconds['traced'], saved)}"
        if "cold" in seconds:
            saved = times[TRACED] - times[OURS]
            cold, cached = (
                _repaid(seconds[key] - seconds["traced"], saved) for key in ("cold", "cached")
            )
            line += (
                f"; compiled {seconds['cold']:.2f} s, from inductor's cache "
                f"{seconds['cached']:.2f} s, repaid over traced {cold}, from the cache {cached}"
            )
        share = 100 * seconds["check"] / CHECKED_EVERY / (1e-3 * times[OURS])
        print(f"{line}; compared again every {CHECKED_EVERY} steps, which adds {share:.1f} %")


@contextlib.contextmanager
def spinning(processes: int) -> Iterator[None]:
    """Run the block beside processes that do nothing but use a core each."""
    command = [sys.executable, "-c", "while True: pass"]
    spinners = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def measure_busy(works: Sequence[Work], rounds: int) -> pd.DataFrame:
    """Time ``fit`` on an idle machine and beside a process on every core, in turn.

    Returns:
        One row per work: ``work``; ``idle`` and ``busy``, medians in milliseconds a step.
    """
    field = {work.name: whole_fit(work, compiled=True) for work in works}
    records = []
    for _ in range(rounds):
        for work in works:
            for state, cores in (("idle", 0), ("busy", os.cpu_count() or 1)):
                with spinning(cores):
                    seconds, _ = field[work.name](work.epochs)
                step = 1e3 * pd.Series(seconds).median() / work.steps
                records.append((work.name, state, step))
    table = pd.DataFrame(records, columns=["work", "state", "milliseconds"])
    medians = table.pivot_table("milliseconds", "work", "state", "median", sort=False)
    return medians[["idle", "busy"]].reset_index()


def show_busy(table: pd.DataFrame) -> None:
    """Print how much longer a step of ``fit`` takes beside a process on every core."""
    print("\nmilliseconds a step of ppl_vae.fit, idle and beside a spinning process on every core")
    for row in table.itertuples():
        print(f"{row.work:17}{row.idle:9.3f}{row.busy:9.3f}   {row.busy / row.idle:.2f} times")


def _repaid(seconds: float, saved: float) -> str:
    """Return words for when ``seconds`` are saved, at ``saved`` milliseconds a step."""
    return f"after {1e3 * max(seconds, 0) / saved:,.0f} steps" if saved > 0 else "never"


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [work.name for work in WORKS]
    parser.add_argument("--works", nargs="+", choices=names, default=names, metavar="NAME",
                        help=", ".join(names))  # fmt: skip
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="of torch and jax; all cores by default")
    parser.add_argument("--data-rows", type=int, help=f"rows of data, {Work.data_rows} by default")
    parser.add_argument("--out", type=Path, help="file for the medians, one JSON object a line")
    parser.add_argument("--busy", action="store_true",
                        help="time fit beside a spinning process on every core")  # fmt: skip
    parser.add_argument("--tiny", action="store_true",
                        help="small works and no compiler, to try the benchmark out")  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Run the rounds, print the table, the ratios and the preparations; return the table."""
    options = _arguments(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
        os.environ["NPROC"] = os.environ["PJRT_NPROC"] = str(options.threads)  # read by jax
    works = [work for work in WORKS if work.name in options.works]
    if options.tiny:
        works = [replace(work, **TINY, particles=min(work.particles, 2)) for work in works]
    if options.data_rows:
        works = [replace(work, data_rows=options.data_rows) for work in works]
    print(
        f"{options.rounds} rounds, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"Pyro {pyro.__version__}"
    )
    if not has_numpyro():
        print("NumPyro is not installed: its rows are left out (pip install -e .[bench])")
    for work in works:
        if not compares_numpyro(work):
            print(f"{work.name}: not written in NumPyro, so it has no rows of NumPyro")
        print(
            f"{work.name}: {work.rows} rows x {work.features} features, hidden {work.hidden}, "
            f"{work.data_rows} rows of data, {work.epochs} x {work.steps} steps a round"
        )
    if options.busy:
        if options.out:
            raise SystemExit("--out: expected without --busy, whose table is printed only")
        table = measure_busy(works, options.rounds)
        show_busy(table)
        return table
    table = summarize(measure(works, options.rounds))
    lines = ResultLines(options.out)
    for row in table.to_dict("records"):
        lines.append({"threads": torch.get_num_threads(), "rounds": options.rounds, **row})
    show(table)
    show_ratios(compare(table, works))
    show_preparations(table, works)
    return table


if __name__ == "__main__":
    main()
