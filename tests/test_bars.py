"""Progress is shown by default where somebody looks on, stays on one line, and is silent elsewhere.

Bars appear after a time. Tests of what a bar shows make it appear at once, or set the clock.
"""

import inspect
import io
import sys
import types

import pytest
import torch
from test_arguments import CASES, folder, keywords_of  # noqa: F401  folder is a fixture

import ppl_vae
from ppl_vae import AnomalyDetector, bars
from ppl_vae.bars import Bar
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel

WITH_BAR = [name for name, argument in CASES if argument == "progress"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def look_on(monkeypatch, name, modules):
    """Let bars have a stream that somebody watches; pytest has one of its own in ``sys``."""
    streams = {"stdout": io.StringIO(), "stderr": io.StringIO(), name: Terminal()}
    monkeypatch.setattr(bars, "sys", types.SimpleNamespace(modules=modules, **streams))
    return streams[name]


@pytest.fixture
def at_once(monkeypatch):
    """Bars that wait appear from the start."""
    monkeypatch.setattr(bars._LateBar, "_appeared", True)


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal gets on stderr."""
    return look_on(monkeypatch, "stderr", sys.modules)


@pytest.fixture
def notebook(monkeypatch):
    """A kernel of IPython, and what the notebook shows of stdout."""
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    return look_on(monkeypatch, "stdout", {**sys.modules, "IPython": ipython})


@pytest.fixture
def clock(monkeypatch):
    """The seconds that bars read; ``clock[0] = 3`` sets them."""
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def call(name, where, **more):
    function, options = keywords_of(name, where)
    options.pop("progress", None)
    if "calibration" in options:
        options["updates"] = 2
    function(**options, **more)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WITH_BAR)
def test_a_function_shows_its_progress_in_a_terminal_by_default(
    name, folder, terminal, at_once  # noqa: F811
):  # fmt: skip
    call(name, folder)
    assert "0/" in terminal.getvalue()
    assert "<" in terminal.getvalue()  # the time left


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WITH_BAR)
def test_a_function_is_silent_in_a_pipe(name, folder, capsys, at_once):  # noqa: F811
    call(name, folder)
    assert capsys.readouterr().err == ""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WITH_BAR)
def test_a_function_is_silent_where_no_progress_is_wanted(
    name, folder, terminal, at_once  # noqa: F811
):  # fmt: skip
    call(name, folder, progress=False)
    assert terminal.getvalue() == ""


def test_every_function_that_passes_over_the_rows_has_the_argument():
    assert set(WITH_BAR) >= {
        "fit", "log_likelihood", "elbo_terms", "compare", "predictive_check", "anomaly_scores",
        "posterior_predictive", "prior_predictive", "forecast", "encode", "generate",
        "reconstruct", "refine", "disentanglement", "gradient_estimators", "fit_detector",
        "write_report", "to_arviz", "guide_calibration", "inference_gap",
    }  # fmt: skip
    for function in [*(getattr(ppl_vae, name) for name in WITH_BAR), AnomalyDetector]:
        assert inspect.signature(function).parameters["progress"].default is None


def test_a_detector_shows_the_scoring_of_its_calibration_rows(terminal, at_once):
    AnomalyDetector(BernoulliModel(4, 2), NormalGuide(4, 2), torch.zeros(20, 4), num_samples=2)
    assert "anomaly scores" in terminal.getvalue()


@pytest.mark.parametrize("place", ["terminal", "notebook"])
def test_quick_work_prints_nothing(place, request):
    stream = request.getfixturevalue(place)
    for _ in Bar("quick", None).over(range(3)):
        pass
    with Bar("quick", None).over(total=3) as bar:
        bar.set_description("other words")
        bar.update(3)
    assert stream.getvalue() == ""


def test_a_bar_appears_while_its_first_step_still_runs(terminal, monkeypatch):
    monkeypatch.setattr(bars, "DELAY", 0.01)
    with Bar("slow", None).over(total=3) as bar:
        bar._timer.join()
        assert "slow:   0%" in terminal.getvalue()


def test_the_time_left_counts_the_time_before_the_bar_appeared(terminal, clock):
    with Bar("late", None).over(total=10) as bar:
        clock[0] = 3.0
        bar.update(3)
        assert terminal.getvalue() == ""
        bar._appear()
        assert "3/10 [00:03<00:07" in terminal.getvalue()


def test_a_bar_goes_from_a_terminal_when_the_work_ends_and_that_of_a_fit_stays(terminal, at_once):
    with Bar("gone", None).over(total=1) as bar:
        bar.update()
    assert terminal.getvalue().endswith(" \r")
    with Bar("kept", None).over(total=1, keep=True) as bar:
        bar.update()
    assert terminal.getvalue().endswith("\n")


def test_a_notebook_keeps_the_finished_bar_on_one_line(notebook, at_once, clock):
    for step in Bar("outer", None).over(range(3)):
        for _ in Bar("inner", None).over(range(2)):
            clock[0] = step + 1.0
    text = notebook.getvalue()
    assert "inner" not in text
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert "3/3 [00:03<00:00" in text.splitlines()[-1].rpartition("\r")[2]


def test_a_bar_that_is_asked_for_is_shown_anywhere_at_once(capsys):
    with Bar("asked for", True).over(total=3):
        assert "asked for:   0%" in capsys.readouterr().err


def test_a_rank_that_must_not_write_has_no_bar(terminal, at_once):
    list(Bar("of rank 1", True).only(False).over(range(3)))
    assert terminal.getvalue() == ""
