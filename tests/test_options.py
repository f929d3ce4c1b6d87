"""Options from a stranger's run folder, in every spelling."""

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import tyro
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seeking import SeekingError, TrainConfig
from seeking.checkpointing.manifest import Manifest
from seeking.commands import Train
from seeking.files import read_yaml
from seeking.options import NOT_RESUMED, flags, flags_of_run, registry

USUAL = json.loads(json.dumps(dataclasses.asdict(Train()), default=str))

HARMLESS = {"model_name", "kwargs", "no_jit", "scriptable", "exportable"}
LOADING = sorted(set(inspect.signature(timm.create_model).parameters) - HARMLESS)
"""Arguments of timm's that load something."""


def spellings(name: str) -> st.SearchStrategy[str]:
    """Each ``_`` as ``_`` or ``-``, and whatever else could be taken for it."""
    parts = name.split("_")
    joined = st.lists(st.sampled_from("_-"), min_size=len(parts) - 1, max_size=len(parts) - 1).map(
        lambda between: "".join(a + b for a, b in zip(parts, [*between, ""], strict=True))
    )
    return joined | joined.flatmap(
        lambda text: st.sampled_from(
            (text.upper(), text.title(), f" {text}", f"{text} ", f"--{text}", f"{text}=", f"{text}\n", text + "\u200b")
        )
    )


KWARGS = ("model_kwargs", "base_kwargs", "motivated_kwargs")
hostile_arguments = st.dictionaries(
    st.sampled_from(LOADING).flatmap(spellings), st.sampled_from(("x.pth", "/tmp/x", True, 1, ["x"], {"file": "x"}))
)
hostile = st.one_of(
    st.tuples(
        st.sampled_from(("model_kwargs", "base_kwargs", "motivated_kwargs")).flatmap(spellings), hostile_arguments
    ),
    st.tuples(spellings("overrides"), st.just("/etc/passwd")),
    st.tuples(spellings("condition"), st.sampled_from(("evil.Boom", "~evil.Boom", "every:2 | evil.Boom:1"))),
    st.tuples(
        st.sampled_from(("base", "motivated")).flatmap(spellings),
        st.sampled_from(("hf-hub:a/b", "local-dir:/tmp", "hf_hub:a/b", "/tmp/x", ["resnet8", "--overrides", "x"])),
    ),
    st.tuples(st.sampled_from(sorted(NOT_RESUMED)).flatmap(spellings), st.sampled_from(("/etc", True, "x"))),
    st.tuples(
        st.sampled_from([field.name for field in dataclasses.fields(Train)]).flatmap(spellings),
        st.sampled_from(
            ("--overrides", ["--overrides", "/etc/passwd"], ["x", "--config=x"], {"--overrides": "x"}, None)
        ),
    ),
)


def parsed(folder: Path) -> Train | None:
    arguments = flags_of_run(folder, Train)
    try:
        return tyro.cli(Train, args=arguments, registry=registry, config=(tyro.conf.PositionalMetavarFromFieldName,))
    except (SystemExit, SeekingError):
        return None


def stranger(folder: Path, options: dict[str, Any]) -> Path:
    """A folder that passes for a run."""
    (folder / "config.json").write_text(json.dumps(options))
    Manifest(folder).announce("config.json", folder / "config.json")
    return folder


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(hostile, min_size=1, max_size=3))
def test_nothing_of_a_strangers_options_loads_anything(
    changes: list[tuple[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [key.replace("-", "_") for key, _ in changes]
    usual = {key: value for key, value in USUAL.items() if key not in names}
    config = parsed(stranger(tmp_path, {**usual, **dict(changes)}))
    capsys.readouterr()
    if config:
        assert not (config.output or config.config or config.overwrite or config.resume or config.overrides)
        assert not config.accept_changed_data
        assert "evil" not in config.condition
        assert re.fullmatch(r"\w+", config.base + config.motivated)
        for kwargs in (config.model_kwargs, config.base_kwargs, config.motivated_kwargs):
            assert not {key.lower().replace("-", "_").strip() for key in kwargs} & set(LOADING), kwargs


def test_harmless_options_are_taken(tmp_path: Path) -> None:
    kwargs = {"img_size": 32, "depths": [2, 2], "drop_path_rate": 0.1, "act_layer": "gelu", "init_values": None}
    changes = {"model_kwargs": kwargs, "lr": 0.5, "mean": [0.1, 0.2], "condition": "every:3", "verify": False}
    config = parsed(stranger(tmp_path, {**USUAL, **changes}))
    assert config
    assert dataclasses.replace(config, resume=False) == dataclasses.replace(
        Train(), model_kwargs=kwargs, lr=0.5, mean=(0.1, 0.2), condition="every:3", verify=False
    )


def test_one_option_in_two_spellings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SeekingError, match="save_every is given twice"):
        flags({"save-every": 3, "save_every": 4}, tmp_path, Train)


@pytest.mark.slow
def test_many_values_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(SeekingError, match="mean has 400,000 values"):
        flags({"mean": [1] * 400_000}, tmp_path, Train)
    (tmp_path / "run.yaml").write_text(f"mean: [{','.join(['1'] * 400_000)}]")
    with pytest.raises(SeekingError, match="more than 20,000 values"):
        read_yaml(tmp_path / "run.yaml")


def test_all_options_of_training_are_recorded() -> None:
    assert TrainConfig().recorded().keys() <= USUAL.keys()
