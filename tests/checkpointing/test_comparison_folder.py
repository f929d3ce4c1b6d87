"""The folder of a comparison, some of whose own files are lost or damaged."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeking import SeekingError
from seeking.checkpointing.run_dir import RunFolder
from seeking.cli import flags_of_files
from seeking.commands import Compare
from seeking.option_parsing import parse_options

pytestmark = pytest.mark.filterwarnings("ignore::seeking.errors.RunWarning")

FILES = ("manifest.json", "config.json", "comparison.json")


@given(
    damaged=st.sets(st.sampled_from(FILES)),
    lost=st.sets(st.sampled_from(FILES)),
    seed=st.integers(0, 12),
    seeds=st.integers(1, 3),
)
@settings(max_examples=12)
def test_a_comparison_is_resumed_whatever_of_its_own_files_is_left(
    damaged: set[str], lost: set[str], seed: int, seeds: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    output = tmp_path_factory.mktemp("comparison")
    config = Compare(base="resnet20", motivated="resnet32", epochs=3, lr=0.07, seed=seed, seeds=seeds, output=output)
    folder = RunFolder(output, kind="comparison")
    folder.create(dataclasses.asdict(config), None)
    folder.write_json("comparison.json", {})
    folder.close()
    for each in range(seed, seed + seeds):
        run = RunFolder(output / f"pair-seed{each}")
        run.create(dataclasses.asdict(dataclasses.replace(config, seed=each)), None)
        run.close()
    for name in damaged:
        (output / name).write_bytes(b"\0" + (output / name).read_bytes()[1:])
    for name in lost:
        (output / name).unlink()

    if {"manifest.json", "config.json"} <= lost:
        with pytest.raises(SeekingError, match="not the folder of a run"):
            RunFolder(output, overwrite=True)
        return
    again = RunFolder(output, resume=True, kind="comparison")
    args = ["--resume", "--output", str(output)]
    resumed = parse_options(Compare, args, "seeking", flags_of_files(args, Compare)[0])
    assert again.holds_run and dataclasses.replace(resumed, resume=False) == config
    with again:
        again.read_manifest()


@pytest.mark.parametrize("ways", [{"overwrite": True}, {"resume": True}])
def test_a_single_run_does_not_take_the_place_of_a_comparison(ways: dict[str, bool], tmp_path: Path) -> None:
    config = dataclasses.asdict(Compare())
    with RunFolder(tmp_path, kind="comparison") as folder:
        folder.create(config, None)
    with RunFolder(tmp_path / "pair-seed0") as run:
        run.create(config, None)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    with RunFolder(tmp_path, **ways) as other, pytest.raises(SeekingError, match="replaced by seeking compare"):
        other.create(config, None)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    with RunFolder(tmp_path, overwrite=True, kind="comparison") as again:
        again.create(config, None)
    assert not (tmp_path / "pair-seed0").exists()
