"""Products with odd numbers of columns are the same when they are made wider or transposed."""

import itertools

import pytest
import torch

from ppl_vae.compiled import narrow_products
from ppl_vae.compiled.graphs import compile_graph

SIZES = list(
    itertools.product((3, 16, 48, 64, 100, 1024), (1, 20, 64), (1, 2, 8, 10, 14, 20, 30, 32))
)


def matrices(rows, inner, columns, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = (rows, inner), (inner, columns)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


@pytest.fixture
def on_amd(monkeypatch):
    """Another processor multiplies in the same way for this test."""
    products = {torch.ops.aten.mm.default: narrow_products.mm}
    products[torch.ops.aten.addmm.default] = narrow_products.addmm
    monkeypatch.setattr(narrow_products, "rules", lambda: products)


def test_a_product_is_the_product_or_left_to_torch():
    left_alone = 0
    for size in SIZES:
        left, right = matrices(*size)
        bias, found = torch.ones(size[-1]), narrow_products.mm(left, right)
        with_bias = narrow_products.addmm(bias, left, right)
        left_alone += found is NotImplemented
        if found is NotImplemented:
            assert with_bias is NotImplemented
            continue
        assert found.shape == (size[0], size[-1])
        torch.testing.assert_close(found, left @ right, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(with_bias, left @ right + 1, rtol=1e-5, atol=1e-5)
    assert len(SIZES) / 3 < left_alone < len(SIZES) * 2 / 3


def test_a_product_is_wider_or_transposed_where_that_was_measured_to_be_faster():
    def made(rows, inner, columns):
        """Return the shapes of the matrices that are multiplied in the place of these."""
        shapes = []
        product = torch.ops.aten.mm.default

        def noted(left, right):
            shapes.append((*left.shape, right.shape[1]))
            return product(left, right)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(narrow_products.aten.mm, "default", noted)
            narrow_products.mm(*matrices(rows, inner, columns))
        return shapes

    assert made(1024, 64, 30) == [(1024, 64, 32)]
    assert made(1024, 64, 8) == [(8, 64, 1024)]
    assert made(64, 1024, 20) == [(20, 1024, 64)]
    for size in [(1024, 64, 20), (128, 30, 64), (128, 400, 784), (8, 64, 30), (128, 64, 1)]:
        assert made(*size) == []


def test_other_precisions_and_scaled_products_are_left_to_torch():
    left, right = matrices(64, 64, 8, torch.float64)
    assert narrow_products.mm(left, right) is NotImplemented
    single = matrices(64, 64, 8)
    assert narrow_products.addmm(torch.ones(8), *single, beta=0.5) is NotImplemented


@pytest.mark.usefixtures("on_amd")
def test_compiled_code_returns_the_same_layer():
    layer = torch.nn.Linear(20, 30)
    state = [layer.weight.detach(), layer.bias.detach()]

    def run(weight, bias, x):
        y = torch.nn.functional.linear(x, weight, bias)
        return [y, y.sum(0), y.t() @ x]

    x = torch.randn(1024, 20)
    for found, expected in zip(
        compile_graph(run, state, [x])(*state, x), run(*state, x), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_who_makes_the_processor_decides(monkeypatch):
    narrow_products.rules.cache_clear()
    for text, expected in {
        "vendor_id : AuthenticAMD": True,
        "vendor_id : GenuineIntel": False,
    }.items():
        monkeypatch.setattr(narrow_products.Path, "read_text", lambda path, text=text: text)
        monkeypatch.setattr(narrow_products.Path, "exists", lambda path: True)
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
        assert bool(narrow_products.rules()) is expected
        narrow_products.rules.cache_clear()
