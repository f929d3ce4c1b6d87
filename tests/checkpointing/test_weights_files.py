"""The bytes of weights files."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from seeking.checkpointing.weights import read_metadata, write_tensors

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(
    names=st.lists(TEXT.filter(lambda name: name != "__metadata__"), min_size=1, max_size=3, unique=True),
    metadata=st.dictionaries(TEXT, st.integers() | TEXT, max_size=3),
)
@settings(max_examples=25)
def test_equal_weights_are_equal_files(names: list[str], metadata: dict[str, Any]) -> None:
    tensors = {name: torch.arange(3.0) + number for number, name in enumerate(names)}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.safetensors" for number in range(6)]
        for path in paths:
            write_tensors(tensors, path, metadata)
            assert read_metadata(path) == metadata
            with safe_open(path, "pt") as file:
                assert file.metadata()["format"] == "pt" and {*file.keys()} == {*names}
                assert all(torch.equal(file.get_tensor(name), tensors[name]) for name in names)
        assert len({path.read_bytes() for path in paths}) == 1
