"""Models that cannot be paired are refused by name."""

from collections.abc import Callable

import accelerate
import pytest
import torch
from torch import nn
from watched_models import Layer, Packed, mlp, pair_of, state

import seeking
from seeking.errors import SeekingError


@pytest.mark.parametrize(
    "reparametrize",
    [torch.nn.utils.parametrizations.spectral_norm, torch.nn.utils.spectral_norm],
)
@pytest.mark.filterwarnings("ignore")
def test_a_part_of_a_reparametrized_weight_is_refused_by_name(reparametrize: Callable[[nn.Module], nn.Module]) -> None:
    base, motivated = pair_of(lambda width: nn.Sequential(nn.Linear(3, width), reparametrize(nn.Linear(width, 6))))
    x = torch.randn(2, 3)
    weights_map = seeking.match(base, motivated, batch=x)
    before = [state(model) for model in (base, motivated)]
    for use in (
        lambda: seeking.Pair(base, motivated, weights_map),
        lambda: seeking.embed(base, motivated, weights_map, batch=x),
        lambda: seeking.verify(base, motivated, weights_map, x),
    ):
        with pytest.raises(SeekingError, match=r"1\..*[nN]orm"):
            use()
    assert [state(model) for model in (base, motivated)] == before


def test_weights_that_depend_on_the_mode_are_refused() -> None:
    base, motivated = pair_of(lambda width: nn.Sequential(Layer(3, width, True), Layer(width, 2, True)))
    with pytest.raises(SeekingError, match=r"0\.weight of the base is another under train"):
        seeking.Pair(base, motivated)


def inference(width: int) -> nn.Module:
    with torch.inference_mode():
        return mlp(width)


def sparse(width: int) -> nn.Module:
    model = mlp(width)
    model.register_buffer("adjacency", torch.eye(3).to_sparse())
    return model


def expanded(width: int) -> nn.Module:
    model = mlp(width)
    model[0].bias = nn.Parameter(torch.zeros(1).expand(width))
    return model


def packed(width: int) -> nn.Module:
    model = mlp(width)
    model[0].weight = nn.Parameter(Packed(model[0].weight.detach()), requires_grad=False)
    return model


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda width: mlp(width).to("meta"), "meta"),
        (inference, "inference mode"),
        (sparse, "adjacency .* sparse"),
        (expanded, r"0\.bias .* expanded"),
        (lambda width: torch.jit.trace(mlp(width), torch.randn(2, 3)), "ScriptModule"),
        (lambda width: torch.ao.quantization.quantize_dynamic(mlp(width), dtype=torch.qint8), "before quantization"),
        (packed, r"0\.weight .* Packed.*before quantization"),
        (lambda width: accelerate.cpu_offload(mlp(width), torch.device("cpu")), "offloaded: load it without"),
        (lambda width: nn.Sequential(nn.LazyLinear(width), nn.Linear(width, 2)), r"0\.weight .*lazy"),
        (lambda width: "a name", "str"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_written_is_refused_by_name(make: Callable[[int], nn.Module], named: str) -> None:
    weights_map = seeking.match(*pair_of(mlp))
    base, motivated = pair_of(make)
    for use in (
        lambda: seeking.Pair(base, motivated, weights_map),
        lambda: seeking.embed(base, motivated, weights_map),
        lambda: seeking.extract(motivated, base, weights_map),
        lambda: seeking.Pair(base, motivated, batch=torch.randn(2, 3)),
    ):
        with pytest.raises(SeekingError, match=named):
            use()


def test_one_model_is_no_pair() -> None:
    model = mlp(4)
    with pytest.raises(SeekingError, match="one module"):
        seeking.Pair(model, model)


def test_wrappers_of_one_model_alone_are_named() -> None:
    base, motivated = mlp(4), nn.DataParallel(mlp(6))
    for pair, kinds in (((base, motivated), "Sequential .* DataParallel"), ((motivated, base), "DataParallel .* Seq")):
        with pytest.raises(seeking.NotContainedError, match=f"the base is a {kinds}"):
            seeking.match(*pair, batch=torch.randn(2, 3))
