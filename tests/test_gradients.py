"""Gradients of a model, taken together."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from seeking.gradients import total_norm

SHAPES = st.lists(st.integers(0, 5), max_size=3)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


@st.composite
def gradients(draw: st.DrawFn) -> list[Tensor]:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    dtypes = st.just(draw(DTYPES)) if draw(st.booleans()) else DTYPES
    tensors = [
        torch.randn(shape, generator=generator).to(dtype)
        for shape, dtype in draw(st.lists(st.tuples(SHAPES, dtypes), max_size=6))
    ]
    if tensors and tensors[0].numel() and draw(st.booleans()):
        tensors[0].view(-1)[0] = draw(st.sampled_from([float("nan"), float("inf"), 1e30]))
    return tensors


@given(gradients())
def test_the_norm_of_all_gradients_is_that_of_pytorch(tensors: list[Tensor]) -> None:
    """Of one dtype, bit for bit; of several, PyTorch adds the tensors up in another order."""
    expected, norm = get_total_norm(tensors), total_norm(tensors)
    assert (norm.dtype, norm.shape) == (expected.dtype, expected.shape)
    mixed = len({gradient.dtype for gradient in tensors}) > 1
    assert torch.allclose(norm, expected, rtol=1e-6 if mixed else 0, atol=0, equal_nan=True)


def test_rows_that_occur_several_times_in_a_sparse_gradient_are_summed_before_their_norm() -> None:
    layers = [nn.Embedding(5, 3, sparse=sparse) for sparse in (True, False)]
    layers[1].weight.data.copy_(layers[0].weight)
    for layer in layers:
        (layer(torch.tensor([1, 1, 2])) ** 2).sum().backward()
    sparse, dense = (total_norm(p.grad for p in layer.parameters()) for layer in layers)
    assert torch.allclose(sparse, dense)
