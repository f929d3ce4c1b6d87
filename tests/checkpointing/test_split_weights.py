"""Weights that are split into several files."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny import Network
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from seeking import SeekingError
from seeking.checkpointing.weights import load_weights, shapes_of_weights

NAMES = [*Network(3).state_dict()]
INDEX = "model.safetensors.index.json"


def write_split(folder: Path, places: dict[str, str], state: dict[str, torch.Tensor], save: Any = save_file) -> None:
    for file in set(places.values()):
        save({name: state[name] for name in places if places[name] == file}, folder / file)


@settings(max_examples=30)
@given(
    parts=st.lists(st.integers(0, 3), min_size=len(NAMES), max_size=len(NAMES)),
    kind=st.sampled_from((("model", "safetensors", save_file), ("pytorch_model", "bin", torch.save))),
)
def test_weights_in_several_files_are_loaded_by_their_folder_or_index(parts: list[int], kind: Any) -> None:
    (stem, suffix, save), saved = kind, Network(3)
    places = {name: f"{stem}-{part:05}.{suffix}" for name, part in zip(NAMES, parts, strict=True)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_split(folder, places, saved.state_dict(), save)
        index = folder / f"{stem}.{suffix}.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
        for path in (folder, index):
            loaded = Network(3)
            load_weights(loaded, path)
            assert all(torch.equal(*pair) for pair in zip(saved.parameters(), loaded.parameters(), strict=True))
            assert shapes_of_weights(path) == {key: tuple(value.shape) for key, value in saved.state_dict().items()}


def test_weights_that_accelerate_has_split_are_loaded_and_one_part_is_told(tmp_path: Path) -> None:
    saved, loaded = Network(3), Network(3)
    Accelerator().save_model(saved, str(tmp_path), max_shard_size=50)
    load_weights(loaded, tmp_path)
    assert all(torch.equal(*pair) for pair in zip(saved.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(SeekingError, match="it is one of several files that the weights are split into; give their"):
        load_weights(loaded, next(tmp_path.glob("model-00001-of-*.safetensors")))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"weight_map": {"0.weight": "../outside.safetensors"}}, "not an index of weights"),
        ({"weight_map": {"0.weight": "/outside.safetensors"}}, "not an index of weights"),
        ({"weight_map": {"0.weight": ".."}}, "a folder, not a file"),
        ({"weight_map": {"0.weight": 3}}, "not an index of weights"),
        ({"weight_map": {"0.weight": [3]}}, "not weights of this Network"),
        ({"weight_map": ["a"]}, "not an index of weights"),
        ({}, "not an index of weights"),
        ([], "expected a JSON object"),
        ({"weight_map": {"0.weight": "missing"}}, "missing: cannot be read"),
        ({"weight_map": {"0.weight": INDEX}}, "not a file of weights"),
        ({"weight_map": {"other": "part"}}, "other is not in part, as it says"),
        ({"weight_map": {"0.weight": "part"}}, "Missing key"),
    ],
)
def test_an_index_names_files_beside_it(content: Any, told: str, tmp_path: Path) -> None:
    for path in (tmp_path / "outside.safetensors", tmp_path / "folder" / "part"):
        path.parent.mkdir(exist_ok=True)
        save_file(Network(3).state_dict(), path)
    (tmp_path / "folder" / INDEX).write_text(json.dumps(content))
    with pytest.raises(SeekingError, match=told):
        load_weights(Network(3), tmp_path / "folder")


@pytest.mark.parametrize("given", [".", ".metadata", "__0_0.distcp"])
def test_a_distributed_checkpoint_is_told_how_to_make_one_file_of(given: str, tmp_path: Path) -> None:
    saved, loaded = Network(3), Network(3)
    dcp.save({"model": saved.state_dict()}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    with pytest.raises(SeekingError, match=r"of torch.distributed.checkpoint, .*format_utils.dcp_to_torch_save"):
        load_weights(loaded, tmp_path / "dcp" / given)
    dcp_to_torch_save(tmp_path / "dcp", tmp_path / "one.pt")
    load_weights(loaded, tmp_path / "one.pt")
    assert all(torch.equal(*pair) for pair in zip(saved.parameters(), loaded.parameters(), strict=True))
