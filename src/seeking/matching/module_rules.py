"""Rules for modules: what the dimensions of a layer's tensors are made of, where their sizes alone do not tell.

A dimension is a product of factors, outermost first: the rows of a fused query/key/value projection are
``(3, heads, head size)``. Factors grow one by one: a base of three heads takes three of the motivated model's heads,
whole, out of q, of k and of v.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from seeking.internals import Convolution
from seeking.matching.axes import HEAD


class Factor(NamedTuple):
    """One factor of a dimension.

    Attributes:
        name: what it counts, for messages.
        size: how many there are.
        grows: whether a larger model may have more of them.
    """

    name: str
    size: int
    grows: bool = True


Dimension = Sequence[Factor]
Structure = Mapping[str, Sequence[Dimension]]
"""For names of a module's own tensors and of its children's (``qkv.weight``), their dimensions."""

Rule = Callable[[nn.Module], Structure | None]

RULES: list[Rule] = []
"""Custom rules: they take precedence over the trace."""

BUILT_IN: list[Rule] = []
"""Rules for models that cannot be traced; of others the forward pass shows more than a rule can."""


def rule(function: Rule) -> Rule:
    """Register a rule: from a module to its structure, or to None where it does not apply. The latest comes first."""
    RULES.insert(0, function)
    return function


def factors_of(model: nn.Module, name: str, rules: Sequence[Rule]) -> tuple[str, Sequence[Dimension]]:
    """The dimensions of a tensor by the rule for the innermost module around it, and that rule's name.

    Args:
        model: holds the tensor.
        name: of the tensor.
        rules: to be asked, the first that applies to a module decides.

    Returns:
        ``("", [])`` where no rule knows the tensor.
    """
    path = name.split(".")
    for depth in range(len(path) - 1, -1, -1):
        rule_name, structure = _structure(model.get_submodule(".".join(path[:depth])), rules)
        dimensions = structure.get(".".join(path[depth:]))
        if dimensions is not None:
            return rule_name, dimensions
    return "", []


def _structure(module: nn.Module, rules: Sequence[Rule]) -> tuple[str, Structure]:
    for candidate in rules:
        dimensions = candidate(module)
        if dimensions is not None:
            return candidate.__name__.replace("_", " "), dimensions
    return "", {}


def default_dimensions(tensor: Tensor) -> list[Dimension]:
    """Dimensions that no rule knows: vectors and matrices grow; of larger tensors, the last dimension alone does."""
    dimensions: list[Dimension] = []
    for dim, size in enumerate(tensor.shape):
        grows = tensor.ndim <= 2 or dim == tensor.ndim - 1
        dimensions.append([Factor("channels" if grows else "number of positions", size, grows)])
    return dimensions


@BUILT_IN.append
def convolution(module: nn.Module) -> Structure | None:
    """Channels first, then the kernel; the channels of a grouped convolution belong to groups."""
    if not isinstance(module, Convolution):
        return None
    groups = module.groups
    kernel: list[Dimension] = [[Factor("kernel size", size, grows=False)] for size in module.weight.shape[2:]]
    if module.transposed:
        inputs = [Factor("groups", groups), Factor("input channels per group", module.in_channels // groups)]
        outputs = [Factor("output channels per group", module.out_channels // groups)]
        return {
            "weight": [inputs, outputs, *kernel],
            "bias": [[Factor("groups", groups), *outputs]],
        }
    outputs = [Factor("groups", groups), Factor("output channels per group", module.out_channels // groups)]
    inputs = [Factor("input channels per group", module.in_channels // groups)]
    return {"weight": [outputs, inputs, *kernel], "bias": [outputs]}


def _heads(heads: int, width: int) -> list[Factor]:
    return [Factor("heads", heads), Factor(HEAD, width // heads, grows=False)]


@BUILT_IN.append
def fused_attention(module: nn.Module) -> Structure | None:
    """``qkv`` and ``proj`` around ``num_heads`` heads, as in timm's vision transformers."""
    qkv, proj, heads = (getattr(module, name, None) for name in ("qkv", "proj", "num_heads"))
    if not (isinstance(qkv, nn.Linear) and isinstance(proj, nn.Linear) and isinstance(heads, int)):
        return None
    width = qkv.out_features // 3
    if qkv.out_features != 3 * proj.in_features or width % heads:
        return None
    rows = [Factor("q, k and v", 3, grows=False), *_heads(heads, width)]
    return {
        "qkv.weight": [rows, [Factor("channels", qkv.in_features)]],
        "qkv.bias": [rows],
        "proj.weight": [[Factor("channels", proj.out_features)], _heads(heads, width)],
    }


@BUILT_IN.append
def torch_attention(module: nn.Module) -> Structure | None:
    """``torch.nn.MultiheadAttention``."""
    if not isinstance(module, nn.MultiheadAttention):
        return None
    heads = _heads(module.num_heads, module.embed_dim)
    rows = [Factor("q, k and v", 3, grows=False), *heads]
    return {
        "in_proj_weight": [rows, [Factor("channels", module.embed_dim)]],
        "in_proj_bias": [rows],
        "q_proj_weight": [heads, [Factor("channels", module.embed_dim)]],
        "k_proj_weight": [heads, [Factor("channels", module.kdim)]],
        "v_proj_weight": [heads, [Factor("channels", module.vdim)]],
        "out_proj.weight": [[Factor("channels", module.embed_dim)], heads],
    }
