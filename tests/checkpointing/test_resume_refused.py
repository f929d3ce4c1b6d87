"""A folder is not resumed with other options, models or data, nor by two programs."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import WithDropout, make
from runs import CONFIG, OneStage, batches, two_models

import seeking
from seeking import SeekingError, TrainConfig, Trainer
from seeking.checkpointing.resume import restore_state


def test_other_options_models_or_data_are_refused_with_a_diff(tmp_path: Path) -> None:
    output = tmp_path / "run"
    make(output=output, config=CONFIG).fit()

    def refused(message: str, config: TrainConfig = CONFIG, **kwargs: Any) -> None:
        before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file() and path.name != ".lock"}
        with pytest.raises(SeekingError, match=message):
            make(output=output, config=config, resume=True, **kwargs)
        assert before == {path: path.read_bytes() for path in before}

    changed = dataclasses.replace(CONFIG, lr=0.1, momentum=0.8, epochs=3)
    refused(r"(?s)other options:.*  lr: 0.05 in the run, 0.1 now\n  momentum: 0.9 in the run, 0.8 now\n", changed)
    refused("the condition was decrease:1 and is always now", condition=seeking.Always())
    refused("an epoch had 6 batches and has 12 now", train_loader=batches(batch_size=4)["train_loader"])
    small, large = two_models()
    wider, narrower = OneStage(2, width=16), OneStage(1, width=4)
    for others in ((small, WithDropout(4)), (small, wider), (narrower, large)):
        with pytest.raises(SeekingError, match=r"with these models: .* belongs to other models\. Give"):
            Trainer(*others, **batches(), config=CONFIG, output=output, resume=True)
    refused("the state of another optimizer", optimizer=lambda m: torch.optim.Adagrad(list(m.parameters())[:3]))
    with pytest.raises(SeekingError, match="holds another run"):
        make(output=output, config=CONFIG)
    with pytest.raises(SeekingError, match=r"resume is '.*run'; it is True or False.* give output='.*run' and resume"):
        make(output=tmp_path / "new", config=CONFIG, resume=str(output))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(SeekingError, match="not the folder of a run, so it is not resumed"):
        make(output=tmp_path / "mine", config=CONFIG, resume=True)


def test_a_state_of_other_parts_is_told_with_what_to_do() -> None:
    with pytest.raises(SeekingError, match=r"the parts motivated and has base now.*seeking compare --resume"):
        restore_state({"base": torch.nn.Linear(1, 1)}, {"parts": {"motivated": {"step": 1}}})


@pytest.mark.slow
def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    output = tmp_path / "run"

    def second(row: dict[str, Any]) -> None:
        if row.get("step") == 3:
            for kwargs in ({"resume": True}, {"output": seeking.training.RunFolder(output, overwrite=True)}):
                with pytest.raises(SeekingError, match="another program is training in this folder"):
                    make(**{"output": output, **kwargs}, config=CONFIG).fit()
            tried.append(row["step"])

    tried: list[int] = []
    first = make(output=output, config=CONFIG, listeners=[second]).fit()
    assert tried
    assert make(output=output, config=CONFIG, resume=True).fit().history == first.history
