from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import product
from lamina.core.context import Span
from lamina.core.product import project
from lamina.core.softmax_attention import attend
from lamina.plugins.mask.causal import Causal


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def narrow_is_slow() -> Iterator[None]:
    """As on a processor without instructions for bfloat16."""
    with patch.object(product, "_SLOW", {torch.bfloat16}):
        yield


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("shape", [(512,), (1, 1, 512), (3, 4, 512), (40, 512), (0, 512)])
@pytest.mark.parametrize("biased", [False, True])
@torch.no_grad()
def test_it_is_the_linear_map_whatever_the_rows(shape: tuple[int, ...], biased: bool) -> None:
    x, weight = torch.randn(shape), torch.randn(640, 512)
    bias = torch.randn(640) if biased else None
    assert_close(project(x, weight, bias), F.linear(x, weight, bias), atol=1e-4, rtol=1e-5)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
@torch.no_grad()
def test_a_few_rows_go_to_the_kernel_that_uses_all_threads() -> None:
    weight = torch.randn(640, 512)
    with torch.profiler.profile() as few:
        project(torch.randn(1, 512), weight)
    with torch.profiler.profile() as many:
        project(torch.randn(64, 512), weight)
    assert [any("mkldnn" in event.key for event in run.key_averages()) for run in (few, many)] == [True, False]


@pytest.mark.usefixtures("two_threads")
def test_gradients_are_those_of_the_linear_map() -> None:
    x, weight = torch.randn(1, 512, requires_grad=True), torch.randn(640, 512, requires_grad=True)
    project(x, weight).square().sum().backward()
    assert_close(weight.grad, 2 * F.linear(x, weight).T @ x, atol=1e-3, rtol=1e-4)


@pytest.mark.usefixtures("narrow_is_slow")
@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_narrow_products_are_the_exact_ones_rounded(rows: int) -> None:
    x, weight, bias = (torch.randn(*shape).bfloat16() for shape in ((rows, 48), (32, 48), (32,)))
    out = project(x, weight, bias)
    assert out.dtype == torch.bfloat16
    assert_close(out.double(), F.linear(x.double(), weight.double(), bias.double()), atol=0.05, rtol=0.01)


@pytest.mark.usefixtures("narrow_is_slow")
def test_autocast_products_keep_their_precision_and_their_gradients() -> None:
    x, weight = torch.randn(8, 48), torch.randn(32, 48, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = project(x, weight)
    assert out.dtype == torch.bfloat16
    assert_close(out.float(), F.linear(x.bfloat16().float(), weight.bfloat16().float()), atol=0.05, rtol=0.01)
    out.sum().backward()
    assert weight.grad is not None
    assert_close(weight.grad, x.sum(0).expand(32, 48), atol=0.1, rtol=0.02)


@pytest.mark.usefixtures("narrow_is_slow")
@pytest.mark.parametrize("autocast", [False, True])
def test_narrow_attention_is_the_exact_one_rounded(autocast: bool) -> None:
    q, k, v = (torch.randn(2, heads, 5, 8).bfloat16() for heads in (4, 2, 2))
    span = Span.run(0, 5, q.device)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = attend(q, k, v, mask=Causal(), queries=span, keys=span)
    assert out.dtype == torch.bfloat16
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True, enable_gqa=True)
    assert torch.equal(out, exact.bfloat16())
