"""The content of a report: sections, numbers, names, and text from users."""

import base64
import re
import shutil

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from jinja2 import UndefinedError
from parts.pages import FEW, HOSTILE, SECTIONS, Page, report
from parts.pairs import functions, made, mapping, with_global

import ppl_vae
from ppl_vae.data.rows import Rows
from ppl_vae.guides.delta import DeltaGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.report import figures, html
from ppl_vae.report.check_section import flagged_names
from ppl_vae.report.numbers import (
    DASH,
    MINUS,
    SPACE,
    THIN,
    TIMES,
    decimal,
    number,
    percent,
    with_common_precision,
)
from ppl_vae.report.page import write_report
from ppl_vae.report.run_facts import Fact, find_split
from ppl_vae.saving.storage import read_json, write_json


def test_all_sections_are_present_in_order_and_linked(page):
    assert [attributes["id"] for attributes in page.all("section")] == SECTIONS
    links = [a["href"] for a in page.all("a")]
    assert links == [f"#{name}" for name in SECTIONS]
    assert [len(page.all(tag)) for tag in ("h1", "main", "nav", "title")] == [1, 1, 1, 1]
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    names = [a["id"] for _, a in page.elements if "id" in a]
    assert len(names) == len(set(names))


def test_the_page_loads_nothing(file, page):
    text = file.read_text()
    loading = [a[key] for _, a in page.elements for key in ("src", "href") if key in a]
    assert all(link.startswith(("data:", "#")) for link in loading)
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    assert "http" not in re.sub(r"<pre.*?</pre>", "", text.replace("http-equiv", ""), flags=re.S)
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none';")


def test_figures_are_text_and_lines_in_the_colours_of_the_page(file, page):
    assert len(page.figures) >= 6
    assert all(len(alt) > 20 for alt in page.figures)
    assert not page.all("img")
    named = set(re.findall(r"var\((--fig-[a-z0-9-]+)\)", file.read_text()))
    light, dark = file.read_text().split("@media (prefers-color-scheme: dark)", 1)
    assert {"--fig-blue", "--fig-pale-grey"} <= named
    for name in named:
        assert f"{name}: #" in light
        assert f"{name}: #" in dark.partition("* {")[0]
    drawn = [
        a["style"] for tag, a in page.elements if tag in ("path", "text", "use") and "style" in a
    ]
    assert not [style for style in drawn if "#000000" in style or "#0b5394" in style]


def test_a_figure_of_very_many_points_is_an_image():
    few, many = (
        figures.Figure.drawn(lambda ax, n=n: ax.plot(np.arange(n), np.arange(n) % 7, "o"), "dots")
        for n in (50, 20_000)
    )
    assert few.svg
    assert not few.image
    assert not many.svg
    content = base64.b64decode(many.image.removeprefix("data:image/png;base64,"))
    assert int.from_bytes(content[16:20], "big") == 2 * many.width


def test_a_small_term_of_the_elbo_has_a_bar_beside_a_large_one():
    small, large = (
        re.findall(r"M([0-9.]+) 2H([0-9.]+)", bar.text)[0] for bar in figures.bars([-1.0, -400.0])
    )
    ends = [abs(float(end) - float(zero)) for zero, end in (small, large)]
    assert ends[0] > 7
    assert ends[1] == pytest.approx(20 * ends[0], rel=0.05)


def test_numbers_equal_those_of_the_public_functions(page, run, wine):
    pair = ppl_vae.load(run)
    with pytest.warns(UserWarning, match="k-hat"):
        scores = ppl_vae.log_likelihood(*pair, wine, num_samples=60)
    held_out = scores.iloc[_held_out(wine)]
    for part in (scores, held_out):
        assert decimal(part["log_prob"].mean()).text in page.text
        assert decimal(part["elbo"].mean()).text in page.text
    threshold = 1 - 1 / np.log10(60)
    bad = (scores["k_hat"] > threshold).sum()
    assert f"k-hat is above {threshold:.2g} in {bad} of 178 rows" in page.text
    terms = ppl_vae.elbo_terms(*pair, wine, num_samples=60)
    for name in terms:
        assert decimal(terms[name].mean()).text in page.text
    check = ppl_vae.predictive_check(*pair, wine, num_samples=40)
    prior = ppl_vae.predictive_check(pair[0], None, wine, num_samples=40)
    for found in (check, prior):
        flagged = found.frame["flagged"].sum()
        assert f"{flagged} of {len(found.frame)} statistics are flagged" in page.text
    values = [a["data-value"] for a in page.all("td") if "data-value" in a]
    assert {repr(float(value)) for value in check.frame["observed"]} <= set(values)


def _held_out(wine):
    """Return the positions of the rows that the fit of the fixture held out."""
    return Rows(wine).split(0.2, 0)[1].positions.numpy()


def test_the_verdict_is_at_the_top(page, run, wine):
    top = page.text.partition("What was fitted Learning")[2].partition("What was fitted")[0]
    model, guide = ppl_vae.load(run)
    checks = [ppl_vae.predictive_check(model, g, wine, num_samples=40) for g in (guide, None)]
    guided, alone = (f"{c.frame['flagged'].sum()} of {len(c.frame)}" for c in checks)
    assert "GaussianModel with NormalGuide" in top
    shown = (
        f"Statistics flagged {guided} with latents from the guide; from the model alone {alone}",
        f"Statistics flagged {alone} from the model alone; with latents from the guide {guided}",
    )
    assert any(text in top for text in shown)
    names = {name for check in checks for name in flagged_names(check)}
    assert names
    listed = top.partition("Statistics flagged")[0]
    assert len(names) > 6 or sum(name in listed for name in names) == len(names)
    assert listed.count("The fitted pair misses") + listed.count("The model alone") in (1, 2)
    assert "nats per row, held-out rows: 36" in top
    assert "k-hat above 0." in top


def test_the_pair_the_data_and_the_settings_are_shown(page, run):
    info = read_json(run / "run.json")
    for words in (
        "142 rows, 13 features: alcohol, malic_acid",
        "178 rows: 142 that the pair was fitted to, and 36 held out",
        info["objective"], info["reason"], "finished after all epochs that were asked for",
        "Adam (lr 0.001", "batch size 128", "20 epochs, 40 steps", "fit's seed 0",
        info["versions"]["torch"], "report's seed 0",
        "The latents were drawn given the rows themselves",
        "From the model alone",
    ):  # fmt: skip
        assert words in page.text


def test_the_code_is_the_copy_in_the_run_and_changes_are_marked(wine, run, tmp_path):
    own = shutil.copytree(run, tmp_path / "own")
    assert "class GaussianModel(PyroModule)" in report(tmp_path, None, None, None, run=own).text
    with (own / "source" / "model.py").open("a") as source:
        source.write("# <i>later</i>")
    changed = report(tmp_path, None, None, None, run=own, overwrite=True)
    assert "CHANGED since" in changed.text
    assert "# <i>later</i>" in changed.text


def test_without_data_the_report_has_the_run_and_says_how_to_measure(run, tmp_path):
    page = report(tmp_path, None, None, None, run=run)
    assert [attributes["id"] for attributes in page.all("section")] == SECTIONS
    assert "ppl-vae report RUN DATA" in page.text
    assert "Nothing was measured" in page.text
    assert len(page.figures) == 1  # the learning curves


def test_a_run_that_was_cut_off_is_described_as_such(run, tmp_path):
    own = shutil.copytree(run, tmp_path / "own")
    info = read_json(own / "run.json")
    info.pop("history")
    write_json(own / "run.json", {**info, "status": "running"})
    with (own / "metrics.csv").open("a") as record:
        record.write("21,42,-19.")
    page = report(tmp_path, None, None, None, run=own)
    assert "still running, or cut off before its end" in page.text
    assert "20 epochs, 40 steps" in page.text


def test_fitted_and_held_out_rows_are_found_by_checksums(run, wine, tmp_path):
    info, held_out = read_json(run / "run.json"), torch.as_tensor(_held_out(wine))
    fitted = torch.as_tensor(np.setdiff1d(np.arange(178), held_out))
    both = find_split(Rows(wine), info)
    assert torch.equal(both["fitted"], fitted)
    assert torch.equal(both["held out"], held_out)
    for name, index in (("fitted", fitted), ("held out", held_out)):
        (known,) = find_split(Rows(wine.iloc[index.numpy()]), info).items()
        assert known[0] == name
        assert torch.equal(known[1], torch.arange(len(index)))
    assert find_split(Rows(wine.iloc[:99]), info) == {}
    assert find_split(Rows(wine.iloc[::-1]), info) == {}
    assert find_split(Rows(wine), {}) == {}
    page = report(tmp_path, *ppl_vae.load(run), wine.iloc[held_out.numpy()], run=run)
    assert "36 rows, held out" in page.text
    assert "all rows" not in page.text


# Kinds of pairs


def test_a_pair_without_a_guide_is_checked_from_the_model_alone(tmp_path):
    page = report(tmp_path, BernoulliModel(4, 2), None, torch.ones(30, 4))
    assert "from the model alone; there is no guide" in page.text
    assert "The latents were drawn given the rows" not in page.text
    assert "rate of feature" in page.text


@pytest.mark.parametrize(  # every time: several fields, and a latent outside the row plate
    "make",
    [pytest.param(functions, marks=pytest.mark.slow), mapping, with_global],
    ids=lambda make: make.__name__,
)
def test_functions_mappings_and_global_latents_have_reports(make, tmp_path):
    model, guide, data = made(make)
    history = ppl_vae.fit(model, guide, data, epochs=2, progress=False)
    page = report(tmp_path, model, guide, data, history=history)
    assert [attributes["id"] for attributes in page.all("section")] == SECTIONS
    assert history.reason in page.text
    assert "def functions():" in page.text  # the file that defines all of them
    if make is mapping:
        assert re.search(r"label = \d", page.text)
        assert "Coverage of x" in page.text


def test_a_pair_without_a_file_is_reported_without_code(tmp_path):
    place = {"pyro": pyro, "dist": dist}
    exec(
        "def model(x):\n"
        "    with pyro.plate('data', len(x)):\n"
        "        pyro.sample('x', dist.Normal(0.0, 1.0).expand([2]).to_event(1), obs=x)\n",
        place,
    )
    page = report(tmp_path, place["model"], None, torch.randn(30, 2))
    assert "No code of model can be found" in page.text
    assert "The log-likelihood of each row is exact, as no latent is drawn" in page.text
    assert "none: no latent is drawn" in page.text
    assert "drawn from the prior" not in page.text


def test_a_failed_measurement_leaves_its_error_in_the_report(tmp_path):
    x = torch.full((30, 4), -1.0)
    with pytest.warns(UserWarning, match="a part could not be measured: .* values in the support"):
        page = report(tmp_path, BernoulliModel(4, 2), NormalGuide(4, 2), x)
    assert [attributes["id"] for attributes in page.all("section")] == SECTIONS
    for note in (
        "The log-likelihood could not be measured: ",
        "The ELBO could not be divided by site",
    ):
        assert note in page.text
    assert page.text.count("values in the support of Bernoulli (0 or 1)") == 5  # in every part


def test_a_point_has_no_log_likelihood_and_no_elbo(tmp_path):
    with pytest.warns(UserWarning, match="a part could not be measured: .* got a point"):
        page = report(tmp_path, BernoulliModel(4, 2), DeltaGuide(4, 2), torch.ones(30, 4))
    assert "The log-likelihood could not be measured: " in page.text
    assert "Log joint density by site" in page.text
    assert "no bound on the log-likelihood" in page.text
    assert (
        "The guide gives z as a point, so that a flag may be the fault of the guide." in page.text
    )


def interrupted(x):
    raise KeyboardInterrupt


def test_errors_other_than_value_errors_are_raised(tmp_path):
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1), obs=x)

    with pytest.raises(KeyboardInterrupt):
        report(tmp_path, model, None, torch.randn(30, 2), statistics=interrupted)
    assert not list(tmp_path.iterdir())


def test_few_draws_and_a_single_row_show_no_nan(tmp_path):
    x = torch.ones(1, 4)
    page = report(tmp_path, BernoulliModel(4), NormalGuide(4), x, num_samples=5, replicates=5)
    assert "nan" not in page.text.lower().replace("nanmedian", "")
    assert "k-hat is not known: it needs at least 25 draws" in page.text


def test_the_same_seed_writes_the_same_page(tmp_path):
    pair = BernoulliModel(4, 2), NormalGuide(4, 2), torch.rand(30, 4).bernoulli()

    def write(seed):
        file = write_report(*pair, tmp_path / "r.html", seed=seed, overwrite=True, **FEW)
        return re.sub(r"\d\d:\d\d:\d\d", "", file.read_text())

    before = torch.get_rng_state()
    first = write(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == write(3)
    assert first.replace("seed</dt><dd>3", "seed</dt><dd>4") != write(4)


# Text from users, and how values are written


def test_malicious_column_names_are_shown_as_text(hostile_file):
    page = Page(hostile_file.read_text())
    for name in HOSTILE:
        assert name in page.text
    assert len(page.all("script")) == 1
    assert not page.all("b")
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)


def test_no_control_character_or_mark_of_direction_is_on_the_page(tmp_path):
    names = ["a\x1b[2J", "b\u202ec", "d\x00", "e\u2066"]
    data = pd.DataFrame(torch.rand(30, 4).numpy(), columns=names)
    pair = GaussianModel(4, latents=1), NormalGuide(4, latents=1)
    text = write_report(*pair, data, tmp_path / "report.html", **FEW).read_text()
    assert not set(text) & set("\x00\x1b\u202e\u2066\ufffd")
    for name in ("a\\x1b[2J", "b\\u202ec", "d\\x00", "e\\u2066"):
        assert name in Page(text).text
    assert "class GaussianModel" in Page(text).text
    table = html.Table("\udc80", ["\x1b"], [["\u202e"]])  # a byte of a file's name, not in UTF-8
    html.render("versions.html", facts=[Fact("\udc80", "\x07")], table=table).encode()


def test_every_value_is_escaped():
    table = html.Table("<c>", ["<h>"], [["<d>"], [number(1.0)]])
    written = html.render("versions.html", facts=[Fact("<n>", "<t>", code="<i>")], table=table)
    assert Page(written).text == "<n> <i> <t> <c> <h> <d> 1"
    assert {tag for tag, _ in Page(written).elements}.isdisjoint({"c", "h", "d", "n", "t", "i"})
    assert Page(written).all("div")[0]["aria-label"] == "<c>"


def test_a_missing_template_value_is_an_error():
    with pytest.raises(UndefinedError, match="'sources' is undefined"):
        html.render("code.html")


def test_a_figure_that_fails_is_replaced_by_its_error():
    def draw(ax):
        raise ValueError("values: <inf>")

    figure = figures.Figure.drawn(draw, "alt")
    written = Page(html.render("curves.html", figure=figure))
    assert written.text == "This figure could not be drawn: values: <inf>"
    assert not written.figures


def test_numbers_are_written_for_people():
    assert number(-0.00012).text == f"{MINUS}0.00012"
    assert number(123456.7).text == f"123{THIN}457"
    assert number(-1.5e-9).text.startswith(f"{MINUS}1.5{THIN}{TIMES}{THIN}10")
    assert decimal(-0.0001, 2).text == "0.00"
    assert decimal(float("-inf")).text == f"{MINUS}\N{INFINITY}"
    assert number(float("nan")).text == DASH
    assert [shown.text for shown in with_common_precision([1.86, 2.1861], 0.29)] == [
        "1.860", "2.186",
    ]  # fmt: skip
    assert [shown.text for shown in with_common_precision([3.0, 3.0], 0.0)] == ["3", "3"]
    shares = [percent(count, 1000) for count in (0, 1, 999, 1000)]
    assert [share.replace(SPACE, " ") for share in shares] == [
        "0 %", "under 1 %", "99 %", "100 %",
    ]  # fmt: skip
