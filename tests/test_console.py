"""What watches the console in every test sees lines of torch and Pyro, and no others."""

import io
import logging

import pytest
import torch
from parts.console import lines_of_torch
from parts.pairs import PAIRS, made

from ppl_vae import fit, lint
from ppl_vae.compat import of_torch
from ppl_vae.compiled import graphs

LINE = "E1126 04:23:58.078000 24288 torch/_subclasses/fake_tensor.py:3090] failed"
WARNING = "[W1126 04:23:58.123 Module.cpp:12] Warning: something (function operator())"


def test_lines_of_torchs_log_are_found_in_text():
    text = f"epoch 1\n{LINE}\nELBO -12\n{WARNING}\n"
    assert lines_of_torch(text) == [LINE, WARNING]
    assert lines_of_torch("W and E, 1126 rows\n[1, 2]\n") == []


@pytest.mark.parametrize("name", ["torch._subclasses.fake_tensor", "pyro"])
def test_a_line_counts_where_the_library_is_on_the_stack(name, monkeypatch, console_lines):
    model, guide, x = made(PAIRS["gaussian"])
    logger, forward = logging.getLogger(name), type(model).forward
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler(io.StringIO())])

    def talkative(self, x):
        logger.error("a line")
        return forward(self, x)

    monkeypatch.setattr(type(model), "forward", talkative)
    logger.error("a line of the test's own")
    assert console_lines == []
    lint(model, guide, x)
    assert set(console_lines) == {f"{name}: a line"}
    console_lines.clear()


def test_a_compiler_that_fails_leaves_the_console_alone(monkeypatch, capfd):
    def refused(module, *others):
        logging.getLogger("torch._subclasses.fake_tensor").error("a traceback")
        raise RuntimeError("refused")

    monkeypatch.setattr(of_torch, "compile_with_inductor", refused)
    with pytest.raises(RuntimeError, match="refused"):
        graphs.compile_graph(lambda x: [x + 1], [], [torch.ones(2)])
    with pytest.warns(UserWarning, match="the compiler failed: RuntimeError: refused"):
        fit(*made(PAIRS["gaussian"]), epochs=2, compile=True, progress=False)
    assert capfd.readouterr() == ("", "")
