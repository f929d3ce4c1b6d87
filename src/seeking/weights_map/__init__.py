"""The weights map: which entries of the motivated model's tensors are the base model's."""

from seeking.weights_map.entry import Entry
from seeking.weights_map.index import Index
from seeking.weights_map.map import WeightsMap
from seeking.weights_map.tensors import (
    Name,
    has_double,
    has_nan,
    identity,
    in_double,
    is_packed,
    is_real,
    leaves_in,
    named_leaves,
    named_tensors,
    owners,
    tensors,
    tensors_in,
)

__all__ = [
    "Entry",
    "Index",
    "Name",
    "WeightsMap",
    "has_double",
    "has_nan",
    "identity",
    "in_double",
    "is_packed",
    "is_real",
    "leaves_in",
    "named_leaves",
    "named_tensors",
    "owners",
    "tensors",
    "tensors_in",
]
