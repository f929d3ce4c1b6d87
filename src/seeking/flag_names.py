"""Names of options as flags: in messages on the command line, and for the names that other tools use."""

import dataclasses
import re
import typing
from collections.abc import Sequence
from typing import Any

from seeking.errors import SeekingError
from seeking.option_types import types_of

OTHER_TOOLS = {
    "lr": "learning-rate learningrate lr0 max-lr",
    "epochs": "n-epochs num-epochs max-epochs nb-epochs num-train-epochs epoch",
    "max-steps": "steps num-steps total-steps train-steps iterations num-iterations max-iters max-iterations",
    "batch-size": "batch bs b train-batch-size per-device-train-batch-size batch-size-per-gpu",
    "weight-decay": "wd decay-rate l2",
    "optimizer": "opt optim",
    "schedule": "sched scheduler lr-scheduler lr-scheduler-type lr-schedule",
    "warmup-epochs": "warmup warmup-ratio",
    "warmup-steps": "num-warmup-steps warmup-iters",
    "loss": "objective criterion problem-type loss-fn",
    "label-smoothing": "smoothing label-smoothing-factor",
    "clip-grad": "clip-grad-norm max-grad-norm max-norm gradient-clip-val grad-clip clip",
    "accumulate": "gradient-accumulation-steps grad-accum-steps grad-accum accumulate-grad-batches update-freq",
    "precision": "amp amp-dtype fp16 bf16 mixed-precision dtype",
    "checkpoint-activations": "grad-checkpointing gradient-checkpointing activation-checkpointing",
    "compile": "torchcompile torch-compile",
    "shard": "fsdp",
    "seed": "random-seed seed-everything",
    "eval-every": "eval-interval eval-freq eval-steps check-val-every-n-epoch val-interval",
    "save-every": "save-steps save-interval checkpoint-interval every-n-train-steps",
    "keep-checkpoints": "save-total-limit checkpoint-hist save-top-k",
    "resume": "resume-from-checkpoint ckpt-path resume-from auto-resume",
    "output": "output-dir out-dir outdir save-dir default-root-dir logdir log-dir experiment run-name name",
    "data": "dataset data-dir data-path dataset-name train-dir root",
    "subset": "dataset-config-name dataset-config config-name",
    "image-size": "img-size input-size imgsz size resolution",
    "workers": "num-workers dataloader-num-workers j nw",
    "flip": "hflip horizontal-flip",
    "random-erasing": "reprob re-prob",
    "crop-scale": "rrc-scale scale",
    "max-train-samples": "limit-train-batches num-samples",
    "max-eval-samples": "limit-val-batches",
    "validation": "validation-split val-size",
    "test-split": "val-split eval-split",
    "device": "accelerator gpu gpus",
    "tracker": "report-to logger log-wandb wandb log-with tensorboard",
    "base": "model arch model-name",
    "ema": "model-ema model-ema-decay ema-decay",
    "start-from": "initial-checkpoint finetune weights checkpoint init-from",
    "best": "eval-metric monitor metric-for-best-model",
    "label-column": "label labels label-col target-key target target-column",
    "image-column": "input-key",
    "overwrite": "overwrite-output-dir force exist-ok",
}
"""Names of options in timm, Hugging Face's and Lightning's trainers, and other common ones, by the name here."""

_HERE = {name: here for here, names in OTHER_TOOLS.items() for name in names.split()}


def name_of_other_tool(name: str, command: type[Any]) -> str | None:
    """The name that an option of other tools has here, if a command has it."""
    last = name.lower().replace("_", "-").rpartition(".")[2]  # Lightning has ``--trainer.max_epochs``.
    here = _HERE.get(last, last if "." in name else None)
    return here if here and here.replace("-", "_") in _fields(command) else None


def check_flags(args: Sequence[str], command: type[Any]) -> None:
    """Make sure that no flag is one of another tool.

    Raises:
        SeekingError: one is; the message names the flag that this command has.
    """
    for arg in args:
        name = re.sub("^--?(no-)?", "", arg.partition("=")[0])
        known = not arg.startswith("-") or name.replace("-", "_") in _fields(command)
        if not known and (here := name_of_other_tool(name, command)):
            raise SeekingError(f"unknown option {arg.partition('=')[0]}; did you mean --{here}?")


def with_flags(message: object, command: type[Any]) -> str:
    """A message that names arguments, as the command line has them: ``label_column`` becomes ``--label-column``.

    A name of one word may as well be an ordinary word. It is taken for an argument only where a line begins with it and
    says what it is, or lists it with its value, where the message begins with it and a colon, before one of the words
    that it may hold, and where it is to be set or cannot be combined. Lists of what is known, such as the condition
    ``held_out``, stay, and so do conditions with their numbers.
    """
    fields = _fields(command)
    long = "|".join(sorted((name for name in fields if "_" in name), key=len, reverse=True))
    text = re.sub(rf"\A({'|'.join(fields)})(?=: )", _flag, str(message))
    text = re.sub(rf"(?m)(^|(?<=^  ))({'|'.join(fields)})(?= is |: .* in the run| cannot be combined)", _flag, text)
    before, after = r"(?:(?<=combined with )|(?<=, or change ))", r"(?<=\bset )"
    text = re.sub(rf"{before}({'|'.join(fields)})\b(?!_)|{after}({'|'.join(fields)})(?= to )", _flag, text)
    listed, not_before = r"known: .*|did you mean .*", r"(?<![\w./\\'\"=-])"
    for name, words in _words(command).items():
        text = re.sub(rf"{listed}|{not_before}({name})(?= ({'|'.join(words)})\b)", _flag_or_same, text)
    argument = rf"{not_before}({long})(?![\w./\\'\"=(-]|:\S)"
    return re.sub(f"{listed}|{argument}", _flag_or_same, text) if long else text


def _words(command: type[Any]) -> dict[str, list[str]]:
    """The words that options of one word may hold, but for such short ones that they may as well be others."""
    renamed: dict[str, list[str]] = {}
    for name, hint in types_of(command).items():
        if "_" not in name and len(name) > 2:
            words = [word for each in (hint, *typing.get_args(hint)) for word in _literals(each) if len(word) > 2]
            renamed |= {name: words} if words else {}
    return renamed


def _literals(hint: Any) -> tuple[str, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


def _flag_or_same(match: re.Match[str]) -> str:
    return _flag(match) if match[1] else match[0]


def _flag(match: re.Match[str]) -> str:
    return "--" + match[0].replace("_", "-")


def _fields(command: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(command)]
