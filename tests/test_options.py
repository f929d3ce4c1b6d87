"""Options from a stranger's run folder, in every spelling."""

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from runs import two_models
from strangers import USUAL, hostile, offends, stranger

from seeking import SeekingError, TrainConfig, Trainer
from seeking.commands import Train
from seeking.data import DataConfig
from seeking.experiments.run import ModelConfig
from seeking.files import read_yaml
from seeking.option_parsing import parse_options
from seeking.options import flags, flags_of_run


def parsed(folder: Path) -> Train | None:
    arguments = flags_of_run(folder, Train)
    try:
        return parse_options(Train, arguments, "seeking train")
    except (SystemExit, SeekingError):
        return None


@pytest.mark.slow
@pytest.mark.fuzz
@settings(
    max_examples=max(100, settings.default.max_examples // 10),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(changes=st.lists(hostile, min_size=1, max_size=3))
@example(changes=[("model_kwargs", {"checkpoint_path": True})])
@example(changes=[("overrides", "/etc/passwd")])
def test_nothing_of_a_strangers_options_loads_anything(
    changes: list[tuple[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = parsed(stranger(tmp_path, changes))
    capsys.readouterr()
    assert not config or not offends(config)


def test_harmless_options_are_taken(tmp_path: Path) -> None:
    kwargs = {"img_size": 32, "depths": [2, 2], "drop_path_rate": 0.1, "act_layer": "gelu", "init_values": None}
    changes = {"model_kwargs": kwargs, "lr": 0.5, "mean": [0.1, 0.2], "condition": "every:3", "verify": False}
    config = parsed(stranger(tmp_path, changes.items()))
    assert config
    assert dataclasses.replace(config, resume=False) == dataclasses.replace(
        Train(), model_kwargs=kwargs, lr=0.5, mean=(0.1, 0.2), condition="every:3", verify=False
    )


def test_every_option_is_taken_from_a_run_but_what_names_files(tmp_path: Path) -> None:
    """So that a run is resumed with its options, those included that come later."""
    texts = {"condition": "every:3", "base_condition": "every:3", "save_every": "7", "base": "resnet20"}
    lost = set()
    for name, hint in typing.get_type_hints(Train).items():
        if (
            any(kind in str(hint) for kind in ("str", "Path"))
            and "Literal" not in str(hint)
            and "Mapping" not in str(hint)
        ):
            value: Any = texts.get(name, "resnet32")
            config = parsed(stranger(tmp_path, [(name, [value] if "tuple" in str(hint) else value)]))
            if config and getattr(config, name) == getattr(Train(), name):
                lost.add(name)
    assert lost == {"output", "config", "recipe", "start_from", "overrides"}


def test_one_option_in_two_spellings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SeekingError, match="save_every is given twice"):
        flags({"save-every": 3, "save_every": 4}, tmp_path, Train)


@pytest.mark.slow
def test_many_values_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(SeekingError, match="mean has 400,000 values"):
        flags({"mean": [1] * 400_000}, tmp_path, Train)
    for count, message in ((400_000, "larger than the limit of 262,144 bytes"), (10_000, "more than 10,000 values")):
        (tmp_path / "run.yaml").write_text(f"mean: [{','.join(['1'] * count)}]")
        with pytest.raises(SeekingError, match=message):
            read_yaml(tmp_path / "run.yaml")


def test_all_options_of_training_are_recorded() -> None:
    assert TrainConfig().recorded().keys() <= USUAL.keys()


def test_python_has_every_training_option_of_the_command_line() -> None:
    """All others say which models, data and files; in Python these are arguments of the ``Trainer``."""
    elsewhere = {field.name for options in (ModelConfig, DataConfig) for field in dataclasses.fields(options)}
    elsewhere |= {"batch_size", "pretrained", "start_from", "output", "overwrite", "resume", "config", "recipe"}
    ours = {field.name: (field.type, field.default) for field in dataclasses.fields(TrainConfig)}
    theirs = {field.name: (field.type, field.default) for field in dataclasses.fields(Train)}
    assert {name: option for name, option in theirs.items() if name not in elsewhere} == ours
    assert not elsewhere & ours.keys()


def test_the_extra_capacity_is_initialized_as_asked_for_in_python() -> None:
    images = torch.randn(8, 3, 8, 8), torch.arange(8) % 4
    config = TrainConfig(epochs=1, extra="neutral", precision="no")
    pair = Trainer(*two_models(), train_loader=[images], config=config).pair
    assert pair
    with torch.no_grad(), pair.motivated() as motivated:
        assert torch.allclose(pair.base.eval()(images[0]), motivated.eval()(images[0]), atol=1e-5)
