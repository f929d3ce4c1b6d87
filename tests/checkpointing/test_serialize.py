import numpy as np
import pytest

from seeking.checkpointing.serialize import pack, unpack


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.complex64, np.int8, np.bool_])
def test_numpy_scalars_come_back_with_their_value(kind: type) -> None:
    packed, tensors = pack({"value": kind(1.5)})
    value = unpack(packed, tensors)["value"]
    assert value == kind(1.5)
    assert np.asarray(value).dtype.kind == np.dtype(kind).kind
