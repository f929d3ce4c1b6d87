"""The weights by which the base's channels would read the extra ones of a motivated model."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from seeking.internals import Convolution
from seeking.weights_map import Entry, WeightsMap, tensors


def without_reading_extra(
    motivated: nn.Module, weights_map: WeightsMap, values: dict[str, Tensor], by_rows: bool
) -> dict[str, Tensor]:
    """The motivated model's tensors with zeros where the base's channels would read extra ones; tied ones stay tied.

    Args:
        motivated: left as it is.
        weights_map: of the base in it.
        values: its tensors by name.
        by_rows: whether all custom matrices have a row for each output. If they are normalized, extra rows of zeros
            would be undefined.
    """
    originals = dict(values)
    tied: dict[int, list[str]] = {}
    for name, tensor in originals.items():
        tied.setdefault(id(tensor), []).append(name)
    for entry in _parts_of_matrices(weights_map):
        value = values[entry.target].clone()
        for written, read in _written_and_read(motivated, entry, by_rows):
            extra = _extra_along(entry, read, value.device)
            rows = entry.index[written].tensor(value.device)
            value.movedim((written, read), (0, 1))[rows.unsqueeze(1), extra.nonzero().squeeze(1)] = 0
        values.update(dict.fromkeys(tied[id(originals[entry.target])], value))
    return values


def _parts_of_matrices(weights_map: WeightsMap) -> list[Entry]:
    # Buffers are constants or statistics, and no capacity.
    entries = (entry for entry in weights_map.entries.values() if entry.target not in weights_map.buffers)
    return [entry for entry in entries if not entry.whole and len(entry.index) > 1]


def _extra_along(entry: Entry, dim: int, device: torch.device) -> Tensor:
    extra = torch.ones(entry.target_shape[dim], dtype=torch.bool, device=device)
    extra[entry.index[dim].tensor(device)] = False
    return extra


def _written_and_read(model: nn.Module, entry: Entry, by_rows: bool) -> list[tuple[int, int]]:
    """Pairs of dimensions of a weight: its layer may write along the first and read along the second."""
    owner, parametrized, _ = f".{entry.target}".partition(".parametrizations.")
    module = model.get_submodule(owner[1:] if parametrized else entry.target.rpartition(".")[0])
    if isinstance(module, nn.Embedding):
        return []  # Its rows are chosen by the input.
    if (isinstance(module, Convolution) and module.transposed) or type(module).__name__ == "Conv1D":
        return [(1, 0)]
    if isinstance(module, (nn.Linear, Convolution, nn.MultiheadAttention)):
        return [(0, 1)]
    # A custom matrix may be applied either way round: whatever mixes base and extra channels is zero.
    return [(0, 1)] if by_rows else list(itertools.permutations(range(len(entry.index)), 2))


def restore_custom_matrices(
    motivated: nn.Module,
    weights_map: WeightsMap,
    values: dict[str, Tensor],
    unseen: Callable[[dict[str, Tensor]], bool],
) -> None:
    """Give custom matrices the entries back of which the output shows nothing, one dimension of one matrix at a time.

    Extra channels that are zero, and are read by weights of zero, would never learn. In the order of the model, what
    writes them comes before what reads them.

    Args:
        motivated: left as it is; holds its own initialization.
        weights_map: of the base in it.
        values: its tensors by name, with zeros where the base's channels would read extra ones; what is restored is
            replaced.
        unseen: whether the output is the same with other tensors by these names.
    """
    own = tensors(motivated)
    for entry in _parts_of_matrices(weights_map):
        name, pairs = entry.target, _written_and_read(motivated, entry, by_rows=False)
        for dim in range(len(entry.index)) if len(pairs) > 1 else ():
            value, extra = values[name].clone(), _extra_along(entry, dim, values[name].device)
            value.movedim(dim, 0)[extra] = own[name].movedim(dim, 0)[extra]
            changed = dict.fromkeys((other for other in own if own[other] is own[name]), value)
            if not torch.equal(value, values[name]) and unseen(changed):
                values.update(changed)
