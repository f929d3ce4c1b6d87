"""How the command starts, and options of a wrong type."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seeking
from seeking import SeekingError, TrainConfig
from seeking.data import DataConfig
from seeking.experiments.run import RunConfig

INTERRUPTED = """
import runpy, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {at!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
sys.argv = ["seeking", "train"]
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(("module", "at"), [("seeking", "torch"), ("seeking", "seeking.cli"), ("seeking.cli", "torch")])
def test_ctrl_c_during_the_imports_is_no_traceback(module: str, at: str) -> None:
    program = INTERRUPTED.format(at=at, module=module)
    environment = {"PYTHONPATH": str(Path(seeking.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "seeking: interrupted\n")


def test_all_public_names_are_there() -> None:
    assert all(getattr(seeking, name) is not None for name in seeking.__all__)
    assert {*seeking.__all__} <= {*dir(seeking)}
    with pytest.raises(AttributeError, match="no attribute 'Trianer'"):
        seeking.Trianer  # noqa: B018


WRONG = {
    int: st.floats() | st.text() | st.booleans() | st.lists(st.integers()),
    float: st.text() | st.booleans() | st.lists(st.floats()) | st.complex_numbers(),
    str: st.integers() | st.floats() | st.binary(),
    bool: st.integers() | st.text(),
}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from([TrainConfig, DataConfig, RunConfig]))
def test_options_of_a_wrong_type_are_refused_in_words(data: st.DataObject, kind: type[Any]) -> None:
    types = {name: [each for each in WRONG if each.__name__ in str(hint).split(" | ")] for name, hint in hints(kind)}
    fields = [name for name, known in types.items() if len(known) == 1 and name != "save_every"]
    name = data.draw(st.sampled_from(sorted(fields)))
    value = data.draw(WRONG[types[name][0]])
    with pytest.raises(SeekingError, match=rf"^{name} is .*, of type {type(value).__name__}; it must be "):
        kind(**{name: value})


def hints(kind: type[Any]) -> list[tuple[str, str]]:
    return [(f.name, f.type.__name__ if isinstance(f.type, type) else str(f.type)) for f in dataclasses.fields(kind)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": "0.1"}, "lr is '0.1', of type str; it must be a number"),
        ({"epochs": 1.5}, "epochs is 1.5, of type float; it must be a whole number"),
        ({"clip_grad": "1"}, "it must be a number or None"),
        ({"verify": "no"}, "verify is 'no', of type str; it must be True or False"),
        ({"condition": seeking.Always()}, "it must be text"),
    ],
)
def test_options_that_others_have_tried(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        TrainConfig(**options)


def test_numbers_of_numpy_are_numbers() -> None:
    config = TrainConfig(epochs=np.int64(3), lr=np.float32(0.5), warmup_epochs=1)  # type: ignore[arg-type]
    assert config.recorded()["epochs"] == 3
