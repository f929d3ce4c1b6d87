"""States taken apart into JSON and tensors, and joined again."""

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seeking import SeekingError
from seeking.checkpointing.serialize import DTYPES, pack, unpack
from seeking.internals import sparse_parts


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.complex64, np.int8, np.bool_])
def test_numpy_scalars_come_back_with_their_value(kind: type) -> None:
    packed, tensors = pack({"value": kind(1.5)})
    value = unpack(packed, tensors)["value"]
    assert value == kind(1.5)
    assert np.asarray(value).dtype.kind == np.dtype(kind).kind


@pytest.mark.parametrize("array", [np.ones(2, "g"), np.ones(2, ">i4"), np.arange(4)[::-1]])
def test_an_array_that_is_no_tensor_is_refused(array: Any) -> None:
    with pytest.raises(SeekingError, match=r"a checkpoint cannot hold a/0, a numpy\.ndarray"):
        pack({"a": [array]})


def equal(actual: Any, other: Any, twins: dict[int, Tensor]) -> bool:
    """Whether two values are the same in type and content, and one tensor in several places is one in both."""
    if type(actual) is not type(other):
        return False
    if isinstance(actual, Tensor) and actual.is_sparse:
        parts = [(*sparse_parts(each), each.shape, each.is_coalesced()) for each in (actual, other)]
        return equal(*parts, {})
    if isinstance(actual, Tensor):
        bits, expected = (value.resolve_conj().resolve_neg().numpy().tobytes() for value in (actual, other))
        shared = not actual.numel() or twins.setdefault(id(actual), other) is other  # Empty ones have nothing to share.
        return shared and actual.dtype == other.dtype and actual.shape == other.shape and bits == expected
    if isinstance(actual, np.ndarray):
        return (actual.dtype, actual.shape, actual.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(actual, dict):
        return equal([*actual], [*other], twins) and equal([*actual.values()], [*other.values()], twins)
    if isinstance(actual, list | tuple):
        return len(actual) == len(other) and all(equal(*both, twins) for both in zip(actual, other, strict=True))
    return repr(actual) == repr(other)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    dicts, parts = st.dictionaries(KEYS, inner, max_size=4), st.lists(inner, max_size=4)
    return dicts | parts | parts.map(tuple) | dicts.map(Counter)


KEYS = st.sampled_from(("a", "b", "a/b", "/a", "", "/", "$tensor", "$x", "0", 0, 1, -1, (0, "a"), ((), 1), "\ud800"))
ONES, TWOS, C, ARRAY = torch.ones(2), torch.full((2,), 2.0), torch.tensor([[1 + 2j, 3j]]), np.arange(4)
TENSORS = [
    *(
        ONES,
        TWOS,
        ONES[:1],
        ONES.view(torch.int32),
        ONES.view(1, 2),
        ONES[0],
        ONES > 1,
        C,
        C.conj(),
        C.conj().imag,
        C.T,
    ),
    *(torch.zeros(size, dtype=dtype) for size in ((0,), (0, 2), (3,)) for dtype in (torch.int8, torch.float16)),
    *(ARRAY, ARRAY[::2], ARRAY[:0], ARRAY.reshape(2, 2).T, np.array(3.0), ARRAY.astype("f2")),
    *(torch.sparse_coo_tensor([[2, 0, 2]], [0.1, 0.2, 0.3], (4,), check_invariants=True), ONES.to_sparse()),
    *DTYPES.values(),
]
LEAVES = (None, True, False, 0, 2**64, 10**400, 0.5, -0.0, 1e308, math.nan, math.inf, -math.inf, "", "$x", "\ud800")
STATES = st.recursive(
    st.sampled_from(LEAVES) | st.integers(0, len(TENSORS) - 1).map(TENSORS.__getitem__), containers, max_leaves=12
)
"""Values with keys and types of any kind, in which some tensors are in several places."""


@pytest.mark.fuzz
@settings(suppress_health_check=list(HealthCheck))
@given(STATES)
@example({"a/b": ONES, "a": {"b": TWOS}})
@example({"a": {"b": TWOS}, "a/b": ONES, "/a": TWOS})
@example({1: ONES, "1": TWOS, (1, "a"): {"": ONES}, "": TWOS})
@example({"a": [ONES], ("a", 0): {"x": TWOS}})
@example([C, C.conj(), C.conj().imag, torch.zeros(0, 2), torch.zeros(0, 3), {"a": torch.zeros(0, 5)}])
def test_a_state_that_was_taken_apart_is_joined_again_as_it_was(state: Any) -> None:
    packed, tensors = pack(state)
    assert equal(unpack(json.loads(json.dumps(packed, allow_nan=False)), tensors), state, {})
