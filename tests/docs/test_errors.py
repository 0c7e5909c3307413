"""The page on errors has every message of the library, each with what to do."""

import ast
import importlib
import sys

import pytest
from parts.site import DOCS, ROOT

import ppl_vae
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.linting import (
    estimator_rules,
    likelihood_rules,
    objective_runs,
    rerun_rules,
    trace_rules,
)
from ppl_vae.models.bernoulli import BernoulliModel


@pytest.fixture(scope="module")
def errors():
    """The module that the site's configuration imports from its own folder."""
    sys.path.insert(0, str(DOCS))
    yield importlib.import_module("extensions.error_tables")
    sys.path.remove(str(DOCS))
    for name in [name for name in sys.modules if name.split(".")[0] == "extensions"]:
        del sys.modules[name]


def test_every_message_says_what_to_do(errors):
    messages = errors.errors()[0] + errors.warned()
    bare = [f"{message.file}: {message.text}" for message in messages
            if not errors.mend(message.text)]  # fmt: skip
    assert bare == [], "end the message with '; what to do', or add a line to docs/mends.toml"
    assert len(messages) > 800


def test_raise_statements_without_words_of_their_own_are_known(errors):
    """A new one is an error whose words the page does not have, unless they are passed on."""
    passed_on = set(errors.mends()["raises"]["passed_on"])
    silent = set(errors.errors()[1])
    assert silent - passed_on == set(), "say in docs/mends.toml where the words come from"
    assert passed_on - silent == set(), "remove these lines from docs/mends.toml"


def test_no_line_by_hand_is_of_a_message_that_is_gone(errors):
    texts = {message.text for message in errors.errors()[0] + errors.warned()}
    assert set(errors.mends()["messages"]) - texts == set()
    assert set(errors.mends()["rules"]) - {rule.function for rule in errors.rules()} == set()


def test_every_raise_statement_of_the_library_is_read(errors):
    """Counted without the reader's own code: a raise that it would skip is missed here."""
    count = sum(
        isinstance(node, ast.Raise) and node.exc is not None
        for folder in ("ppl_vae", "models", "guides")
        for path in (ROOT / folder).rglob("*.py")
        if "linting" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
    )
    assert errors.number_of_raise_statements() == count


def test_every_rule_of_lint_has_its_line(errors):
    listed = {rule.function for rule in errors.rules()}
    modules = (trace_rules, estimator_rules, rerun_rules, likelihood_rules)
    rules = {rule.__name__ for module in modules for rule in module.RULES}
    rules |= {rule.__name__ for rule in objective_runs.RULES}
    assert rules - listed == set()
    table = errors.rule_table()
    for rule in errors.rules():
        fault = errors.mends()["rules"].get(rule.function, rule.fault)
        assert fault
        assert not fault.startswith(("a finding", "Compute", "Trace", "Run")), rule.function
        assert errors.as_cell(fault) in table


def message_of(call, **options):
    with pytest.raises(ValueError, match=":") as raised:
        call(**options)
    return str(raised.value)


def test_messages_that_a_user_meets_are_in_the_tables(errors, tmp_path):
    """The tables hold the words of errors that are raised here, between what is filled in."""
    import torch

    x = torch.rand(20, 4).bernoulli()
    pair = {"model": BernoulliModel(4), "guide": NormalGuide(4), "data": x}
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n3,x\n")
    met = [
        message_of(ppl_vae.fit, **pair, epochs=0),
        message_of(ppl_vae.fit, **pair, validation=2.0),
        message_of(ppl_vae.log_likelihood, **pair, num_samples=0),
        message_of(ppl_vae.read_data, path=tmp_path / "bad.csv"),
        message_of(ppl_vae.read_data, path=tmp_path / "none.csv"),
        message_of(ppl_vae.load, run=tmp_path / "run"),
    ]
    known = [message.text for message in errors.errors()[0]]
    for text in met:
        assert any(errors.fits(template, text) for template in known), text


def test_the_files_of_the_page_are_written(errors, tmp_path):
    errors.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"errors.md", "warnings.md", "rules.md"}
    text = (tmp_path / "errors.md").read_text()
    assert all(f"### {title}" in text for title in errors.TITLES.values())
    included = (DOCS / "troubleshooting.md").read_text()
    assert all(f"_generated/{path.name}" in included for path in tmp_path.iterdir())
